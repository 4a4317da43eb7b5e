"""Small seeded models of transformers, of every family, saved as checkpoint folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from streaming_vlm_mlx.models.loading import Checkpoint, load_checkpoint
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.small import small_vocabulary

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS = 500
VIDEO_ROW, IMAGE_ROW = 490, 491
# What transformers calls the classes of a family.
NAMES = {"qwen2_5_vl": "Qwen2_5_VL", "qwen2_vl": "Qwen2VL", "qwen3_vl": "Qwen3VL"}


@dataclass(frozen=True)
class Sizes:
    """What the models of the tests differ in; `mrope_section` adds up to half a head.

    `vision` is the tower's width, heads and depth; `full` are the blocks of Qwen2.5-VL's that see the whole picture.
    Qwen3-VL has a `head_dim`, `deepstack` blocks and a side of learned positions.
    """

    hidden_size: int
    heads: int
    kv_heads: int
    mrope_section: tuple[int, int, int]
    tied: bool
    vision: tuple[int, int, int] = (32, 2, 3)
    window_size: int = 112
    full: tuple[int, ...] = (1,)
    family: str = "qwen2_5_vl"
    layers: int = 2
    head_dim: int = 0
    deepstack: tuple[int, ...] = ()
    side: int = 6


SIZES = {
    "untied, two queries a key": Sizes(48, 4, 2, (2, 2, 2), False, window_size=56),
    "tied, one query a key": Sizes(32, 4, 4, (1, 1, 2), True),
    "untied, four queries a key, one window": Sizes(64, 4, 1, (2, 3, 3), False, window_size=224),
    "tied, seven queries a key, last block full": Sizes(112, 7, 1, (2, 3, 3), True, (64, 4, 2), 84, (1,)),
    "untied, no block full": Sizes(96, 6, 2, (2, 3, 3), False, (48, 4, 2), 56, ()),
    "tied, every block full": Sizes(64, 8, 4, (2, 1, 1), True, (16, 1, 4), 28, (0, 1, 2, 3)),
    "qwen2: untied, two queries a key": Sizes(48, 4, 2, (2, 2, 2), False, family="qwen2_vl"),
    "qwen2: tied, one query a key": Sizes(32, 4, 4, (1, 1, 2), True, family="qwen2_vl"),
    "qwen2: untied, four queries a key": Sizes(64, 4, 1, (2, 3, 3), False, (64, 4, 2), family="qwen2_vl"),
    "qwen2: tied, seven queries a key": Sizes(112, 7, 1, (2, 3, 3), True, (48, 4, 4), family="qwen2_vl"),
    "qwen2: untied, six heads": Sizes(96, 6, 3, (2, 3, 3), False, (80, 5, 1), family="qwen2_vl"),
    "qwen2: tied, one vision head": Sizes(64, 8, 2, (2, 1, 1), True, (16, 1, 3), family="qwen2_vl"),
}


def qwen3(hidden_size: int, heads: int, kv_heads: int, section: tuple[int, int, int], tied: bool, **more: Any) -> Sizes:
    """Return sizes of a Qwen3-VL."""
    width = 2 * sum(section)
    return Sizes(hidden_size, heads, kv_heads, section, tied, family="qwen3_vl", head_dim=width, **more)


QWEN3_SIZES = {
    "tied, one query a key, two DeepStack layers": qwen3(32, 2, 2, (4, 2, 2), True, deepstack=(0, 1), side=4),
    "untied, two queries a key": qwen3(40, 4, 2, (2, 2, 2), False, deepstack=(0, 2), layers=3, side=48),
    "tied, four queries a key, three DeepStack layers": qwen3(
        48, 4, 1, (6, 5, 5), True, vision=(48, 4, 5), deepstack=(1, 2, 4), layers=3
    ),
    "untied, eight queries a key": qwen3(64, 8, 1, (2, 1, 1), False, vision=(64, 4, 4), deepstack=(0, 2, 3), layers=4),
    "tied, eight queries a key, four DeepStack layers": qwen3(
        24, 16, 2, (4, 2, 2), True, vision=(32, 1, 6), deepstack=(0, 1, 3, 5), layers=5, side=5
    ),
    "untied, five queries a key, more DeepStack than layers": qwen3(
        56, 5, 1, (4, 4, 4), False, vision=(40, 2, 4), deepstack=(0, 1, 2), side=3
    ),
    "tied, three queries a key, DeepStack out of order": qwen3(
        80, 6, 2, (4, 3, 3), True, vision=(48, 3, 4), deepstack=(3, 0, 2), layers=4, side=9
    ),
    "untied, heads wider than the model": qwen3(16, 4, 4, (12, 10, 10), False, deepstack=(0, 2), layers=2, side=7),
    "tied, seven queries a key, one position": qwen3(96, 7, 1, (3, 3, 2), True, deepstack=(1, 2), layers=3, side=1),
}


def make_config(sizes: Sizes) -> Any:
    """Return the reference's configuration."""
    text = {
        "hidden_size": sizes.hidden_size,
        "intermediate_size": 2 * sizes.hidden_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "vocab_size": ROWS,
        "rope_scaling": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(sizes.mrope_section)},
        "tie_word_embeddings": sizes.tied,
    }
    if sizes.head_dim:
        text["head_dim"] = sizes.head_dim
    return getattr(transformers, f"{NAMES[sizes.family]}Config")(
        text_config=text,
        vision_config=_vision(sizes),
        tie_word_embeddings=sizes.tied,
        video_token_id=VIDEO_ROW,
        image_token_id=IMAGE_ROW,
    )


def _vision(sizes: Sizes) -> dict[str, Any]:
    width, heads, depth = sizes.vision
    vision: dict[str, Any] = {"depth": depth, "num_heads": heads}
    if sizes.family == "qwen2_vl":
        return vision | {"embed_dim": width, "hidden_size": sizes.hidden_size, "mlp_ratio": 3}
    vision |= {"hidden_size": width, "intermediate_size": width * 3 // 2, "out_hidden_size": sizes.hidden_size}
    if sizes.family == "qwen3_vl":
        return vision | {
            "num_position_embeddings": sizes.side**2,
            "deepstack_visual_indexes": list(sizes.deepstack),
        }
    return vision | {
        "window_size": sizes.window_size,
        "fullatt_block_indexes": list(sizes.full),
        "tokens_per_second": 2,
    }


def make_torch(sizes: Sizes, seed: int) -> Any:
    """Return the reference in float32, its values of the order of 1 throughout, so that an error can show."""
    config = make_config(sizes)
    model = getattr(transformers, f"{NAMES[sizes.family]}ForConditionalGeneration")(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel()
            parameter.copy_(noise * fan_in**-0.5 if parameter.ndim > 1 else (parameter == 1) + 0.1 * noise)
    return model


def load_saved(model: Any, folder: Path, tokenizer: Tokenizer, **how: Any) -> Checkpoint:
    """Let the reference write its folder, give it a vocabulary of `ROWS`, and read it as this program does."""
    model.save_pretrained(folder, **how)
    small_vocabulary(tokenizer, ROWS).save(folder / "vocabulary.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"vocabulary": "vocabulary.json"}), encoding="utf-8")
    return load_checkpoint(folder, mx.float32)
