"""Runs the model over the KV cache of one stream: prefill, and one step of decode."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.language import LogitsToKeep
from streaming_vlm_mlx.models.rope import Angles
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.kv_cache import KVCache
from streaming_vlm_mlx.stream.masks import OPEN, visibility_mask

Positions = npt.NDArray[np.int64]
TokenIds = npt.NDArray[np.int32]
# See `masks.token_visibility`.
Visibility = npt.NDArray[np.int32]


class Runner:
    """Runs the model over the cache of one stream.

    Attributes:
        cache: keys and values of the tokens so far.
        positions: M-RoPE positions of the cached tokens, [3, cached].
        can_move: whether the positions of cached tokens can change.
    """

    def __init__(
        self, model: VisionLanguageModel, capacity: int, keep_unrotated: bool, kv_bits: int | None = None
    ) -> None:
        """Allocate a cache of `capacity` tokens; to change positions later, it must keep the unrotated keys.

        Raises:
            SvmError: the model's keys do not divide into groups of `kv_bits`.
        """
        self._model = model
        # A model that is split over machines has only this machine's heads.
        heads = model.model.layers[0].self_attn.num_kv_heads
        text = replace(model.config.text_config, num_key_value_heads=heads)
        self.cache = KVCache(text, model.dtype, capacity, keep_unrotated, kv_bits)
        self.positions: Positions = np.zeros((3, 0), np.int64)
        self.can_move = keep_unrotated

    def keep(self, slots: TokenIds) -> None:
        """Keep the cached tokens at `slots` in that order, with their positions, and drop the others."""
        self.cache.keep(slots)
        self.positions = self.positions[:, slots]

    def prefill(
        self,
        rows: TokenIds,
        positions: Positions,
        features: mx.array | None,
        is_video: npt.NDArray[np.bool_],
        visibility: Visibility | None = None,
    ) -> mx.array:
        """Append tokens to the cached ones and return the last one's logits, float32 [vocab].

        Args:
            rows: embedding rows of the new tokens, [n].
            positions: of the whole sequence, cached and new, [3, cached + n].
            features: vision features of the new video spans in order, [m, features_width], or None.
            is_video: which of the new tokens are replaced by `features`, [n] with m true.
            visibility: of all tokens, cached and new, [cached + n]; None for plain causal attention.
        """
        cached = self.cache.length
        self.cache.reserve(cached + len(rows))
        if self.cache.needs_rotation or not np.array_equal(positions[:, :cached], self.positions):
            self.cache.rotate(*self._model.model.rope(positions[:, :cached]))
        self.positions = positions
        mask = "causal" if visibility is None else _mask(visibility, cached)
        angles = self._model.model.rope(positions[:, cached:])
        logits = self._forward(mx.array(rows), angles, features, is_video, mask)
        mx.eval(logits, self.cache.state)
        # The large temporary arrays of a second fit no later one; without this they would pile up on a GPU.
        mx.clear_cache()
        return logits

    def step(self, row: int | mx.array, visibility: Visibility | None = None) -> mx.array:
        """Append one token and return its logits, float32 [vocab]; nothing is evaluated.

        `row` is its embedding row, which may still be under way.

        With the `visibility` of the cached tokens, [cached], the new token is `OPEN`; without, it sees all of them.
        """
        self.cache.reserve(self.cache.length + 1)
        position = int(self.positions[:, -1].max()) + 1
        self.positions = np.concatenate([self.positions, np.full((3, 1), position)], axis=1)
        cached = self.cache.length
        mask = None if visibility is None else _mask(np.append(visibility, np.int32(OPEN)), cached)
        return self._forward(_one(row), self._model.model.rope.at(position), None, np.zeros(1, np.bool_), mask)

    def start_step(self, row: int | mx.array) -> mx.array:
        """Start `step` with a token that may not be computed yet, and return the logits without waiting for them."""
        if isinstance(row, mx.array):
            # By itself, so that it can be read before the step ends.
            mx.async_eval(row)
        logits = self.step(row)
        mx.async_eval(logits)
        return logits

    def _forward(
        self,
        rows: mx.array,
        angles: Angles,
        features: mx.array | None,
        is_video: npt.NDArray[np.bool_],
        mask: mx.array | str | None,
    ) -> mx.array:
        x = self._model.embed(rows, features, is_video)
        deepstack = self._model.deepstack(features, is_video)
        last = _last(angles, mask) if len(rows) > 1 else None
        hidden = self._model.model(x, angles, self.cache.layers, mask, last, deepstack=deepstack)
        logits: mx.array = self._model.head(hidden[:, -1]).astype(mx.float32)
        return logits[0]


def _last(angles: Angles, mask: mx.array | str | None) -> LogitsToKeep:
    """Return the place of the last of several tokens, which are turned by `angles` [n, head_dim]."""
    cos, sin = angles
    assert isinstance(sin, mx.array)
    n = len(cos)
    own = mask[:, :, -1:] if isinstance(mask, mx.array) else None
    return LogitsToKeep(mx.array([[n - 1]]), (cos[-1:], sin[-1:]), own)


def _one(row: int | mx.array) -> mx.array:
    return row[None] if isinstance(row, mx.array) else mx.array([row], mx.int32)


def _mask(visibility: Visibility, cached: int) -> mx.array:
    """Return the additive mask [1, 1, n, cached + n] of the tokens after the `cached` ones."""
    length = len(visibility)
    return mx.array(visibility_mask(np.arange(cached, length), length, visibility)[None, None])
