"""Weights in few bits, in MLX's own format; each group's grid is searched for, where MLX lays it from end to end.

A group's numbers become steps of a grid, ``scale · code + bias``. How near they come to a step is a matter of luck, so
that the best of many grids, a little wider or a little shifted, is nearer by a fifth; by a third where scale and bias
are bfloat16, whose own rounding then takes part in the choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

# Weights that are looked at together, so that what is computed on the way takes few megabytes.
_STRIPE = 1 << 17
_WIDTHS, _SHIFTS = 8, 4
# How many steps the narrowest grid is short of its group's span, and the widest beyond.
_SHORT, _BEYOND = 1, 7
_FITS = 2

Packed = tuple[mx.array, mx.array, mx.array]


def pack(weight: mx.array, bits: int, group_size: int) -> Packed:
    """Return `weight` [rows, width] as `mx.dequantize` reads it: words, and scales and biases in its dtype.

    No group is farther from its weights than where `mx.quantize` packs it.

    Args:
        weight: of a linear layer or an embedding; its width divides into groups.
        bits: of a weight, 4 or 8.
        group_size: weights that share a scale and a bias.
    """
    rows = max(1, _STRIPE // weight.shape[1])
    starts = range(0, weight.shape[0], rows)
    stripes = [_pack_rows(weight[start : start + rows], bits, group_size) for start in starts]
    words, scales, biases = (mx.concatenate(list(parts)) for parts in zip(*stripes, strict=True))
    return words, scales, biases


@dataclass(frozen=True)
class _Grids:
    """A grid for each group, in float32 [rows, groups, 1]; `error` is the sum of its squared distances."""

    scale: mx.array
    bias: mx.array
    error: mx.array

    def or_better(self, other: "_Grids") -> "_Grids":
        """Return the nearer of both for each group."""
        better = other.error < self.error
        pairs = ((other.scale, self.scale), (other.bias, self.bias), (other.error, self.error))
        chosen = [mx.where(better, *pair) for pair in pairs]
        mx.eval(chosen)
        return _Grids(*chosen)


@dataclass(frozen=True)
class _Groups:
    """The weights of a stripe in float32 [rows, groups, group_size], and what their codes and grids can hold."""

    x: mx.array
    top: int
    dtype: mx.Dtype

    def grids(self, scale: mx.array, bias: mx.array) -> _Grids:
        """Return the grids of `scale` and `bias`, rounded as they will be stored."""
        scale, bias = (part.astype(self.dtype).astype(mx.float32) for part in (scale, bias))
        places = (self.x - bias) / scale
        off = scale * (mx.clip(mx.round(places), 0, self.top) - places)
        return _Grids(scale, bias, mx.square(off).sum(axis=-1, keepdims=True))

    def codes(self, grids: _Grids) -> mx.array:
        """Return the step that each weight is nearest to."""
        return mx.clip(mx.round((self.x - grids.bias) / grids.scale), 0, self.top)

    def tried(self) -> Iterator[_Grids]:
        """Yield grids of several widths, each shifted by parts of a step."""
        low, high = self.x.min(axis=-1, keepdims=True), self.x.max(axis=-1, keepdims=True)
        middle, span = (low + high) / 2, high - low
        for width in range(_WIDTHS):
            steps = self.top - (width * (_SHORT + _BEYOND) / (_WIDTHS - 1) - _SHORT)
            scale = span / steps
            for shift in range(_SHIFTS):
                yield self.grids(scale, middle + scale * ((shift + 0.5) / _SHIFTS - 0.5 - self.top / 2))

    def fitted(self, grids: _Grids) -> _Grids:
        """Return the line through the weights over their codes, by least squares."""
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
    """Return `codes` [rows, width] side by side in words, the first in the lowest bits."""
    each = codes.astype(mx.uint32).reshape(codes.shape[0], -1, 32 // bits)
    return mx.left_shift(each, mx.arange(32 // bits, dtype=mx.uint32) * bits).sum(axis=-1)
