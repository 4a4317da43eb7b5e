"""Losses and gradients of one shard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from streaming_vlm_mlx.model.wrapping import Wrap, as_it_is
from streaming_vlm_mlx.train.loss import Learner, Weights
from streaming_vlm_mlx.train.shards import Shard

Arrays = dict[str, mx.array]


@dataclass(frozen=True)
class Work:
    """How a gradient is computed.

    Attributes:
        dtype: what the layers compute in; weights and gradients are float32.
        recompute: forget what layers held and compute it again for the gradient.
    """

    dtype: mx.Dtype = mx.float32
    recompute: bool = False

    @property
    def wrap(self) -> Wrap:
        """What is put around each layer."""
        return nn.utils.checkpoint if self.recompute else as_it_is


def gradient(
    learner: Learner, shard: Shard, weights: Weights, counts: Mapping[str, float], work: Work
) -> tuple[Arrays, Arrays]:
    """Return each part's loss summed over `shard`, and the gradient of its share in the weighted means, by name.

    Args:
        learner: what moves.
        shard: a part of what an update is made of.
        weights: of the parts of the loss.
        counts: how many targets of each part the whole update has; of several machines', an even share.
        work: how to compute.
    """
    masters = learner.parameters()
    (_, losses), tree = nn.value_and_grad(learner, _weighted(learner, weights, counts, work))(shard)
    learner.update(masters)
    slopes = by_name(tree)
    mx.eval(losses, slopes)
    return losses, slopes


def by_name(tree: object) -> Arrays:
    """Return the arrays of `tree` under their dotted names."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(tree)))


def losses_alone(learner: Learner, shard: Shard, weights: Weights, work: Work) -> Arrays:
    """Return each part's loss summed over `shard`."""
    masters = learner.parameters()
    learner.update(_cast(masters, work.dtype))
    losses = learner.losses(shard, weights)
    learner.update(masters)
    mx.eval(losses)
    return losses


def _weighted(
    learner: Learner, weights: Weights, counts: Mapping[str, float], work: Work
) -> Callable[[Shard], tuple[mx.array, Arrays]]:
    """Return the function whose gradient is taken: the weighted loss of a shard, and its parts unweighted."""

    def loss(shard: Shard) -> tuple[mx.array, Arrays]:
        learner.update(_cast(learner.parameters(), work.dtype))
        parts = learner.losses(shard, weights, work.wrap)
        shares = (
            value * (learner.weight(name, weights) / counts[name]) for name, value in parts.items() if counts[name]
        )
        return sum(shares, mx.array(0.0)), parts

    return loss


def _cast(parameters: Any, dtype: mx.Dtype) -> Any:
    # What is packed stays packed.
    return tree_map(lambda a: a.astype(dtype) if mx.issubdtype(a.dtype, mx.floating) else a, parameters)
