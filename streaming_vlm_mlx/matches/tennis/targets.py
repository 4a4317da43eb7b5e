"""What each picture of a match shows, as classes for a vision tower to name: see `train.targets` for the file.

Of the picture: ``near`` and ``far``, which kit plays at that end; ``server``, the kit that serves; ``points_0``,
``games_0``, ``sets_0`` and the same with 1, what the scoreboard's rows show; ``moment``, what happened in the last
second and at which end; ``stroke``, the last half second's; ``signal``, whether an official shows a ball out. Of each
patch: ``kit``, 0 or one more than the kit that is in it. As a place: ``ball``.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.matches.kits import KITS
from streaming_vlm_mlx.matches.tennis.rules import POINT_TEXTS
from streaming_vlm_mlx.matches.truth import Event, Truth

Values = npt.NDArray[Any]

UNKNOWN = -1
# The merged patches of a picture of 168×308 pixels.
ROWS, COLUMNS = 6, 11
POINTS = (*POINT_TEXTS, "AD")
STROKES = ("serve", "forehand", "backhand", "volley", "smash", "lob")
# An ending is told apart by what is seen of it; a fault into the net and one that is long look different enough.
MOMENTS = ("serve", "shot", "fault", "net", "out", "winner")
_SEEN_AS = {"double_fault": "fault", "ace": "winner"}
MOMENT_SECONDS, STROKE_SECONDS = 1.0, 0.5

CLASSES = {
    **{name: len(KITS) for name in ("near", "far", "server")},
    **{f"{name}_{row}": count for name, count in (("points", 5), ("games", 8), ("sets", 3)) for row in (0, 1)},
    "moment": 1 + 2 * len(MOMENTS),
    "stroke": 1 + len(STROKES),
    "signal": 2,
    "kit": 1 + len(KITS),
}


def vision_targets(truth: Truth) -> Mapping[str, Values]:
    """Return the arrays of ``CLIP.targets.npz``, an entry a frame each; what nobody can tell is -1."""
    times, kits = np.array(truth.frames.times), np.array([_kit(name) for name in truth.kits])
    near_row = np.where(np.array(truth.frames.ends[0]) == 1, 0, 1)
    states = [truth.board_at(t) for t in truth.frames.times]
    arrays: dict[str, Values] = {
        "times": times,
        "near": kits[near_row],
        "far": kits[1 - near_row],
        "server": np.array([_kit(state.server) for state in states]),
        "moment": _latest(truth, MOMENT_SECONDS, _moment),
        "stroke": _latest(truth, STROKE_SECONDS, _stroke),
        "signal": np.array(truth.frames.signal),
    }
    for row in (0, 1):
        arrays[f"points_{row}"] = np.array([_index(POINTS, s.fields["points"][row]) for s in states])
        arrays[f"games_{row}"] = np.array([int(s.fields["games"][row]) for s in states])
        arrays[f"sets_{row}"] = np.array([int(s.fields["sets"][row]) for s in states])
    arrays |= {"kit": _kits_in_patches(truth, kits)}
    arrays = {name: a if name == "times" else a.astype(np.int8) for name, a in arrays.items()}
    return arrays | {"ball": _ball(truth)}


def _kit(name: str) -> int:
    return next(i for i, kit in enumerate(KITS) if kit.name == name)


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else UNKNOWN


def _moment(event: Event) -> int:
    kind = _SEEN_AS.get(event.kind, event.kind)
    return 1 + 2 * MOMENTS.index(kind) + (event.end == "far") if kind in MOMENTS else UNKNOWN


def _stroke(event: Event) -> int:
    return 1 + STROKES.index(event.stroke) if event.kind in ("serve", "shot") and event.stroke in STROKES else UNKNOWN


def _latest(truth: Truth, seconds: float, classify: Any) -> Values:
    """Return for each frame the class of what happened last, 0 where that is more than `seconds` ago."""
    found = [(event.time, classify(event)) for event in truth.events]
    found = [pair for pair in found if pair[1] != UNKNOWN]
    starts = [time for time, _ in found]
    classes = []
    for time in truth.frames.times:
        last = bisect_right(starts, time) - 1
        classes.append(found[last][1] if last >= 0 and time - starts[last] <= seconds else 0)
    return np.array(classes)


def _kits_in_patches(truth: Truth, kits: Values) -> Values:
    """Return [frames, rows, columns]: the patches whose middle a player covers, and the one of the player's middle."""
    width, height = truth.size
    x, y = (np.arange(COLUMNS) + 0.5) * width / COLUMNS, (np.arange(ROWS) + 0.5) * height / ROWS
    patches = np.zeros((len(truth.frames.times), ROWS, COLUMNS), np.int8)
    # The nearer player is drawn over the other one.
    for player in sorted((0, 1), key=lambda p: sum(truth.frames.ends[p])):
        left, top, right, bottom = np.array(truth.frames.players[player]).T[..., None]
        inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
        row = np.clip((top + bottom) * ROWS // (2 * height), 0, ROWS - 1)[:, 0]
        column = np.clip((left + right) * COLUMNS // (2 * width), 0, COLUMNS - 1)[:, 0]
        inside[np.arange(len(inside)), row, column] |= (right > left)[:, 0]
        patches[inside] = 1 + kits[player]
    return patches


def _ball(truth: Truth) -> Values:
    """Return [frames, 2], in fractions of the picture's width and height."""
    x, y, visible = np.array(truth.frames.ball).T
    places = np.stack([x / truth.size[0], y / truth.size[1]], axis=1)
    return np.where(visible[:, None] == 1, places, UNKNOWN).astype(np.float32)
