"""Families: what a hub's config.json means, how it is written back, and which models are refused."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from streaming_vlm_mlx.config import Family, ModelConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import FAMILIES, family_of, read_config
from streaming_vlm_mlx.models.loading import hub_values
from streaming_vlm_mlx.models.vlm import VisionLanguageModel

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
# Qwen/Qwen3-VL-2B-Instruct's config.json.
HUB_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "video_token_id": 151656,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
HUBS = {"qwen2_vl": HUB_QWEN2, "qwen2_5_vl": HUB_3B, "qwen3_vl": HUB_QWEN3}
TEXT = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "mrope_section": [1, 1, 2]}
SMALL = {"model_type": "qwen2_5_vl", "text_config": TEXT}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    outside = ("architectures", "model_type", "vision_config")
    return {k: values[k] for k in outside} | {"text_config": {k: v for k, v in values.items() if k not in outside}}


def flat(values: dict[str, Any]) -> dict[str, Any]:
    text = {k: v for k, v in values["text_config"].items() if k != "model_type"}
    return text | {k: v for k, v in values.items() if k != "text_config"}


def test_every_family_has_a_module() -> None:
    assert set(FAMILIES) == set(get_args(Family)) == set(HUBS)


def test_flat_and_nested_config_of_the_hub_mean_the_same() -> None:
    config = read_config(HUB_3B)
    assert config == read_config(nested(HUB_3B))
    assert config.text_config.head_dim == 128
    assert config.text_config.mrope_section == (16, 24, 24)
    assert config.text_config.tie_word_embeddings
    assert config.vision_config is not None
    assert config.vision_config.tokens_per_second == 2.0
    assert read_config(flat(HUB_QWEN3)) == read_config(HUB_QWEN3)


def test_qwen2_vls_names_mean_the_newer_ones() -> None:
    assert read_config(HUB_QWEN2).vision_config == VisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        out_hidden_size=2048,
        tokens_per_second=None,
        window_size=None,
        fullatt_block_indexes=(),
        hidden_act="quick_gelu",
    )


def test_a_config_of_qwen3_vl() -> None:
    config = read_config(HUB_QWEN3)
    assert config.text_config == TextConfig(
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=262144,
        rope_theta=5e6,
        mrope_section=(24, 20, 20),
        mrope_interleaved=True,
        qkv_bias=False,
        qk_norm=True,
        tie_word_embeddings=True,
    )
    tower = config.vision_config
    assert tower is not None
    assert (tower.patch_size, tower.num_position_embeddings, tower.deepstack_visual_indexes) == (16, 2304, (5, 11, 17))
    assert (tower.window_size, tower.tokens_per_second) == (None, None)
    assert tower.features_width == 4 * 2048


def test_what_a_config_of_qwen3_vl_leaves_out_is_as_transformers_has_it() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen3VLConfig()
    text = read_config({"model_type": "qwen3_vl"}).text_config
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"):
        assert getattr(text, name) == getattr(theirs.text_config, name)
    for name in ("num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"):
        assert getattr(text, name) == getattr(theirs.text_config, name)
    assert text.rope_theta == theirs.text_config.rope_parameters["rope_theta"]
    tower = read_config(
        {"model_type": "qwen3_vl", "vision_config": {"in_channels": 3, "out_hidden_size": 4096}}
    ).vision_config
    assert tower is not None
    for name in ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size", "temporal_patch_size"):
        assert getattr(tower, name) == getattr(theirs.vision_config, name)
    for name in ("spatial_merge_size", "num_position_embeddings", "hidden_act"):
        assert getattr(tower, name) == getattr(theirs.vision_config, name)
    assert tower.deepstack_visual_indexes == tuple(theirs.vision_config.deepstack_visual_indexes)


@pytest.mark.parametrize("vision", [True, False], ids=["vision", "text only"])
@pytest.mark.parametrize("values", HUBS.values(), ids=HUBS.keys())
def test_a_config_is_read_back_as_it_was_written(values: dict[str, Any], vision: bool) -> None:
    config = read_config(values | {"vocabulary": "vocabulary.json"})
    config = config if vision else replace(config, vision_config=None)
    assert read_config(hub_values(config, "float32")) == config
    assert read_config(flat(hub_values(config, "float32"))) == config
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert config.vocabulary == "vocabulary.json"


@pytest.mark.parametrize("values", HUBS.values(), ids=HUBS.keys())
def test_our_names_of_settings_stay_ours(values: dict[str, Any]) -> None:
    written = hub_values(read_config(values), "float32")
    ours = {"mrope_section", "mrope_interleaved", "qkv_bias", "qk_norm"}
    assert not ours & written["text_config"].keys()
    known = {"embed_dim", "mlp_ratio"} | values["vision_config"].keys()
    added = {"window_size", "fullatt_block_indexes", "tokens_per_second", "hidden_act", "in_channels", "num_heads"}
    added |= {"patch_size", "spatial_merge_size", "temporal_patch_size", "intermediate_size"}
    assert written["vision_config"].keys() <= known | added
    if values["model_type"] == "qwen3_vl":
        assert written["vision_config"].keys() <= values["vision_config"].keys()
        assert written["text_config"].keys() <= values["text_config"].keys()
        assert written["text_config"]["rope_scaling"] == values["text_config"]["rope_scaling"]


STEPS = {"qwen2_vl": 1.0, "qwen2_5_vl": 3.0, "qwen3_vl": 1.0}


@pytest.mark.parametrize("family", STEPS)
def test_a_step_of_a_second_and_a_half_in_positions(family: str) -> None:
    vision = read_config(HUBS[family]).vision_config
    assert vision is not None
    assert vision.time_step(1.5) == STEPS[family]


@pytest.mark.parametrize("where", ["root", "text_config", "both"])
def test_tied_weights_are_told_at_either_place(where: str) -> None:
    root = {"tie_word_embeddings": where != "text_config"}
    text = TEXT | {"tie_word_embeddings": where != "root"}
    assert read_config(SMALL | root | {"text_config": text}).text_config.tie_word_embeddings


def test_rope_parameters_name_the_theta() -> None:
    text = TEXT | {"rope_parameters": {"rope_theta": 5e5, "mrope_section": [2, 1, 1]}, "rope_theta": 1.0}
    del text["mrope_section"]
    read = read_config(SMALL | {"text_config": text}).text_config
    assert (read.rope_theta, read.mrope_section) == (5e5, (2, 1, 1))


def test_unknown_keys_are_ignored_and_null_is_the_default() -> None:
    config = read_config(HUB_3B | {"vocab_size": None, "use_cache": True, "sliding_window": None})
    assert config.text_config.vocab_size == TextConfig().vocab_size


@pytest.mark.parametrize("values", [HUB_3B, HUB_QWEN2], ids=["qwen2_5_vl", "qwen2_vl"])
def test_heads_of_qwen2_share_the_width_whatever_the_file_says(values: dict[str, Any]) -> None:
    assert read_config(values | {"head_dim": 64}) == read_config(values)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("qwen2_5_vl", {"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ("qwen2_5_vl", {"rope_scaling": {"type": "yarn"}}, "rope_type is 'yarn'; it must be 'default' or 'mrope'"),
        ("qwen2_5_vl", {"vision_config": {"hidden_act": "gelu", "out_hidden_size": 2048}}, "hidden_act is 'gelu'"),
        ("qwen2_5_vl", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; it must be 'silu'"),
        ("qwen2_vl", {"use_sliding_window": True}, "use_sliding_window is True; it must be False"),
        ("qwen3_vl", {"hidden_act": "relu"}, "hidden_act is 'relu'; it must be 'silu'"),
        ("qwen2_5_vl", {"vision_config": 7}, "vision_config is 7; it must be a mapping"),
        ("qwen2_5_vl", {"text_config": 7}, "text_config is 7; it must be a mapping"),
        ("qwen2_vl", {"vision_config": {"embed_dim": "wide"}}, "vision_config.embed_dim is 'wide'"),
        ("qwen2_vl", {"vision_config": {"mlp_ratio": [4]}}, "vision_config.mlp_ratio is [4]; it must be a number"),
        ("qwen3_vl", {"attention_bias": True}, "attention_bias is True; it must be False"),
        ("qwen3_vl", {"head_dim": 64}, "mrope_section [24, 20, 20]"),
        ("qwen3_vl", {"vision_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'"),
        ("qwen3_vl", {"vision_config": {"num_position_embeddings": 50}}, "num_position_embeddings is 50"),
        ("qwen3_vl", {"vision_config": {"deepstack_visual_indexes": [30]}}, "deepstack_visual_indexes is [30]"),
    ],
)
def test_a_config_that_cannot_be_used(family: str, changes: dict[str, Any], named: str) -> None:
    values = flat(HUB_QWEN3) if family == "qwen3_vl" else HUBS[family]
    changes = dict(changes)
    if family == "qwen3_vl" and "vision_config" in changes:
        changes["vision_config"] = values["vision_config"] | changes["vision_config"]
    with pytest.raises(SvmError) as refused:
        read_config(values | changes)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


LINEAR = "its linear-attention layers cannot drop a token from the middle"
TAKEN = "take one of these families: Qwen2-VL, Qwen2.5-VL, Qwen3-VL (dense)."


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "qwen3_5"}, f"'qwen3_5' does not run here: {LINEAR}; "),
        ({"model_type": "qwen3_5_moe"}, f": {LINEAR}; "),
        ({"model_type": "qwen3_next"}, f": {LINEAR}; "),
        ({"model_type": "other", "text_config": {"layer_types": ["linear_attention"]}}, f": {LINEAR}; "),
        ({"model_type": "qwen3_vl_moe"}, ": its layers are mixtures of experts; "),
        (HUB_QWEN3 | {"text_config": {"num_experts": 128}}, ": its layers are mixtures of experts; "),
        ({"model_type": "llama"}, "'llama' does not run here; "),
        ({"model_type": ["qwen3_vl"]}, "does not run here; "),
        ({}, "None does not run here; "),
    ],
)
def test_a_family_that_does_not_run(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SvmError) as refused:
        read_config(values)
    assert f"{reason}{TAKEN}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("family", "part", "changes", "named"),
    [
        ("qwen2_5_vl", "text_config", {"head_dim": 64, "mrope_section": (8, 12, 12)}, "head_dim is 64"),
        ("qwen2_5_vl", "text_config", {"qk_norm": True}, "qk_norm is True; it must be False"),
        ("qwen2_5_vl", "vision_config", {"window_size": None}, "window_size is None"),
        ("qwen2_5_vl", "vision_config", {"deepstack_visual_indexes": (1,)}, "deepstack_visual_indexes is (1,)"),
        ("qwen2_vl", "vision_config", {"window_size": 112}, "window_size is 112; it must be None"),
        ("qwen3_vl", "text_config", {"qkv_bias": True}, "qkv_bias is True; it must be False"),
        ("qwen3_vl", "vision_config", {"num_position_embeddings": None}, "num_position_embeddings is None"),
    ],
)
def test_a_model_that_its_family_cannot_describe(family: str, part: str, changes: dict[str, Any], named: str) -> None:
    config = read_config(HUBS[family])
    config = replace(config, **{part: replace(getattr(config, part), **changes)})
    with pytest.raises(SvmError) as refused:
        VisionLanguageModel(config)
    assert named in str(refused.value)


NAMES = [
    ("model.visual.merger.norm.weight", "visual.merger.norm.weight"),
    ("visual.merger.norm.weight", "visual.merger.norm.weight"),
    ("vision_tower.deepstack_merger_list.1.linear_fc1.bias", "visual.deepstack_merger_list.1.linear_fc1.bias"),
    ("model.language_model.layers.3.self_attn.q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
    ("language_model.model.layers.3.self_attn.q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
    ("model.layers.3.self_attn.q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
    ("language_model.lm_head.weight", "lm_head.weight"),
    ("lm_head.weight", "lm_head.weight"),
]


@pytest.mark.parametrize(("theirs", "ours"), NAMES)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_names_in_every_spelling(family: Any, theirs: str, ours: str) -> None:
    assert family.sanitize(theirs) == ours


def test_a_tower_is_of_its_family() -> None:
    for values in HUBS.values():
        config = read_config(values)
        model = VisionLanguageModel(config)
        names = {name for name, _ in model.named_arrays()}
        assert isinstance(model.visual, family_of(config).VisionTower)  # type: ignore[arg-type]
        assert ("visual.pos_embed.weight" in names) == (config.model_type == "qwen3_vl")
        assert ("model.layers.0.self_attn.k_norm.weight" in names) == (config.model_type == "qwen3_vl")
        assert ("model.layers.0.self_attn.k_proj.bias" in names) == (config.model_type != "qwen3_vl")
        assert ("visual.blocks.0.norm1.bias" in names) == (config.model_type != "qwen2_5_vl")
