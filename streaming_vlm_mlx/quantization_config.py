"""How the layers of a model are quantized: the ``quantization`` block in the ``config.json`` of MLX's folders."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from streaming_vlm_mlx.config_io import FromDict, demand, part_of

QuantizationMode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]


@dataclass(frozen=True)
class LayerQuantization:
    """How one layer is quantized.

    Attributes:
        group_size: consecutive weights that share a scale, and with ``affine`` a bias.
        bits: bits a weight.
        mode: MLX's name of the quantization mode.
    """

    group_size: int
    bits: int
    mode: QuantizationMode = "affine"


@dataclass(frozen=True)
class QuantizationConfig(FromDict):
    """Which layers are quantized and how: the ``quantization`` block in the ``config.json`` of MLX's folders.

    Attributes:
        group_size: consecutive weights that share a scale, and with ``affine`` a bias.
        bits: bits a weight.
        mode: MLX's name of the quantization mode: ``affine``, or floating-point numbers with a scale a group, as the
            Open Compute Project (``mxfp4``, ``mxfp8``) or NVIDIA (``nvfp4``) define them.
        layers: settings of single layers, by their hub names, that differ from these; False for a layer that is not
            quantized. As in MLX, their mode is ``affine`` unless they name one.
    """

    group_size: int = 64
    bits: int = 4
    mode: QuantizationMode = "affine"
    layers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a block; settings of single layers may be beside the others, as MLX writes them.

        Raises:
            SvmError: a value is of another type than its field, or MLX does not support the bits or the group size.
        """
        own = {f.name for f in dataclasses.fields(cls)}
        beside = {k: v for k, v in values.items() if k not in own and isinstance(v, Mapping | bool)}
        return super().from_dict({**values, "layers": {**beside, **part_of(values, "layers")}})

    def check(self) -> None:
        """Check that MLX supports the modes, the bits and the group sizes.

        Raises:
            SvmError: names the setting and what it can be.
        """
        _check_quantization("quantization", LayerQuantization(self.group_size, self.bits, self.mode))
        for name in self.layers:
            layer = self.of(name)
            if layer is not None:
                _check_quantization(f"quantization of {name}", layer)

    def of(self, layer: str) -> LayerQuantization | None:
        """Return how `layer` is quantized; None where it is not."""
        own = self.layers.get(layer, True)
        if own is False:
            return None
        if not isinstance(own, Mapping):
            return LayerQuantization(self.group_size, self.bits, self.mode)
        mode = own.get("mode", "affine")
        # The settings of the whole are those of another mode; MLX has the mode's own for such a layer.
        whole = (self.group_size, self.bits) if mode == self.mode else _MODES[mode if mode in [*_MODES] else "affine"]
        return LayerQuantization(own.get("group_size", whole[0]), own.get("bits", whole[1]), mode)


_BITS, _GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
# Group size and bits of MLX's modes: the default of the first, the only ones of the others.
_MODES = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}


def _check_quantization(name: str, layer: LayerQuantization) -> None:
    # A file can have anything there.
    demand(layer.mode in [*_MODES], f"{name}: mode", layer.mode, "one of 'affine', 'mxfp4', 'mxfp8', 'nvfp4'")
    if layer.mode == "affine":
        demand(layer.bits in _BITS, f"{name}: bits", layer.bits, "one of 2, 3, 4, 5, 6, 8")
        demand(layer.group_size in _GROUPS, f"{name}: group_size", layer.group_size, "32, 64 or 128")
        return
    group_size, bits = _MODES[layer.mode]
    demand(layer.bits == bits, f"{name}: bits", layer.bits, f"{bits} with mode {layer.mode!r}")
    demand(
        layer.group_size == group_size,
        f"{name}: group_size",
        layer.group_size,
        f"{group_size} with mode {layer.mode!r}",
    )
