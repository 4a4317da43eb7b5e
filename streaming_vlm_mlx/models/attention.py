"""Softmax attention that gives the same result on every device, and is fast on a CPU.

MLX's CPU kernels call the C library for every exponential, which takes 10 to 14 ns; additions and products take 0.1 to
0.3 ns. On a CPU, float32 attention therefore uses the exponential of `activations`; on a GPU, and for any other dtype,
it uses MLX's kernel.
"""

from dataclasses import dataclass

import mlx.core as mx

from streaming_vlm_mlx.models.activations import exp, uses_products

_MASKED = -1e9
# A causal mask is computed for so many queries at a time; products with the keys after a block are skipped.
QUERY_BLOCK = 128


@dataclass(frozen=True)
class Causal:
    """A causal mask that also masks earlier keys; `additive` is added to the scores, [batch, 1, n, n]."""

    additive: mx.array


Mask = mx.array | str | Causal


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask | None = None) -> mx.array:
    """Return softmax attention [batch, heads, n, head_dim], like `mx.fast.scaled_dot_product_attention`.

    Args:
        q: queries [batch, heads, n, head_dim].
        k: keys [batch, kv_heads, m, head_dim]; heads // kv_heads query heads share one.
        v: values, like `k`.
        scale: factor of the scores.
        mask: an array added to the scores, broadcast to [batch, 1, n, m]; or "causal", where the last query sees every
            key; or `Causal`, where n equals m.
    """
    additive = mask.additive if isinstance(mask, Causal) else None
    # For a single query, one call of MLX's kernel is faster than many small operations.
    if not uses_products(q) or q.shape[2] == 1:
        mask = additive if isinstance(mask, Causal) else mask
        mask = mask.astype(q.dtype) if isinstance(mask, mx.array) else mask
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if mask is None or isinstance(mask, mx.array) or q.shape[2] <= QUERY_BLOCK:
        return _attention(q, k, v, scale, additive if isinstance(mask, Causal) else mask)
    n, past = q.shape[2], k.shape[2] - q.shape[2]
    blocks = ((start, min(start + QUERY_BLOCK, n)) for start in range(0, n, QUERY_BLOCK))
    parts = []
    for a, b in blocks:
        own = mask if isinstance(mask, str) else mask.additive[:, :, a:b, :b]
        parts.append(_attention(q[:, :, a:b], k[:, :, : past + b], v[:, :, : past + b], scale, own))
    return mx.concatenate(parts, axis=2)


def _attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    batch, heads, n, width = q.shape
    kv_heads, m = k.shape[1], k.shape[2]
    # Query heads that share a key head are stacked: one product a key head, and no key is repeated.
    scores = (q * scale).reshape(batch, kv_heads, -1, width) @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = scores.reshape(batch, kv_heads, -1, n, m)
        scores = scores + (_causal(n, m) if isinstance(mask, str) else mask[..., None, :, :])
        scores = scores.reshape(batch, kv_heads, -1, m)
    weights = exp(scores - mx.stop_gradient(scores.max(axis=-1, keepdims=True)))
    out = (weights @ v) / weights.sum(axis=-1, keepdims=True)
    return out.reshape(batch, heads, n, width)


def _causal(n: int, m: int) -> mx.array:
    """Return the additive causal mask [n, m], made without a comparison, which is slow on a CPU."""
    ahead = mx.arange(m, dtype=mx.float32)[None] - mx.arange(m - n, m, dtype=mx.float32)[:, None]
    return mx.maximum(ahead, 0.0) * _MASKED
