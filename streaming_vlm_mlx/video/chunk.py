"""`Chunk`, one second of video, and `ClipInfo`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Chunk:
    """One second of a clip or feed.

    Attributes:
        index: position in the stream, 0 for the first second requested.
        start: seconds from the start of the clip.
        end: ``start + 1``, less if the clip ends within the second.
        frames: uint8 [frames, height, width, 3], RGB, upright, at the size of the source.
        times: timestamp of each frame, in seconds.
        skipped: corrupt packets skipped while reading this second.
    """

    index: int
    start: float
    end: float
    frames: npt.NDArray[np.uint8]
    times: tuple[float, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """Properties of a clip or feed.

    Attributes:
        duration: seconds, None for a live feed.
        width: width of the upright picture, in pixels.
        height: height of the upright picture, in pixels.
        frame_rate: frames per second as stated by the stream or guessed by FFmpeg; only the timestamps are reliable.
        codec: FFmpeg's name of the codec, such as ``h264``.
    """

    duration: float | None
    width: int
    height: int
    frame_rate: float
    codec: str
