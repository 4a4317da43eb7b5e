"""Reads a folder's processor config; the files are written by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.config import Family, PixelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.processor_config import DEFAULTS, read_pixel_config
from streaming_vlm_mlx.text.tokenizer import SHIPPED

UNIT = 32 * 32
QWEN3 = PixelConfig(100 * UNIT, 384 * UNIT, patch_size=16, image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5))
# What Qwen/Qwen3-VL-2B-Instruct has in these two files.
IMAGE: dict[str, Any] = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
VIDEO = IMAGE | {"size": {"longest_edge": 25165824, "shortest_edge": 4096}}


def lay(folder: Path, **files: object) -> Path:
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_the_published_folders(tmp_path: Path) -> None:
    assert (
        read_pixel_config(lay(tmp_path, preprocessor_config=IMAGE, video_preprocessor_config=VIDEO), "qwen3_vl")
        == QWEN3
    )
    for family in ("qwen2_vl", "qwen2_5_vl"):
        assert read_pixel_config(SHIPPED, family) == PixelConfig()


@pytest.mark.parametrize("family", DEFAULTS)
def test_a_folder_without_a_processor_config(tmp_path: Path, family: Family) -> None:
    assert read_pixel_config(tmp_path, family) == (QWEN3 if family == "qwen3_vl" else PixelConfig())


@pytest.mark.parametrize("whole", [True, False], ids=["one file", "two files"])
@pytest.mark.parametrize("family", DEFAULTS)
def test_what_transformers_writes(tmp_path: Path, family: Family, whole: bool) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    video = transformers.Qwen3VLVideoProcessor() if family == "qwen3_vl" else transformers.Qwen2VLVideoProcessor()
    sizes = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3} if family == "qwen3_vl" else {}
    image = transformers.Qwen2VLImageProcessor(**sizes)
    if whole:
        lay(tmp_path, processor_config={"image_processor": image.to_dict(), "video_processor": video.to_dict()})
    else:
        image.save_pretrained(tmp_path)
        video.save_pretrained(tmp_path)
    assert read_pixel_config(tmp_path, family) == (QWEN3 if family == "qwen3_vl" else PixelConfig())


def test_settings_of_the_video_come_first(tmp_path: Path) -> None:
    lay(tmp_path, preprocessor_config=IMAGE, video_preprocessor_config={"patch_size": 20, "image_std": [0.2, 0.3, 0.4]})
    read = read_pixel_config(tmp_path, "qwen3_vl")
    assert (read.patch_size, read.image_std, read.image_mean) == (20, (0.2, 0.3, 0.4), (0.5, 0.5, 0.5))
    assert (read.min_pixels, read.max_pixels) == (100 * 40 * 40, 384 * 40 * 40)


@pytest.mark.parametrize(
    ("limits", "units"),
    [
        ({}, (100, 384)),
        ({"size": {"height": 4, "width": 4}}, (100, 384)),
        ({"max_pixels": 256 * UNIT}, (100, 256)),
        ({"min_pixels": None, "max_pixels": None, "size": {"shortest_edge": 128 * UNIT}}, (128, 384)),
        ({"size": {"longest_edge": 50 * UNIT}}, (50, 50)),
        ({"min_pixels": 400 * UNIT, "size": {"shortest_edge": 1}}, (400, 400)),
    ],
)
def test_limits_are_those_of_the_stream_within_the_folder_s(
    tmp_path: Path, limits: dict[str, Any], units: tuple[int, int]
) -> None:
    image = {k: v for k, v in IMAGE.items() if k != "size"} | limits
    read = read_pixel_config(lay(tmp_path, preprocessor_config=image, video_preprocessor_config=VIDEO), "qwen3_vl")
    assert (read.min_pixels, read.max_pixels) == (units[0] * UNIT, units[1] * UNIT)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"patch_size": 0}, "pixels.patch_size is 0; it must be 1 or more"),
        ({"patch_size": "wide"}, "PixelConfig.patch_size is 'wide'"),
        ({"merge_size": -2}, "pixels.merge_size is -2"),
        ({"image_mean": [0.5]}, "pixels.image_mean is [0.5]; it must be three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "pixels.image_std is [0.5, 0.0, 0.5]; it must be three numbers above 0"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be 1 or more"),
        ({"size": [5]}, "size is [5]; it must be a mapping of settings"),
        ({"max_pixels": "many"}, "max_pixels is 'many'"),
        ({"min_pixels": 9, "max_pixels": 5}, "min_pixels is 9; it must be at most max_pixels, 5"),
    ],
)
def test_a_value_that_no_processor_can_have(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    for whole in (False, True):
        name = "processor_config" if whole else "preprocessor_config"
        lay(tmp_path, **{name: {"image_processor": IMAGE | changes} if whole else IMAGE | changes})
        with pytest.raises(SvmError) as refused:
            read_pixel_config(tmp_path, "qwen3_vl")
        assert str(refused.value).startswith(f"{tmp_path / name}.json: {named}")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[1]", '{"image_processor": 7}'])
def test_a_file_that_is_no_processor_config(tmp_path: Path, content: str) -> None:
    (tmp_path / "processor_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(SvmError) as refused:
        read_pixel_config(tmp_path, "qwen3_vl")
    assert str(refused.value).startswith(f"{tmp_path / 'processor_config.json'}")
    assert str(refused.value).count("processor_config.json") == 1
