import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.processor_config import DEFAULTS
from streaming_vlm_mlx.video.image_processor import patchify, resize_frames, smart_resize, to_patches
from tests.modules import load_module

CONFIG, QWEN3 = PixelConfig(), DEFAULTS["qwen3_vl"]
CASES = ("append", "balanced", "full_attention", "recompute", "text_longer", "vision_longer")


def load_recipe(shared: Path) -> ModuleType:
    return load_module(shared / "conformance" / "recipe.py", "recipe_of_pixels")


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_the_published_program(shared: Path, name: str) -> None:
    case = json.loads((shared / "conformance" / f"{name}.json").read_text())
    params, expected = case["params"], case["pixel_values"]
    frames = load_recipe(shared).frames(params["seed"], 0, params["h"], params["w"])

    values = to_patches(frames.transpose(0, 2, 3, 1), CONFIG).pixel_values

    assert list(values.shape) == expected["shape"]
    first, norm = (v for k, v in expected.items() if k != "shape")
    np.testing.assert_allclose(values[0, :8], first, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(values), norm, rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "height", "width"), [(2, 364, 644), (2, 360, 640), (3, 96, 130), (4, 1080, 1920), (1, 640, 360)]
)
def test_patches_are_hugging_faces(count: int, height: int, width: int) -> None:
    pytest.importorskip("torchvision")
    from transformers import Qwen2VLVideoProcessor

    processor = Qwen2VLVideoProcessor(size={"shortest_edge": CONFIG.min_pixels, "longest_edge": CONFIG.max_pixels})
    check_patches(processor, noise(count, height, width), CONFIG)


@pytest.mark.parametrize(
    ("count", "height", "width"), [(2, 352, 640), (2, 360, 640), (4, 130, 96), (2, 1080, 1920), (3, 640, 360)]
)
def test_patches_are_qwen3_vls(count: int, height: int, width: int) -> None:
    pytest.importorskip("torchvision")
    from transformers import Qwen3VLVideoProcessor

    # This processor's limits are for all frames of a video.
    limits = {"shortest_edge": QWEN3.min_pixels * count, "longest_edge": QWEN3.max_pixels * count}
    check_patches(Qwen3VLVideoProcessor(size=limits), noise(count, height, width), QWEN3)


def check_patches(processor: Any, frames: np.ndarray, config: PixelConfig) -> None:
    torch = pytest.importorskip("torch")
    theirs = processor(
        videos=[torch.from_numpy(frames.transpose(0, 3, 1, 2))], do_sample_frames=False, return_tensors="pt"
    )
    ours = patchify(frames, config)

    assert list(ours.grid_thw) == theirs["video_grid_thw"][0].tolist()
    apart = np.abs(ours.pixel_values - theirs["pixel_values_videos"].numpy())
    if smart_resize(frames.shape[1], frames.shape[2], config) == frames.shape[1:3]:
        assert apart.max() < 1e-5
    else:
        check_levels(apart * 255 * min(config.image_std))


def check_levels(apart: np.ndarray) -> None:
    """Pillow and torchvision round a resized picture differently: one level here and there, two in a rare pixel."""
    assert apart.max() < 2.01
    assert (apart > 1.01).mean() < 1e-5
    assert (apart > 0.01).mean() < 0.01


@pytest.mark.parametrize(("height", "width"), [(360, 640), (1080, 1920), (90, 160), (719, 405)])
def test_resized_frames_are_torchvisions(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from torchvision.transforms.v2 import functional

    frames = noise(2, height, width)
    theirs = functional.resize(
        torch.from_numpy(frames.transpose(0, 3, 1, 2)),
        list(smart_resize(height, width, CONFIG)),
        interpolation=functional.InterpolationMode.BICUBIC,
        antialias=True,
    )
    check_levels(np.abs(resize_frames(frames, CONFIG) - theirs.numpy().transpose(0, 2, 3, 1).astype(float)))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_sizes_are_hugging_faces(height: int, width: int) -> None:
    pytest.importorskip("torchvision")
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize as theirs

    if max(height, width) <= 200 * min(height, width):
        limits = {"min_pixels": CONFIG.min_pixels, "max_pixels": CONFIG.max_pixels}
        assert smart_resize(height, width, CONFIG) == theirs(height, width, factor=28, **limits)


def test_frames_at_their_size_are_not_resampled() -> None:
    frames = noise(2, 364, 644)
    assert resize_frames(frames, CONFIG) is frames


def test_360p_costs_299_merged_tokens_a_second() -> None:
    patches = patchify(noise(2, 360, 640), CONFIG)
    t, h, w = patches.grid_thw
    assert (t, h * 14, w * 14) == (1, 364, 644)
    assert t * h * w // CONFIG.merge_size**2 == 299
    assert patches.pixel_values.shape == (t * h * w, 1176)
    assert patches.pixel_values.dtype == np.float32


def test_a_pixel_lands_in_its_row_and_column() -> None:
    frames = np.zeros((4, 56, 84, 3), np.uint8)
    frame, y, x, channel = 3, 30, 71, 2
    frames[frame, y, x, channel] = 255

    lit = to_patches(frames, CONFIG).pixel_values - to_patches(np.zeros_like(frames), CONFIG).pixel_values

    # Rows: time, merged row, merged column, row in it, column in it; columns: channel, frame, line, column.
    row = (((1 * 2 + y // 28) * 3 + x // 28) * 2 + y // 14 % 2) * 2 + x // 14 % 2
    column = ((channel * 2 + frame % 2) * 14 + y % 14) * 14 + x % 14
    assert np.argwhere(lit).tolist() == [[row, column]]
    assert lit[row, column] == pytest.approx(1 / CONFIG.image_std[channel], rel=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_a_missing_frame_is_the_last_one_again(count: int) -> None:
    frames = noise(count, 56, 56)
    padded = np.concatenate([frames, frames[-1:]])
    np.testing.assert_array_equal(to_patches(frames, CONFIG).pixel_values, to_patches(padded, CONFIG).pixel_values)


@given(st.integers(1, 5000), st.integers(1, 5000))
@example(1, 200)
@example(28, 28)
@example(4320, 7680)
def test_sizes_are_multiples_within_the_limits(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(SvmError, match="200"):
            smart_resize(height, width, CONFIG)
        return
    h, w = smart_resize(height, width, CONFIG)
    assert h % 28 == w % 28 == 0
    assert CONFIG.min_pixels <= h * w <= CONFIG.max_pixels
    # A frame that has its size keeps it.
    assert smart_resize(h, w, CONFIG) == (h, w)
