"""The KV cache of one stream: preallocated, pruned with one copy, optionally quantized to 8 or 4 bits."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.models.language import CACHE_STEP, layers_at_once, round_up_capacity
from streaming_vlm_mlx.models.quantization import kv_group_size
from streaming_vlm_mlx.models.rope import rotate

# The first and the last slot, not included, of tokens that follow each other.
Runs = list[tuple[int, int]]


class _Layer(ABC):
    """What the two layer caches share; `offset` is how many tokens are held."""

    offset: int

    @property
    @abstractmethod
    def state(self) -> list[mx.array]:
        """The arrays that hold the layer, tokens along axis 2, for evaluation."""

    @abstractmethod
    def rotate(self, cos: mx.array, sin: mx.array) -> None:
        """Rebuild the rotated keys from `cos` and `sin`, [offset, head_dim]; needs the unrotated keys."""

    @abstractmethod
    def _map(self, change: Callable[[mx.array], mx.array], rebuilt: bool = True) -> None:
        """Replace every array by `change` of it; without `rebuilt`, not those that `rotate` can rebuild."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, used or not."""
        return sum(a.nbytes for a in self.state)

    def reserve(self, extra: int) -> None:
        """Make room for `extra` more tokens."""
        self._map(lambda a: mx.pad(a, [(0, 0), (0, 0), (0, extra), (0, 0)]))

    def keep(self, runs: Runs, length: int) -> None:
        """Keep the `length` tokens of `runs`; the rotated keys have to be rebuilt, if they can."""

        def change(a: mx.array) -> mx.array:
            # What is not held may be anything.
            rest = a[:, :, : a.shape[2] - length]
            return mx.concatenate([*(a[:, :, start:end] for start, end in runs), rest], axis=2)

        self._map(change, rebuilt=False)
        self.offset = length


class LayerKVCache(_Layer):
    """Keys and values of one layer, [1, kv_heads, capacity, head_dim]; new tokens are written in place at `offset`.

    Attributes:
        keys: the unrotated keys, or None when they are not kept.
        rotated: the rotated keys.
        values: the values.
        offset: how many tokens are held.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: mx.Dtype, keep_unrotated: bool) -> None:
        self.keys = mx.zeros(shape, dtype) if keep_unrotated else None
        self.rotated = mx.zeros(shape, dtype)
        self.values = mx.zeros(shape, dtype)
        self.offset = 0

    @property
    def state(self) -> list[mx.array]:
        """The arrays that hold the layer, for evaluation."""
        return [a for a in (self.keys, self.rotated, self.values) if a is not None]

    def update_and_fetch(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append new tokens and return all rotated keys and values, [1, kv_heads, offset, head_dim].

        Args:
            keys: unrotated keys of the new tokens, [1, kv_heads, n, head_dim].
            rotated: the same keys, rotated to their positions.
            values: like `keys`.
        """
        end = self.offset + keys.shape[2]
        if self.keys is not None:
            self.keys[:, :, self.offset : end] = keys
        self.rotated[:, :, self.offset : end] = rotated
        self.values[:, :, self.offset : end] = values
        self.offset = end
        return self.rotated[:, :, :end], self.values[:, :, :end]

    def rotate(self, cos: mx.array, sin: mx.array) -> None:
        """See `_Layer.rotate`."""
        assert self.keys is not None
        self.rotated[:, :, : self.offset] = rotate(self.keys[:, :, : self.offset], cos, sin)

    def _map(self, change: Callable[[mx.array], mx.array], rebuilt: bool = True) -> None:
        if rebuilt or self.keys is None:
            self.rotated = change(self.rotated)
        self.keys = None if self.keys is None else change(self.keys)
        self.values = change(self.values)


