"""A video as one-second chunks, whatever PyAV opens: a file, a URL, a camera."""

import itertools
import math
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
from av import VideoFrame

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.pyav_reader import FrameReader
from streaming_vlm_mlx.video.timestamps import TOLERANCE, Cursor


class VideoFile:
    """A `Source` over PyAV.

    A chunk takes `fps` frames, the k-th of them the first at or after ``start + k / fps`` seconds; where the clip ends
    before, its last frame stands in, so that every chunk has the same number. A last second of less than ``1 / fps`` is
    dropped unless it is the only one. Frames that change their size on the way are scaled to the first one's.
    """

    def __init__(self, name: str, fps: float) -> None:
        """Open `name`, as `source.open_video` says.

        Raises:
            SvmError: it cannot be opened, or `fps` is no whole number above 0.
        """
        if fps < 1 or not float(fps).is_integer():
            raise SvmError(f"fps is {fps:g}; a second takes a whole number of frames, 1 or more.")
        self._name = name
        self._fps = int(fps)
        self._reader = FrameReader(name)
        self._position = 0.0
        self._cursor: Cursor[VideoFrame] | None = None
        self._run = 0
        self._closed = False
        # FFmpeg crashes when a container is closed under its reader.
        self._lock = threading.Lock()

    @property
    def duration(self) -> float | None:
        """Seconds, as far as is known; None for a live feed."""
        return self._reader.info.duration

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return self._reader.info.width, self._reader.info.height

    @property
    def frame_rate(self) -> float:
        """Frames a second as stated or guessed; only timestamps tell the truth."""
        return self._reader.info.frame_rate

    @property
    def skipped(self) -> int:
        """Damaged packets that were passed over so far."""
        return self._reader.skipped

    def seek(self, seconds: float) -> None:
        """Let the next chunk start at `seconds` from the clip's beginning, in an iteration under way too.

        Raises:
            SvmError: the clip ends before, or a live feed cannot be wound.
        """
        if self.duration is None:
            if seconds != self._position:
                raise SvmError(f"{self._name} is live and cannot be wound to {seconds:g} s; play it from where it is.")
            return
        if not 0 <= seconds < self.duration:
            raise SvmError(
                f"{self._name} runs from 0 to {self.duration:.1f} s; {seconds:g} s is outside, choose another start."
            )
        with self._lock:
            self._position = float(seconds)
            self._cursor = None

    def chunks(self, start: float | None = None, duration: float | None = None) -> Iterator[Chunk]:
        """Yield second by second from `start` (where the source stands, if None) for `duration` seconds or to the end.

        One iteration at a time: a new one ends the one before.

        Raises:
            SvmError: the range is empty or holds no frame, or a feed broke off.
        """
        if start is not None:
            self.seek(start)
        if duration is not None and duration <= 0:
            raise SvmError(f"{duration:g} s of {self._name} is nothing to play; choose a duration above 0.")
        with self._lock:
            self._cursor = None
            self._run += 1
            return self._chunks(self._run, self._position + (math.inf if duration is None else duration))

    def close(self) -> None:
        """Free the file and the decoder's threads; iterations under way end."""
        with self._lock:
            self._closed = True
            self._cursor = None
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, run: int, limit: float) -> Iterator[Chunk]:
        for index in itertools.count():
            with self._lock:
                void = self._closed or run != self._run
                chunk = None if void else self._second(index, limit)
            if chunk is None:
                return
            yield chunk

    def _second(self, index: int, limit: float) -> Chunk | None:
        """Read the second at the source's position; None when too little of it is left."""
        start, skipped = self._position, self.skipped
        only = self._cursor is None
        cursor = self._cursor = self._cursor or Cursor(self._reader.frames_from(start), limit)
        picks = [pick for k in range(self._fps) if (pick := cursor.at(start + k / self._fps))]
        cursor.at(start + 1)
        end = start + 1 if cursor.end is None else min(start + 1, cursor.end)
        shortest = TOLERANCE if only else 1 / self._fps - TOLERANCE
        if end - start < shortest or not picks:
            if only:
                raise SvmError(f"{self._name} has no picture from {start:g} s on; choose an earlier start.")
            self._position = end
            return None
        self._position = start + 1
        frames = np.stack([self._reader.rgb(pick.picture) for pick in picks])
        return Chunk(index, start, end, frames, tuple(pick.time for pick in picks), self.skipped - skipped)
