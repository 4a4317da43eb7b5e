"""The tiny preset: the sizes of a model that trains on a laptop, and random initialization."""

from dataclasses import replace
from typing import cast

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
    """Return the tiny preset for a vocabulary of `vocab_size` rows; without `vision` the model reads text only."""
    return ModelConfig(
        text_config=replace(TINY_TEXT, vocab_size=vocab_size),
        vision_config=TINY_VISION if vision else None,
        vocabulary="vocabulary.json",
    )


class TinyStreamingDecoder(VisionLanguageModel):
    """A `VisionLanguageModel` of the tiny preset, for a compact vocabulary of `vocab_size` rows."""

    def __init__(self, vocab_size: int, vision: bool = True) -> None:
        """Create random weights; without `vision` the model reads text only."""
        super().__init__(tiny_config(vocab_size, vision))


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
