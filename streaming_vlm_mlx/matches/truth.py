"""One seed, many independent draws: what is played does not change when what is painted does."""

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

# Matches from this seed on are for testing alone: nothing is ever trained on them.
TEST_SEEDS = 900_000


def stream(seed: int, part: str) -> np.random.Generator:
    """Return the generator that draws the `part` of match `seed`."""
    return np.random.default_rng((seed, crc32(part.encode())))


VERSION = 2

Box = tuple[int, int, int, int]
Score = Mapping[str, tuple[str, str]]
# Start and end in seconds, what a viewer asks, and the answer.
Question = tuple[float, float, str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; see the module for the fields."""

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
    """What the scoreboard shows from `time` on: each field's two texts, and the kit of the server."""

    time: float
    server: str
    fields: Score


@dataclass(frozen=True, slots=True)
class Frames:
    """What is where in each frame, a column each; see the module."""

    times: tuple[float, ...]
    ball: tuple[tuple[int, int, int], ...]
    players: tuple[tuple[Box, ...], tuple[Box, ...]]
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    signal: tuple[int, ...]
    clock: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """A sidecar; see the module for the fields."""

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
        """Return what the scoreboard shows at `time`."""
        return self.states[max(0, bisect_right(self.states, time, key=lambda s: s.time) - 1)]

    def frame_at(self, time: float) -> int:
        """Return the index in `frames` of the frame that is on the screen at `time`."""
        return max(0, bisect_right(self.frames.times, time + 1e-6) - 1)

    def to_json(self) -> str:
        """Return the sidecar's text, the same for the same truth."""
        values = asdict(self)
        values["words"] = [[w.start, w.end, w.text] for w in self.words]
        values["board"] = {"layout": values.pop("layout"), "states": values.pop("states")}
        return json.dumps({"version": VERSION, **values}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not JSON, of another version, or not a whole sidecar.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise ValueError(f"version {VERSION} was expected")
        try:
            return cls(**_parsed(values))
        except (KeyError, TypeError) as error:
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
        SvmError: the file is absent, or is no sidecar that this version reads.
    """
    try:
        return Truth.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SvmError(f"{path} is no truth of a simulated match ({error}); make it again: svm-tui matches.") from error
