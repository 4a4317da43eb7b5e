"""Sizes of models: a tiny one that trains on a laptop, and those that are published; and seeded random weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from streaming_vlm_mlx.config import ModelConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.models.vlm import VisionLanguageModel

TINY_VISION = VisionConfig(
    depth=3,
    hidden_size=128,
    intermediate_size=384,
    num_heads=4,
    window_size=112,
    fullatt_block_indexes=(2,),
    out_hidden_size=192,
)
TINY_TEXT = TextConfig(
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=4096,
    mrope_section=(8, 8, 8),
    tie_word_embeddings=True,
)


def tiny_config(vocab_size: int, vision: bool = True) -> ModelConfig:
    """Return the tiny sizes for a vocabulary of `vocab_size` rows; without `vision` the model reads text only."""
    return ModelConfig(
        text_config=replace(TINY_TEXT, vocab_size=vocab_size),
        vision_config=TINY_VISION if vision else None,
        vocabulary="vocabulary.json",
    )


class TinyStreamingDecoder(VisionLanguageModel):
    """A `VisionLanguageModel` of the tiny sizes, for a compact vocabulary of `vocab_size` rows."""

    def __init__(self, vocab_size: int, vision: bool = True) -> None:
        """Create random weights; without `vision` the model reads text only."""
        super().__init__(tiny_config(vocab_size, vision))


_QWEN2_TOWER: dict[str, Any] = {
    "intermediate_size": 5120,
    "tokens_per_second": None,
    "window_size": None,
    "fullatt_block_indexes": (),
    "hidden_act": "quick_gelu",
}
_QWEN3_TOWER: dict[str, Any] = {
    "patch_size": 16,
    "tokens_per_second": None,
    "window_size": None,
    "fullatt_block_indexes": (),
    "num_position_embeddings": 2304,
    "hidden_act": "gelu_pytorch_tanh",
}
_SMALL_TOWER = VisionConfig(24, 1024, 4096, deepstack_visual_indexes=(5, 11, 17), **_QWEN3_TOWER)
_LARGE_TOWER = VisionConfig(27, 1152, 4304, deepstack_visual_indexes=(8, 16, 24), **_QWEN3_TOWER)


def _qwen2(tower: VisionConfig, text: TextConfig) -> ModelConfig:
    family: Any = "qwen2_vl" if tower.window_size is None else "qwen2_5_vl"
    return ModelConfig(text, replace(tower, out_hidden_size=text.hidden_size), family)


def _qwen3(tower: VisionConfig, text: TextConfig) -> ModelConfig:
    own = replace(
        text,
        head_dim=128,
        max_position_embeddings=262_144,
        rope_theta=5_000_000.0,
        mrope_section=(24, 20, 20),
        mrope_interleaved=True,
        qkv_bias=False,
        qk_norm=True,
    )
    return ModelConfig(own, replace(tower, out_hidden_size=text.hidden_size), "qwen3_vl")


_QWEN2, _QWEN2_5 = VisionConfig(**_QWEN2_TOWER), VisionConfig()
# Published models, so that their memory can be estimated without a folder; StreamingVLM is a Qwen2.5-VL 7B, LiveCC a
# Qwen2-VL 7B. Width, feed-forward width, layers, heads, key-value heads; then head_dim, which 0 derives, and rows.
PUBLISHED: Mapping[str, ModelConfig] = {
    "Qwen2-VL 2B": _qwen2(_QWEN2, TextConfig(1536, 8960, 28, 12, 2, 0, 151_936, tie_word_embeddings=True)),
    "Qwen2-VL 7B": _qwen2(_QWEN2, TextConfig(3584, 18_944, 28, 28, 4, 0, 152_064)),
    "Qwen2.5-VL 3B": _qwen2(
        _QWEN2_5, TextConfig(2048, 11_008, 36, 16, 2, 0, 151_936, 128_000, tie_word_embeddings=True)
    ),
    "Qwen2.5-VL 7B": _qwen2(_QWEN2_5, TextConfig(3584, 18_944, 28, 28, 4, 0, 152_064, 128_000)),
    "Qwen3-VL 2B": _qwen3(_SMALL_TOWER, TextConfig(2048, 6144, 28, 16, 8, 0, 151_936, tie_word_embeddings=True)),
    "Qwen3-VL 4B": _qwen3(_SMALL_TOWER, TextConfig(2560, 9728, 36, 32, 8, 0, 151_936, tie_word_embeddings=True)),
    "Qwen3-VL 8B": _qwen3(_LARGE_TOWER, TextConfig(4096, 12_288, 36, 32, 8, 0, 151_936)),
    "Qwen3-VL 32B": _qwen3(_LARGE_TOWER, TextConfig(5120, 25_600, 64, 64, 8, 0, 151_936)),
}


def seed_weights(model: nn.Module, seed: int) -> None:
    """Fill `model` with normal weights of standard deviation 1/√fan-in, drawn from `seed`; norms are 1, biases 0."""
    key = mx.random.key(seed)
    filled = []
    for name, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())):
        key, use = mx.random.split(key)
        if array.ndim == 1:
            value = mx.ones_like(array) if "norm" in name or "ln_q" in name else mx.zeros_like(array)
        else:
            fan_in = array.size // array.shape[0] if "embed_tokens" not in name else array.shape[1]
            value = mx.random.normal(array.shape, array.dtype, scale=fan_in**-0.5, key=use)
        filled.append((name, value))
    model.load_weights(filled)
