"""LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353) adapters for linear layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from streaming_vlm_mlx.config_io import FromDict, demand
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.vlm import VisionLanguageModel

Kind = Literal["lora", "dora"]
HEAD, EMBEDDING = "lm_head", "model.embed_tokens"


@dataclass(frozen=True)
class LoraConfig(FromDict):
    """Which linear layers get an adapter, and of what kind and size.

    Attributes:
        kind: ``lora`` adds a product of two low-rank matrices to a weight; ``dora`` also learns the length of each row.
        rank: rank of the matrices.
        scale: factor of their product.
        targets: patterns of layer names; by default every linear layer of the decoder.
        ranks: ranks of single layers that differ from `rank`, by the layer's name.
        scales: factors of single layers that differ from `scale`, by the layer's name.
        full: patterns of parameters (``model.norm.weight``) that are trained whole and saved with the adapter.
    """

    kind: Kind = "lora"
    rank: int = 8
    scale: float = 2.0
    targets: tuple[str, ...] = ("model.layers.*_proj",)
    ranks: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, Any] = field(default_factory=dict)
    full: tuple[str, ...] = ()

    def check(self) -> None:
        """Check the settings.

        Raises:
            SvmError: names the setting that cannot be used.
        """
        for name, rank in (("rank", self.rank), *((f"ranks.{layer}", rank) for layer, rank in self.ranks.items())):
            demand(type(rank) is int and rank >= 1, f"lora.{name}", rank, "1 or more")
        for name, scale in (("scale", self.scale), *((f"scales.{layer}", s) for layer, s in self.scales.items())):
            demand(type(scale) in (int, float) and scale > 0, f"lora.{name}", scale, "above 0")
        if not self.targets:
            raise SvmError("lora.targets is empty; name layers, such as 'model.layers.*_proj'.")

    def of(self, layer: str) -> tuple[int, float]:
        """Return rank and scale of `layer`."""
        return self.ranks.get(layer, self.rank), self.scales.get(layer, self.scale)


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
        return y + self._update(x).astype(y.dtype)

    def fused(self) -> Linear:
        """Return one layer with the adapter fused in; a quantized layer is quantized again."""
        return like(self.linear, plain_weight(self.linear) + self.delta())

    def delta(self) -> mx.array:
        """Return the update that the adapter adds to the weight, float32 [outputs, inputs]."""
        product: mx.array = (self.lora_a.astype(mx.float32) @ self.lora_b.astype(mx.float32)).T
        return self._scale * product

    def arrays(self) -> list[mx.array]:
        """Return the arrays that the adapter adds to the layer, with what is computed from the weight."""
        return [self[name] for name in ("lora_a", "lora_b", "m", "_squares") if name in self]

    def _update(self, x: mx.array) -> mx.array:
        return self._scale * ((x @ self.lora_a) @ self.lora_b)


class DoRALinear(LoRALinear):
    """A linear layer whose rows of W + ΔW are scaled to learned lengths m.

    The lengths of the rows of W + ΔW follow from those of W, which are computed once, and from products of rank width:
    ‖w + Δw‖² = ‖w‖² + 2 w·Δw + ‖Δw‖². So training does not unpack a quantized weight, and neither does inference after
    `fix_lengths`.
    """

    def __init__(self, linear: Linear, rank: int, scale: float, key: mx.array) -> None:
        """Wrap `linear` like `LoRALinear`; m starts as the lengths of its rows."""
        super().__init__(linear, rank, scale, key)
        self._ratio: mx.array | None = None
        self.measure()
        self.m = mx.sqrt(self._squares)

    def measure(self) -> None:
        """Compute the lengths of W's rows; call this when its weights were replaced."""
        self._squares = mx.square(plain_weight(self.linear)).sum(axis=1)

    def fix_lengths(self) -> None:
        """Compute the factor of each row once and for all: after this, the adapter's arrays must not change."""
        self._ratio = self.m.astype(mx.float32) / mx.linalg.norm(plain_weight(self.linear) + self.delta(), axis=1)
        mx.eval(self._ratio)
        # It would keep the weight in memory when that is laid out anew.
        self._squares = mx.zeros(0)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., inputs] to [..., outputs]."""
        # The bias is added last: it can be large, and half precision would round what it is added to.
        y = _product(self.linear, x)
        y = (y + self._update(x).astype(y.dtype)) * self._factors().astype(y.dtype)
        return y + self.linear.bias if "bias" in self.linear else y

    def fused(self) -> Linear:
        """Return one layer with the adapter fused in; a quantized layer is quantized again."""
        return like(self.linear, (plain_weight(self.linear) + self.delta()) * self._factors()[:, None])

    def _factors(self) -> mx.array:
        """Return m over the rows' lengths, float32 [outputs]; as in the paper, no gradient flows through these."""
        if self._ratio is not None:
            return self._ratio
        a, b = mx.stop_gradient(self.lora_a), mx.stop_gradient(self.lora_b)
        along = _product(self.linear, a.T).astype(mx.float32)
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        cross, own = (along * b).sum(axis=0), ((a.T @ a) @ b * b).sum(axis=0)
        lengths = mx.sqrt(self._squares + 2 * self._scale * cross + self._scale**2 * own)
        return self.m.astype(mx.float32) / mx.stop_gradient(lengths)


