"""Settings: how they are read and written back, and what no program can run under."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, SamplingConfig, StreamConfig, VisionConfig
from streaming_vlm_mlx.config_io import FromDict, read_config, read_yaml
from streaming_vlm_mlx.errors import SvmError

SMALL_TEXT = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "mrope_section": [1, 1, 2]}
SMALL_VISION = {"hidden_size": 16, "num_heads": 2, "out_hidden_size": 16}

streams = st.builds(
    StreamConfig,
    mode=st.sampled_from(["streaming", "recompute", "window", "full"]),
    window=st.integers(1, 99),
    sink=st.none() | st.integers(0, 99),
    slide=st.none() | st.integers(0, 99),
    all_text=st.booleans(),
    kv_bits=st.sampled_from([None, 8, 4]),
    fps=st.sampled_from([1.0, 2.0, 4.0]),
    query=st.text(),
    previous=st.text(),
    pixels=st.builds(PixelConfig, max_pixels=st.integers(1, 10**6)),
    sampling=st.builds(SamplingConfig, silence_threshold=st.none() | st.floats(0, 1), seed=st.integers(0, 99)),
)


def test_null_reaches_a_field_that_takes_none() -> None:
    config = StreamConfig.from_dict({"sink": None, "slide": None, "window": None})
    assert (config.sink, config.slide, config.window) == (None, None, StreamConfig().window)


@given(streams)
def test_a_stream_comes_back_from_yaml_as_it_was(config: StreamConfig) -> None:
    assert StreamConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_overlay_reaches_into_nested_parts_and_leaves_the_rest() -> None:
    base = StreamConfig(sink=None, query="Who leads?", sampling=SamplingConfig(temperature=0.7, seed=3))
    over = base.merged({"window": 4, "sampling": {"seed": 9}})
    assert over == dataclasses.replace(base, window=4, sampling=dataclasses.replace(base.sampling, seed=9))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"window": "four"}, "StreamConfig.window is 'four'; it must be of type int"),
        ({"window": 2.5}, "StreamConfig.window is 2.5"),
        ({"window": -1e308}, "StreamConfig.window is -1000000000"),
        ({"window": True}, "StreamConfig.window is True"),
        ({"all_text": 1}, "StreamConfig.all_text is 1"),
        ({"kv_bits": 3}, "StreamConfig.kv_bits is 3; it can be 4, 8"),
        ({"mode": "slow"}, "StreamConfig.mode is 'slow'; it can be 'streaming', 'recompute', 'window', 'full'"),
        ({"sampling": {"temperature": "hot"}}, "SamplingConfig.temperature is 'hot'"),
        ({"sampling": [1]}, "StreamConfig.sampling is [1]"),
        ({"window": 0}, "window is 0; it must be 1 or more"),
        ({"text_round": -1}, "text_round is -1"),
        ({"sink": -1}, "sink is -1"),
        ({"slide": -5}, "slide is -5"),
        ({"fps": 0}, "fps is 0.0; it must be above 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"sampling": {"temperature": -0.1}}, "sampling.temperature is -0.1"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p is 0.0"),
        ({"sampling": {"top_p": 1.5}}, "sampling.top_p is 1.5"),
        ({"sampling": {"repetition_penalty": 0}}, "sampling.repetition_penalty is 0.0"),
        ({"sampling": {"max_new_tokens": 0}}, "sampling.max_new_tokens is 0"),
        ({"sampling": {"seed": -1}}, "sampling.seed is -1"),
        ({"pixels": {"patch_size": 0}}, "pixels.patch_size is 0"),
    ],
)
def test_stream_settings_that_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SvmError) as caught:
        StreamConfig.from_dict(values)
    assert str(caught.value).startswith(named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "vision", "named"),
    [
        ({"hidden_size": 15}, {}, "hidden_size 15"),
        ({"num_key_value_heads": 3, "num_attention_heads": 4}, {}, "3 key-value heads"),
        ({"mrope_section": [1, 1, 1]}, {}, "mrope_section [1, 1, 1]"),
        ({"mrope_section": [2, 2]}, {}, "mrope_section [2, 2]"),
        ({"num_attention_heads": 0}, {}, "text_config.num_attention_heads is 0"),
        ({"num_hidden_layers": 0}, {}, "text_config.num_hidden_layers is 0"),
        ({"rms_norm_eps": 0}, {}, "text_config.rms_norm_eps is 0.0; it must be a number above 0"),
        ({"rope_theta": float("nan")}, {}, "text_config.rope_theta is nan; it must be a number above 0"),
        ({"num_hidden_layers": 10**12}, {}, "it must be less than 1000"),
        ({}, {"depth": 10**6}, "vision_config.depth is 1000000; it must be less than 1000"),
        ({"vocab_size": 10**12}, {}, "it must be less than 2147483648"),
        ({}, {"out_hidden_size": 8}, "out_hidden_size 8"),
        ({}, {"num_heads": 3}, "4 × 3 heads"),
        ({}, {"window_size": 14}, "window_size 14"),
        ({}, {"patch_size": 0}, "vision_config.patch_size is 0"),
        ({"head_dim": -8}, {}, "text_config.head_dim is -8"),
        ({"head_dim": 6}, {}, "mrope_section [1, 1, 2]"),
        ({}, {"num_position_embeddings": 12}, "num_position_embeddings is 12; it must be a square number"),
        ({}, {"deepstack_visual_indexes": [1, 1]}, "deepstack_visual_indexes is [1, 1]"),
        ({}, {"deepstack_visual_indexes": [32]}, "different blocks of 0 to 31"),
        ({"tie_word_embeddings": "yes"}, {}, "tie_word_embeddings is 'yes'"),
    ],
)
def test_model_sizes_that_do_not_fit(text: dict[str, Any], vision: dict[str, Any], named: str) -> None:
    with pytest.raises(SvmError) as caught:
        ModelConfig.from_dict({"text_config": SMALL_TEXT | text, "vision_config": SMALL_VISION | vision})
    assert named in str(caught.value)


def test_the_sizes_that_those_cases_spoil_fit() -> None:
    config = ModelConfig.from_dict({"text_config": SMALL_TEXT, "vision_config": SMALL_VISION})
    assert config.vision_config == VisionConfig(hidden_size=16, num_heads=2, out_hidden_size=16)


def test_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stream.yaml"
    path.write_text("window: 4\nsink: null\nsampling: {temperature: 1}\n", encoding="utf-8")
    config = StreamConfig.from_dict(read_yaml(path))
    assert (config.window, config.sink, config.sampling.temperature) == (4, None, 1.0)
    path.write_text("", encoding="utf-8")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"- 1\n- 2\n", "holds a list"),
        (b"a: [1\n", "is not YAML"),
        (b"\xff\xfe\xfa", "is not YAML"),
        (None, "cannot"),
        (b"a: " + b"9" * 5000, r"is not YAML: a number is too long\.$"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "stream.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SvmError, match=named) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class RunConfig(FromDict):
    """Settings with a part that had another name, and a mapping of overrides."""

    stream: dict[str, Any] = field(default_factory=dict)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @classmethod
    def overlays(cls) -> dict[str, type[FromDict]]:
        return {"stream": StreamConfig}

    @classmethod
    def renamed(cls) -> dict[str, str]:
        return {"choosing": "sampling"}


@dataclass(frozen=True)
class OuterConfig(FromDict):
    run: RunConfig = field(default_factory=RunConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run:\n  stream: {windwo: 4}\n", ":2: there is no setting 'run.stream.windwo'; did you mean 'window'?"),
        ("run:\n  stream:\n    pixels:\n      x: 4\n", ":4: there is no setting 'run.stream.pixels.x'."),
        ("run:\n  choosing: {}\n", ":2: 'run.choosing' is now called 'run.sampling'; rename it."),
        ("run:\n  sampling:\n    top_p: 2\n", ":3: sampling.top_p is 2.0"),
    ],
)
def test_a_file_is_checked_down_to_its_overrides(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(SvmError) as refused:
        read_config(path, OuterConfig)
    assert str(refused.value).startswith(f"{path}{message}")


def test_overrides_stay_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run:\n  stream: {window: 4}\n")
    config = read_config(path, OuterConfig)
    assert config.run.stream == {"window": 4}
    assert StreamConfig().merged(config.run.stream).window == 4
