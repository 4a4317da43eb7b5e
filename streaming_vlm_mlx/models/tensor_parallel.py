"""Tensor parallelism for the decoder: each machine holds some of the heads and some of the feed-forward's width.

As in Megatron-LM (arXiv 1909.08053), the layers before the heads and the width are split by their outputs, the layers
after them by their inputs, and the results of the latter are summed over the machines, twice a decoder layer. Vision
tower, embedding, norms and head are whole on every machine.
"""

import re

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import shard_linear

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.distributed import Ranks
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.vlm import VisionLanguageModel

INTO, OUT_OF = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), ("o_proj", "down_proj")
_SPLIT = re.compile(r"model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+_proj)\.(\w+)")


def check_splits(config: ModelConfig, size: int) -> None:
    """Check that the model can be split over `size` machines.

    Raises:
        SvmError: names the size that does not divide.
    """
    text = config.text_config
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(text, name) % size:
            raise SvmError(f"{size} machines cannot share {name}, which is {getattr(text, name)}; use fewer.")
    if config.quantization is None:
        return
    inputs = {"o_proj": text.num_attention_heads * text.head_dim, "down_proj": text.intermediate_size}
    for number in range(text.num_hidden_layers):
        for part, name in (("self_attn", "o_proj"), ("mlp", "down_proj")):
            packed = config.quantization.of(f"model.layers.{number}.{part}.{name}")
            if packed and inputs[name] // size % packed.group_size:
                raise SvmError(
                    f"{size} machines cannot share the {inputs[name]} inputs of {name} in groups of "
                    f"{packed.group_size}; use fewer, or a checkpoint with smaller groups."
                )


def split_layers(model: VisionLanguageModel, ranks: Ranks) -> None:
    """Replace each layer that is split by this machine's part of it; nothing is computed yet."""
    for layer in model.model.layers:
        for owner in (layer.self_attn, layer.mlp):
            for name in (*INTO, *OUT_OF):
                if name in owner:
                    owner[name] = _part(owner[name], name, ranks)
        layer.self_attn.num_heads //= ranks.size
        layer.self_attn.num_kv_heads //= ranks.size


def split_array(name: str, array: mx.array, ranks: Ranks) -> mx.array:
    """Return this machine's part of parameter `name`, which fits the layers of `split_layers`."""
    axis = split_axis(name)
    if axis is None or ranks.size == 1:
        return array
    return mx.contiguous(mx.split(array, ranks.size, axis=axis)[ranks.rank])


def split_axis(name: str) -> int | None:
    """Return the axis along which parameter `name` is split; None if it is whole on every machine."""
    found = _SPLIT.fullmatch(name)
    if found is None:
        return None
    into, kind = found[1] in INTO, found[2]
    if kind == "bias" and not into:
        return None
    return 0 if into else -1


def _part(linear: nn.Module, name: str, ranks: Ranks) -> nn.Module:
    part: nn.Module = shard_linear(linear, "all-to-sharded" if name in INTO else "sharded-to-all", group=ranks.group)
    return part
