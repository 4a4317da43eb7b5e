"""Vision targets: what each frame of a match shows, as classes for a vision tower.

A small tower learns quickly if it has to predict a class at the very place that shows it. For each merged patch of a
frame of 168×308 pixels, -1 where a target does not apply:

- ``who``: whether the near player (1), the far one (2) or nobody (0) is in it.
- At a player: ``kit``, and ``stroke``, the stroke of the last half second or the gesture after a point.
- At the fields of the scoreboard: ``kit_0, points_0, games_0, sets_0`` for the first row, the same with 1 for the
  second, and ``server``, the row with the mark; at the serve clock ``clock``, the serve that it shows.

For every patch, so that the tower spreads what a decoder needs over the whole picture: ``near`` and ``far``, the kits
at both ends; ``serving``, the server's kit; ``mine`` and ``theirs``, the points of the server and of the receiver;
``hitter``, 1 + the kit that struck in the last seconds, 0 for nobody.

For the whole picture: ``moment``, what just happened and at which end; ``signal``, whether an official signals a ball
out. As a position: ``ball``.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.matches.match_truth import BoardState, Box, Event, Truth
from streaming_vlm_mlx.matches.people import KITS
from streaming_vlm_mlx.matches.tennis.rules import POINT_TEXTS

Values = npt.NDArray[Any]
# Start and end in seconds, and the class.
Shown = tuple[float, float, int]

UNKNOWN = -1
ROWS, COLUMNS = 6, 11
NEAR, FAR = 1, 2
POINTS = (*POINT_TEXTS, "AD")
STROKES = ("serve", "forehand", "backhand", "volley", "smash", "lob", "glad", "sorry")
# Endings that look the same share a class: a second fault looks like a first one, an ace like a winner.
MOMENTS = ("serve", "shot", "fault", "net", "out", "winner")
STRUCK = ("serve", "shot")
_SEEN_AS = {"double_fault": "fault", "ace": "winner"}
MOMENT_SECONDS, STROKE_SECONDS, HITTER_SECONDS = 1.0, 0.5, 2.5
# Seconds after an ending in which officials and gestures show it: start and end.
SHOWN = (0.35, 2.0)

BOARD = {"kit": len(KITS), "points": len(POINTS), "games": 8, "sets": 3}
EVERYWHERE = {
    **{name: len(KITS) for name in ("near", "far", "serving")},
    **{name: len(POINTS) for name in ("mine", "theirs")},
    "hitter": 1 + len(KITS),
}
PICTURE = {"moment": 1 + 2 * len(MOMENTS), "signal": 2}
PATCH = {
    "who": 3,
    "kit": len(KITS),
    "stroke": 1 + len(STROKES),
    "server": 2,
    "clock": 3,
    **{f"{field}_{row}": count for field, count in BOARD.items() for row in (0, 1)},
}


def vision_targets(truth: Truth) -> Mapping[str, Values]:
    """Return the arrays of ``CLIP.targets.npz``, each with one entry a frame."""
    arrays = {
        "moment": _latest(truth, [_moment(e) for e in truth.events]),
        "signal": np.array(truth.frames.signal),
        **_players(truth),
        **_board(truth),
        **_everywhere(truth),
    }
    small = {name: values.astype(np.int8) for name, values in arrays.items()}
    return {"times": np.array(truth.frames.times), **small, "ball": _ball(truth)}


def _players(truth: Truth) -> dict[str, Values]:
    """Return ``who``, ``kit`` and ``stroke``; the nearer player hides the other one, so it is written last."""
    shape = len(truth.frames.times), ROWS, COLUMNS
    who, kit, stroke = np.zeros(shape), np.full(shape, UNKNOWN), np.full(shape, UNKNOWN)
    for player in sorted((0, 1), key=lambda p: sum(truth.frames.ends[p])):
        name = truth.kits[player]
        latest = _latest(truth, [_stroke(e) for e in truth.events if e.player == name])
        ends = np.where(np.array(truth.frames.ends[player]) == 1, NEAR, FAR)
        inside = np.stack([_cells(box, truth.size) for box in truth.frames.players[player]])
        for values, classes in ((who, ends), (kit, np.full(shape[0], _kit(name))), (stroke, latest)):
            values[inside] = np.broadcast_to(classes[:, None, None], shape)[inside]
    return {"who": who, "kit": kit, "stroke": stroke}


def _board(truth: Truth) -> dict[str, Values]:
    """Return the targets at the fields of the scoreboard."""
    states = [truth.board_at(time) for time in truth.frames.times]
    arrays = {}
    for field in BOARD:
        for row in (0, 1):
            classes = np.array([_read(truth, state, field, row) for state in states])
            arrays[f"{field}_{row}"] = _at(truth.layout[field][row], truth.size, classes)
    rows = np.array([truth.kits.index(state.server) for state in states])
    above, below = (_at(truth.layout["server"][row], truth.size, rows) for row in (0, 1))
    clock = _at(truth.layout["clock"][0], truth.size, np.array(truth.frames.clock))
    return {**arrays, "server": np.where(above == UNKNOWN, below, above), "clock": clock}


def _everywhere(truth: Truth) -> dict[str, Values]:
    """Return the targets of every patch, each [frames, 1, 1]: one cell stands for the whole picture."""
    kits = np.array([_kit(name) for name in truth.kits])
    near = np.where(np.array(truth.frames.ends[0]) == 1, 0, 1)
    states = [truth.board_at(time) for time in truth.frames.times]
    serving = np.array([truth.kits.index(state.server) for state in states])
    points = np.array([[_read(truth, state, "points", row) for row in (0, 1)] for state in states])
    frames = np.arange(len(states))
    strokes = [(e.time, e.time + HITTER_SECONDS, 1 + _kit(e.player)) for e in truth.events if e.kind in STRUCK]
    found = {
        "near": kits[near],
        "far": kits[1 - near],
        "serving": kits[serving],
        "mine": points[frames, serving],
        "theirs": points[frames, 1 - serving],
        "hitter": _latest(truth, strokes),
    }
    return {name: values[:, None, None] for name, values in found.items()}


def _read(truth: Truth, state: BoardState, field: str, row: int) -> int:
    if field == "kit":
        return _kit(truth.kits[row])
    text = state.fields[field][row]
    if field == "points":
        return POINTS.index(text) if text in POINTS else UNKNOWN
    return int(text)


def _at(box: Box, size: tuple[int, int], classes: Values) -> Values:
    """Return [frames, rows, columns], with `classes` [frames] at the centre of `box`."""
    left, top, right, bottom = box
    middle = ((left + right) // 2, (top + bottom) // 2)
    values = np.full((len(classes), ROWS, COLUMNS), UNKNOWN)
    values[:, middle[1] * ROWS // size[1], middle[0] * COLUMNS // size[0]] = classes
    return values


def _cells(box: Box, size: tuple[int, int]) -> Values:
    """Return bool [rows, columns]: the cells whose centre is in `box`, and the cell of the centre of `box`."""
    left, top, right, bottom = box
    x, y = (np.arange(COLUMNS) + 0.5) * size[0] / COLUMNS, (np.arange(ROWS) + 0.5) * size[1] / ROWS
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    if right > left:
        inside[(top + bottom) * ROWS // (2 * size[1]), (left + right) * COLUMNS // (2 * size[0])] = True
    return inside


def _kit(name: str) -> int:
    return next(i for i, kit in enumerate(KITS) if kit.name == name)


def _moment(event: Event) -> Shown:
    kind = _SEEN_AS.get(event.kind, event.kind)
    number = 1 + 2 * MOMENTS.index(kind) + (event.end == "far") if kind in MOMENTS else UNKNOWN
    start, end = (0.0, MOMENT_SECONDS) if event.kind in STRUCK else SHOWN
    return event.time + start, event.time + end, number


def _stroke(event: Event) -> Shown:
    """Return the class of a stroke, or of the gesture after an ending, with its time."""
    if event.kind in STRUCK:
        number = 1 + STROKES.index(event.stroke) if event.stroke in STROKES else UNKNOWN
        return event.time, event.time + STROKE_SECONDS, number
    gesture = "glad" if event.kind in ("ace", "winner") else "sorry" if _netted(event) else ""
    number = 1 + STROKES.index(gesture) if gesture else UNKNOWN
    return event.time + SHOWN[0], event.time + SHOWN[1], number


def _netted(event: Event) -> bool:
    return event.kind == "net" or (event.kind in ("fault", "double_fault") and event.detail == "net")


def _latest(truth: Truth, found: Sequence[Shown]) -> Values:
    """Return for each frame the class of the latest of `found`, 0 when it is over."""
    known = [shown for shown in found if shown[2] != UNKNOWN]
    starts, classes = [start for start, _, _ in known], []
    for time in truth.frames.times:
        last = bisect_right(starts, time) - 1
        classes.append(known[last][2] if last >= 0 and time <= known[last][1] else 0)
    return np.array(classes)


def _ball(truth: Truth) -> Values:
    """Return [frames, 2], fractions of width and height; -1 if the ball is hidden."""
    x, y, visible = np.array(truth.frames.ball).T
    places = np.stack([x / truth.size[0], y / truth.size[1]], axis=1)
    return np.where(visible[:, None] == 1, places, UNKNOWN).astype(np.float32)
