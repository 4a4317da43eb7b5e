"""A layer's keys and values in 8 or 4 bits, for long windows in little memory."""

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.rope import rotate

GROUP_SIZES = (64, 32)


class QuantizedBlocks:
    """What `cache.LayerBlocks` is, its numbers kept in groups of few bits with a scale and a bias each.

    A token is one row, all of its heads side by side, so that heads of any width fall into groups. Rows never depend on
    one another: pruning moves them as they are, and keys are turned from the unrotated ones each time, so that nothing
    grows worse the longer it is held. Attention is given the rows of one layer at a time at full width.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: mx.Dtype, keep_unrotated: bool, bits: int, group_size: int
    ) -> None:
        """Reserve blocks for [1, kv_heads, capacity, head_dim], in groups of `group_size` numbers of `bits`."""
        _, self._heads, capacity, self._width = shape
        self._dtype, self._bits, self._group_size = dtype, bits, group_size
        self._keys = self._empty(capacity) if keep_unrotated else None
        self._rotated, self._values = self._empty(capacity), self._empty(capacity)
        self.offset = 0

    def update(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the new tokens' [1, heads, n, head_dim] and return all rotated keys and values, the new ones last."""
        if self._keys is not None:
            self._write(self._keys, keys)
        self._write(self._rotated, rotated)
        self._write(self._values, values)
        self.offset += keys.shape[2]
        return self._read(self._rotated), self._read(self._values)

    def arrays(self) -> list[mx.array]:
        """Return the blocks: each is a word array, its scales and its biases."""
        return [a for block in (self._keys, self._rotated, self._values) if block is not None for a in block]

    def map(self, change: Callable[[mx.array], mx.array]) -> None:
        """Replace every block by `change` of it."""
        for block in (self._keys, self._rotated, self._values):
            if block is not None:
                block[:] = [change(array) for array in block]
        mx.eval(self.arrays())

    def turn(self, cos: mx.array, sin: mx.array) -> None:
        """Build the rotated keys anew from angles [offset, head_dim // 2]; unrotated keys must be kept."""
        assert self._keys is not None
        self._write(self._rotated, rotate(self._read(self._keys), cos, sin), at=0)
        mx.eval(self._rotated)

    def _empty(self, capacity: int) -> list[mx.array]:
        size = self._heads * self._width
        words = mx.zeros((1, 1, capacity, size * self._bits // 32), mx.uint32)
        return [words, *(mx.zeros((1, 1, capacity, size // self._group_size), self._dtype) for _ in range(2))]

    def _write(self, block: list[mx.array], x: mx.array, at: int | None = None) -> None:
        """Put `x` [1, heads, n, head_dim] into `block`, behind what it holds or from token `at` on."""
        n, start = x.shape[2], self.offset if at is None else at
        rows = x.transpose(0, 2, 1, 3).reshape(1, 1, n, -1)
        for array, part in zip(block, mx.quantize(rows, self._group_size, self._bits), strict=True):
            array[:, :, start : start + n] = part

    def _read(self, block: list[mx.array]) -> mx.array:
        """Return what `block` holds, [1, heads, offset, head_dim]."""
        words, scales, biases = (array[:, :, : self.offset] for array in block)
        rows = mx.dequantize(words, scales, biases, self._group_size, self._bits)
        return rows.reshape(1, -1, self._heads, self._width).transpose(0, 2, 1, 3)


def group_size_for(config: TextConfig, bits: int) -> int:
    """Return the largest group that a token's keys divide into.

    Raises:
        SvmError: there is none.
    """
    size = config.num_key_value_heads * config.head_dim
    for group_size in GROUP_SIZES:
        if size % group_size == 0:
            return group_size
    raise SvmError(
        f"kv_bits is {bits}, but this model's keys, {size} numbers a token, do not divide into groups of "
        f"{GROUP_SIZES[-1]}; leave kv_bits out."
    )


STEP = 256


class Blocks(Protocol):
    """Keys and values of one layer, the tokens along axis 2 of every array, `offset` of them in use."""

    offset: int

    def update(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the new tokens' [1, heads, n, head_dim] and return all rotated keys and values, the new ones last."""
        ...

    def arrays(self) -> list[mx.array]:
        """Return what the layer is kept in."""
        ...

    def map(self, change: Callable[[mx.array], mx.array]) -> None:
        """Replace every array by `change` of it."""

    def turn(self, cos: mx.array, sin: mx.array) -> None:
        """Build the rotated keys anew from angles [offset, head_dim // 2]; unrotated keys must be kept."""


class LayerBlocks:
    """Keys and values of one layer, [1, kv_heads, capacity, head_dim]; written in place behind `offset`."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: mx.Dtype, keep_unrotated: bool) -> None:
        self.keys = mx.zeros(shape, dtype) if keep_unrotated else None
        self.rotated = mx.zeros(shape, dtype)
        self.values = mx.zeros(shape, dtype)
        self.offset = 0

    def update(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the new tokens' [1, heads, n, head_dim] and return all rotated keys and values, the new ones last."""
        end = self.offset + keys.shape[2]
        if self.keys is not None:
            self.keys[:, :, self.offset : end] = keys
        self.rotated[:, :, self.offset : end] = rotated
        self.values[:, :, self.offset : end] = values
        self.offset = end
        return self.rotated[:, :, :end], self.values[:, :, :end]

    def arrays(self) -> list[mx.array]:
        """Return the blocks."""
        return [a for a in (self.keys, self.rotated, self.values) if a is not None]

    def map(self, change: Callable[[mx.array], mx.array]) -> None:
        """Replace every block by `change` of it."""
        if self.keys is not None:
            self.keys = change(self.keys)
        self.rotated, self.values = change(self.rotated), change(self.values)
        mx.eval(self.arrays())

    def turn(self, cos: mx.array, sin: mx.array) -> None:
        """Build the rotated keys anew from angles [offset, head_dim // 2]; unrotated keys must be kept."""
        assert self.keys is not None
        self.rotated[:, :, : self.offset] = rotate(self.keys[:, :, : self.offset], cos, sin)
        mx.eval(self.rotated)


class KVCache:
    """The cache of one stream, `Blocks` a layer.

    Unrotated keys are kept beside the rotated ones where positions are counted anew: a pruned span then moves by
    building the rotated keys once, and a generated token costs one token.
    """

    def __init__(
        self,
        config: TextConfig,
        dtype: mx.Dtype,
        capacity: int = STEP,
        keep_unrotated: bool = True,
        bits: int | None = None,
    ) -> None:
        """Reserve `capacity` tokens, rounded up to a multiple of 256, as `dtype` or in `bits` a number.

        Raises:
            SvmError: the model's keys do not divide into groups of `bits`.
        """
        self._capacity = _round_up(capacity)
        shape = (1, config.num_key_value_heads, self._capacity, config.head_dim)
        group_size = group_size_for(config, bits) if bits else 0
        self.layers: list[Blocks] = [
            QuantizedBlocks(shape, dtype, keep_unrotated, bits, group_size)
            if bits
            else LayerBlocks(shape, dtype, keep_unrotated)
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0].offset

    @property
    def capacity(self) -> int:
        """Tokens that fit before the blocks grow."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, used or not."""
        return sum(a.nbytes for layer in self.layers for a in layer.arrays())

    @property
    def state(self) -> list[mx.array]:
        """Every block, for evaluation."""
        return [a for layer in self.layers for a in layer.arrays()]

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in all, a layer at a time, so that only one layer is held twice."""
        if tokens <= self._capacity:
            return
        extra = _round_up(tokens) - self._capacity
        self._capacity += extra
        for layer in self.layers:
            layer.map(lambda a: mx.pad(a, [(0, 0), (0, 0), (0, extra), (0, 0)]))

    def keep(self, slots: npt.NDArray[np.int32]) -> None:
        """Keep the tokens at `slots`, in that order, and drop the rest."""
        if len(slots) == self.length and np.array_equal(slots, np.arange(self.length)):
            return
        index = mx.array(np.pad(slots, (0, self._capacity - len(slots))))
        for layer in self.layers:
            # What `take` gives lies with the tokens first in memory; products over the blocks would copy it each time.
            layer.map(lambda a: mx.contiguous(mx.take(a, index, axis=2)))
            layer.offset = len(slots)

    def rotate(self, cos: mx.array, sin: mx.array) -> None:
        """Build the rotated keys anew from angles [length, head_dim // 2]; the cache must keep unrotated keys."""
        for layer in self.layers:
            layer.turn(cos, sin)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
