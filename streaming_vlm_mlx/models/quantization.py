"""Quantized layers: which ones, and packing with a smaller error than `mx.quantize`."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.weights import sanitize_name
from streaming_vlm_mlx.quantization_config import LayerQuantization, QuantizationConfig


def quantizable(model: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """Yield the name and the layer of each layer of `model` that can be quantized."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield name, module


def quantize_layers(model: nn.Module, config: QuantizationConfig) -> None:
    """Replace the layers that `config` names by quantized ones; nothing is computed yet.

    Raises:
        SvmError: the inputs of a layer do not divide into groups.
    """
    for name, layer in quantizable(model):
        chosen = config.of(name)
        width = layer.weight.shape[1]
        if chosen and width % chosen.group_size:
            raise SvmError(
                f"quantization: the {width} inputs of {name} do not divide into groups of {chosen.group_size}; "
                "choose another group size, or leave the weights plain."
            )

    def settings(name: str, module: nn.Module) -> bool | dict[str, Any]:
        chosen = config.of(name) if isinstance(module, nn.Linear | nn.Embedding) else None
        return asdict(chosen) if chosen else False

    nn.quantize(model, class_predicate=settings)


def resolve_quantization(config: QuantizationConfig, plain: nn.Module, stored: Collection[str]) -> QuantizationConfig:
    """Return `config` with all plain layers listed; some folders show them only by the tensors that they lack.

    Args:
        config: the quantization block of a ``config.json``; its layers may have the names of any program.
        plain: the model without quantized layers.
        stored: names of the tensors in the folder.
    """
    layers = {sanitize_name(name): part for name, part in config.layers.items() if isinstance(part, Mapping)}
    absent = {name: False for name, _ in quantizable(plain) if f"{name}.scales" not in stored}
    return replace(config, layers=layers | absent)


def dequantize(
    words: mx.array, scales: mx.array, biases: mx.array | None, how: LayerQuantization, dtype: mx.Dtype | None = None
) -> mx.array:
    """Return the weight [rows, width] of a layer that is quantized as `how` says; `dtype` None is MLX's choice."""
    return mx.dequantize(words, scales, biases, how.group_size, how.bits, how.mode, dtype=dtype)


_KV_GROUP_SIZES = (64, 32)


def kv_group_size(config: TextConfig, bits: int) -> int:
    """Return the largest group size that divides the keys of a token, for a KV cache of `bits` bits.

    Raises:
        SvmError: none divides them.
    """
    size = config.num_key_value_heads * config.head_dim
    for group_size in _KV_GROUP_SIZES:
        if size % group_size == 0:
            return group_size
    raise SvmError(
        f"kv_bits is {bits}, but the keys of this model, {size} numbers a token, do not divide into groups of "
        f"{_KV_GROUP_SIZES[-1]}; leave kv_bits out."
    )


# Weights that are packed at a time, so that intermediate results take few megabytes.
_STRIPE = 1 << 17
_WIDTHS, _SHIFTS = 8, 4
# Steps by which the narrowest grid is shorter than the range of its group, and the widest is longer.
_SHORT, _BEYOND = 1, 7
_FITS = 2

Packed = tuple[mx.array, mx.array, mx.array]


def pack(weight: mx.array, bits: int, group_size: int) -> Packed:
    """Return `weight` [rows, width] packed for `mx.dequantize`: words, and scales and biases in its dtype.

    For each group, the squared error is at most that of `mx.quantize`.

    Args:
        weight: weight of a linear layer or an embedding; its width divides into groups.
        bits: bits a weight, 4 or 8.
        group_size: weights that share a scale and a bias.
    """
    rows = max(1, _STRIPE // weight.shape[1])
    starts = range(0, weight.shape[0], rows)
    stripes = [_pack_rows(weight[start : start + rows], bits, group_size) for start in starts]
    words, scales, biases = (mx.concatenate(list(parts)) for parts in zip(*stripes, strict=True))
    return words, scales, biases


@dataclass(frozen=True)
class _Grids:
    """A grid for each group, float32 [rows, groups, 1]; `error` is the sum of squared errors."""

    scale: mx.array
    bias: mx.array
    error: mx.array

    def or_better(self, other: "_Grids") -> "_Grids":
        """Return the grid with the smaller error for each group."""
        better = other.error < self.error
        pairs = ((other.scale, self.scale), (other.bias, self.bias), (other.error, self.error))
        chosen = [mx.where(better, *pair) for pair in pairs]
        mx.eval(chosen)
        return _Grids(*chosen)


@dataclass(frozen=True)
class _Groups:
    """The weights of a stripe, float32 [rows, groups, group_size], the largest code and the dtype of the grids."""

    x: mx.array
    top: int
    dtype: mx.Dtype

    def grids(self, scale: mx.array, bias: mx.array) -> _Grids:
        """Return the grids of `scale` and `bias`, rounded to the dtype that they are stored in."""
        scale, bias = (part.astype(self.dtype).astype(mx.float32) for part in (scale, bias))
        places = (self.x - bias) / scale
        off = scale * (mx.clip(mx.round(places), 0, self.top) - places)
        return _Grids(scale, bias, mx.square(off).sum(axis=-1, keepdims=True))

    def codes(self, grids: _Grids) -> mx.array:
        """Return the nearest step of the grid for each weight."""
        return mx.clip(mx.round((self.x - grids.bias) / grids.scale), 0, self.top)

    def tried(self) -> Iterator[_Grids]:
        """Yield candidate grids of several widths, each shifted by fractions of a step."""
        low, high = self.x.min(axis=-1, keepdims=True), self.x.max(axis=-1, keepdims=True)
        middle, span = (low + high) / 2, high - low
        for width in range(_WIDTHS):
            steps = self.top - (width * (_SHORT + _BEYOND) / (_WIDTHS - 1) - _SHORT)
            scale = span / steps
            for shift in range(_SHIFTS):
                yield self.grids(scale, middle + scale * ((shift + 0.5) / _SHIFTS - 0.5 - self.top / 2))

    def fitted(self, grids: _Grids) -> _Grids:
        """Return the least-squares fit of the weights over their codes."""
        codes = self.codes(grids)
        center, mean = codes.mean(axis=-1, keepdims=True), self.x.mean(axis=-1, keepdims=True)
        along = ((codes - center) * (self.x - mean)).sum(axis=-1, keepdims=True)
        scale = along / mx.square(codes - center).sum(axis=-1, keepdims=True)
        return self.grids(scale, mean - scale * center)


def _pack_rows(weight: mx.array, bits: int, group_size: int) -> Packed:
    _, *grid = mx.quantize(weight, group_size, bits)
    x = weight.astype(mx.float32).reshape(weight.shape[0], -1, group_size)
    groups = _Groups(x, 2**bits - 1, weight.dtype)
    best = groups.grids(*(part[..., None] for part in grid))
    for tried in groups.tried():
        best = best.or_better(tried)
    for _ in range(_FITS):
        best = best.or_better(groups.fitted(best))
    scale, bias = (part.squeeze(-1).astype(weight.dtype) for part in (best.scale, best.bias))
    found = _words(groups.codes(best).reshape(weight.shape), bits), scale, bias
    mx.eval(found)
    return found


def _words(codes: mx.array, bits: int) -> mx.array:
    """Return `codes` [rows, width] packed into words, the first code in the lowest bits."""
    each = codes.astype(mx.uint32).reshape(codes.shape[0], -1, 32 // bits)
    return mx.left_shift(each, mx.arange(32 // bits, dtype=mx.uint32) * bits).sum(axis=-1)
