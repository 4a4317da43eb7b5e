"""What a helper is sent and sends back, and what it does in between."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.adapters.config import LoraConfig
from streaming_vlm_mlx.adapters.layers import attach
from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.gradients import Work, gradient, losses_alone
from streaming_vlm_mlx.train.heads import VisionHeads
from streaming_vlm_mlx.train.loss import Learner, Weights
from streaming_vlm_mlx.train.optimizer import freeze
from streaming_vlm_mlx.train.shards import Shard

Arrays = Mapping[str, npt.NDArray[np.float32]]


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

    parameters: Arrays
    shard: Shard
    weights: Weights
    counts: Mapping[str, float] | None


@dataclass(frozen=True)
class Done:
    """Each part's loss summed over a shard, and the gradient, empty where none was asked for."""

    losses: Mapping[str, float]
    slopes: Arrays


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


def as_numpy(arrays: Mapping[str, mx.array]) -> Arrays:
    """Return `arrays` as NumPy's."""
    return {name: np.array(array) for name, array in arrays.items()}


def as_floats(losses: Mapping[str, mx.array]) -> dict[str, float]:
    """Return the losses as plain numbers."""
    return {name: cast(float, loss.item()) for name, loss in losses.items()}
