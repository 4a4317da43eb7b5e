"""The clip: its seconds for the model, and its pictures for the screen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streaming_vlm_mlx.video.chunk import Chunk
    from streaming_vlm_mlx.video.pyav_reader import TimedFrame
    from streaming_vlm_mlx.video.source import Source

    Pixels = npt.NDArray[np.uint8]

# Up to this many seconds are decoded and dropped rather than skipped by a seek.
MAX_READ_THROUGH = 3


class Seconds(Protocol):
    """The seconds of a clip, for the model."""

    @property
    def duration(self) -> float | None:
        """Seconds; None for a feed."""

    def read(self, number: int) -> "Chunk | None":
        """Return second `number` (from `number` to ``number + 1``), or None past the end; may block.

        Raises:
            SvmError: the clip cannot be read there.
        """

    def close(self) -> None:
        """Close the clip."""


class ClipSeconds:
    """The seconds of a source; in order each costs one decode, out of order a seek."""

    def __init__(self, source: "Source") -> None:
        self._source = source
        self._chunks: Iterator[Chunk] | None = None
        self._next = 0

    @property
    def duration(self) -> float | None:
        """Seconds; None for a feed."""
        return self._source.duration

    def read(self, number: int) -> "Chunk | None":
        """Return second `number`; a feed returns its next second, whatever the number.

        Raises:
            SvmError: the clip cannot be read there.
        """
        if self.duration is None:
            return self._following()
        if number >= self.duration:
            return None
        if self._chunks is None or not self._next <= number <= self._next + MAX_READ_THROUGH:
            self._chunks, self._next = self._source.chunks(float(number)), number
        while self._next < number and self._following() is not None:
            pass
        return self._following()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _following(self) -> "Chunk | None":
        if self._chunks is None:
            self._chunks = self._source.chunks()
        chunk = next(self._chunks, None)
        if chunk is None:
            self._chunks = None
            return None
        self._next += 1
        return replace(chunk, index=math.floor(chunk.start + 0.5))


class BlankSeconds:
    """Seconds without frames, for a session that is replayed."""

    def __init__(self, duration: float) -> None:
        self.duration: float | None = duration

    def read(self, number: int) -> "Chunk | None":
        """Return second `number` without frames, None past the end."""
        import numpy as np

        from streaming_vlm_mlx.video.chunk import Chunk

        assert self.duration is not None
        if number >= self.duration:
            return None
        return Chunk(number, float(number), min(number + 1.0, self.duration), np.zeros((0, 0, 0, 3), np.uint8), ())

    def close(self) -> None:
        """Do nothing; nothing is open."""


@dataclass(frozen=True)
class Frame:
    """A picture: uint8 [height, width, 3], RGB, and the time of the frame in seconds."""

    time: float
    pixels: "Pixels"


class FrameGrabber:
    """Grabs scaled frames of a clip at any time; for use by one thread."""

    def __init__(self, name: str) -> None:
        """Open `name` independently of the model's reader.

        Raises:
            SvmError: it cannot be opened.
        """
        from streaming_vlm_mlx.video.pyav_reader import FrameReader

        self._reader: FrameReader = FrameReader(name)
        self._frames: Iterator[TimedFrame] = iter(())
        self._current: TimedFrame | None = None
        self._following: TimedFrame | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the clip in pixels."""
        return self._reader.info.width, self._reader.info.height

    @property
    def duration(self) -> float | None:
        """Seconds; None for a feed."""
        return self._reader.info.duration

    def at(self, time: float, size: tuple[int, int]) -> Frame | None:
        """Return the frame shown at `time` seconds, scaled to `size` (width, height), or None.

        Raises:
            SvmError: the file has gone.
        """
        frame = self.find(time)
        return None if frame is None else Frame(frame.time, scale(self._reader.rgb(frame.picture), size))

    def find(self, time: float) -> "TimedFrame | None":
        """Return the decoded frame shown at `time` seconds, or None.

        Raises:
            SvmError: the file has gone.
        """
        current = self._current
        if current is None or time < current.time or time > current.end + MAX_READ_THROUGH:
            self._frames = self._reader.frames_from(time)
            self._current = self._following = next(self._frames, None)
        while self._following is not None and self._following.time <= time:
            self._current, self._following = self._following, next(self._frames, None)
        return self._current

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def scale(pixels: "Pixels", size: tuple[int, int]) -> "Pixels":
    """Return `pixels` scaled to `size` (width, height) by averaging boxes of pixels."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def fit(picture: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (width, height) within `box` with the aspect ratio of `picture`, each at least 1."""
    factor = min(box[0] / picture[0], box[1] / picture[1])
    return max(round(picture[0] * factor), 1), max(round(picture[1] * factor), 1)
