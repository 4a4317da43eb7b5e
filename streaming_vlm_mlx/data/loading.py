"""Pixels of training windows: decoded once, kept as bytes within a bound, normalised at each use.

What a vision tower that stands still makes of them is kept in their place, if there is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.frames import read_frames
from streaming_vlm_mlx.video.pixels import to_patches

PixelValues = npt.NDArray[np.float32]
Features = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class FrameJob:
    """Frames to decode: `count` of `video`, `fps` a second, between `start` and `end` seconds."""

    video: str
    start: float
    end: float
    count: int
    fps: int
    pixels: PixelConfig


# Of patches and their grid (steps, rows, columns), features [units, width].
Encoder = Callable[[PixelValues, tuple[int, int, int]], Features]


class FrameLoader:
    """Decodes in this process, and keeps what came first, as bytes at the model's size, until there is no more room.

    Nothing that is kept makes way: an epoch asks for every window once, so what was used last is what is wanted last.
    """

    def __init__(self, cache_bytes: int, encoder: Encoder | None = None) -> None:
        """Keep at most `cache_bytes` of frames; of what `encoder` makes of them, if there is one."""
        self._limit, self._encoder = cache_bytes, encoder
        self._size = 0
        self._kept: dict[FrameJob, npt.NDArray[np.uint8 | np.float16]] = {}

    @property
    def cached_bytes(self) -> int:
        """Bytes that are kept."""
        return self._size

    def load(self, job: FrameJob) -> PixelValues:
        """Return float32 [patches, 1176], the patches of the frames in order of time; or features [units, width].

        Raises:
            SvmError: the video can not be read, or has no frame there.
        """
        kept = self._kept.get(job)
        if kept is None:
            kept = self._read(job)
            if self._size + kept.nbytes <= self._limit:
                self._kept[job] = kept
                self._size += kept.nbytes
        return kept.astype(np.float32) if self._encoder else to_patches(kept.astype(np.uint8), job.pixels).pixel_values

    def _read(self, job: FrameJob) -> npt.NDArray[np.uint8 | np.float16]:
        frames, _ = read_frames(Path(job.video), job.start, job.end, job.count, job.fps, job.pixels)
        if self._encoder is None:
            return frames
        patches = to_patches(frames, job.pixels)
        return self._encoder(patches.pixel_values, patches.grid_thw)
