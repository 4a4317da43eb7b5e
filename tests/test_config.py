"""Settings: what a hub's config.json means, and what no program can run under."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, SamplingConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.config_io import FromDict, read_config, read_yaml
from streaming_vlm_mlx.errors import SvmError

# The decoder's part of Qwen/Qwen2.5-VL-3B-Instruct's config.json.
HUB_3B: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 2048, "tokens_per_second": 2},
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
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


def test_flat_and_nested_config_of_the_hub_mean_the_same() -> None:
    outside = ("architectures", "model_type", "vision_config")
    nested = {k: HUB_3B[k] for k in outside} | {"text_config": {k: v for k, v in HUB_3B.items() if k not in outside}}
    config = ModelConfig.from_dict(HUB_3B)
    assert config == ModelConfig.from_dict(nested)
    assert config.text_config.head_dim == 128
    assert config.text_config.mrope_section == (16, 24, 24)
    assert config.text_config.tie_word_embeddings
    assert config.vision_config is not None
    assert config.vision_config.tokens_per_second == 2.0


# The vision part of Qwen/Qwen2-VL-7B-Instruct's config.json, and what its decoder has otherwise.
HUB_QWEN2: dict[str, Any] = {
    **HUB_3B,
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
}


def test_qwen2_vls_names_mean_the_newer_ones() -> None:
    config = ModelConfig.from_dict(HUB_QWEN2)
    assert config.vision_config == VisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        out_hidden_size=2048,
        tokens_per_second=None,
        fullatt_block_indexes=(),
        hidden_act="quick_gelu",
        architecture="qwen2_vl",
    )
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("model", "step"), [(HUB_3B, 3.0), (HUB_QWEN2, 1.0)], ids=["qwen2_5_vl", "qwen2_vl"])
def test_a_step_of_a_second_and_a_half_in_positions(model: dict[str, Any], step: float) -> None:
    vision = ModelConfig.from_dict(model).vision_config
    assert vision is not None
    assert vision.time_step(1.5) == step


@pytest.mark.parametrize("where", ["root", "text_config", "both"])
def test_tied_weights_are_told_at_either_place(where: str) -> None:
    root = {"tie_word_embeddings": where != "text_config"}
    text = SMALL_TEXT | {"tie_word_embeddings": where != "root"}
    assert ModelConfig.from_dict(root | {"text_config": text}).text_config.tie_word_embeddings


def test_rope_parameters_name_the_theta() -> None:
    text = SMALL_TEXT | {"rope_parameters": {"rope_theta": 5e5, "mrope_section": [2, 1, 1]}, "rope_theta": 1.0}
    del text["mrope_section"]
    read = ModelConfig.from_dict({"text_config": text}).text_config
    assert (read.rope_theta, read.mrope_section) == (5e5, (2, 1, 1))


def test_unknown_keys_are_ignored_and_null_is_the_default() -> None:
    config = ModelConfig.from_dict(HUB_3B | {"vocab_size": None, "use_cache": True, "sliding_window": None})
    assert config.text_config.vocab_size == TextConfig().vocab_size


def test_null_reaches_a_field_that_takes_none() -> None:
    config = StreamConfig.from_dict({"sink": None, "slide": None, "window": None})
    assert (config.sink, config.slide, config.window) == (None, None, StreamConfig().window)


@given(streams)
def test_a_stream_comes_back_from_yaml_as_it_was(config: StreamConfig) -> None:
    assert StreamConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_a_model_comes_back_as_it_was() -> None:
    config = ModelConfig.from_dict(HUB_3B | {"vocabulary": "vocabulary.json"})
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert config.vocabulary == "vocabulary.json"


def test_overlay_reaches_into_nested_parts_and_leaves_the_rest() -> None:
    base = StreamConfig(sink=None, query="Who leads?", sampling=SamplingConfig(temperature=0.7, seed=3))
    over = base.merged({"window": 4, "sampling": {"seed": 9}})
    assert over == dataclasses.replace(base, window=4, sampling=dataclasses.replace(base.sampling, seed=9))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"window": "four"}, "StreamConfig.window is 'four'; it must be of type int"),
        ({"window": 2.5}, "StreamConfig.window is 2.5"),
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
        ({"rope_scaling": "linear"}, {}, "rope_scaling is 'linear'"),
        ({}, {"out_hidden_size": 8}, "out_hidden_size 8"),
        ({}, {"num_heads": 3}, "4 × 3 heads"),
        ({}, {"window_size": 14}, "window_size 14"),
        ({}, {"patch_size": 0}, "vision_config.patch_size is 0"),
        ({}, {"hidden_act": "gelu"}, "vision hidden_act is 'gelu'; it must be 'silu'"),
        ({"rope_scaling": {"type": "yarn"}}, {}, "rope_type is 'yarn'; it must be 'default' or 'mrope'"),
        ({"tie_word_embeddings": "yes"}, {}, "tie_word_embeddings is 'yes'"),
    ],
)
def test_model_sizes_that_do_not_fit(text: dict[str, Any], vision: dict[str, Any], named: str) -> None:
    with pytest.raises(SvmError) as caught:
        ModelConfig.from_dict({"text_config": SMALL_TEXT | text, "vision_config": SMALL_VISION | vision})
    assert named in str(caught.value)


@pytest.mark.parametrize("vision", [{"embed_dim": "wide"}, {"mlp_ratio": [4]}], ids=str)
def test_sizes_of_qwen2_vl_that_are_no_numbers(vision: dict[str, Any]) -> None:
    with pytest.raises(SvmError, match=r"vision_config\.\w+ is .*; it must be a number"):
        ModelConfig.from_dict(HUB_QWEN2 | {"vision_config": vision})


def test_the_sizes_that_those_cases_spoil_fit() -> None:
    config = ModelConfig.from_dict({"text_config": SMALL_TEXT, "vision_config": SMALL_VISION})
    assert config.vision_config == VisionConfig(hidden_size=16, num_heads=2, out_hidden_size=16)


def test_a_part_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(SvmError, match=r"text_config is 7; it must be a mapping"):
        ModelConfig.from_dict({"text_config": 7})


def test_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stream.yaml"
    path.write_text("window: 4\nsink: null\nsampling: {temperature: 1}\n", encoding="utf-8")
    config = StreamConfig.from_dict(read_yaml(path))
    assert (config.window, config.sink, config.sampling.temperature) == (4, None, 1.0)
    path.write_text("", encoding="utf-8")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"- 1\n- 2\n", "holds a list"), (b"a: [1\n", "is not YAML"), (b"\xff\xfe\xfa", "is not YAML"), (None, "cannot")],
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
