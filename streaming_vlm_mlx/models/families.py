"""The model families: one module each, and which of them reads a ``config.json``."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from streaming_vlm_mlx.config import Family, ModelConfig, VisionConfig
from streaming_vlm_mlx.config_io import part_of
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models import qwen2_5_vl, qwen2_vl, qwen3_vl
from streaming_vlm_mlx.models.vision import VisionTower


class FamilyModule(Protocol):
    """What the module of a family has."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """The family's name, for people."""
        ...

    @property
    def ARCHITECTURE(self) -> str:  # noqa: N802
        """The name of its class in transformers."""
        ...

    @property
    def HAS_STAMPS(self) -> bool:  # noqa: N802
        """Whether each temporal step of a video is a span of its own behind its time."""
        ...

    @property
    def VisionTower(self) -> Callable[[VisionConfig], VisionTower]:  # noqa: N802
        """The class of its vision tower."""
        ...

    def read_config(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a hub ``config.json``, with the language model's settings in ``text_config`` or at the root."""
        ...

    def check(self, config: ModelConfig) -> None:
        """Refuse a config that is not one of this family."""
        ...

    def write_parts(self, config: ModelConfig) -> dict[str, Any]:
        """Return ``text_config`` and ``vision_config`` as a hub ``config.json`` has them."""
        ...

    def sanitize(self, name: str) -> str:
        """Return the name that a parameter or layer has here, from that in a folder of any program."""
        ...

    def hub_name(self, name: str) -> str:
        """Return the name that a parameter has in the family's published folders, from that here."""
        ...


FAMILIES: dict[Family, FamilyModule] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
_LINEAR = ("qwen3_5", "qwen3_next", "qwen4")
_NO_LINEAR = "its linear-attention layers cannot drop a token from the middle"
_NO_EXPERTS = "its layers are mixtures of experts"


def family_of(config: ModelConfig) -> FamilyModule:
    """Return the family of `config`."""
    return FAMILIES[config.model_type]


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a hub ``config.json``.

    Raises:
        SvmError: the model is of a family that is not supported, a value is of another type than its field, or sizes do
            not fit together.
    """
    name = values.get("model_type")
    known = [family for key, family in FAMILIES.items() if key == name]
    why = _refusal(values)
    if not known or why:
        names = ", ".join(family.NAME for family in FAMILIES.values())
        raise SvmError(f"a model of type {name!r} does not run here{why}; take one of these families: {names} (dense).")
    config = known[0].read_config(values)
    known[0].check(config)
    return config


def _refusal(values: Mapping[str, Any]) -> str:
    """Return the reason why a model is refused that its `values` tell, after a colon; "" where they tell none."""
    name, text = str(values.get("model_type")), {**values, **part_of(values, "text_config")}
    kinds = text.get("layer_types")
    if name.startswith(_LINEAR) or (isinstance(kinds, list) and "linear_attention" in kinds):
        return f": {_NO_LINEAR}"
    if name.endswith("_moe") or text.get("num_experts"):
        return f": {_NO_EXPERTS}"
    return ""
