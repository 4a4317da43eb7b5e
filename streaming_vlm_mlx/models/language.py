"""The language model: a decoder with grouped-query attention, M-RoPE and a gated feed-forward part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.models.activations import Wrap, identity, swiglu
from streaming_vlm_mlx.models.attention import Mask, attention
from streaming_vlm_mlx.models.rope import Angles, MRope, rotate


@dataclass(frozen=True)
class LogitsToKeep:
    """The k places a row that need logits; at all others the last layer computes keys and values only.

    Attributes:
        places: int [batch, k], indices into the flattened batch, row × n + place.
        angles: cosines and sines of their rotary positions, [batch, 1, k, head_dim].
        mask: additive attention mask of these places, [batch, 1, k, cached + n]; None where they see all tokens.
    """

    places: mx.array
    angles: Angles
    mask: mx.array | None

    def of(self, x: mx.array) -> mx.array:
        """Return `x` [batch, n, width] at these places, [batch, k, width]."""
        return x.reshape(-1, x.shape[-1])[self.places]


@dataclass(frozen=True)
class DeepStack:
    """Vision features that are added to the video tokens behind the first decoder layers (arXiv 2406.04334).

    Attributes:
        places: int [m], the video tokens, as indices into the flattened batch.
        features: [m, layers × hidden_size], those of the first layers side by side.
    """

    places: mx.array
    features: mx.array

    def behind(self, number: int, x: mx.array, tokens: int, logits_to_keep: LogitsToKeep | None) -> mx.array:
        """Return `x`, the output of layer `number`, with that layer's features added.

        Args:
            number: the layer, counted from 0.
            x: [batch, n, hidden_size], or the places of `logits_to_keep`.
            tokens: batch × n.
            logits_to_keep: the places that `x` holds; None for all.
        """
        width = x.shape[-1]
        part = self.features[:, number * width : (number + 1) * width]
        if not part.size:
            return x
        added = mx.zeros((tokens, width), x.dtype).at[self.places].add(part.astype(x.dtype))
        return x + (added[logits_to_keep.places] if logits_to_keep else added.reshape(x.shape))


class LayerCache(Protocol):
    """The KV cache of one layer, as attention uses it."""

    def update_and_fetch(self, keys: mx.array, rotated: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append new tokens and return all rotated keys and values, the new ones last.

        Args:
            keys: unrotated keys of the new tokens, [1, kv_heads, n, head_dim].
            rotated: the same keys, rotated to their positions.
            values: like `keys`.
        """
        ...


# A cache grows by this many tokens at a time.
CACHE_STEP = 256


def round_up_capacity(tokens: int) -> int:
    """Return the capacity of a cache that holds `tokens` tokens."""
    return -(-tokens // CACHE_STEP) * CACHE_STEP


# A GPU changes cached layers together that have so many bytes in float32: it waits for the host once for all of them.
_GROUP_BYTES = 32 * 2**20


def layers_at_once(numbers: int, gpu: bool) -> int:
    """Return how many layers are pruned, rotated or enlarged together, with `numbers` numbers in the keys of each."""
    return max(_GROUP_BYTES // (3 * 4 * numbers), 1) if gpu else 1


class Attention(nn.Module):
    """Grouped-query attention over the cached and the new tokens."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.head_dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def __call__(
        self,
        x: mx.array,
        angles: Angles,
        cache: LayerCache | None,
        mask: Mask | None,
        logits_to_keep: LogitsToKeep | None = None,
    ) -> mx.array:
        """Map [batch, n, hidden_size] to the same shape, or to the places of `logits_to_keep`.

        `angles` are what the new tokens are rotated by, see `rope.rotate`.
        """
        q = _split(self.q_proj(logits_to_keep.of(x) if logits_to_keep else x), self.num_heads)
        keys, values = _split(self.k_proj(x), self.num_kv_heads), _split(self.v_proj(x), self.num_kv_heads)
        if "q_norm" in self:
            q, keys = self.q_norm(q), self.k_norm(keys)
        rotated = rotate(keys, *angles)
        if cache is not None:
            rotated, values = cache.update_and_fetch(keys, rotated, values)
        if logits_to_keep:
            angles, mask = logits_to_keep.angles, logits_to_keep.mask
        out = attention(rotate(q, *angles), rotated, values, scale=self.head_dim**-0.5, mask=mask)
        return self.o_proj(_join(out))


def _split(x: mx.array, heads: int) -> mx.array:
    """Return `x` [batch, n, width] by heads, [batch, heads, n, width // heads]."""
    batch, n, width = x.shape
    # The heads of one token lie in this order already.
    if n == 1:
        return x.reshape(batch, heads, 1, width // heads)
    return x.reshape(batch, n, heads, width // heads).transpose(0, 2, 1, 3)


def _join(x: mx.array) -> mx.array:
    """Return `x` [batch, heads, n, head_dim] with its heads side by side, [batch, n, heads × head_dim]."""
    batch, heads, n, width = x.shape
    return (x if n == 1 else x.transpose(0, 2, 1, 3)).reshape(batch, n, heads * width)


class MLP(nn.Module):
    """The gated feed-forward part of a decoder layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(
        self,
        x: mx.array,
        angles: Angles,
        cache: LayerCache | None,
        mask: Mask | None,
        logits_to_keep: LogitsToKeep | None = None,
    ) -> mx.array:
        """Map [batch, n, hidden_size] to the same shape, or to the places of `logits_to_keep`."""
        attended = self.self_attn(self.input_layernorm(x), angles, cache, mask, logits_to_keep)
        x = (logits_to_keep.of(x) if logits_to_keep else x) + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class StreamingDecoder(nn.Module):
    """Token embedding, decoder layers and final norm; holds weights only, the caches are arguments."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self._rope = MRope(config.head_dim, config.rope_theta, config.mrope_section, config.mrope_interleaved)

    @property
    def rope(self) -> MRope:
        """Turns positions into rotation angles, for new tokens and for cached keys."""
        return self._rope

    def __call__(
        self,
        embeddings: mx.array,
        angles: Angles,
        caches: Sequence[LayerCache] | None = None,
        mask: Mask | None = "causal",
        logits_to_keep: LogitsToKeep | None = None,
        wrap: Wrap = identity,
        deepstack: DeepStack | None = None,
    ) -> mx.array:
        """Return the hidden states after the final norm, [batch, n, hidden_size], or of the kept positions.

        Args:
            embeddings: embeddings of the new tokens, with vision features at the video places.
            angles: cosines and sines of the new tokens' positions, [n, head_dim] or [batch, 1, n, head_dim].
            caches: one for each layer, or None to attend to the new tokens only.
            mask: see `attention.attention`; with "causal" the last new token sees the whole cache.
            logits_to_keep: the places to return; None for all.
            wrap: called with each layer; returns what is called in its place.
            deepstack: features for the first layers, or None.
        """
        x, tokens, last = embeddings, embeddings.shape[0] * embeddings.shape[1], len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            cache, kept = caches[number] if caches else None, logits_to_keep if number == last else None
            x = wrap(layer)(x, angles, cache, mask, kept)
            if deepstack is not None:
                x = deepstack.behind(number, x, tokens, kept)
        normed: mx.array = self.norm(x)
        return normed
