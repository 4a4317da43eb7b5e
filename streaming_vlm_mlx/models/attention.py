"""Softmax attention, SiLU and its kin, the same on every device, quick on a CPU too.

MLX's CPU kernels call the C library for every exponential, which takes 10 to 14 ns; additions and products take 0.1 to
0.3 ns. On a CPU the exponential of float32 is therefore made of products; a GPU, and any other dtype, takes MLX's own
kernels.
"""

from dataclasses import dataclass

import mlx.core as mx

from streaming_vlm_mlx.models.activations import exp, uses_products

_HIDDEN = -1e9
# Queries that are taken at a time where keys lie ahead of some of them: the products with those keys are not computed.
_STRETCH = 128


@dataclass(frozen=True)
class Causal:
    """A causal mask that hides more than what lies ahead: added to the scores, [batch, 1, n, n]."""

    hidden: mx.array


Mask = mx.array | str | Causal


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask | None = None) -> mx.array:
    """Return softmax attention [batch, heads, n, head_dim], as `mx.fast.scaled_dot_product_attention`.

    Args:
        q: queries [batch, heads, n, head_dim].
        k: keys [batch, kv_heads, m, head_dim]; each is shared by heads // kv_heads queries.
        v: values, like `k`.
        scale: factor of the scores.
        mask: added to the scores, broadcast to [batch, 1, n, m]; or "causal", the last query seeing every key; or
            `Causal`, where n is m.
    """
    hidden = mask.hidden if isinstance(mask, Causal) else None
    # A single query's softmax is short; there the one call of MLX's own beats many small ones.
    if not uses_products(q) or q.shape[2] == 1:
        mask = hidden if isinstance(mask, Causal) else mask
        mask = mask.astype(q.dtype) if isinstance(mask, mx.array) else mask
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if mask is None or isinstance(mask, mx.array) or q.shape[2] <= _STRETCH:
        return _attention(q, k, v, scale, hidden if isinstance(mask, Causal) else mask)
    n, past = q.shape[2], k.shape[2] - q.shape[2]
    stretches = ((start, min(start + _STRETCH, n)) for start in range(0, n, _STRETCH))
    parts = []
    for a, b in stretches:
        own = mask if isinstance(mask, str) else mask.hidden[:, :, a:b, :b]
        parts.append(_attention(q[:, :, a:b], k[:, :, : past + b], v[:, :, : past + b], scale, own))
    return mx.concatenate(parts, axis=2)


def _attention(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    batch, heads, n, width = q.shape
    kv_heads, m = k.shape[1], k.shape[2]
    # The queries that share a key lie side by side: one product a key head, and no key is repeated.
    scores = (q * scale).reshape(batch, kv_heads, -1, width) @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = scores.reshape(batch, kv_heads, -1, n, m)
        scores = scores + (_causal(n, m) if isinstance(mask, str) else mask[..., None, :, :])
        scores = scores.reshape(batch, kv_heads, -1, m)
    weights = exp(scores - mx.stop_gradient(scores.max(axis=-1, keepdims=True)))
    out = (weights @ v) / weights.sum(axis=-1, keepdims=True)
    return out.reshape(batch, heads, n, width)


def _causal(n: int, m: int) -> mx.array:
    """Return what hides later keys [n, m], made without a comparison, which is slow on a CPU."""
    ahead = mx.arange(m, dtype=mx.float32)[None] - mx.arange(m - n, m, dtype=mx.float32)[:, None]
    return mx.maximum(ahead, 0.0) * _HIDDEN
