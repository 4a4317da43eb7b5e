"""The stream settings of a checkpoint's folder, and the preset that its name chooses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream_settings import PRESETS, describe_preset, preset_of, read_stream_config

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
        ("small", "qwen2_5_vl"),
        ("models--mlx-community--Qwen3-VL-4B-Instruct-4bit/snapshots/0123abc", "qwen3_vl"),
    ],
)
def test_others_were_not_trained_to_stream(tmp_path: Path, name: str, family: str) -> None:
    folder = make_folder(tmp_path / name, family)
    assert preset_of(folder) == "instruct"
    found = read_stream_config(folder)
    assert replace(found, pixels=PRESETS["instruct"].pixels) == PRESETS["instruct"]
    assert (found.mode, found.window * found.fps, found.sampling.temperature) == ("recompute", 4, 0)


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("StreamingVLM", ""),
        ("streaming-vlm_8bit", ""),
        ("models--mit-han-lab--StreamingVLM/snapshots/0123abc", ""),
        ("run1", "mit-han-lab/StreamingVLM"),
    ],
)
def test_streamingvlm_is_known_by_its_name(tmp_path: Path, name: str, stated: str) -> None:
    folder = make_folder(tmp_path / name, "qwen2_5_vl", stated)
    assert preset_of(folder) == "streamingvlm"
    assert read_stream_config(folder) == StreamConfig()


def test_a_vocabulary_of_its_own_says_that_a_model_was_trained_here(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run1", "qwen2_5_vl")
    config = {"model_type": "qwen2_5_vl", "vocabulary": "vocabulary.json"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert preset_of(folder) == "streamingvlm"


def test_a_style_of_another_preset_starts_again_from_that_preset(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", settings="text_round: 3\n")
    settings = tmp_path / "mine.yaml"

    def under(text: str) -> StreamConfig:
        settings.write_text(text, encoding="utf-8")
        return read_stream_config(folder, settings)

    instruct = PRESETS["instruct"]
    assert under("fps: 4\n") == instruct.merged({"text_round": 3, "fps": 4})
    assert under("style: instruct\nwindow: 1\n") == instruct.merged({"text_round": 3, "window": 1})
    assert under("style: inference\nfps: 4\n") == StreamConfig(fps=4)
    assert under("style: livecc\n") == LIVECC
    (folder / "stream.yaml").write_text("style: training\nwindow: 5\n", encoding="utf-8")
    assert under("style: inference\n") == StreamConfig(window=5)
    assert under("style: instruct\n") == instruct
    (folder / "stream.yaml").write_text("style: inference\n", encoding="utf-8")
    assert read_stream_config(folder) == StreamConfig()


def test_the_one_turn_of_an_instruct_model_needs_its_mode(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "Qwen3-VL-2B-Instruct", "qwen3_vl", settings="mode: streaming\n")
    with pytest.raises(SvmError, match=r"mode is 'streaming'; it must be 'recompute' .* set style: inference"):
        read_stream_config(folder)


def test_only_a_model_that_was_not_trained_to_stream_is_described() -> None:
    said = describe_preset("Qwen2.5-VL-3B-Instruct", PRESETS["instruct"])
    assert said == (
        "Qwen2.5-VL-3B-Instruct was not trained to stream: it sees the last 4 frames and answers in one short sentence "
        "(preset instruct; docs/models.md)."
    )
    assert not any(describe_preset("run1", PRESETS[name]) for name in ("streamingvlm", "livecc"))


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
