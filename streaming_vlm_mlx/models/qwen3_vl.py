"""Qwen3-VL (dense; arXiv 2511.21631): learned positions and DeepStack in the vision tower, normed queries and keys.

Features of some blocks of the tower are merged apart and added to the video tokens behind the first decoder layers
(DeepStack, arXiv 2406.04334).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import ModelConfig, VisionConfig
from streaming_vlm_mlx.config_io import demand, part_of
from streaming_vlm_mlx.models import hub_config, vision, weights
from streaming_vlm_mlx.models.activations import gelu, gelu_tanh

NAME, ARCHITECTURE = "Qwen3-VL", "Qwen3VLForConditionalGeneration"
HAS_STAMPS = True
sanitize, hub_name = weights.sanitize_name, weights.transformers_name
# What is the same in all models of the family.
_TEXT: dict[str, Any] = {"mrope_interleaved": True, "qkv_bias": False, "qk_norm": True}
_TOWER: dict[str, Any] = {"tokens_per_second": None, "window_size": None, "fullatt_block_indexes": ()}
# What transformers takes where a config.json has no such setting.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 128_000,
    "rope_theta": 500_000.0,
    "mrope_section": (24, 20, 20),
}
_TOWER_DEFAULTS: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": (8, 16, 24),
    "hidden_act": "gelu_pytorch_tanh",
}


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a hub ``config.json``.

    Raises:
        SvmError: a value is of another type than its field, or sizes do not fit together.
    """
    text = hub_config.read_text(values, _TEXT_DEFAULTS)
    bias = text.get("attention_bias", False)
    demand(bias is False, "config: attention_bias", bias, "False")
    tower = {name: value for name, value in part_of(values, "vision_config").items() if value is not None}
    parts = {
        "text_config": {**text, **_TEXT},
        "vision_config": {**_TOWER_DEFAULTS, **tower, **_TOWER} if tower else None,
    }
    return ModelConfig.from_dict({**values, **parts})


def check(config: ModelConfig) -> None:
    """Check that `config` describes a model of this family.

    Raises:
        SvmError: names the setting and what it must be.
    """
    hub_config.expect(config.text_config, "", **_TEXT)
    tower = config.vision_config
    if tower is not None:
        hub_config.expect(tower, "vision ", **_TOWER, hidden_act=_TOWER_DEFAULTS["hidden_act"])
        places = tower.num_position_embeddings
        demand(places is not None, "config: vision num_position_embeddings", places, "a square number")


def write_parts(config: ModelConfig) -> dict[str, Any]:
    """Return ``text_config`` and ``vision_config`` as a hub ``config.json`` has them."""
    text = hub_config.write_text(config.text_config) | {
        # mlx-vlm demands a type.
        "model_type": "qwen3_vl_text",
        "head_dim": config.text_config.head_dim,
        "attention_bias": False,
    }
    section = text["rope_scaling"]["mrope_section"]
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": section, "mrope_interleaved": True}
    tower = config.vision_config.to_dict() if config.vision_config else None
    if tower is not None:
        tower = {name: value for name, value in tower.items() if name not in _TOWER}
    return {"text_config": text, "vision_config": tower}


class VisionMLP(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.linear_fc2(gelu_tanh(self.linear_fc1(x)))


class PatchMerger(nn.Module):
    """Merges each square of patches into one vector of the decoder's width; its GELU is exact, unlike the blocks'."""

    def __init__(self, config: VisionConfig, norm_merged: bool) -> None:
        """Make a merger whose norm is over a merged square (the DeepStack mergers), or over each of its patches."""
        super().__init__()
        self._joined = config.hidden_size * config.spatial_merge_size**2
        self._norm_merged = norm_merged
        self.norm = vision.layer_norm(self._joined if norm_merged else config.hidden_size)
        self.linear_fc1 = nn.Linear(self._joined, self._joined)
        self.linear_fc2 = nn.Linear(self._joined, config.out_hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [steps, patches, hidden_size] to [steps, units, out_hidden_size]."""
        shape = x.shape[0], -1, self._joined
        x = self.norm(x.reshape(shape)) if self._norm_merged else self.norm(x).reshape(shape)
        y: mx.array = self.linear_fc2(gelu(self.linear_fc1(x)))
        return y


class VisionTower(vision.VisionTower):
    """The family's vision tower."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(
            config,
            lambda: vision.VisionBlock(config, vision.layer_norm, VisionMLP(config)),
            lambda: PatchMerger(config, norm_merged=False),
            patch_bias=True,
        )
        places = config.num_position_embeddings
        assert places is not None
        self.pos_embed = nn.Embedding(places, config.hidden_size)
        self.deepstack_merger_list = [PatchMerger(config, norm_merged=True) for _ in config.deepstack_visual_indexes]
        self._taps = lru_cache(maxsize=8)(self._make_taps)

    def position_embedding(self, height: int, width: int) -> mx.array:
        """Return the learned positions, interpolated bilinearly to a grid of patches; see the base class."""
        taps, weights = self._taps(height, width)
        found: mx.array = self.pos_embed(taps)
        return (found.astype(mx.float32) * weights).sum(axis=1)

    def deepstack(self, number: int, x: mx.array) -> list[mx.array]:
        """Return what is merged from the output of block `number`; see the base class."""
        places = self.config.deepstack_visual_indexes
        return [self.deepstack_merger_list[places.index(number)](x)] if number in places else []

    def _make_taps(self, height: int, width: int) -> tuple[mx.array, mx.array]:
        """Return which four positions a patch is between, int [patches, 4], and their weights [patches, 4, 1]."""
        assert self.config.num_position_embeddings is not None
        side = int(self.config.num_position_embeddings**0.5)
        plan, _ = self._plan(height, width)
        rows, row_weights = _between(plan.rows, height, side)
        columns, column_weights = _between(plan.columns, width, side)
        taps = rows[:, :, None] * side + columns[:, None, :]
        weights = row_weights[:, :, None] * column_weights[:, None, :]
        made = mx.array(taps.reshape(-1, 4)), mx.array(weights.reshape(-1, 4, 1))
        mx.eval(*made)
        return made


def _between(
    places: npt.NDArray[np.int64], size: int, side: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the two neighbours of each place and their weights, [n, 2], when `size` places span `side` positions."""
    at = places.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(at).astype(np.int64)
    above = at - low.astype(np.float32)
    return np.stack([low, np.minimum(low + 1, side - 1)], axis=1), np.stack([1 - above, above], axis=1)
