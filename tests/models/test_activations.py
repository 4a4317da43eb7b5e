"""Compares the fast exponential and the activations with NumPy in double precision and with MLX."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from streaming_vlm_mlx.models.activations import exp, quick_gelu, silu


def test_exp_over_its_range() -> None:
    x = np.linspace(-86, 86, 20_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    # In float32 the argument's own rounding already moves the result by 6e-8 of it a unit.
    assert np.all(np.abs(np.array(exp(mx.array(x))) - exact) <= (3e-7 + 1e-7 * np.abs(x)) * exact)


def test_exp_is_clipped_outside_float32() -> None:
    ends = np.array(exp(mx.array([-1e9, -200.0, 200.0], mx.float32)))
    assert np.all(np.isfinite(ends))
    assert np.all(ends[:2] < 1e-36)
    assert ends[2] > 1e36


def test_exp_is_its_own_gradient() -> None:
    x = mx.linspace(-5, 5, 101)
    slope = mx.grad(lambda x: exp(x).sum())(x)
    assert np.allclose(np.array(slope), np.exp(np.array(x, np.float64)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize(("function", "slope"), [(silu, 1.0), (quick_gelu, 1.702)], ids=["silu", "quick_gelu"])
def test_sigmoid_activations(function: Callable[[mx.array], mx.array], slope: float, dtype: mx.Dtype) -> None:
    x = mx.concatenate([mx.linspace(-30, 30, 601), mx.array([-1e4, 1e4])]).astype(dtype)
    y = function(x)
    exact = np.array(x.astype(mx.float32), np.float64)
    exact = exact / (1 + np.exp(np.minimum(-slope * exact, 700)))
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == mx.float32 else 1e-2
    assert np.allclose(np.array(y.astype(mx.float32)), exact, rtol=tolerance, atol=tolerance)


def test_silu_has_the_gradient_of_mlx() -> None:
    x = mx.linspace(-20, 20, 401)
    ours, theirs = (mx.grad(lambda x, f=f: f(x).sum())(x) for f in (silu, nn.silu))
    assert mx.allclose(ours, theirs, atol=1e-5)
