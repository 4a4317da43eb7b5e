"""Rotary positions: M-RoPE of the decoder (Qwen2-VL, arXiv 2409.12191) and the 2-D angles of the vision tower."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt


def inverse_frequencies(width: int, theta: float) -> npt.NDArray[np.float32]:
    """Return the float32 [width // 2] angular speeds of a rotary embedding over `width` channels."""
    return (1.0 / theta ** (np.arange(0, width, 2, dtype=np.float32) / width)).astype(np.float32)


class MRope:
    """Turns positions on three axes into the cosines and sines that rotate one head."""

    def __init__(self, head_dim: int, theta: float, mrope_section: Sequence[int]) -> None:
        """Each channel pair listens to one axis: the first `mrope_section[0]` to time, then rows, then columns."""
        self._speeds = inverse_frequencies(head_dim, theta)
        self._axis = np.repeat(np.arange(3), mrope_section)

    def __call__(self, positions: npt.NDArray[np.int64]) -> tuple[mx.array, mx.array]:
        """Return cosines and sines, float32 [n, head_dim // 2], of `positions` [3, n]."""
        angles = positions.astype(np.float32)[self._axis].T * self._speeds
        return mx.array(np.cos(angles)), mx.array(np.sin(angles))


def rotate(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Rotate the channel pairs (j, j + half) of `x` [..., n, head_dim] by `cos`, `sin` [n, head_dim // 2].

    The product is taken in the angles' float32, the result has `x`'s dtype.
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return mx.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def vision_angles(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], head_dim: int, theta: float = 10_000.0
) -> tuple[mx.array, mx.array]:
    """Return cosines and sines, float32 [n, head_dim // 2]: half the pairs turn with the row, half with the column."""
    speeds = inverse_frequencies(head_dim // 2, theta)
    angles = np.concatenate([np.outer(rows, speeds), np.outer(columns, speeds)], axis=1).astype(np.float32)
    return mx.array(np.cos(angles)), mx.array(np.sin(angles))
