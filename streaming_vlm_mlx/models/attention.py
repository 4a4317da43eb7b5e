"""Softmax attention that gives the same result on every device, and is fast on a CPU.

On a GPU, and for any dtype but float32, it is MLX's kernel; on a CPU, see `activations`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import mlx.core as mx
import numpy as np

from streaming_vlm_mlx.models.activations import evaluate_in_place, uses_numpy

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
    if not uses_numpy(q) or q.shape[2] == 1:
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
    if isinstance(mask, mx.array):
        scores = scores.reshape(batch, kv_heads, -1, n, m) + mask[..., None, :, :]
        scores = scores.reshape(batch, kv_heads, -1, m)
    weights = _weights(scores, _triangle(n if isinstance(mask, str) else 1))
    # The product sums on all cores.
    sums = weights @ mx.ones((m, 1))
    return ((weights @ v) / sums).reshape(batch, heads, n, width)


@lru_cache(maxsize=4)
def _triangle(n: int) -> mx.array:
    """Return the additive causal mask [n, n] of n queries and the last n keys."""
    return mx.array(np.triu(np.full((n, n), _MASKED, np.float32), 1))


def _weights(scores: mx.array, triangle: mx.array) -> mx.array:
    """Return e^(scores - the largest of their row).

    Args:
        scores: [..., rows × n, m]; their memory is overwritten.
        triangle: added first to the scores of the last n keys, [n, n].
    """
    return cast(mx.array, _exponentials(scores, triangle))


@mx.custom_function
def _exponentials(scores: mx.array, triangle: mx.array) -> mx.array:
    out, values = evaluate_in_place(scores)
    n, m = len(triangle), values.shape[-1]
    if n > 1:
        values.reshape(-1, n, m)[:, :, m - n :] += np.array(triangle, copy=False)
    np.subtract(values, values.max(axis=-1, keepdims=True), out=values)
    np.exp(values, out=values)
    return out


@_exponentials.vjp
def _exponentials_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array]:
    return cotangent * output, mx.zeros_like(primals[1])