class QuantizedLayerKVCache(_Layer):
    """A `LayerKVCache` that stores groups of numbers in 8 or 4 bits with a scale and a bias.

    A token is one row with all of its heads side by side, so that heads of any width divide into groups. Rows do not
    depend on one another: pruning moves them unchanged, and rotated keys are rebuilt from the unrotated ones each time,
    so rounding errors do not add up. Attention gets one layer at a time, dequantized.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: mx.Dtype, keep_unrotated: bool, bits: int, group_size: int
    ) -> None:
        """Allocate [1, kv_heads, capacity, head_dim] in groups of `group_size` numbers of `bits` bits."""
        _, self._heads, capacity, self._width = shape
        self._dtype, self._bits, self._group_size = dtype, bits, group_size
        self._keys = self._zeros(capacity) if keep_unrotated else None
        self._rotated, self._values = self._zeros(capacity), self._zeros(capacity)
        self.offset = 0

    @property
    def state(self) -> list[mx.array]:
        """The arrays that hold the layer: packed words, scales and biases of each block."""
        return [a for block in (self._keys, self._rotated, self._values) if block is not None for a in block]

    def update_and_fetch(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append new tokens and return all rotated keys and values; see `LayerKVCache.update_and_fetch`."""
        if self._keys is not None:
            self._write(self._keys, keys, self.offset)
        self._write(self._rotated, rotated, self.offset)
        self._write(self._values, values, self.offset)
        self.offset += keys.shape[2]
        return self._read(self._rotated), self._read(self._values)

    def rotate(self, cos: mx.array, sin: mx.array) -> None:
        """See `_Layer.rotate`."""
        assert self._keys is not None
        self._write(self._rotated, rotate(self._read(self._keys), cos, sin), 0)

    def _map(self, change: Callable[[mx.array], mx.array], rebuilt: bool = True) -> None:
        rotated = self._rotated if rebuilt or self._keys is None else None
        for block in (self._keys, rotated, self._values):
            if block is not None:
                block[:] = [change(array) for array in block]

    def _zeros(self, capacity: int) -> list[mx.array]:
        size = self._heads * self._width
        words = mx.zeros((1, 1, capacity, size * self._bits // 32), mx.uint32)
        return [words, *(mx.zeros((1, 1, capacity, size // self._group_size), self._dtype) for _ in range(2))]

    def _write(self, block: list[mx.array], x: mx.array, start: int) -> None:
        """Quantize `x` [1, heads, n, head_dim] into `block` at token `start`."""
        n = x.shape[2]
        rows = x.transpose(0, 2, 1, 3).reshape(1, 1, n, -1)
        for array, part in zip(block, mx.quantize(rows, self._group_size, self._bits), strict=True):
            array[:, :, start : start + n] = part

    def _read(self, block: list[mx.array]) -> mx.array:
        """Return the tokens of `block` dequantized, [1, heads, offset, head_dim]."""
        words, scales, biases = (array[:, :, : self.offset] for array in block)
        rows = mx.dequantize(words, scales, biases, self._group_size, self._bits)
        return rows.reshape(1, -1, self._heads, self._width).transpose(0, 2, 1, 3)


class KVCache:
    """The cache of one stream: a `LayerKVCache` or a `QuantizedLayerKVCache` for each layer.

    Attributes:
        layers: of the model, in order.
        needs_rotation: whether `rotate` has to be called before the next token, because tokens moved.

    When positions are recounted after pruning, the unrotated keys are kept beside the rotated ones: a span that moved
    gets its rotated keys rebuilt once a second, and each generated token then costs one token.
    """

    def __init__(
        self,
        config: TextConfig,
        dtype: mx.Dtype,
        capacity: int = CACHE_STEP,
        keep_unrotated: bool = True,
        bits: int | None = None,
    ) -> None:
        """Allocate room for `capacity` tokens, rounded up to a multiple of 256, as `dtype` or quantized to `bits`.

        Raises:
            SvmError: the model's keys do not divide into groups of `bits`.
        """
        self._capacity = round_up_capacity(capacity)
        self._can_rotate, self.needs_rotation = keep_unrotated, False
        self._width = config.num_key_value_heads * config.head_dim
        shape = (1, config.num_key_value_heads, self._capacity, config.head_dim)
        group_size = kv_group_size(config, bits) if bits else 0
        self.layers: list[LayerKVCache | QuantizedLayerKVCache] = [
            QuantizedLayerKVCache(shape, dtype, keep_unrotated, bits, group_size)
            if bits
            else LayerKVCache(shape, dtype, keep_unrotated)
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def length(self) -> int:
        """How many tokens are held."""
        return self.layers[0].offset

    @property
    def capacity(self) -> int:
        """How many tokens fit before the cache grows."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of all layers, used or not."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def state(self) -> list[mx.array]:
        """All arrays of all layers, for evaluation."""
        return [a for layer in self.layers for a in layer.state]

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` tokens in all."""
        if tokens <= self._capacity:
            return
        extra = round_up_capacity(tokens) - self._capacity
        self._capacity += extra
        self._in_groups(lambda layer: layer.reserve(extra))

    def keep(self, slots: npt.NDArray[np.int32]) -> None:
        """Keep the tokens at `slots` in that order, and drop the others; the first ones are kept without a copy."""
        length = len(slots)
        if np.array_equal(slots, np.arange(length)):
            for layer in self.layers:
                layer.offset = length
            return
        ends = [*(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), length]
        runs = [(int(slots[a]), int(slots[b - 1]) + 1) for a, b in itertools.pairwise([0, *ends])]
        self._in_groups(lambda layer: layer.keep(runs, length))
        self.needs_rotation = self._can_rotate

    def rotate(self, cos: mx.array, sin: mx.array) -> None:
        """Rebuild the rotated keys from `cos` and `sin`, [length, head_dim]; needs the unrotated keys."""
        self._in_groups(lambda layer: layer.rotate(cos, sin))
        self.needs_rotation = False

    def _in_groups(self, change: Callable[[_Layer], None]) -> None:
        """Change every layer, and evaluate a group of them at a time."""
        size = layers_at_once(self._capacity * self._width, mx.default_device().type == mx.DeviceType.gpu)
        for start in range(0, len(self.layers), size):
            group = self.layers[start : start + size]
            for layer in group:
                change(layer)
            mx.eval([layer.state for layer in group])
