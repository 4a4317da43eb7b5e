"""Hugging Face's own Qwen2.5-VL in PyTorch, small and seeded, as a checkpoint folder that this program reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from streaming_vlm_mlx.model.checkpoint import Checkpoint, load_checkpoint
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary_build import preset

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS = 500
VIDEO_ROW, IMAGE_ROW = 490, 491


@dataclass(frozen=True)
class Sizes:
    """What the models of the tests differ in; `mrope_section` adds up to half a head."""

    hidden_size: int
    heads: int
    kv_heads: int
    mrope_section: tuple[int, int, int]
    window_size: int
    tied: bool


SIZES = {
    "untied, two queries a key": Sizes(48, 4, 2, (2, 2, 2), 56, False),
    "tied, one query a key": Sizes(32, 4, 4, (1, 1, 2), 112, True),
    "untied, four queries a key, one window": Sizes(64, 4, 1, (2, 3, 3), 224, False),
}


def make_torch(sizes: Sizes, seed: int) -> Any:
    """Return the reference in float32, its values of the order of 1 throughout, so that an error can show."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(sizes.mrope_section)}
    text = {
        "hidden_size": sizes.hidden_size,
        "intermediate_size": 2 * sizes.hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "vocab_size": ROWS,
        "rope_parameters": rope,
        "rope_scaling": rope,
        "tie_word_embeddings": sizes.tied,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "window_size": sizes.window_size,
        "fullatt_block_indexes": [1],
        "out_hidden_size": sizes.hidden_size,
        "tokens_per_second": 2,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=sizes.tied,
        video_token_id=VIDEO_ROW,
        image_token_id=IMAGE_ROW,
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).float().eval()
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
    preset(tokenizer, ROWS).save(folder / "vocabulary.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"vocabulary": "vocabulary.json"}), encoding="utf-8")
    return load_checkpoint(folder, mx.float32)
