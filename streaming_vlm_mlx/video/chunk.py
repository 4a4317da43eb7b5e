"""One second of video, as it leaves a source."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Chunk:
    """One second of a clip or feed.

    Attributes:
        index: place in the stream, counted from 0 at the first second that was asked for.
        start: seconds from the clip's beginning.
        end: ``start + 1`` (less at the end of a clip that stops within the second).
        frames: uint8 [frames, height, width, 3], RGB, upright, at the source's own size.
        times: each frame's own timestamp in seconds.
        skipped: corrupt packets that were passed over while this second was read.
    """

    index: int
    start: float
    end: float
    frames: npt.NDArray[np.uint8]
    times: tuple[float, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """A clip or feed at a glance.

    Attributes:
        duration: seconds; None for a live feed.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        frame_rate: frames a second as the stream states or FFmpeg guesses it; only timestamps tell the truth.
        codec: FFmpeg's name of the coding, as ``h264``.
    """

    duration: float | None
    width: int
    height: int
    frame_rate: float
    codec: str
