"""AdamW with decay on matrices alone, and what is left out of it."""

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.config import OptimizerConfig, ScheduleConfig


def rate_fraction(step: int, config: ScheduleConfig) -> float:
    """Return the share of the highest learning rate that update number `step`, counted from 0, is made with."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    through = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * min(through, 1.0))) / 2
    return config.final_fraction + (1 - config.final_fraction) * cosine


def make_optimizer(config: OptimizerConfig) -> optim.MultiOptimizer:
    """Return AdamW for matrices, which decay, and for all else, which does not."""

    def adamw(weight_decay: float) -> optim.AdamW:
        return optim.AdamW(config.learning_rate, list(config.betas), config.eps, weight_decay, bias_correction=True)

    return optim.MultiOptimizer([adamw(config.weight_decay), adamw(0.0)], [_is_matrix])


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Keep the parameters of `model` whose names match one of `patterns` (``visual.*``) from moving.

    Returns:
        how many numbers stand still.

    Raises:
        SvmError: a pattern matches no name.
    """
    names = [name for name, _ in _flat(model.parameters())]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SvmError(f"freeze: {pattern!r} matches no parameter; their names are like {names[0]!r}.")
    frozen = 0
    for module, key, leaves in _own(model):
        if any(fnmatchcase(name, pattern) for name, _ in leaves for pattern in patterns):
            module.freeze(recurse=False, keys=[key])
            frozen += sum(array.size for _, array in leaves)
    return frozen


def _own(model: nn.Module) -> Iterator[tuple[nn.Module, str, list[tuple[str, mx.array]]]]:
    """Yield every parameter with the module that holds it and its key there; several arrays may lie under one key."""
    for prefix, module in model.named_modules():
        children = module.children()
        for key, value in module.parameters().items():
            if not tree_flatten(children.get(key, {}), is_leaf=lambda item: isinstance(item, nn.Module)):
                yield module, key, _flat(value, f".{prefix}.{key}" if prefix else f".{key}")


def _flat(tree: object, prefix: str = "") -> list[tuple[str, mx.array]]:
    return cast(list[tuple[str, mx.array]], tree_flatten(tree, prefix=prefix))


def _is_matrix(_: str, array: mx.array) -> bool:
    return array.ndim > 1
