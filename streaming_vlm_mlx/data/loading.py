"""Pixels of training windows: decoded once, kept as bytes within a bound, normalised at each use."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.frames import read_frames
from streaming_vlm_mlx.video.pixels import to_patches

PixelValues = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameJob:
    """Frames to decode: `count` of `video`, `fps` a second, between `start` and `end` seconds."""

    video: str
    start: float
    end: float
    count: int
    fps: int
    pixels: PixelConfig


class FrameLoader:
    """Decodes in this process, and keeps what came first, as bytes at the model's size, until there is no more room.

    Nothing that is kept makes way: an epoch asks for every window once, so what was used last is what is wanted last.
    """

    def __init__(self, cache_bytes: int) -> None:
        """Keep at most `cache_bytes` of frames."""
        self._limit = cache_bytes
        self._size = 0
        self._kept: dict[FrameJob, npt.NDArray[np.uint8]] = {}

    @property
    def cached_bytes(self) -> int:
        """Bytes of frames that are kept."""
        return self._size

    def load(self, job: FrameJob) -> PixelValues:
        """Return float32 [patches, 1176], the patches of the frames in order of time.

        Raises:
            SvmError: the video can not be read, or has no frame there.
        """
        frames = self._kept.get(job)
        if frames is None:
            frames, _ = read_frames(Path(job.video), job.start, job.end, job.count, job.fps, job.pixels)
            if self._size + frames.nbytes <= self._limit:
                self._kept[job] = frames
                self._size += frames.nbytes
        return to_patches(frames, job.pixels).pixel_values
