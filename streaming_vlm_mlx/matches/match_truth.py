"""The truth of a simulated match: its sidecar file, and the random streams of its parts.

Each part of a match draws from a stream of its own, so that a change in the painting does not change the play. Times
are seconds from the clip's beginning; boxes are left, top, right and bottom in pixels.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import numpy as np

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.input_files import parse_json, read_file

# Matches from this seed on are for validation only; nothing is trained on them.
TEST_SEEDS = 900_000


def stream(seed: int, part: str) -> np.random.Generator:
    """Return the random generator of one `part` of match `seed`."""
    return np.random.default_rng((seed, crc32(part.encode())))


VERSION = 2

Box = tuple[int, int, int, int]
Score = Mapping[str, tuple[str, str]]
# Start and end in seconds, the viewer's question, and the answer.
Question = tuple[float, float, str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """A stroke, the ending of a point, a point, game, set or match won, or a change of ends."""

    time: float
    kind: str
    player: str = ""
    end: str = ""
    stroke: str = ""
    direction: str = ""
    detail: str = ""
    call: str = ""
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class BoardState:
    """The scoreboard from `time` on: the kit of the server, and the two texts of each field."""

    time: float
    server: str
    fields: Score


@dataclass(frozen=True, slots=True)
class Frames:
    """What each frame shows; each field has one entry a frame, `players` and `ends` one list for each player.

    Attributes:
        times: seconds.
        ball: pixel right, pixel down, and 1 if the ball is visible.
        players: boxes.
        ends: 1 for the near end.
        signal: 1 while an official signals a ball out.
        clock: the serve that the serve clock shows: 1 or 2; 0 for none.
    """

    times: tuple[float, ...]
    ball: tuple[tuple[int, int, int], ...]
    players: tuple[tuple[Box, ...], tuple[Box, ...]]
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    signal: tuple[int, ...]
    clock: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """The sidecar of a clip: how it was filmed, its commentary, its events, and what each frame shows."""

    sport: str
    seed: int
    video: str
    size: tuple[int, int]
    fps: int
    seconds: float
    kits: tuple[str, str]
    words: tuple[Word, ...]
    events: tuple[Event, ...]
    layout: Mapping[str, tuple[Box, Box]]
    states: tuple[BoardState, ...]
    frames: Frames

    def board_at(self, time: float) -> BoardState:
        """Return the state of the scoreboard at `time`."""
        return self.states[max(0, bisect_right(self.states, time, key=lambda s: s.time) - 1)]

    def frame_at(self, time: float) -> int:
        """Return the index of the frame on the screen at `time`."""
        return max(0, bisect_right(self.frames.times, time + 1e-6) - 1)

    def to_json(self) -> str:
        """Return the text of the sidecar file; equal truths have equal texts."""
        values = asdict(self)
        values["words"] = [[w.start, w.end, w.text] for w in self.words]
        values["board"] = {"layout": values.pop("layout"), "states": values.pop("states")}
        return json.dumps({"version": VERSION, **values}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text that `to_json` wrote.

        Raises:
            ValueError: the text is not JSON, has another version, or lacks fields.
        """
        values = parse_json(text)
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise ValueError(f"expected version {VERSION}")
        try:
            return cls(**_parsed(values))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


def _parsed(values: dict[str, Any]) -> dict[str, Any]:
    frames = {f.name: _tuples(values["frames"][f.name]) for f in fields(Frames)}
    for name, column in frames.items():
        for part in column if name in ("players", "ends") else [column]:
            if len(part) != len(frames["times"]):
                raise ValueError(f"frames.{name} has {len(part)} entries for {len(frames['times'])} times")
    plain = {k: values[k] for k in ("sport", "seed", "video", "fps", "seconds")}
    return {
        **plain,
        "size": _tuples(values["size"]),
        "kits": _tuples(values["kits"]),
        "words": tuple(Word(*w) for w in values["words"]),
        "events": tuple(Event(**{**e, "score": _texts(e["score"])}) for e in values["events"]),
        "layout": _texts(values["board"]["layout"]),
        "states": tuple(BoardState(**{**s, "fields": _texts(s["fields"])}) for s in values["board"]["states"]),
        "frames": Frames(**frames),
    }


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _texts(value: Any) -> Any:
    return None if value is None else {k: _tuples(v) for k, v in value.items()}


def write_truth(path: Path, truth: Truth) -> None:
    """Replace `path` with the sidecar.

    Raises:
        SvmError: the folder cannot be written, or the disk is full.
    """
    write_text(path, truth.to_json() + "\n")


def read_truth(path: Path) -> Truth:
    """Return the sidecar at `path`.

    Raises:
        SvmError: the file is missing, or is not a sidecar of this version.
    """
    try:
        return Truth.from_json(read_file(path).decode("utf-8"))
    except ValueError as error:
        raise SvmError(f"{path} is no truth of a simulated match ({error}); make it again: svm-tui matches.") from error
