"""The training loss: cross entropy of the text and of the vision heads."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.activations import Wrap, identity, uses_numpy
from streaming_vlm_mlx.models.attention import Causal
from streaming_vlm_mlx.models.language import LogitsToKeep
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.microbatch import Microbatch
from streaming_vlm_mlx.train.vision_heads import VisionHeads

TEXT = "text"
# Logits of which the exponential is computed at a time.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss's parts.

    Attributes:
        text: weight of the text loss; with 0 the decoder is not computed.
        heads: weight of the vision heads' summed loss.
    """

    text: float = 1.0
    heads: float = 0.0


class TrainModel(nn.Module):
    """The model and its vision heads, which are used in training only."""

    def __init__(self, model: VisionLanguageModel, heads: VisionHeads | None = None) -> None:
        super().__init__()
        self.model = model
        if heads is not None:
            self.heads = heads

    @property
    def vision_heads(self) -> VisionHeads | None:
        """The vision heads, or None."""
        return self.heads if "heads" in self else None

    def parts(self, weights: LossWeights) -> list[str]:
        """Return the names of the parts that have a weight: ``text`` and each vision head."""
        heads = self.heads.names if weights.heads and "heads" in self else []
        return [TEXT, *heads] if weights.text else heads

    def weight(self, part: str, weights: LossWeights) -> float:
        """Return the weight of the mean loss of `part`."""
        return weights.text if part == TEXT else weights.heads * self.heads.weight(part)

    def losses(self, microbatch: Microbatch, weights: LossWeights, wrap: Wrap = identity) -> dict[str, mx.array]:
        """Return the cross entropy of each part that has a weight, summed over its known targets in `microbatch`.

        Args:
            microbatch: inputs and targets.
            weights: the weights of the parts.
            wrap: is called with each layer and returns the function that replaces it.
        """
        features = encode_videos(self.model, microbatch, wrap)
        parts: dict[str, mx.array] = {}
        if weights.text:
            # On a CPU, MLX's sums over no tokens do not always end.
            known = microbatch.targets.size > 0
            parts[TEXT] = text_loss(self.model, microbatch, features, wrap) if known else mx.array(0.0)
        if weights.heads and "heads" in self and features is not None:
            for name, logits, targets in self.heads(features, microbatch.grids, microbatch.head_targets):
                parts[name] = parts.get(name, 0.0) + cross_entropy(logits, mx.array(targets)).sum()
        return parts


def encode_videos(model: VisionLanguageModel, microbatch: Microbatch, wrap: Wrap = identity) -> mx.array | None:
    """Return the features [units, features_width] of `microbatch`'s videos; videos of the same size share one call."""
    if not microbatch.grids or model.config.vision_config is None:
        return None
    width, units = model.config.vision_config.features_width, np.count_nonzero(microbatch.is_video)
    # Cached features have the shape [units, width]; the number of rows alone is not enough if nothing is merged.
    if microbatch.pixel_values.shape == (units, width):
        return mx.array(microbatch.pixel_values)
    runs = np.split(microbatch.pixel_values, np.cumsum([math.prod(grid) for grid in microbatch.grids])[:-1])
    features = [model.visual(mx.array(values), grid, wrap) for values, grid in zip(runs, microbatch.grids, strict=True)]
    return features[0] if len(features) == 1 else mx.concatenate(features)


def text_loss(
    model: VisionLanguageModel, microbatch: Microbatch, features: mx.array | None, wrap: Wrap = identity
) -> mx.array:
    """Return the summed cross entropy of `microbatch`'s labels; logits are computed for labelled tokens only."""
    is_video = microbatch.is_video.ravel()
    embeddings = model.embed(microbatch.token_ids.ravel(), features, is_video)
    positions = microbatch.position_ids.astype(np.int64)
    mask = "causal" if microbatch.mask is None else Causal(mx.array(microbatch.mask))
    hidden = model.model(
        embeddings.reshape(*microbatch.token_ids.shape, -1),
        _rotary(model, positions),
        mask=mask,
        logits_to_keep=_logits_to_keep(model, microbatch, positions),
        wrap=wrap,
        deepstack=model.deepstack(features, is_video),
    )
    hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(np.flatnonzero(microbatch.is_target))]
    return cross_entropy(model.head(hidden), mx.array(microbatch.targets)).sum()