def _product(linear: Linear, x: mx.array) -> mx.array:
    """Return x·Wᵀ, without the bias."""
    if isinstance(linear, nn.QuantizedLinear):
        return mx.quantized_matmul(x, linear.weight, transpose=True, **_packing(linear))
    return x @ linear.weight.T


def shape_of(linear: Linear) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a layer, quantized or not."""
    outputs, inputs = linear.weight.shape
    return outputs, inputs * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else inputs


def plain_weight(layer: Linear | nn.Embedding | nn.QuantizedEmbedding) -> mx.array:
    """Return the weight of a layer, dequantized, float32 [outputs, inputs]."""
    if isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return mx.dequantize(layer.weight, **_packing(layer)).astype(mx.float32)
    return layer.weight.astype(mx.float32)


def _packing(layer: nn.QuantizedLinear | nn.QuantizedEmbedding) -> dict[str, Any]:
    """Return how a weight is packed, as MLX's functions take it; the modes beside ``affine`` have no biases."""
    scales = {"scales": layer.scales, "biases": layer.get("biases")}
    return {**scales, "group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}


def like(linear: Linear, weight: mx.array) -> Linear:
    """Return a copy of `linear` with another `weight`, float32 [outputs, inputs]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in linear)
    if "bias" in linear:
        made.bias = linear.bias
    if not isinstance(linear, nn.QuantizedLinear):
        made.weight = weight.astype(linear.weight.dtype)
        return made
    # Scales of the modes without biases are no floats.
    made.weight = weight.astype(linear.scales.dtype) if "biases" in linear else weight
    packed = nn.QuantizedLinear.from_linear(made, linear.group_size, linear.bits, mode=linear.mode)
    return cast(nn.QuantizedLinear, packed)


def attach(model: VisionLanguageModel, config: LoraConfig, seed: int = 0) -> int:
    """Attach adapters to the layers of `model` that `config` names, and freeze all other parameters.

    Args:
        model: changed in place.
        config: which layers, and how.
        seed: seed of the initial values.

    Returns:
        how many parameters are trainable.

    Raises:
        SvmError: a pattern matches no linear layer, or no parameter.
    """
    if any(fnmatchcase(HEAD, p) for p in config.targets) or any(p.startswith((HEAD, EMBEDDING)) for p in config.full):
        model.untie()
    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    for pattern in config.targets:
        if not any(fnmatchcase(name, pattern) for name in linears):
            first = next(iter(linears))
            raise SvmError(f"lora.targets: {pattern!r} matches no linear layer; their names are like {first!r}.")
    _freeze(model)
    for pattern in config.full:
        _unfreeze(model, pattern)
    chosen = [name for name in sorted(linears) if any(fnmatchcase(name, pattern) for pattern in config.targets)]
    make = DoRALinear if config.kind == "dora" else LoRALinear
    keys = mx.random.split(mx.random.key(seed), len(chosen))
    for name, key in zip(chosen, keys, strict=True):
        adapted = make(linears[name], *config.of(name), key)
        # One by one: each unpacks a weight.
        mx.eval(adapted.arrays())
        model.update_modules(tree_unflatten([(name, adapted)]))
    return sum(array.size for array in trained_arrays(model).values())


def _freeze(model: nn.Module) -> None:
    """Freeze all parameters of `model`; `nn.Module.freeze` misses arrays in dictionaries."""
    for module in model.modules():
        children = module.children()
        own = [key for key in module.parameters() if not _holds_modules(children.get(key, {}))]
        module.freeze(recurse=False, keys=own)


def _holds_modules(tree: object) -> bool:
    return bool(tree_flatten(tree, is_leaf=lambda item: isinstance(item, nn.Module)))


def _unfreeze(model: VisionLanguageModel, pattern: str) -> None:
    """Unfreeze the parameters that `pattern` matches; a quantized layer among them becomes a plain one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) and fnmatchcase(f"{name}.weight", pattern):
            model.update_modules(tree_unflatten([(name, _unpacked(module))]))
    arrays = {name: array for name, array in model.named_arrays() if fnmatchcase(name, pattern)}
    if not arrays:
        raise SvmError(f"lora.full: {pattern!r} matches no parameter; their names are like 'model.norm.weight'.")
    for name, array in arrays.items():
        # What is trained is float32.
        model.load_weights([(name, array.astype(mx.float32))], strict=False)
        owner, key = owner_of(model, name)
        # Not the method of quantized layers, which leaves them frozen.
        nn.Module.unfreeze(owner, recurse=False, keys=[key.partition(".")[0]])


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that holds the parameter `name`, and the parameter's name in it."""
    owner, node, rest = model, cast(Any, model), name
    while rest:
        key, _, after = rest.partition(".")
        node = node[int(key)] if isinstance(node, list) else node[key]
        if not isinstance(node, nn.Module | list):
            break
        if isinstance(node, nn.Module):
            owner, name = node, after
        rest = after
    return owner, name


