"""The sizes of published models, so that their memory can be estimated without a folder.

StreamingVLM is a Qwen2.5-VL 7B, and LiveCC a Qwen2-VL 7B.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streaming_vlm_mlx.config import ModelConfig, TextConfig, VisionConfig

_QWEN2_TOWER: dict[str, Any] = {
    "intermediate_size": 5120,
    "tokens_per_second": None,
    "window_size": None,
    "fullatt_block_indexes": (),
    "hidden_act": "quick_gelu",
}
_QWEN3_TOWER: dict[str, Any] = {
    "patch_size": 16,
    "tokens_per_second": None,
    "window_size": None,
    "fullatt_block_indexes": (),
    "num_position_embeddings": 2304,
    "hidden_act": "gelu_pytorch_tanh",
}
_SMALL_TOWER = VisionConfig(24, 1024, 4096, deepstack_visual_indexes=(5, 11, 17), **_QWEN3_TOWER)
_LARGE_TOWER = VisionConfig(27, 1152, 4304, deepstack_visual_indexes=(8, 16, 24), **_QWEN3_TOWER)


def _qwen2(tower: VisionConfig, text: TextConfig) -> ModelConfig:
    family: Any = "qwen2_vl" if tower.window_size is None else "qwen2_5_vl"
    return ModelConfig(text, replace(tower, out_hidden_size=text.hidden_size), family)


def _qwen3(tower: VisionConfig, text: TextConfig) -> ModelConfig:
    own = replace(
        text,
        head_dim=128,
        max_position_embeddings=262_144,
        rope_theta=5_000_000.0,
        mrope_section=(24, 20, 20),
        mrope_interleaved=True,
        qkv_bias=False,
        qk_norm=True,
    )
    return ModelConfig(own, replace(tower, out_hidden_size=text.hidden_size), "qwen3_vl")


_TWO, _TWO_AND_A_HALF = VisionConfig(**_QWEN2_TOWER), VisionConfig()
# Width, feed-forward width, layers, heads, key-value heads; then head_dim, which 0 derives, and rows.
PUBLISHED: Mapping[str, ModelConfig] = {
    "Qwen2-VL 2B": _qwen2(_TWO, TextConfig(1536, 8960, 28, 12, 2, 0, 151_936, tie_word_embeddings=True)),
    "Qwen2-VL 7B": _qwen2(_TWO, TextConfig(3584, 18_944, 28, 28, 4, 0, 152_064)),
    "Qwen2.5-VL 3B": _qwen2(
        _TWO_AND_A_HALF, TextConfig(2048, 11_008, 36, 16, 2, 0, 151_936, 128_000, tie_word_embeddings=True)
    ),
    "Qwen2.5-VL 7B": _qwen2(_TWO_AND_A_HALF, TextConfig(3584, 18_944, 28, 28, 4, 0, 152_064, 128_000)),
    "Qwen3-VL 2B": _qwen3(_SMALL_TOWER, TextConfig(2048, 6144, 28, 16, 8, 0, 151_936, tie_word_embeddings=True)),
    "Qwen3-VL 4B": _qwen3(_SMALL_TOWER, TextConfig(2560, 9728, 36, 32, 8, 0, 151_936, tie_word_embeddings=True)),
    "Qwen3-VL 8B": _qwen3(_LARGE_TOWER, TextConfig(4096, 12_288, 36, 32, 8, 0, 151_936)),
    "Qwen3-VL 32B": _qwen3(_LARGE_TOWER, TextConfig(5120, 25_600, 64, 64, 8, 0, 151_936)),
}
