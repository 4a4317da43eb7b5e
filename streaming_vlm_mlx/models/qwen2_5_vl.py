"""Qwen2.5-VL (arXiv 2502.13923): a vision tower with window attention, RMSNorm and a gated feed-forward part.

StreamingVLM is a Qwen2.5-VL.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from streaming_vlm_mlx.config import ModelConfig, VisionConfig
from streaming_vlm_mlx.config_io import demand, part_of
from streaming_vlm_mlx.models import hub_config, vision, weights
from streaming_vlm_mlx.models.activations import swiglu

NAME, ARCHITECTURE = "Qwen2.5-VL", "Qwen2_5_VLForConditionalGeneration"
HAS_STAMPS = False
sanitize, hub_name = weights.sanitize_name, weights.keep_name


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a hub ``config.json``.

    Raises:
        SvmError: a value is of another type than its field, or sizes do not fit together.
    """
    text = hub_config.read_text(values)
    # In this family the heads share the model's width; transformers does not read the setting either.
    text.pop("head_dim", None)
    parts = {"text_config": text, "vision_config": part_of(values, "vision_config") or None}
    return ModelConfig.from_dict({**values, **parts})


def check(config: ModelConfig) -> None:
    """Check that `config` describes a model of this family.

    Raises:
        SvmError: names the setting and what it must be.
    """
    hub_config.expect_qwen2_text(config.text_config)
    tower = config.vision_config
    if tower is not None:
        own = {"hidden_act": "silu", "num_position_embeddings": None, "deepstack_visual_indexes": ()}
        hub_config.expect(tower, "vision ", **own)
        demand(tower.window_size is not None, "config: vision window_size", tower.window_size, "a number of pixels")


def write_parts(config: ModelConfig) -> dict[str, Any]:
    """Return ``text_config`` and ``vision_config`` as a hub ``config.json`` has them."""
    tower = config.vision_config.to_dict() if config.vision_config else None
    if tower is not None:
        for name in ("num_position_embeddings", "deepstack_visual_indexes"):
            del tower[name]
        speed = tower["tokens_per_second"]
        if speed is not None and speed == int(speed):
            # transformers does not accept a float there.
            tower["tokens_per_second"] = int(speed)
    return {"text_config": hub_config.write_text(config.text_config), "vision_config": tower}


class VisionMLP(nn.Module):
    """The gated feed-forward part of a block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class VisionTower(vision.VisionTower):
    """The family's vision tower."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(
            config,
            lambda: vision.VisionBlock(config, vision.rms_norm, VisionMLP(config)),
            lambda: vision.PatchMerger(config, vision.rms_norm),
        )
