"""One update of the weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.optimizers as optim

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.config import OptimizerConfig
from streaming_vlm_mlx.train.crew import Crew
from streaming_vlm_mlx.train.loss import Learner, Weights
from streaming_vlm_mlx.train.shards import Shard


@dataclass(frozen=True)
class Updated:
    """What an update was made of: each part's mean loss, and the gradient's length before it was cut."""

    losses: dict[str, float]
    grad_norm: float


def update(
    learner: Learner,
    optimizer: optim.MultiOptimizer,
    crew: Crew,
    shards: Sequence[Shard],
    weights: Weights,
    config: OptimizerConfig,
    fraction: float,
) -> Updated:
    """Move `learner`'s weights once, at `fraction` of the highest learning rate.

    Raises:
        SvmError: a helper of `crew` died, or the gradient is no number any more; the weights stay as they were.
    """
    losses, slopes = crew.gradient(shards, weights)
    slopes, norm = optim.clip_grad_norm(slopes, config.max_grad_norm)
    if not math.isfinite(cast(float, norm.item())):
        raise SvmError(
            "The gradient is no number any more: go on from the last saving with --resume, and with --config and a "
            "lower optimizer.learning_rate."
        )
    optimizer.learning_rate = config.learning_rate * fraction
    optimizer.update(learner, slopes)
    mx.eval(learner.parameters(), optimizer.state, norm)
    crew.moved()
    return Updated(losses, cast(float, norm.item()))
