"""Rotary embeddings: M-RoPE for the decoder (Qwen2-VL, arXiv 2409.12191) and 2-D RoPE for the vision tower."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

# What `rotate` rotates by: the factors of each channel and of its partner, or the wavelengths and one token's position.
Angles = tuple[mx.array, mx.array | int]


def inverse_frequencies(width: int, theta: float) -> npt.NDArray[np.float32]:
    """Return the inverse frequencies of a rotary embedding over `width` channels, float32 [width // 2]."""
    return (1.0 / theta ** (np.arange(0, width, 2, dtype=np.float32) / width)).astype(np.float32)


class MRope:
    """Turns positions on three axes into the cosines and sines that rotate a head."""

    def __init__(self, head_dim: int, theta: float, mrope_section: Sequence[int], interleaved: bool = False) -> None:
        """Give each channel pair an axis: `mrope_section` pairs for time, for rows and for columns.

        The pairs of an axis are a run; with `interleaved` (Qwen3-VL) rows take the pairs 1, 4, 7 …, columns 2, 5, 8 …,
        and time all others.
        """
        self._inv_freq = inverse_frequencies(head_dim, theta)
        self._wavelengths = mx.array(1 / self._inv_freq)
        self._axis = np.repeat(np.arange(3), mrope_section)
        if interleaved:
            self._axis = np.zeros(head_dim // 2, np.int64)
            for axis in (1, 2):
                self._axis[axis : 3 * mrope_section[axis] : 3] = axis

    def __call__(self, positions: npt.NDArray[np.int64]) -> tuple[mx.array, mx.array]:
        """Return cosines and sines for `rotate`, float32 [n, head_dim], of `positions` [3, n]."""
        return _factors(positions.astype(np.float32)[self._axis].T * self._inv_freq)

    def at(self, position: int, fused: bool | None = None) -> Angles:
        """Return what one token at `position` on all three axes is rotated by.

        Args:
            position: on each axis.
            fused: whether MLX's kernel does it, a single operation on a GPU; None for what is faster on this device.
        """
        if fused if fused is not None else mx.default_device().type == mx.DeviceType.gpu:
            return self._wavelengths, position
        return self(np.full((3, 1), position))


def rotate(x: mx.array, cos: mx.array, sin: mx.array | int) -> mx.array:
    """Rotate the channel pairs (j, j + half) of `x` [..., n, head_dim] by `cos`, `sin` [n, head_dim].

    It is computed in float32 and returned in the dtype of `x`. With a position as `sin`, `cos` are wavelengths.
    """
    if isinstance(sin, int):
        return mx.fast.rope(x, x.shape[-1], traditional=False, base=None, scale=1.0, offset=sin, freqs=cos)
    return (x * cos + mx.roll(x, x.shape[-1] // 2, -1) * sin).astype(x.dtype)


def _factors(angles: npt.NDArray[np.float32]) -> tuple[mx.array, mx.array]:
    """Return the factors of each channel and of its partner, [n, head_dim], for `angles` of the pairs [n, half]."""
    cos, sin = np.cos(angles), np.sin(angles)
    return mx.array(np.concatenate([cos, cos], axis=1)), mx.array(np.concatenate([-sin, sin], axis=1))


def vision_angles(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], head_dim: int, theta: float = 10_000.0
) -> tuple[mx.array, mx.array]:
    """Return cosines and sines for `rotate`, float32 [n, head_dim]; half of the pairs take the row, half the column."""
    inv_freq = inverse_frequencies(head_dim // 2, theta)
    angles = np.concatenate([np.outer(rows, inv_freq), np.outer(columns, inv_freq)], axis=1).astype(np.float32)
    return _factors(angles)
