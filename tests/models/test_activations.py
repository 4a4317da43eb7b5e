"""Compares the activations with NumPy in double precision and with MLX."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from streaming_vlm_mlx.models.activations import gelu, quick_gelu, silu, swiglu


def test_what_is_computed_in_place_leaves_the_argument() -> None:
    x = mx.broadcast_to(mx.array([-1.0, 0.0, 2.0]), (20_000, 3))
    known = np.array([[-1.0, 0.0, 2.0]])
    assert np.allclose(np.array(silu(x)), known / (1 + np.exp(-known)), rtol=1e-6)
    assert mx.array_equal(x[-1], mx.array([-1.0, 0.0, 2.0]))


@pytest.mark.parametrize("count", [601, 40_001], ids=["few", "many"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize(("function", "slope"), [(silu, 1.0), (quick_gelu, 1.702)], ids=["silu", "quick_gelu"])
def test_sigmoid_activations(
    function: Callable[[mx.array], mx.array], slope: float, dtype: mx.Dtype, count: int
) -> None:
    x = mx.concatenate([mx.linspace(-30, 30, count), mx.array([-1e4, 1e4])]).astype(dtype)
    y = function(x)
    exact = np.array(x.astype(mx.float32), np.float64)
    exact = exact / (1 + np.exp(np.minimum(-slope * exact, 700)))
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == mx.float32 else 1e-2
    assert np.allclose(np.array(y.astype(mx.float32)), exact, rtol=tolerance, atol=tolerance)


def test_silu_has_the_gradient_of_mlx() -> None:
    x = mx.linspace(-20, 20, 40_001)
    ours, theirs = (mx.grad(lambda x, f=f: f(x).sum())(x) for f in (silu, nn.silu))
    assert mx.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("count", [30, 30_000], ids=["few", "many"])
def test_swiglu_has_the_values_and_gradients_of_mlx(count: int) -> None:
    gate, up, pull = (mx.random.normal((count,), key=mx.random.key(seed)) * 8 for seed in range(3))
    ours, theirs = (
        mx.value_and_grad(lambda gate, up, f=f: (f(gate, up) * pull).sum(), argnums=(0, 1))(gate, up)
        for f in (swiglu, lambda gate, up: nn.silu(gate) * up)
    )
    assert mx.allclose(ours[0], theirs[0], rtol=1e-4)
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert mx.allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("count", [101, 200_003], ids=["MLX's", "NumPy's"])
def test_gelu_has_the_values_and_slopes_of_mlx(count: int) -> None:
    x = mx.linspace(-40, 40, count)
    pull = mx.linspace(-1, 2, count)
    (ours, own_slopes), (theirs, slopes) = (
        (f(x), mx.grad(lambda x, f=f: (f(x) * pull).sum())(x)) for f in (gelu, nn.gelu)
    )
    assert mx.allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert mx.allclose(own_slopes, slopes, rtol=1e-6, atol=1e-6)
