"""Losses and gradients of one shard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_map

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.models.activations import Wrap, as_it_is
from streaming_vlm_mlx.models.lora import LoraConfig, attach
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.loss import Learner, Weights
from streaming_vlm_mlx.train.microbatch import Shard
from streaming_vlm_mlx.train.optim import freeze
from streaming_vlm_mlx.train.vision_heads import VisionHeads

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


NumpyArrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Blueprint:
    """What a learner is built from; a helper's weights come with its jobs."""

    model: ModelConfig
    heads: tuple[HeadConfig, ...] = ()
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    lora: LoraConfig | None = None
    seed: int = 0

    def build(self) -> Learner:
        """Return a learner with any weights."""
        return make_learner(VisionLanguageModel(self.model), self)


@dataclass(frozen=True)
class Job:
    """A shard to work on.

    Attributes:
        parameters: those that moved since the last job.
        shard: what to read and what to say.
        weights: of the parts of the loss.
        counts: targets of each part in the whole update, as `gradients.gradient` takes them; None asks for losses
            without a gradient.
    """

    parameters: NumpyArrays
    shard: Shard
    weights: Weights
    counts: Mapping[str, float] | None


@dataclass(frozen=True)
class Done:
    """Each part's loss summed over a shard, and the gradient, empty where none was asked for."""

    losses: Mapping[str, float]
    slopes: NumpyArrays


def make_learner(model: VisionLanguageModel, blueprint: Blueprint) -> Learner:
    """Return what is learnt of `model`, and its heads with any weights.

    Raises:
        SvmError: a pattern, to freeze or to adapt, matches nothing.
    """
    freeze(model, blueprint.freeze)
    if blueprint.lora is not None:
        attach(model, blueprint.lora, blueprint.seed)
    vision = blueprint.model.vision_config
    heads = VisionHeads(blueprint.heads, vision.out_hidden_size) if vision and blueprint.heads else None
    return Learner(model, heads)


def do(learner: Learner, job: Job, work: Work) -> Done:
    """Bring `learner` up to date and work on the job's shard."""
    learner.load_weights([(name, mx.array(array)) for name, array in job.parameters.items()], strict=False)
    if job.counts is None:
        return Done(as_floats(losses_alone(learner, job.shard, job.weights, work)), {})
    losses, slopes = gradient(learner, job.shard, job.weights, job.counts, work)
    return Done(as_floats(losses), as_numpy(slopes))


def as_numpy(arrays: Mapping[str, mx.array]) -> NumpyArrays:
    """Return `arrays` as NumPy's."""
    return {name: np.array(array) for name, array in arrays.items()}


def as_floats(losses: Mapping[str, mx.array]) -> dict[str, float]:
    """Return the losses as plain numbers."""
    return {name: cast(float, loss.item()) for name, loss in losses.items()}
