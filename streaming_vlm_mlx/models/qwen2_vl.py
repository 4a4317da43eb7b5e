"""Qwen2-VL (arXiv 2409.12191): a vision tower with full attention, LayerNorm and a plain feed-forward part.

LiveCC is a Qwen2-VL.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from streaming_vlm_mlx.config import ModelConfig, VisionConfig
from streaming_vlm_mlx.config_io import demand, part_of
from streaming_vlm_mlx.models import hub_config, vision, weights
from streaming_vlm_mlx.models.activations import quick_gelu

NAME, ARCHITECTURE = "Qwen2-VL", "Qwen2VLForConditionalGeneration"
HAS_STAMPS = False
sanitize, hub_name = weights.sanitize_name, weights.keep_name
# What is the same in all models of the family; time counts one position a temporal step.
_TOWER: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "tokens_per_second": None,
    "window_size": None,
    "fullatt_block_indexes": (),
    "num_position_embeddings": None,
    "deepstack_visual_indexes": (),
}


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a hub ``config.json``.

    Raises:
        SvmError: a value is of another type than its field, or sizes do not fit together.
    """
    text = hub_config.read_text(values)
    # In this family the heads share the model's width; transformers does not read the setting either.
    text.pop("head_dim", None)
    tower = part_of(values, "vision_config")
    return ModelConfig.from_dict(
        {**values, "text_config": text, "vision_config": _read_tower(tower) if tower else None}
    )


def _read_tower(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `tower` under the names of `VisionConfig`."""
    width, ratio = tower.get("embed_dim", 1280), tower.get("mlp_ratio", 4)
    for name, value in (("embed_dim", width), ("mlp_ratio", ratio)):
        demand(type(value) in (int, float), f"vision_config.{name}", value, "a number")
    own = {**_TOWER, "hidden_act": tower.get("hidden_act", _TOWER["hidden_act"])}
    sizes = {"hidden_size": width, "intermediate_size": int(width * ratio), "out_hidden_size": tower.get("hidden_size")}
    return {**tower, **own, **sizes}


def check(config: ModelConfig) -> None:
    """Check that `config` describes a model of this family.

    Raises:
        SvmError: names the setting and what it must be.
    """
    hub_config.expect_qwen2_text(config.text_config)
    if config.vision_config is not None:
        hub_config.expect(config.vision_config, "vision ", **_TOWER)


def write_parts(config: ModelConfig) -> dict[str, Any]:
    """Return ``text_config`` and ``vision_config`` as a hub ``config.json`` has them."""
    tower = config.vision_config
    values = None
    if tower is not None:
        values = {name: value for name, value in tower.to_dict().items() if name not in _TOWER}
        ratio = values.pop("intermediate_size") / tower.hidden_size
        # transformers accepts a whole ratio only as an int.
        values["mlp_ratio"] = int(ratio) if ratio == int(ratio) else ratio
        values |= {"embed_dim": tower.hidden_size, "hidden_size": values.pop("out_hidden_size")}
        values["hidden_act"] = tower.hidden_act
    return {"text_config": hub_config.write_text(config.text_config), "vision_config": values}


class VisionMLP(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.fc2(quick_gelu(self.fc1(x)))


class VisionTower(vision.VisionTower):
    """The family's vision tower."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(
            config,
            lambda: vision.VisionBlock(config, vision.layer_norm, VisionMLP(config)),
            lambda: vision.PatchMerger(config, vision.layer_norm),
        )
