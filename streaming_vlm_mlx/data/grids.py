"""How many patches and tokens a second's frames become, before any frame is decoded."""

import math

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.video.pixels import smart_resize


def grid_thw(width: int, height: int, fps: int, pixels: PixelConfig) -> tuple[int, int, int]:
    """Return the patches in time, down and across of `fps` frames of `width` by `height` pixels.

    Raises:
        SvmError: one side is more than 200 times the other.
    """
    resized_height, resized_width = smart_resize(height, width, pixels)
    patch = pixels.patch_size
    return math.ceil(fps / pixels.temporal_patch_size), resized_height // patch, resized_width // patch


def merged(grid: tuple[int, int, int], pixels: PixelConfig) -> int:
    """Return how many tokens the patches of `grid` become."""
    return math.prod(grid) // pixels.merge_size**2
