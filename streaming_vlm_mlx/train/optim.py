"""AdamW with weight decay on matrices only, its learning-rate schedule, and frozen parameters."""

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.activations import BLOCK, uses_numpy
from streaming_vlm_mlx.train.config import OptimizerConfig, ScheduleConfig


def rate_fraction(step: int, config: ScheduleConfig) -> float:
    """Return the learning rate of step `step`, counted from 0, as a fraction of the highest rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    decayed = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * min(decayed, 1.0))) / 2
    return config.final_fraction + (1 - config.final_fraction) * cosine


def make_optimizer(config: OptimizerConfig) -> optim.MultiOptimizer:
    """Return AdamW (arXiv 1711.05101) with weight decay for matrices and without it for all other parameters."""

    def adamw(weight_decay: float) -> optim.AdamW:
        return _AdamW(config.learning_rate, list(config.betas), config.eps, weight_decay, bias_correction=True)

    return optim.MultiOptimizer([adamw(config.weight_decay), adamw(0.0)], [_is_matrix])


class _AdamW(optim.AdamW):
    """AdamW whose update of a float32 array on a CPU is computed by NumPy, a part at a time that stays in the cache.

    MLX's kernels read and write memory in each of 14 operations, and take 4 to 5 times as long.
    """

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]) -> mx.array:
        """Return the new value of `parameter`, and change its means in `state` in place."""
        if not uses_numpy(parameter) or gradient.dtype != mx.float32:
            updated: mx.array = super().apply_single(gradient, parameter, state)
            return updated
        (b1, b2), step = self.betas, cast(int, self.step.item())
        rate = cast(float, self.learning_rate.item())
        kept, scale = 1 - rate * self.weight_decay, (1 - b2**step) ** -0.5
        rate = rate / (1 - b1**step)
        mx.eval(gradient, parameter, state["m"], state["v"])
        # A view where NumPy may write; the parameter is copied, since a layer may share it.
        means, squares = (np.array(state[name], copy=False) for name in ("m", "v"))
        grads, values = np.array(gradient, copy=False), np.array(parameter)
        rows = max(BLOCK * len(values) // values.size, 1)
        for at in range(0, len(values), rows):
            part = slice(at, at + rows)
            g, m, v, value = grads[part], means[part], squares[part], values[part]
            m *= b1
            m += (1 - b1) * g
            v *= b2
            work = np.square(g)
            work *= 1 - b2
            v += work
            np.sqrt(v, out=work)
            work *= scale
            work += self.eps
            np.divide(m, work, out=work)
            work *= rate
            value *= kept
            value -= work
        return mx.array(values)


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Freeze the parameters of `model` whose names match one of `patterns` (``visual.*``).

    Returns:
        the number of frozen weights.

    Raises:
        SvmError: a pattern matches no parameter.
    """
    names = [name for name, _ in _flat(model.parameters())]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SvmError(f"freeze: {pattern!r} matches no parameter; an example of a name is {names[0]!r}.")
    frozen = 0
    for module, key, leaves in _parameters(model):
        if any(fnmatchcase(name, pattern) for name, _ in leaves for pattern in patterns):
            module.freeze(recurse=False, keys=[key])
            frozen += sum(array.size for _, array in leaves)
    return frozen


def _parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, list[tuple[str, mx.array]]]]:
    """Yield (module, key, named arrays) for each parameter; one key may hold several arrays."""
    for prefix, module in model.named_modules():
        children = module.children()
        for key, value in module.parameters().items():
            if not tree_flatten(children.get(key, {}), is_leaf=lambda item: isinstance(item, nn.Module)):
                yield module, key, _flat(value, f".{prefix}.{key}" if prefix else f".{key}")


def _flat(tree: object, prefix: str = "") -> list[tuple[str, mx.array]]:
    return cast(list[tuple[str, mx.array]], tree_flatten(tree, prefix=prefix))


def _is_matrix(_: str, array: mx.array) -> bool:
    return array.ndim > 1