def _unpacked(layer: nn.QuantizedLinear | nn.QuantizedEmbedding) -> nn.Linear | nn.Embedding:
    weight = plain_weight(layer)
    dtype = layer.scales.dtype if "biases" in layer else mx.bfloat16
    if isinstance(layer, nn.QuantizedEmbedding):
        made: nn.Linear | nn.Embedding = nn.Embedding(*weight.shape)
    else:
        made = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in layer)
        if "bias" in layer:
            made.bias = layer.bias
    made.weight = weight.astype(dtype)
    return made


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield the name and the layer of each adapter in `model`."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def adapter_arrays(layer: LoRALinear) -> dict[str, mx.array]:
    """Return the arrays of an adapter by their names in the layer."""
    return {name: layer[name] for name in ("lora_a", "lora_b", "m") if name in layer}


def trained_arrays(model: nn.Module) -> dict[str, mx.array]:
    """Return what training changes in a model that `attach` has changed, by name: adapters, and whole parameters."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters())))


def remeasure(model: nn.Module) -> None:
    """Compute the lengths of the rows again of all weights that DoRA adapts; call this when weights were replaced."""
    for _, layer in adapted_layers(model):
        if isinstance(layer, DoRALinear):
            layer.measure()
            mx.eval(layer.arrays())


def fix_lengths(model: nn.Module) -> None:
    """Compute the factors of all DoRA layers once and for all, see `DoRALinear.fix_lengths`."""
    for _, layer in adapted_layers(model):
        if isinstance(layer, DoRALinear):
            layer.fix_lengths()


def fuse(model: nn.Module) -> None:
    """Replace each layer that has an adapter by one with the adapter fused in, one at a time."""
    for name, layer in list(adapted_layers(model)):
        fused = layer.fused()
        mx.eval(fused.parameters())
        model.update_modules(tree_unflatten([(name, fused)]))
