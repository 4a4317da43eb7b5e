"""Compares the error of packed weights, dequantized by MLX, with that of MLX's own quantization."""

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from streaming_vlm_mlx.models import quantization as packing
from streaming_vlm_mlx.models.quantization import Packed, pack

ROWS, WIDTH = 96, 256
DTYPES = [mx.float32, mx.bfloat16, mx.float16]


def make(dtype: mx.Dtype, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal((ROWS, WIDTH), np.float32)).astype(dtype)


def off(packed: Packed, weight: mx.array, bits: int, group_size: int) -> npt.NDArray[np.float64]:
    """Return the squared error of each group, as `mx.dequantize` reads it with float32 for what it multiplies."""
    words, scales, biases = packed
    read = mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), group_size, bits)
    squares = np.square(np.array(read - weight.astype(mx.float32), np.float64))
    return squares.reshape(weight.shape[0], -1, group_size).sum(axis=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("bits", "group_size"), [(8, 32), (8, 64), (4, 32), (4, 128)])
def test_no_group_is_farther_than_mlx_packs_it(dtype: mx.Dtype, bits: int, group_size: int) -> None:
    weight = make(dtype)
    found, mlx = pack(weight, bits, group_size), mx.quantize(weight, group_size, bits)
    assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in mlx]
    ours, theirs = off(found, weight, bits, group_size), off(mlx, weight, bits, group_size)
    assert (ours <= theirs + 1e-9).all()
    assert (ours < theirs).mean() > 0.95


@pytest.mark.parametrize(("dtype", "share"), [(mx.float32, 0.83), (mx.bfloat16, 0.68), (mx.float16, 0.83)], ids=str)
def test_8_bits_are_nearer_by_a_fifth_or_a_third(dtype: mx.Dtype, share: float) -> None:
    weight = make(dtype, seed=1)
    ours, theirs = (off(each, weight, 8, 32).mean() for each in (pack(weight, 8, 32), mx.quantize(weight, 32, 8)))
    assert ours**0.5 < share * theirs**0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_groups_that_have_no_span_are_met_exactly(dtype: mx.Dtype, bits: int) -> None:
    weight = make(dtype)
    weight[0], weight[1], weight[2, :32] = 0, 0.37, -2
    read = mx.dequantize(*pack(weight, bits, 32), 32, bits)
    assert mx.array_equal(read[:2], weight[:2])
    assert mx.array_equal(read[2, :32], weight[2, :32])
    assert mx.isfinite(read).all()


def test_a_weight_far_from_the_others_is_kept() -> None:
    weight = make(mx.float32)
    weight[::3, 5], weight[1::3, 40] = 50, -1e4
    ours, theirs = (off(each, weight, 8, 32) for each in (pack(weight, 8, 32), mx.quantize(weight, 32, 8)))
    assert (ours <= theirs * (1 + 1e-6)).all()


def test_stripes_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = make(mx.bfloat16)
    whole = pack(weight, 4, 64)
    monkeypatch.setattr(packing, "_STRIPE", 7 * WIDTH + 3)
    for one, other in zip(pack(weight, 4, 64), whole, strict=True):
        assert mx.array_equal(one, other)
