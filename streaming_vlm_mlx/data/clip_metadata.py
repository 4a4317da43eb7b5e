"""Duration, size and frame times of clips, kept in a database so that each clip is read once."""

import contextlib
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.data.frame_workers import Times
from streaming_vlm_mlx.data.json_fields import BadSampleError
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST

# Clips kept in memory. Annotations come game by game, and the frame times of a long game take two megabytes.
RECENT = 32

# Seconds to wait for another process that is writing to the database.
BUSY_TIMEOUT = 30.0

_TABLE = """
    CREATE TABLE IF NOT EXISTS clips (
        path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, duration REAL, width INTEGER, height INTEGER, fps REAL,
        tick_numerator INTEGER, tick_denominator INTEGER, ticks BLOB
    )
"""
_SELECT = """
    SELECT duration, width, height, fps, tick_numerator, tick_denominator, ticks
    FROM clips WHERE path = ? AND size = ? AND mtime_ns = ?
"""
_INSERT = "INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class ClipMetadata:
    """What a conversion needs to know about a video file.

    Attributes:
        duration: seconds, to the end of the last frame.
        width: width of the upright picture, in pixels.
        height: height of the upright picture, in pixels.
        fps: measured frames per second.
        tick: seconds per tick.
        ticks: int64 [frames], the time of each frame in ticks from the start of the clip, ascending.
    """

    duration: float
    width: int
    height: int
    fps: float
    tick: Fraction
    ticks: npt.NDArray[np.int64]

    @cached_property
    def times(self) -> Times:
        """float64 [frames], the time of each frame in seconds from the start of the clip, ascending."""
        return self.ticks * self.tick.numerator / self.tick.denominator

    def to_row(self) -> tuple[Any, ...]:
        """Return the columns of the database; times are stored as whole ticks, which is exact."""
        steps = zlib.compress(np.diff(self.ticks, prepend=0).astype("<i8").tobytes())
        return self.duration, self.width, self.height, self.fps, *self.tick.as_integer_ratio(), steps

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Read what `to_row` returned."""
        duration, width, height, fps, numerator, denominator, steps = row
        ticks = np.cumsum(np.frombuffer(zlib.decompress(steps), "<i8"))
        return cls(duration, width, height, fps, Fraction(numerator, denominator), ticks)


class ClipCache:
    """Metadata of clips, from memory, from a database, or from the clip itself, in this order.

    Several processes may share the database. A clip is identified by path, size and modification time. A clip that
    cannot be read is only remembered in memory: permissions and decoders change without a trace in the file.
    """

    def __init__(
        self,
        path: Path | None = None,
        recent: int = RECENT,
        timeout: float = BUSY_TIMEOUT,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the database `path`, creating it if necessary; None keeps everything in memory.

        Args:
            path: the database. If it cannot be written, metadata is only kept in memory.
            recent: number of clips kept in memory.
            timeout: seconds to wait for another process that is writing to the database.
            report: called with one line if the database cannot be written.

        Raises:
            SvmError: `path` is a file of another kind.
        """
        self._path, self._size, self._timeout = path, recent, timeout
        self._recent: OrderedDict[Path, ClipMetadata] = OrderedDict()
        self._unusable: dict[Path, tuple[str, str]] = {}
        self._database = self._open(report)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def get(self, video: Path) -> ClipMetadata:
        """Return the metadata of `video`.

        Raises:
            BadSampleError: the clip is missing, empty or unreadable.
            SvmError: the database is damaged.
        """
        if video in self._unusable:
            raise BadSampleError(*self._unusable[video])
        metadata = self._recent.pop(video, None)
        if metadata is None:
            try:
                metadata = self._look_up(video)
            except BadSampleError as error:
                self._unusable[video] = error.reason, error.detail
                raise
        self._recent[video] = metadata
        if len(self._recent) > self._size:
            self._recent.popitem(last=False)
        return metadata

    def _open(self, report: Callable[[str], None]) -> sqlite3.Connection:
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                return self._connect(str(self._path))
        except (OSError, sqlite3.OperationalError) as error:
            report(f"{self._path} cannot be written ({error}); clips will be read again by the next conversion.")
        except sqlite3.DatabaseError as error:
            raise SvmError(f"{self._path} is not a cache of clips ({error}); remove it and run again.") from error
        return self._connect(":memory:")

    def _connect(self, name: str) -> sqlite3.Connection:
        database = sqlite3.connect(name, timeout=self._timeout, isolation_level=None)
        # A cache may lose its last rows in a power cut.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_TABLE)
        return database

    def _look_up(self, video: Path) -> ClipMetadata:
        try:
            state = video.stat()
        except (OSError, ValueError) as error:  # a path with a zero byte raises ValueError
            raise BadSampleError("absent video", str(video)) from error
        if not state.st_size:
            raise BadSampleError("empty video", f"{video} has 0 bytes")
        key = str(video.absolute()), state.st_size, state.st_mtime_ns
        try:
            with contextlib.suppress(sqlite3.OperationalError):  # locked by another process for too long
                row = self._database.execute(_SELECT, key).fetchone()
                if row is not None:
                    return ClipMetadata.from_row(row)
        except (sqlite3.Error, zlib.error, ValueError) as error:
            raise self._damaged(error) from error
        try:
            metadata = probe_clip(video)
        except SvmError as error:
            raise BadSampleError("unreadable video", str(error)) from error
        try:
            # Not stored if the disk is full or the database is locked for too long.
            with contextlib.suppress(sqlite3.OperationalError):
                self._database.execute(_INSERT, (*key, *metadata.to_row()))
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        return metadata

    def _damaged(self, error: Exception) -> SvmError:
        return SvmError(f"{self._path} is damaged ({error}); remove it and run again.")


def probe_clip(video: Path) -> ClipMetadata:
    """Read the packets of `video` for its frame times; opens the file once and decodes one frame.

    Raises:
        SvmError: it is not a video, or damaged.
    """
    # Importing PyAV takes 0.2 s, which a conversion that finds every clip in the cache does not need.
    from streaming_vlm_mlx.video.pyav_reader import scan_packets

    scan = scan_packets(str(video))
    clock, info = scan.clock, scan.info
    shown = [packet for packet in scan.packets if not packet.is_discarded]
    # Later ones are damaged, and may not fit into 64 bits.
    latest = min(int(LONGEST / clock.time_base), 1 << 62)
    stamps = [packet.pts - clock.origin for packet in shown if packet.pts is not None]
    stamps = [stamp for stamp in stamps if abs(stamp) <= latest]
    if clock.counted or not stamps:
        tick, ticks = 1 / Fraction(clock.frame_rate).limit_denominator(100_000), np.arange(len(shown))
    else:
        tick, ticks = clock.time_base, np.unique(np.array(stamps, np.int64))
    length = float((ticks[-1] - ticks[0]) * tick)
    fps = (len(ticks) - 1) / length if length else clock.frame_rate
    return ClipMetadata(info.duration or length, info.width, info.height, fps, tick, ticks)
