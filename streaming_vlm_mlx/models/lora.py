"""LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353) adapters for linear layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError

Kind = Literal["lora", "dora"]


@dataclass(frozen=True)
class LoraConfig(FromDict):
    """Which linear layers get an adapter, and of what kind and size.

    Attributes:
        kind: ``lora`` adds a product of two low-rank matrices to a weight; ``dora`` also learns the length of each row.
        rank: rank of the matrices.
        scale: factor of their product.
        targets: patterns of layer names; by default every linear layer of the decoder.
    """

    kind: Kind = "lora"
    rank: int = 8
    scale: float = 2.0
    targets: tuple[str, ...] = ("model.layers.*_proj",)

    def check(self) -> None:
        """Check the settings.

        Raises:
            SvmError: names the setting that cannot be used.
        """
        if self.rank < 1:
            raise SvmError(f"lora.rank is {self.rank}; it must be 1 or more.")
        if self.scale <= 0:
            raise SvmError(f"lora.scale is {self.scale}; it must be above 0.")
        if not self.targets:
            raise SvmError("lora.targets is empty; name layers, such as 'model.layers.*_proj'.")


Linear = nn.Linear | nn.QuantizedLinear


class LoRALinear(nn.Module):
    """A linear layer that computes x·Wᵀ + b + scale · (x·A)·B."""

    def __init__(self, linear: Linear, rank: int, scale: float, key: mx.array) -> None:
        """Wrap `linear`. A is random, drawn from `key`, and B is 0, so the output does not change at first."""
        super().__init__()
        outputs, inputs = shape_of(linear)
        self._scale = scale
        self.linear = linear
        self.lora_a = mx.random.uniform(-(inputs**-0.5), inputs**-0.5, (inputs, rank), key=key)
        self.lora_b = mx.zeros((rank, outputs))

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., inputs] to [..., outputs]."""
        y: mx.array = self.linear(x)
        return y + (self._scale * ((x @ self.lora_a) @ self.lora_b)).astype(y.dtype)

    def fused(self) -> Linear:
        """Return one layer with the adapter fused in; a quantized layer is quantized again."""
        return like(self.linear, plain_weight(self.linear) + self.delta())

    def delta(self) -> mx.array:
        """Return the update that the adapter adds to the weight, float32 [outputs, inputs]."""
        product: mx.array = (self.lora_a.astype(mx.float32) @ self.lora_b.astype(mx.float32)).T
        return self._scale * product


class DoRALinear(LoRALinear):
    """A linear layer whose rows of W + ΔW are scaled to learned lengths m."""

    def __init__(self, linear: Linear, rank: int, scale: float, key: mx.array) -> None:
        """Wrap `linear` like `LoRALinear`; m starts as the lengths of its rows."""
        super().__init__(linear, rank, scale, key)
        self.m = mx.linalg.norm(plain_weight(linear), axis=1)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., inputs] to [..., outputs]."""
        y: mx.array = super().__call__(x)
        lengths = (self.m / self._lengths()).astype(y.dtype)
        if "bias" not in self.linear:
            return y * lengths
        return (y - self.linear.bias) * lengths + self.linear.bias

    def fused(self) -> Linear:
        """Return one layer with the adapter fused in; a quantized layer is quantized again."""
        weight = plain_weight(self.linear) + self.delta()
        return like(self.linear, weight * (self.m / self._lengths())[:, None])

    def _lengths(self) -> mx.array:
        """Return the lengths of the rows, [outputs]; as in the paper, no gradient flows through them."""
        return mx.stop_gradient(mx.linalg.norm(plain_weight(self.linear) + self.delta(), axis=1))


def shape_of(linear: Linear) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a layer, quantized or not."""
    outputs, inputs = linear.weight.shape
    return outputs, inputs * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else inputs


def plain_weight(linear: Linear) -> mx.array:
    """Return the weight of a layer, dequantized, float32 [outputs, inputs]."""
    if isinstance(linear, nn.QuantizedLinear):
        whole = mx.dequantize(linear.weight, linear.scales, linear.biases, linear.group_size, linear.bits)
        return whole.astype(mx.float32)
    return linear.weight.astype(mx.float32)


def like(linear: Linear, weight: mx.array) -> Linear:
    """Return a copy of `linear` with another `weight`, float32 [outputs, inputs]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in linear)
    quantized = isinstance(linear, nn.QuantizedLinear)
    made.weight = weight.astype((linear.scales if quantized else linear.weight).dtype)
    if "bias" in linear:
        made.bias = linear.bias
    return nn.QuantizedLinear.from_linear(made, linear.group_size, linear.bits) if quantized else made


def attach(model: nn.Module, config: LoraConfig, seed: int = 0) -> int:
    """Attach adapters to the layers of `model` that `config` names, and freeze all other parameters.

    Args:
        model: changed in place.
        config: which layers, and how.
        seed: seed of the initial values.

    Returns:
        how many parameters are trainable.

    Raises:
        SvmError: a pattern matches no linear layer.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    for pattern in config.targets:
        if not any(fnmatchcase(name, pattern) for name in linears):
            first = next(iter(linears))
            raise SvmError(f"lora.targets: {pattern!r} matches no linear layer; their names are like {first!r}.")
    _freeze(model)
    chosen = [name for name in sorted(linears) if any(fnmatchcase(name, pattern) for pattern in config.targets)]
    make = DoRALinear if config.kind == "dora" else LoRALinear
    keys = mx.random.split(mx.random.key(seed), len(chosen))
    for name, key in zip(chosen, keys, strict=True):
        adapted = make(linears[name], config.rank, config.scale, key)
        model.update_modules(tree_unflatten([(name, adapted)]))
    arrays = [array for _, layer in adapted_layers(model) for array in adapter_arrays(layer).values()]
    mx.eval(arrays)
    return sum(array.size for array in arrays)


def _freeze(model: nn.Module) -> None:
    """Freeze all parameters of `model`; `nn.Module.freeze` misses arrays in dictionaries."""
    for module in model.modules():
        children = module.children()
        own = [key for key in module.parameters() if not _holds_modules(children.get(key, {}))]
        module.freeze(recurse=False, keys=own)


def _holds_modules(tree: object) -> bool:
    return bool(tree_flatten(tree, is_leaf=lambda item: isinstance(item, nn.Module)))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield the name and the layer of each adapter in `model`."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def adapter_arrays(layer: LoRALinear) -> dict[str, mx.array]:
    """Return the arrays of an adapter by their names in the layer."""
    return {name: layer[name] for name in ("lora_a", "lora_b", "m") if name in layer}


def fuse(model: nn.Module) -> None:
    """Replace each layer that has an adapter by one with the adapter fused in, one at a time."""
    for name, layer in list(adapted_layers(model)):
        fused = layer.fused()
        mx.eval(fused.parameters())
        model.update_modules(tree_unflatten([(name, fused)]))
