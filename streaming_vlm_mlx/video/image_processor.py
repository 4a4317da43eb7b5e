"""Frames to the patches that Qwen2.5-VL's vision tower reads: resize, normalise, cut, in Hugging Face's order."""

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
    """One chunk as the vision tower takes it.

    Attributes:
        pixel_values: float32 [t * h * w, 3 * temporal_patch_size * patch_size**2], normalised; the rows that merge into
            one token stand together, a row counts channel, frame, line, column.
        grid_thw: patches in time, down and across.
    """

    pixel_values: npt.NDArray[np.float32]
    grid_thw: tuple[int, int, int]


def smart_resize(height: int, width: int, config: PixelConfig) -> tuple[int, int]:
    """Return the (height, width) that a frame is resized to, Qwen2-VL's rule.

    Each side is the nearest multiple of ``patch_size * merge_size``; a frame that would leave the limits is scaled to
    the nearer one, its shape kept as well as multiples allow.

    Raises:
        SvmError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise SvmError(
            f"A {width}x{height} picture is more than {MAX_ASPECT_RATIO} times as long as it is wide; crop it first."
        )
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
    """Return `frames`, uint8 [n, H, W, 3], at the size of `smart_resize`; the same array where they have it already.

    Pillow's bicubic filter widens when it shrinks, as torchvision's does with ``antialias=True``.

    Raises:
        SvmError: one side is more than 200 times the other.
    """
    height, width = smart_resize(frames.shape[1], frames.shape[2], config)
    if frames.shape[1:3] == (height, width):
        return frames
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for target, frame in zip(resized, frames, strict=True):
        target[:] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
    return resized


def to_patches(frames: Frames, config: PixelConfig) -> Patches:
    """Cut and normalise `frames`, uint8 [n, H, W, 3], whose sides are multiples of ``patch_size * merge_size``.

    The last frame is repeated until n is a multiple of ``temporal_patch_size``.
    """
    patch, merge, depth = config.patch_size, config.merge_size, config.temporal_patch_size
    missing = -len(frames) % depth
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    n, height, width, channels = frames.shape
    t, h, w = n // depth, height // patch, width // patch
    cut = frames.reshape(t, depth, h // merge, merge, patch, w // merge, merge, patch, channels)
    # Bytes are moved before they become floats: a quarter of the traffic.
    rows = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, -1)
    std = np.asarray(config.image_std, np.float32)
    scale = np.repeat(1 / (255 * std), depth * patch**2)
    shift = np.repeat(np.asarray(config.image_mean, np.float32) / std, depth * patch**2)
    pixel_values = np.multiply(rows, scale, dtype=np.float32)
    pixel_values -= shift
    return Patches(pixel_values, (t, h, w))


def patchify(frames: Frames, config: PixelConfig) -> Patches:
    """Return the patches of `frames`, uint8 [n, H, W, 3] of any size.

    Raises:
        SvmError: one side is more than 200 times the other.
    """
    return to_patches(resize_frames(frames, config), config)


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
