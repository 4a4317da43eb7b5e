"""A layer's keys and values in 8 or 4 bits, for long windows in little memory."""

from collections.abc import Callable

import mlx.core as mx

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.rope import rotate

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
