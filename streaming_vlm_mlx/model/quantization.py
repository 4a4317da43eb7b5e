"""Layers that hold their weights in few bits, packed; `mlx.nn` computes with them as they are."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import mlx.nn as nn

from streaming_vlm_mlx.config import QuantizationConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.names import hub_name


def quantizable(model: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """Yield every layer of `model` that can be quantised, and its name."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield name, module


def quantize_layers(model: nn.Module, config: QuantizationConfig) -> None:
    """Put quantised layers in the places that `config` says; nothing is computed yet.

    Raises:
        SvmError: a layer's inputs do not divide into groups.
    """
    for name, layer in quantizable(model):
        chosen = config.of(name)
        width = layer.weight.shape[1]
        if chosen and width % chosen[1]:
            raise SvmError(
                f"quantization: the {width} inputs of {name} do not divide into groups of {chosen[1]}; "
                "choose another group size, or leave the weights plain."
            )

    def settings(name: str, module: nn.Module) -> bool | dict[str, Any]:
        chosen = config.of(name) if isinstance(module, nn.Linear | nn.Embedding) else None
        return {"bits": chosen[0], "group_size": chosen[1]} if chosen else False

    nn.quantize(model, class_predicate=settings)


def settle(config: QuantizationConfig, plain: nn.Module, stored: Collection[str]) -> QuantizationConfig:
    """Return `config` with every layer named that is plain, for blocks that leave that to be seen from the tensors.

    Args:
        config: as a folder's ``config.json`` has it; its layers may have any hub's names.
        plain: the model without quantised layers.
        stored: names of the tensors that the folder holds.
    """
    layers = {hub_name(name): part for name, part in config.layers.items() if isinstance(part, Mapping)}
    absent = {name: False for name, _ in quantizable(plain) if f"{name}.scales" not in stored}
    return replace(config, layers=layers | absent)
