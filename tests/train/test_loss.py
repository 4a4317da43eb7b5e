"""The cross entropy and its gradient, against float64 in NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.train.loss import cross_entropy

# Rows and classes: one part, several parts of several rows, and rows that are longer than a part.
SHAPES = {"small": (5, 7), "parts": (50, 20_000), "long rows": (3, 300_000), "one class": (4, 1)}


@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradient_are_those_of_float64(name: str) -> None:
    rows, classes = SHAPES[name]
    draw = np.random.default_rng(3)
    logits = 4 * draw.standard_normal((rows, classes), np.float32)
    logits[0, 0], logits[-1, -1] = 200.0, -300.0
    targets, weights = draw.integers(0, classes, rows), draw.uniform(-1, 2, rows).astype(np.float32)

    def weighted(array: mx.array) -> mx.array:
        return (cross_entropy(array, mx.array(targets)) * mx.array(weights)).sum()

    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    found = np.array(cross_entropy(mx.array(logits), mx.array(targets)))
    assert np.allclose(found, -exact[np.arange(rows), targets], rtol=1e-6, atol=1e-5)
    expected = np.exp(exact) * weights[:, None]
    expected[np.arange(rows), targets] -= weights
    total, grads = mx.value_and_grad(weighted)(mx.array(logits))
    assert np.allclose(np.array(grads), expected, rtol=1e-4, atol=1e-7)
    assert total.item() == pytest.approx(float(found @ weights), rel=1e-5)


def test_the_logits_stay_as_they_are() -> None:
    logits = mx.random.normal((6, 40), key=mx.random.key(0))
    before = np.array(logits)
    mx.eval(mx.grad(lambda array: cross_entropy(array, mx.array([1] * 6)).sum())(logits))
    assert np.array_equal(np.array(logits), before)
