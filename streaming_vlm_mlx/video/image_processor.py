"""Frames to patches for the vision tower: resize, normalise, patchify, as Hugging Face's processors do."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.errors import SvmError

Frames = npt.NDArray[np.uint8]

MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches of one chunk.

    Attributes:
        pixel_values: float32 [t * h * w, 3 * temporal_patch_size * patch_size**2], normalised; rows that merge into one
            token are adjacent, a row is ordered by channel, frame, line, column.
        grid_thw: number of patches in time, height and width.
    """

    pixel_values: npt.NDArray[np.float32]
    grid_thw: tuple[int, int, int]


def smart_resize(height: int, width: int, config: PixelConfig) -> tuple[int, int]:
    """Return the (height, width) to resize a frame to, by Qwen2-VL's rule.

    Each side becomes the nearest multiple of ``patch_size * merge_size``. A frame outside the pixel limits is scaled to
    the nearest limit, with its aspect ratio kept as closely as multiples allow.

    Raises:
        SvmError: the aspect ratio is above 200.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise SvmError(f"A {width}x{height} picture has an aspect ratio above {MAX_ASPECT_RATIO}; crop it first.")
    factor = config.patch_size * config.merge_size
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > config.max_pixels:
        shrink = math.sqrt(height * width / config.max_pixels)
        h = max(factor, math.floor(height / shrink / factor) * factor)
        w = max(factor, math.floor(width / shrink / factor) * factor)
    elif h * w < config.min_pixels:
        grow = math.sqrt(config.min_pixels / (height * width))
        h = math.ceil(height * grow / factor) * factor
        w = math.ceil(width * grow / factor) * factor
    return h, w


def resize_frames(frames: Frames, config: PixelConfig) -> Frames:
    """Return `frames`, uint8 [n, H, W, 3], resized to `smart_resize`; the same array if they already have that size.

    Pillow's bicubic filter is antialiased, as torchvision's with ``antialias=True``.

    Raises:
        SvmError: the aspect ratio is above 200.
    """
    height, width = smart_resize(frames.shape[1], frames.shape[2], config)
    if frames.shape[1:3] == (height, width):
        return frames
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for target, frame in zip(resized, frames, strict=True):
        target[:] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
    return resized


def to_patches(frames: Frames, config: PixelConfig) -> Patches:
    """Normalise and patchify `frames`, uint8 [n, H, W, 3].

    H and W must be multiples of ``patch_size * merge_size``. The last frame is repeated until n is a multiple of
    ``temporal_patch_size``.
    """
    patch, merge, depth = config.patch_size, config.merge_size, config.temporal_patch_size
    missing = -len(frames) % depth
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    n, height, width, channels = frames.shape
    t, h, w = n // depth, height // patch, width // patch
    cut = frames.reshape(t, depth, h // merge, merge, patch, w // merge, merge, patch, channels)
    # Transposing bytes instead of floats moves a quarter of the memory.
    rows = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, -1)
    std = np.asarray(config.image_std, np.float32)
    scale = np.repeat(1 / (255 * std), depth * patch**2)
    shift = np.repeat(np.asarray(config.image_mean, np.float32) / std, depth * patch**2)
    pixel_values = np.multiply(rows, scale, dtype=np.float32)
    pixel_values -= shift
    return Patches(pixel_values, (t, h, w))


def patchify(frames: Frames, config: PixelConfig) -> Patches:
    """Resize and patchify `frames`, uint8 [n, H, W, 3] of any size.

    Raises:
        SvmError: the aspect ratio is above 200.
    """
    return to_patches(resize_frames(frames, config), config)


def grid_thw(width: int, height: int, fps: int, pixels: PixelConfig) -> tuple[int, int, int]:
    """Return the number of patches in time, height and width for `fps` frames of `width` by `height` pixels.

    Raises:
        SvmError: the aspect ratio is above 200.
    """
    resized_height, resized_width = smart_resize(height, width, pixels)
    patch = pixels.patch_size
    return math.ceil(fps / pixels.temporal_patch_size), resized_height // patch, resized_width // patch


def merged_tokens(grid: tuple[int, int, int], pixels: PixelConfig) -> int:
    """Return the number of tokens after merging the patches of `grid`."""
    return math.prod(grid) // pixels.merge_size**2
