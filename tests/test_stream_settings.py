"""The stream settings of a checkpoint's folder, and the preset that its name chooses."""

import json
from pathlib import Path

import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.stream_settings import PRESETS, preset_of, read_stream_config

LIVECC = StreamConfig(
    mode="full",
    pos_mode="append",
    style="livecc",
    query="Please describe the video.",
    sampling=SamplingConfig(repetition_penalty=1.05, silence_threshold=0.0, silence_step=0.0, max_new_tokens=16),
)


def make_folder(folder: Path, family: str = "qwen2_vl", stated: str = "", settings: str = "") -> Path:
    folder.mkdir(parents=True)
    config = {"model_type": family, **({"_name_or_path": stated} if stated else {})}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if settings:
        (folder / "stream.yaml").write_text(settings, encoding="utf-8")
    return folder


def test_stream_settings_of_a_folder(tmp_path: Path) -> None:
    assert read_stream_config(tmp_path) == StreamConfig()
    (tmp_path / "stream.yaml").write_text("window: 3\nsink: null\n", encoding="utf-8")
    assert read_stream_config(tmp_path) == StreamConfig(window=3, sink=None)


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("LiveCC-7B-Instruct", ""),
        ("my-livecc", ""),
        ("models--chenjoya--LiveCC-7B-Base/snapshots/0123abc", ""),
        ("run1", "chenjoya/LiveCC-7B-Instruct"),
    ],
    ids=["folder", "part of a name", "hub cache", "config"],
)
def test_a_qwen2_vl_that_is_called_livecc_streams_as_livecc(tmp_path: Path, name: str, stated: str) -> None:
    folder = make_folder(tmp_path / name, stated=stated)
    assert preset_of(folder) == "livecc"
    assert read_stream_config(folder) == LIVECC


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("livecc-like", "qwen2_5_vl"),
        ("Qwen2-VL-7B-Instruct", "qwen2_vl"),
        ("livecc/run1", "qwen2_vl"),
        ("models--livecc--x/blobs/run1", "qwen2_vl"),
    ],
)
def test_others_do_not(tmp_path: Path, name: str, family: str) -> None:
    folder = make_folder(tmp_path / name, family)
    assert preset_of(folder) == "streamingvlm"
    assert read_stream_config(folder) == StreamConfig()


def test_a_folder_can_say_that_it_streams_as_livecc(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run1", settings="style: livecc\nmode: streaming\nsampling: {max_new_tokens: 9}\n")
    found = read_stream_config(folder)
    assert (found.mode, found.sampling.max_new_tokens) == ("streaming", 9)
    assert (found.pos_mode, found.query, found.sampling.silence_threshold) == ("append", LIVECC.query, 0.0)


def test_settings_of_the_folder_override_those_of_its_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "LiveCC", settings="query: Who serves?\n")
    assert read_stream_config(folder) == StreamConfig(**{**vars(LIVECC), "query": "Who serves?"})
    trained = make_folder(tmp_path / "livecc2", settings="style: training\n")
    assert read_stream_config(trained) == StreamConfig(style="training")


def test_a_damaged_config_is_left_to_the_loader(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "LiveCC")
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert preset_of(folder) == "streamingvlm"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_used(name: str) -> None:
    assert StreamConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]


def test_pixels_are_prepared_as_the_folder_says(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run1", "qwen3_vl", settings="pixels: {max_pixels: 150000}\n")
    (folder / "preprocessor_config.json").write_text(
        '{"patch_size": 16, "image_mean": [0.1, 0.2, 0.3]}', encoding="utf-8"
    )
    pixels = read_stream_config(folder).pixels
    assert (pixels.patch_size, pixels.image_mean, pixels.image_std) == (16, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert (pixels.min_pixels, pixels.max_pixels) == (100 * 32 * 32, 150000)