def _logits_to_keep(
    model: VisionLanguageModel, microbatch: Microbatch, positions: npt.NDArray[np.int64]
) -> LogitsToKeep:
    batch, n = microbatch.token_ids.shape
    at = np.take_along_axis(positions, microbatch.places[None], axis=2)
    places = microbatch.places + n * np.arange(batch)[:, None]
    return LogitsToKeep(mx.array(places), _rotary(model, at), mx.array(microbatch.logits_mask))


def _rotary(model: VisionLanguageModel, positions: npt.NDArray[np.int64]) -> tuple[mx.array, mx.array]:
    """Return cosines and sines [batch, 1, n, head_dim] of `positions` [3, batch, n]."""
    cos, sin = model.model.rope(positions.reshape(3, -1))
    shape = positions.shape[1], 1, positions.shape[2], -1
    return cos.reshape(shape), sin.reshape(shape)


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the float32 cross entropy [m] of `logits` [m, classes] and `targets` [m]."""
    logits = logits.astype(mx.float32)
    if uses_numpy(logits):
        loss, _ = cast(tuple[mx.array, mx.array], _cross_entropy(logits, targets))
        return loss
    target_logits = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.logsumexp(logits, axis=-1) - target_logits


@mx.custom_function
def _cross_entropy(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Return the cross entropy [m] and log-sum-exp [m, 1] by NumPy, a part at a time that stays in the cache."""
    scores, rows = np.array(logits, copy=False), np.array(targets, copy=False)
    sums = np.empty((len(scores), 1), np.float32)
    for part in _chunks(scores):
        highest = scores[part].max(axis=1, keepdims=True)
        work = scores[part] - highest
        np.exp(work, out=work)
        sums[part] = np.log(work.sum(axis=1, keepdims=True)) + highest
    return mx.array(sums[:, 0] - scores[np.arange(len(rows)), rows]), mx.array(sums)


@_cross_entropy.vjp
def _cross_entropy_vjp(
    primals: tuple[mx.array, mx.array], cotangents: tuple[mx.array, mx.array], outputs: tuple[mx.array, mx.array]
) -> tuple[mx.array, mx.array]:
    scores, targets = (np.array(array, copy=False) for array in primals)
    sums, weights = np.array(outputs[1], copy=False), np.array(cotangents[0])[:, None]
    grads = mx.zeros_like(primals[0])
    mx.eval(grads)
    softmax = np.array(grads, copy=False)
    for part in _chunks(scores):
        work = softmax[part]
        np.subtract(scores[part], sums[part], out=work)
        np.exp(work, out=work)
        work *= weights[part]
    softmax[np.arange(len(targets)), targets] -= weights[:, 0]
    return grads, mx.zeros_like(primals[1])


def _chunks(scores: npt.NDArray[np.float32]) -> Iterator[slice]:
    """Yield the rows of `scores` in parts that fit the cache."""
    rows = max(_CHUNK // max(scores.shape[1], 1), 1)
    return (slice(at, at + rows) for at in range(0, len(scores), rows))


def count_targets(microbatches: Sequence[Microbatch]) -> Mapping[str, int]:
    """Return the number of known targets of each part in all of `microbatches`."""
    counts = {TEXT: sum(microbatch.targets.size for microbatch in microbatches)}
    for name in microbatches[0].head_targets:
        counts[name] = sum(int(np.count_nonzero(microbatch.head_targets[name] >= 0)) for microbatch in microbatches)
    return counts
