"""`VideoFile`, the `Source` for everything that PyAV opens: files, URLs, cameras."""

import itertools
import math
import threading
from collections.abc import Iterator
from functools import partial
from os import PathLike, fspath
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from streaming_vlm_mlx.background import run_interruptibly
from streaming_vlm_mlx.config import MOST_FPS
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.feed import UNWATCHED, FeedReader, FeedWatch
from streaming_vlm_mlx.video.frame_converter import MOST_PIXELS
from streaming_vlm_mlx.video.pyav_reader import Decoder, FrameReader, TimedFrame
from streaming_vlm_mlx.video.timestamps import TOLERANCE, FrameCursor

# The most pixels of a second: at 7 frames a second and more, large pictures are scaled down further.
MOST_PIXELS_A_SECOND = 1 << 26


class VideoFile:
    """A `Source` that reads with PyAV.

    Every chunk has `fps` frames: frame k is the first one at or after ``start + k / fps`` seconds, or the last frame of
    the clip; with `by_end`, the first one that ends at or after that time. A last second shorter than ``1 / fps`` is
    dropped unless it is the only one. Frames that change size are scaled to the size of the first frame.

    Attributes:
        feed: reads a live feed; None for a clip.
    """

    def __init__(self, name: str, fps: float, by_end: bool = False, watch: FeedWatch = UNWATCHED) -> None:
        """Open `name`; see `open_video`.

        Raises:
            SvmError: it cannot be opened, or `fps` is not a whole number from 1 up.
        """
        if not 1 <= fps <= MOST_FPS or not float(fps).is_integer():
            raise SvmError(f"fps is {fps:g}; it must be a whole number of frames, 1 to {MOST_FPS}.")
        self._name = name
        self._fps, self._by_end = int(fps), by_end
        decoder, most_pixels = Decoder(name), min(MOST_PIXELS, MOST_PIXELS_A_SECOND // self._fps)
        self.feed = FeedReader(decoder, most_pixels, watch) if decoder.opened.is_live else None
        self._reader = self.feed or FrameReader(name, most_pixels, decoder)
        self._position = 0.0
        self._cursor: FrameCursor[VideoFrame] | None = None
        self._run = 0
        self._closed = False
        # FFmpeg crashes when a container is closed during a read.
        self._lock = threading.Lock()

    @property
    def duration(self) -> float | None:
        """Seconds; None for a live feed."""
        return self._reader.info.duration

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, in pixels."""
        return self._reader.info.width, self._reader.info.height

    @property
    def frame_rate(self) -> float:
        """Frames per second as stated or guessed; only the timestamps are reliable."""
        return self._reader.info.frame_rate

    @property
    def skipped(self) -> int:
        """Damaged packets skipped so far."""
        return self._reader.skipped

    def seek(self, seconds: float) -> None:
        """Make the next chunk start at `seconds` from the start of the clip, also in a running iteration.

        Raises:
            SvmError: the time is outside the clip, or the source is live.
        """
        if self.duration is None:
            if seconds != self._position:
                raise SvmError(f"{self._name} is live and cannot seek; play it from its current position.")
            return
        if not 0 <= seconds < self.duration:
            raise SvmError(
                f"{self._name} runs from 0 to {self.duration:.1f} s; {seconds:g} s is outside, choose another start."
            )
        with self._lock:
            self._position = float(seconds)
            self._cursor = None

    def chunks(self, start: float | None = None, duration: float | None = None) -> Iterator[Chunk]:
        """Yield chunks from `start` (default: the current position) for `duration` seconds or to the end.

        A new iteration ends the previous one.

        Raises:
            SvmError: the range is empty or has no frame, or a feed was interrupted.
        """
        if start is not None:
            self.seek(start)
        if duration is not None and duration <= 0:
            raise SvmError(f"The duration is {duration:g} s; choose a duration above 0 for {self._name}.")
        with self._lock:
            self._cursor = None
            self._run += 1
            return self._chunks(self._run, self._position + (math.inf if duration is None else duration))

    def close(self) -> None:
        """Close the file and stop the decoder threads; running iterations end."""
        self._closed = True
        if self.feed:
            # A read that waits holds the lock.
            self.feed.stop()
        with self._lock:
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
                ended = self._closed or run != self._run
                chunk = None if ended else self._second(index, limit)
            if chunk is None:
                return
            yield chunk

    def _second(self, index: int, limit: float) -> Chunk | None:
        """Read the second at the current position; None if too little of it is left."""
        start, skipped = self._position, self.skipped
        only = self._cursor is None
        if self._cursor is None:
            # The frame before `start` may end at `start`.
            first = max(start - 2 * TOLERANCE, 0.0) if self._by_end else start
            self._cursor = FrameCursor(self._reader.frames_from(first), limit, self._by_end)
        cursor = self._cursor
        picks = [pick for k in range(self._fps) if (pick := cursor.at(start + k / self._fps))]
        cursor.at(start + 1)
        end = start + 1 if cursor.end is None else min(start + 1, cursor.end)
        shortest = TOLERANCE if only else 1 / self._fps - TOLERANCE
        if end - start < shortest or not picks:
            if self.feed:
                # A feed that comes back goes on with a second of its own.
                self._position = max(self._position, float(math.ceil(end)))
                return None
            if only:
                raise SvmError(f"{self._name} has no frame from {start:g} s on; choose an earlier start.")
            self._position = end
            return None
        self._position = start + 1
        return Chunk(index, start, end, self._rgb(picks), tuple(pick.time for pick in picks), self.skipped - skipped)

    def _rgb(self, picks: list[TimedFrame]) -> npt.NDArray[np.uint8]:
        """Return the pictures of `picks`, uint8 [frames, height, width, 3]; one that is shown again is copied."""
        width, height = self.size
        frames = np.empty((len(picks), height, width, 3), np.uint8)
        for place, pick in enumerate(picks):
            again = place and pick is picks[place - 1]
            frames[place] = frames[place - 1] if again else self._reader.rgb(pick.picture)
        return frames


def open_video(
    name: str | PathLike[str], fps: float = 2.0, by_end: bool = False, watch: FeedWatch = UNWATCHED
) -> VideoFile:
    """Open a file, a URL (``https://``, ``rtsp://``), ``/dev/video0`` or a device such as ``avfoundation:0``.

    Args:
        name: what to open.
        fps: frames per chunk, a whole number.
        by_end: whether a sampling time takes the first frame that ends at or after it, as LiveCC's reader does; else
            the first that begins then.
        watch: how a live feed is watched.

    Raises:
        SvmError: it is missing, damaged, not a video, or unreachable; or `fps` is not a whole number from 1 up.
    """
    # Opening may wait for a server, and a signal reaches the main thread only between two calls of FFmpeg.
    return run_interruptibly(partial(VideoFile, fspath(name), fps, by_end, watch))
