"""The model over one stream's cache: prefill what is new, then decode a token at a time."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.kv_cache import KVCache
from streaming_vlm_mlx.stream.spans import SEEN, SPOKEN

Positions = npt.NDArray[np.int64]
TokenIds = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]
# See `spans.hidden_from_looking`.
Hidden = npt.NDArray[np.int32]

_FAR_BELOW = np.float32(-1e9)


class Runner:
    """Keeps the cache, and the positions that its keys are rotated to; `can_move` tells whether those can change."""

    def __init__(
        self, model: VisionLanguageModel, capacity: int, keep_unrotated: bool, kv_bits: int | None = None
    ) -> None:
        """Reserve a cache of `capacity` tokens; unrotated keys are needed where positions are counted anew.

        Raises:
            SvmError: the model's keys do not divide into groups of `kv_bits`.
        """
        self._model = model
        # Of a model that is split over machines, this one's heads.
        heads = model.model.layers[0].self_attn.num_kv_heads
        text = replace(model.config.text_config, num_key_value_heads=heads)
        self.cache = KVCache(text, model.dtype, capacity, keep_unrotated, kv_bits)
        self.positions: Positions = np.zeros((3, 0), np.int64)
        self.can_move = keep_unrotated

    def keep(self, slots: TokenIds) -> None:
        """Keep the cached tokens at `slots`, in that order, with their positions."""
        self.cache.keep(slots)
        self.positions = self.positions[:, slots]

    def prefill(
        self,
        rows: TokenIds,
        positions: Positions,
        features: mx.array | None,
        is_video: npt.NDArray[np.bool_],
        hidden: Hidden | None = None,
    ) -> Logits:
        """Take in the tokens behind the cached ones and return the last one's logits, float32 [vocab].

        Args:
            rows: the new tokens [n].
            positions: of the whole sequence, cached and new, [3, cached + n].
            features: the new video spans' features in order, or None.
            is_video: which of `rows` they take the place of.
            hidden: which tokens, cached and new [cached + n], only those among them see; None hides nothing.
        """
        cached = self.cache.length
        self.cache.reserve(cached + len(rows))
        if not np.array_equal(positions[:, :cached], self.positions):
            self.cache.rotate(*self._model.model.rope(positions[:, :cached]))
        self.positions = positions
        return self._forward(rows, features, is_video, "causal" if hidden is None else _hide(hidden, cached))

    def step(self, row: int, hidden: Hidden | None = None) -> Logits:
        """Take in one token behind the last, which does not see the `hidden`; return its logits, float32 [vocab]."""
        self.cache.reserve(self.cache.length + 1)
        position = np.full((3, 1), self.positions[:, -1].max() + 1)
        self.positions = np.concatenate([self.positions, position], axis=1)
        cached = self.cache.length
        mask = None if hidden is None else _hide(np.append(hidden, np.int32(SEEN)), cached)
        return self._forward(np.array([row], np.int32), None, np.zeros(1, np.bool_), mask)

    def _forward(
        self, rows: TokenIds, features: mx.array | None, is_video: npt.NDArray[np.bool_], mask: mx.array | str | None
    ) -> Logits:
        x = self._model.embed(rows, features, is_video)
        angles = self._model.model.rope(self.positions[:, -len(rows) :])
        hidden = self._model.model(x, angles, self.cache.layers, mask)
        logits = self._model.head(hidden[:, -1]).astype(mx.float32)
        mx.eval(logits, self.cache.state)
        return np.array(logits[0])


def _hide(hidden: Hidden, cached: int) -> mx.array:
    """Return what is added to scores [1, 1, n, cached + n]."""
    places, own = np.arange(len(hidden)), hidden[cached:, None]
    seen = (places <= places[cached:, None]) & ((hidden == SEEN) | (own == SPOKEN) | (hidden == own))
    return mx.array(np.where(seen, np.float32(0), _FAR_BELOW)[None, None])
