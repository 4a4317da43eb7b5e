"""Reads how a folder's processor prepares pixels: patch sizes, mean, deviation and limits. Imports no MLX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.checkpoint_files import read_json
from streaming_vlm_mlx.config import Family, PixelConfig
from streaming_vlm_mlx.config_io import demand, part_of
from streaming_vlm_mlx.errors import SvmError

# transformers 5 writes all processors of a folder into the first file, under the names behind it.
PROCESSOR = "processor_config.json"
IMAGE, VIDEO = ("image_processor", "preprocessor_config.json"), ("video_processor", "video_preprocessor_config.json")
# Merged patches of a frame in the published StreamingVLM program.
LEAST_UNITS, MOST_UNITS = 100, 384
_SETTINGS = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
_QWEN2 = PixelConfig()
_QWEN3 = PixelConfig(
    min_pixels=LEAST_UNITS * 32 * 32,
    max_pixels=MOST_UNITS * 32 * 32,
    patch_size=16,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
)
DEFAULTS: Mapping[Family, PixelConfig] = {"qwen2_vl": _QWEN2, "qwen2_5_vl": _QWEN2, "qwen3_vl": _QWEN3}


def read_pixel_config(folder: Path, family: Family) -> PixelConfig:
    """Return how frames of a stream are prepared for the checkpoint in `folder`, of `family`.

    Patch sizes, mean and deviation are those of the folder's video processor, else of its image processor, else of the
    family. A frame has 100 to 384 merged patches, within the limits of the folder's image processor. Those of its video
    processor are not read: they are for a whole video in some families, and a stream has no end.

    Raises:
        SvmError: a file is not JSON, or has a value that no processor can have.
    """
    (image, image_file), (video, video_file) = (_read(folder, *place) for place in (IMAGE, VIDEO))
    own = {name: part[name] for part in (image, video) for name in _SETTINGS if part.get(name) is not None}
    file = video_file if video else image_file
    try:
        made = DEFAULTS[family].merged(own)
    except SvmError as error:
        raise SvmError(f"{file}: {error}") from error
    unit = (made.patch_size * made.merge_size) ** 2
    least, most = _limits(image, image_file)
    limits = {"min_pixels": LEAST_UNITS * unit, "max_pixels": MOST_UNITS * unit}
    return made.merged({name: min(max(value, least), most) for name, value in limits.items()})


def _read(folder: Path, part: str, file: str) -> tuple[Mapping[str, Any], Path]:
    """Return the settings of a processor, empty where `folder` has none, and the file that they are in."""
    path = folder / PROCESSOR
    if path.is_file():
        try:
            settings = part_of(read_json(path), part)
        except SvmError as error:
            raise error if str(path) in str(error) else SvmError(f"{path}: {error}") from error
        if settings:
            return settings, path
    path = folder / file
    return (read_json(path) if path.is_file() else {}), path


def _limits(image: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """Return the least and the most pixels of a picture that the image processor allows."""
    size = image.get("size") or {}
    demand(isinstance(size, Mapping), f"{file}: size", size, "a mapping of settings")
    least, most = (
        next((part[name] for part, name in places if part.get(name) is not None), default)
        for places, default in (
            (((image, "min_pixels"), (size, "shortest_edge")), 1),
            (((image, "max_pixels"), (size, "longest_edge")), 1 << 62),
        )
    )
    for name, value in (("min_pixels", least), ("max_pixels", most)):
        demand(type(value) is int and value >= 1, f"{file}: {name}", value, "1 or more")
    demand(least <= most, f"{file}: min_pixels", least, f"at most max_pixels, {most}")
    return least, most
