"""The model at the preset's sizes, and seeded weights for a model of any."""

from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from streaming_vlm_mlx.model.preset import tiny_config
from streaming_vlm_mlx.model.vlm import VisionLanguageModel


class TinyStreamingDecoder(VisionLanguageModel):
    """A `VisionLanguageModel` at the preset's sizes, with a compact vocabulary of `vocab_size` rows."""

    def __init__(self, vocab_size: int, vision: bool = True) -> None:
        """Make random weights; without `vision` the model reads text alone."""
        super().__init__(tiny_config(vocab_size, vision))


def seed_weights(model: nn.Module, seed: int) -> None:
    """Fill `model` with normal weights of deviation 1/√fan-in, drawn from `seed` alone; norms are 1 and biases 0."""
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
