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
from streaming_vlm_mlx.models.activations import Wrap, identity
from streaming_vlm_mlx.models.lora import LoraConfig, attach
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.loss import LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import Microbatch
from streaming_vlm_mlx.train.optim import freeze
from streaming_vlm_mlx.train.vision_heads import VisionHeads

Arrays = dict[str, mx.array]


@dataclass(frozen=True)
class Work:
    """How a gradient is computed.

    Attributes:
        dtype: what the layers compute in; weights and gradients are float32.
        grad_checkpoint: forget what layers held and compute it again for the gradient.
    """

    dtype: mx.Dtype = mx.float32
    grad_checkpoint: bool = False

    @property
    def wrap(self) -> Wrap:
        """What is put around each layer."""
        return nn.utils.checkpoint if self.grad_checkpoint else identity


def compute_grads(
    train_model: TrainModel, microbatch: Microbatch, weights: LossWeights, counts: Mapping[str, float], work: Work
) -> tuple[Arrays, Arrays]:
    """Return each part's loss summed over `microbatch`, and the gradient of its share in the weighted means, by name.

    Args:
        train_model: what moves.
        microbatch: a part of what an update is made of.
        weights: of the parts of the loss.
        counts: how many targets of each part the whole update has; of several machines', an even share.
        work: how to compute.
    """
    params = train_model.parameters()
    (_, losses), tree = nn.value_and_grad(train_model, _weighted(train_model, weights, counts, work))(microbatch)
    train_model.update(params)
    grads = flatten(tree)
    mx.eval(losses, grads)
    return losses, grads


def flatten(tree: object) -> Arrays:
    """Return the arrays of `tree` under their dotted names."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(tree)))


def compute_losses(train_model: TrainModel, microbatch: Microbatch, weights: LossWeights, work: Work) -> Arrays:
    """Return each part's loss summed over `microbatch`."""
    params = train_model.parameters()
    train_model.update(_cast(params, work.dtype))
    losses = train_model.losses(microbatch, weights)
    train_model.update(params)
    mx.eval(losses)
    return losses


def _weighted(
    train_model: TrainModel, weights: LossWeights, counts: Mapping[str, float], work: Work
) -> Callable[[Microbatch], tuple[mx.array, Arrays]]:
    """Return the function whose gradient is taken: the weighted loss of a shard, and its parts unweighted."""

    def loss(microbatch: Microbatch) -> tuple[mx.array, Arrays]:
        train_model.update(_cast(train_model.parameters(), work.dtype))
        parts = train_model.losses(microbatch, weights, work.wrap)
        shares = (
            value * (train_model.weight(name, weights) / counts[name]) for name, value in parts.items() if counts[name]
        )
        return sum(shares, mx.array(0.0)), parts

    return loss


def _cast(parameters: Any, dtype: mx.Dtype) -> Any:
    # What is packed stays packed.
    return tree_map(lambda a: a.astype(dtype) if mx.issubdtype(a.dtype, mx.floating) else a, parameters)


NumpyArrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class WorkerSpec:
    """What a learner is built from; a helper's weights come with its jobs."""

    model: ModelConfig
    heads: tuple[HeadConfig, ...] = ()
    freeze: tuple[str, ...] = ()
    grad_checkpoint: bool = False
    lora: LoraConfig | None = None
    seed: int = 0

    def build(self) -> TrainModel:
        """Return a learner with any weights."""
        return make_train_model(VisionLanguageModel(self.model), self)


@dataclass(frozen=True)
class Request:
    """A shard to work on.

    Attributes:
        parameters: those that moved since the last job.
        microbatch: what to read and what to say.
        weights: of the parts of the loss.
        counts: targets of each part in the whole update, as `gradients.compute_grads` takes them; None asks for losses
            without a gradient.
    """

    parameters: NumpyArrays
    microbatch: Microbatch
    weights: LossWeights
    counts: Mapping[str, float] | None


@dataclass(frozen=True)
class Result:
    """Each part's loss summed over a shard, and the gradient, empty where none was asked for."""

    losses: Mapping[str, float]
    grads: NumpyArrays


def make_train_model(model: VisionLanguageModel, spec: WorkerSpec) -> TrainModel:
    """Return what is learnt of `model`, and its heads with any weights.

    Raises:
        SvmError: a pattern, to freeze or to adapt, matches nothing.
    """
    freeze(model, spec.freeze)
    if spec.lora is not None:
        attach(model, spec.lora, spec.seed)
    vision = spec.model.vision_config
    heads = VisionHeads(spec.heads, vision.out_hidden_size) if vision and spec.heads else None
    return TrainModel(model, heads)


def handle_request(train_model: TrainModel, job: Request, work: Work) -> Result:
    """Bring `train_model` up to date and work on the job's shard."""
    train_model.load_weights([(name, mx.array(array)) for name, array in job.parameters.items()], strict=False)
    if job.counts is None:
        return Result(as_floats(compute_losses(train_model, job.microbatch, job.weights, work)), {})
    losses, grads = compute_grads(train_model, job.microbatch, job.weights, job.counts, work)
    return Result(as_floats(losses), as_numpy(grads))


def as_numpy(arrays: Mapping[str, mx.array]) -> NumpyArrays:
    """Return `arrays` as NumPy's."""
    return {name: np.array(array) for name, array in arrays.items()}


def as_floats(losses: Mapping[str, mx.array]) -> dict[str, float]:
    """Return the losses as plain numbers."""
    return {name: cast(float, loss.item()) for name, loss in losses.items()}
