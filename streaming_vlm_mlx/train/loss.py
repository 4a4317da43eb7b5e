"""What training makes small: the cross entropy of the words, and of what the vision heads say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.activations import Wrap, as_it_is, exp, uses_products
from streaming_vlm_mlx.models.attention import Causal
from streaming_vlm_mlx.models.language import Asked
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.microbatch import Shard
from streaming_vlm_mlx.train.vision_heads import VisionHeads

TEXT = "text"


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts for.

    Attributes:
        text: of the words; at 0 the decoder is not computed at all.
        heads: of the vision heads together.
    """

    text: float = 1.0
    heads: float = 0.0


class Learner(nn.Module):
    """All that is learnt: the model, and heads that are thrown away after training."""

    def __init__(self, model: VisionLanguageModel, heads: VisionHeads | None = None) -> None:
        super().__init__()
        self.model = model
        if heads is not None:
            self.heads = heads

    @property
    def vision_heads(self) -> VisionHeads | None:
        """What is thrown away after training, if there is any."""
        return self.heads if "heads" in self else None

    def parts(self, weights: Weights) -> list[str]:
        """Return the names of the parts that have a weight: the words, each vision head."""
        heads = self.heads.names if weights.heads and "heads" in self else []
        return [TEXT, *heads] if weights.text else heads

    def weight(self, part: str, weights: Weights) -> float:
        """Return what the mean loss of `part` counts for."""
        return weights.text if part == TEXT else weights.heads * self.heads.weight(part)

    def losses(self, shard: Shard, weights: Weights, wrap: Wrap = as_it_is) -> dict[str, mx.array]:
        """Return the cross entropy of each part that has a weight, summed over the targets of `shard` that count.

        Args:
            shard: what to read and what to say.
            weights: of the parts.
            wrap: is given each layer, and returns what is called in its place.
        """
        features = see(self.model, shard, wrap)
        parts: dict[str, mx.array] = {}
        if weights.text:
            parts[TEXT] = text_loss(self.model, shard, features, wrap)
        if weights.heads and "heads" in self and features is not None:
            for name, logits, targets in self.heads(features, shard.grids, shard.known):
                parts[name] = parts.get(name, 0.0) + cross_entropy(logits, mx.array(targets)).sum()
        return parts


def see(model: VisionLanguageModel, shard: Shard, wrap: Wrap = as_it_is) -> mx.array | None:
    """Return the features [units, hidden_size] of all of `shard`'s videos, those of one size in one call."""
    if not shard.grids or model.config.vision_config is None:
        return None
    width, units = model.config.vision_config.out_hidden_size, np.count_nonzero(shard.is_video)
    # One row a unit is not enough to know features by: a tower that merges nothing has as many patches.
    if shard.pixel_values.shape == (units, width):
        return mx.array(shard.pixel_values)
    runs = np.split(shard.pixel_values, np.cumsum([math.prod(grid) for grid in shard.grids])[:-1])
    features = [model.visual(mx.array(values), grid, wrap) for values, grid in zip(runs, shard.grids, strict=True)]
    return features[0] if len(features) == 1 else mx.concatenate(features)


def text_loss(model: VisionLanguageModel, shard: Shard, features: mx.array | None, wrap: Wrap = as_it_is) -> mx.array:
    """Return the summed cross entropy of `shard`'s labels; logits are made where labels are, and nowhere else."""
    embeddings = model.embed(shard.rows.ravel(), features, shard.is_video.ravel()).reshape(*shard.rows.shape, -1)
    positions = shard.position_ids.astype(np.int64)
    mask = "causal" if shard.mask is None else Causal(mx.array(shard.mask))
    hidden = model.model(embeddings, _turn(model, positions), mask=mask, asked=_ask(model, shard, positions), wrap=wrap)
    learnt = hidden.reshape(-1, hidden.shape[-1])[mx.array(np.flatnonzero(shard.is_learnt))]
    return cross_entropy(model.head(learnt), mx.array(shard.targets)).sum()


def _ask(model: VisionLanguageModel, shard: Shard, positions: npt.NDArray[np.int64]) -> Asked:
    batch, n = shard.rows.shape
    at = np.take_along_axis(positions, shard.places[None], axis=2)
    places = shard.places + n * np.arange(batch)[:, None]
    return Asked(mx.array(places), _turn(model, at), mx.array(shard.asked_mask))


def _turn(model: VisionLanguageModel, positions: npt.NDArray[np.int64]) -> tuple[mx.array, mx.array]:
    """Return cosines and sines [batch, 1, n, head_dim // 2] of `positions` [3, batch, n]."""
    cos, sin = model.model.rope(positions.reshape(3, -1))
    shape = positions.shape[1], 1, positions.shape[2], -1
    return cos.reshape(shape), sin.reshape(shape)


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the float32 cross entropy [m] of `logits` [m, classes] where `targets` [m] would be right."""
    logits = logits.astype(mx.float32)
    right = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    if not uses_products(logits):
        return mx.logsumexp(logits, axis=-1) - right
    highest = mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    return mx.log(exp(logits - highest).sum(axis=-1)) + highest[:, 0] - right


def count_targets(shards: Sequence[Shard]) -> Mapping[str, int]:
    """Return how many targets of each part count in all of `shards`."""
    counts = {TEXT: sum(shard.targets.size for shard in shards)}
    for name in shards[0].known:
        counts[name] = sum(int(np.count_nonzero(shard.known[name] >= 0)) for shard in shards)
    return counts
