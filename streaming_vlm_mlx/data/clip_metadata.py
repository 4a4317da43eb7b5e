"""What is known of the clips that records refer to, looked up once and kept in a small database beside the output."""

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.data.frame_workers import Times
from streaming_vlm_mlx.data.jsonl import BadSampleError
from streaming_vlm_mlx.errors import SvmError

# Clips kept in memory; annotations come game by game, and a long game's frame times take two megabytes.
_RECENT = 32

_TABLE = """
    CREATE TABLE IF NOT EXISTS clips (
        path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, problem TEXT, duration REAL, width INTEGER,
        height INTEGER, fps REAL, tick_numerator INTEGER, tick_denominator INTEGER, ticks BLOB
    )
"""
_FIND = """
    SELECT problem, duration, width, height, fps, tick_numerator, tick_denominator, ticks
    FROM clips WHERE path = ? AND size = ? AND mtime_ns = ?
"""
_KEEP = "INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Clip:
    """A video file at a glance.

    Attributes:
        duration: seconds, to the end of its last frame.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        fps: frames a second, measured.
        times: float64 [frames], when each is shown, in seconds from the clip's beginning, ascending.
    """

    duration: float
    width: int
    height: int
    fps: float
    times: Times


@dataclass(frozen=True)
class _Measured:
    """A clip as the database has it: frame times in whole ticks, so that they come back exactly."""

    duration: float
    width: int
    height: int
    fps: float
    tick: Fraction
    ticks: npt.NDArray[np.int64]

    def clip(self) -> Clip:
        times = self.ticks * self.tick.numerator / self.tick.denominator
        return Clip(self.duration, self.width, self.height, self.fps, times)

    def row(self) -> tuple[Any, ...]:
        steps = zlib.compress(np.diff(self.ticks, prepend=0).astype("<i8").tobytes())
        return self.duration, self.width, self.height, self.fps, *self.tick.as_integer_ratio(), steps

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        duration, width, height, fps, numerator, denominator, steps = row
        ticks = np.cumsum(np.frombuffer(zlib.decompress(steps), "<i8"))
        return cls(duration, width, height, fps, Fraction(numerator, denominator), ticks)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a clip cannot be used."""

    reason: str
    detail: str


class ClipCache:
    """Looks clips up; a second look, in this run or a later one, reads no video."""

    def __init__(self, path: Path) -> None:
        """Keep what is found in the database `path`.

        Raises:
            SvmError: the database cannot be written, or is something else.
        """
        self._path = path
        self._recent: OrderedDict[Path, Clip | _Problem] = OrderedDict()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise SvmError(f"{path} cannot be used to keep what is known of clips: {error}. Remove it.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def get(self, video: Path) -> Clip:
        """Return what is known of `video`.

        Raises:
            BadSampleError: it is absent, empty or cannot be read.
            SvmError: the database failed.
        """
        found = self._recent.pop(video, None)
        if found is None:
            found = self._look_up(video)
        self._recent[video] = found
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        if isinstance(found, _Problem):
            raise BadSampleError(found.reason, found.detail)
        return found

    def _look_up(self, video: Path) -> "Clip | _Problem":
        try:
            state = video.stat()
        except (OSError, ValueError):  # a path with a zero byte in it is a ValueError
            return _Problem("absent video", str(video))
        if not state.st_size:
            return _Problem("empty video", f"{video} has 0 bytes")
        key = str(video), state.st_size, state.st_mtime_ns
        try:
            row = self._database.execute(_FIND, key).fetchone()
            if row is None:
                row = _row(video)
                self._database.execute(_KEEP, (*key, *row))
            problem, *known = row
            return _Problem("unreadable video", problem) if problem else _Measured.from_row(known).clip()
        except (sqlite3.Error, zlib.error, ValueError) as error:
            raise SvmError(f"{self._path} is broken ({error}); remove it and run again.") from error


def _row(video: Path) -> tuple[Any, ...]:
    try:
        return None, *measure(video).row()
    except SvmError as error:
        return str(error), *[None] * 7


def measure(video: Path) -> _Measured:
    """Read the packets of `video` for its frames' times; one frame is decoded, for its size.

    Raises:
        SvmError: it is no video, or damaged.
    """
    # PyAV takes 0.2 s to import, which a run that finds every clip in its cache need not wait for.
    from streaming_vlm_mlx.video.pyav_reader import Decoder, clip_pace
    from streaming_vlm_mlx.video.source import probe

    info = probe(video)
    with closing(Decoder(str(video))) as decoder:
        pace = clip_pace(str(video), decoder.opened, next(decoder.frames()))
        decoder.rewind()
        shown = [packet for packet in decoder.packets() if packet.size and not packet.is_discard]
        stamps = [packet.pts - pace.origin for packet in shown if packet.pts is not None]
    if pace.counted or not stamps:
        tick, ticks = 1 / Fraction(pace.frame_rate).limit_denominator(100_000), np.arange(len(shown))
    else:
        tick, ticks = pace.time_base, np.unique(np.array(stamps, np.int64))
    length = float((ticks[-1] - ticks[0]) * tick)
    duration = info.duration or length
    fps = (len(ticks) - 1) / length if length else pace.frame_rate
    return _Measured(duration, info.width, info.height, fps, tick, ticks)
