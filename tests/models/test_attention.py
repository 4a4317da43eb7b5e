"""Compares attention with MLX's own."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.models.attention import Causal, attention

counts = st.integers(1, 5)


@settings(max_examples=40, deadline=None)
@example(1, 2, 300, 0, "causal", 0)
@example(2, 1, 257, 40, "causal", 1)
@example(1, 1, 300, 7, "added", 2)
@given(counts, counts, counts, st.integers(0, 6), st.sampled_from([None, "causal", "added"]), st.integers(0, 99))
def test_attention(batch: int, kv_heads: int, n: int, cached: int, mask: str | None, seed: int) -> None:
    draw = np.random.default_rng(seed)
    q = mx.array(draw.standard_normal((batch, 2 * kv_heads, n, 8), np.float32))
    k, v = mx.array(draw.standard_normal((2, batch, kv_heads, n + cached, 8), np.float32))
    masked = np.where(draw.random((batch, 1, n, n + cached)) < 0.5, -1e9, 0) * (np.arange(n + cached) > 0)
    given_mask = mx.array(masked.astype(np.float32)) if mask == "added" else mask
    ours = attention(q, k, v, scale=0.3, mask=given_mask)
    theirs = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=given_mask)
    assert ours.shape == q.shape
    assert mx.allclose(ours, theirs, atol=1e-5)


def test_attention_in_half_precision_is_mlx_own() -> None:
    q, k, v = (mx.random.normal((1, 2, 4, 8), key=mx.random.key(s)).astype(mx.bfloat16) for s in range(3))
    theirs = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask="causal")
    assert mx.array_equal(attention(q, k, v, scale=1.0, mask="causal"), theirs)


@pytest.mark.parametrize("n", [40, 300])
def test_a_causal_mask_with_more_zeros_is_computed_in_blocks(n: int) -> None:
    rng = np.random.default_rng(n)
    q, k, v = (mx.array(rng.standard_normal((2, 2, n, 8)).astype(np.float32)) for _ in range(3))
    seen = np.tril(rng.random((2, 1, n, n)) < 0.7) | np.eye(n, dtype=bool)
    mask = mx.array(np.where(seen, 0, -1e9).astype(np.float32))
    ours = attention(q, k, v, 0.3, Causal(mask))
    theirs = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask)
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-5)


@pytest.mark.parametrize("mask", [None, "causal"])
def test_attention_has_the_gradients_of_mlx(mask: str | None) -> None:
    rng = np.random.default_rng(3)
    q = mx.array(rng.standard_normal((2, 4, 150, 8)).astype(np.float32))
    k, v = (mx.array(rng.standard_normal((2, 2, 150, 8)).astype(np.float32)) for _ in range(2))
    pull = mx.array(rng.standard_normal(q.shape).astype(np.float32))

    def loss(function):
        return mx.checkpoint(lambda q, k, v: (function(q, k, v, scale=0.3, mask=mask) * pull).sum())

    ours, theirs = (
        mx.grad(loss(f), argnums=(0, 1, 2))(q, k, v) for f in (attention, mx.fast.scaled_dot_product_attention)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=2e-5)
