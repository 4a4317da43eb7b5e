"""Losses and gradients of one microbatch, in this process or in a data-parallel worker."""

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
from streaming_vlm_mlx.models.lora import LoraConfig, attach, remeasure
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.loss import LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import Microbatch
from streaming_vlm_mlx.train.optim import freeze
from streaming_vlm_mlx.train.vision_heads import VisionHeads

Arrays = dict[str, mx.array]
NumpyArrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Compute:
    """How losses and gradients are computed.

    Attributes:
        dtype: the layers' dtype; weights and gradients are float32.
        grad_checkpoint: recompute the activations of each layer in the backward pass.
    """

    dtype: mx.Dtype = mx.float32
    grad_checkpoint: bool = False

    @property
    def wrap(self) -> Wrap:
        """The function that wraps each layer."""
        return nn.utils.checkpoint if self.grad_checkpoint else identity


def compute_grads(
    train_model: TrainModel, microbatch: Microbatch, weights: LossWeights, counts: Mapping[str, float], compute: Compute
) -> tuple[Arrays, Arrays]:
    """Return each part's loss summed over `microbatch`, and the gradient of the weighted loss, both by name.

    Args:
        train_model: the model and its vision heads.
        microbatch: a part of the step's batches.
        weights: the weights of the loss's parts.
        counts: the number of targets of each part in the whole step, by which its summed loss is divided.
        compute: dtype and gradient checkpointing.
    """
    params = train_model.parameters()
    (_, losses), tree = nn.value_and_grad(train_model, _weighted(train_model, weights, counts, compute))(microbatch)
    train_model.update(params)
    # The gradient of a matrix is often a transposed view, which is slow to add, to scale and to send.
    grads = {name: mx.contiguous(grad) for name, grad in flatten(tree).items()}
    mx.eval(losses, grads)
    return losses, grads


def compute_losses(train_model: TrainModel, microbatch: Microbatch, weights: LossWeights, compute: Compute) -> Arrays:
    """Return each part's loss summed over `microbatch`, by name."""
    params = train_model.parameters()
    train_model.update(_cast(params, compute.dtype))
    losses = train_model.losses(microbatch, weights)
    train_model.update(params)
    mx.eval(losses)
    return losses


def _weighted(
    train_model: TrainModel, weights: LossWeights, counts: Mapping[str, float], compute: Compute
) -> Callable[[Microbatch], tuple[mx.array, Arrays]]:
    """Return a function from a microbatch to its weighted loss and the unweighted losses of its parts."""

    def loss(microbatch: Microbatch) -> tuple[mx.array, Arrays]:
        train_model.update(_cast(train_model.parameters(), compute.dtype))
        parts = train_model.losses(microbatch, weights, compute.wrap)
        terms = (
            value * (train_model.weight(name, weights) / counts[name]) for name, value in parts.items() if counts[name]
        )
        return sum(terms, mx.array(0.0)), parts

    return loss


def _cast(parameters: Any, dtype: mx.Dtype) -> Any:
    # Quantized weights are packed integers and keep their dtype.
    return tree_map(lambda a: a.astype(dtype) if mx.issubdtype(a.dtype, mx.floating) else a, parameters)


@dataclass(frozen=True)
class WorkerSpec:
    """The structure of a worker's `TrainModel`; its weights come with the requests.

    Attributes:
        model: sizes of the model.
        heads: the vision heads.
        freeze: patterns of parameters that are not trained.
        grad_checkpoint: recompute the activations of each layer in the backward pass.
        lora: the adapters, or None to train the weights.
        seed: seed of the adapters' initial weights.
    """

    model: ModelConfig
    heads: tuple[HeadConfig, ...] = ()
    freeze: tuple[str, ...] = ()
    grad_checkpoint: bool = False
    lora: LoraConfig | None = None
    seed: int = 0

    def build(self) -> TrainModel:
        """Return a `TrainModel` with uninitialized weights."""
        return make_train_model(VisionLanguageModel(self.model), self)


@dataclass(frozen=True)
class Request:
    """A microbatch for a worker.

    Attributes:
        parameters: the parameters that changed since the last request.
        microbatch: inputs and targets.
        weights: the weights of the loss's parts.
        counts: the number of targets of each part in the whole step, as in `compute_grads`; None asks for the losses
            without a gradient.
    """

    parameters: NumpyArrays
    microbatch: Microbatch
    weights: LossWeights
    counts: Mapping[str, float] | None


@dataclass(frozen=True)
class Result:
    """A worker's result: each part's loss summed over the microbatch, and the gradient, empty if not asked for."""

    losses: Mapping[str, float]
    grads: NumpyArrays


def make_train_model(model: VisionLanguageModel, spec: WorkerSpec) -> TrainModel:
    """Return `model` with frozen parameters, adapters and uninitialized vision heads as `spec` says.

    Raises:
        SvmError: a pattern, to freeze or to adapt, matches nothing.
    """
    freeze(model, spec.freeze)
    if spec.lora is not None:
        attach(model, spec.lora, spec.seed)
    vision = spec.model.vision_config
    heads = VisionHeads(spec.heads, vision.features_width) if vision and spec.heads else None
    return TrainModel(model, heads)


def handle_request(train_model: TrainModel, request: Request, compute: Compute) -> Result:
    """Update the weights of `train_model` from `request` and compute its losses, with a gradient if asked for."""
    train_model.load_weights([(name, mx.array(array)) for name, array in request.parameters.items()], strict=False)
    if any(name.endswith(".linear.weight") for name in request.parameters):
        remeasure(train_model)
    if request.counts is None:
        return Result(as_floats(compute_losses(train_model, request.microbatch, request.weights, compute)), {})
    losses, grads = compute_grads(train_model, request.microbatch, request.weights, request.counts, compute)
    return Result(as_floats(losses), as_numpy(grads))


def flatten(tree: object) -> Arrays:
    """Return the arrays of `tree` by their dotted names."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(tree)))


def as_numpy(arrays: Mapping[str, mx.array]) -> NumpyArrays:
    """Return `arrays` as NumPy arrays."""
    return {name: np.array(array) for name, array in arrays.items()}


def as_floats(losses: Mapping[str, mx.array]) -> dict[str, float]:
    """Return `losses` as Python floats."""
    return {name: cast(float, loss.item()) for name, loss in losses.items()}
