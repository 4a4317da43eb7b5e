"""The KV cache of one stream: preallocated blocks, pruned with one gather, rotated once a second."""

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.model.rope import rotate
from streaming_vlm_mlx.stream.quantized import QuantizedBlocks, group_size_for

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

    def clear(self) -> None:
        """Forget every token; the blocks stay."""
        for layer in self.layers:
            layer.offset = 0


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
