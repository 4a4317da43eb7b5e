"""mlx-vlm beside this program: seeded folders that both read, prompts, logits and greedy tokens of both."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tokenizers

from streaming_vlm_mlx.models.loading import load_checkpoint
from streaming_vlm_mlx.models.positions import Grid, mrope_positions
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import SpecialIds
from tests.models.hugging_face import IMAGE_ROW, ROWS, VIDEO_ROW, Sizes, make_torch

mlx_vlm = pytest.importorskip("mlx_vlm", reason="mlx-vlm is not installed; CONTRIBUTING.md says how")
START_ROW, END_ROW = 492, 493
TOKENS = 12
_TEXT = 7
# Widths that divide into groups of 64, save that of a feed-forward part in the tower, as in published sizes.
SIZES = {
    "qwen2_5_vl": Sizes(128, 4, 2, (4, 6, 6), tied=False, vision=(64, 2, 3), window_size=56),
    "qwen2_vl": Sizes(128, 4, 2, (4, 6, 6), tied=True, vision=(64, 2, 3), family="qwen2_vl"),
}
# Steps of a video that mlx-vlm counts as one position each, whatever the seconds between them.
_STEP = 1.0


@dataclass(frozen=True)
class Prompt:
    """An image or a video between two texts, all ids rows; its patches are at `places`."""

    rows: list[int]
    places: range
    positions: np.ndarray[Any, np.dtype[np.int64]]
    pixels: mx.array
    grid: Grid
    is_video: bool

    def grown(self, row: int) -> "Prompt":
        """Return the prompt with a token of text behind it."""
        at = np.full((3, 1), self.positions.max() + 1)
        return replace(self, rows=[*self.rows, row], positions=np.concatenate([self.positions, at], axis=1))


def make_prompt(is_video: bool, patch: int = 14, seed: int = 0) -> Prompt:
    """Return a seeded prompt with an image of 6×8 patches, or a video of two such pictures."""
    random, grid = np.random.default_rng(seed), (2 if is_video else 1, 6, 8)
    merged = (grid[0], 3, 4)
    size = merged[0] * merged[1] * merged[2]
    before, after = random.integers(0, 400, (2, _TEXT)).tolist()
    pads = [VIDEO_ROW if is_video else IMAGE_ROW] * size
    positions = mrope_positions([(_TEXT, None), (size + 2, merged), (_TEXT, None)], 0, _STEP)
    pixels = random.standard_normal((4 * size, 3 * 2 * patch**2), np.float32)
    rows, places = [*before, START_ROW, *pads, END_ROW, *after], range(_TEXT + 1, _TEXT + 1 + size)
    return Prompt(rows, places, positions, mx.array(pixels), grid, is_video)


class FewIds:
    """Stands for the tokenizer where nothing is written: it has as many ids as the models have rows."""

    special, backend = SpecialIds(), tokenizers.Tokenizer(tokenizers.models.BPE())

    def __len__(self) -> int:
        return ROWS


def save_folder(family: str, folder: Path, seed: int = 3) -> Path:
    """Let transformers save a seeded model, and write its ``config.json`` as the hub's folders have it."""
    make_torch(SIZES[family], seed).save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text, vision = values.pop("text_config"), values.pop("vision_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    marks = {"vision_start_token_id": START_ROW, "vision_end_token_id": END_ROW}
    del vision["model_type"]
    (folder / "config.json").write_text(
        json.dumps({**text, **values, **marks, "vision_config": vision}), encoding="utf-8"
    )
    return folder


@contextmanager
def no_processor() -> Iterator[None]:
    """Keep mlx-vlm from loading the processor of a folder that is converted; its files are copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_vlm.utils.load_processor", lambda *_, **__: object())
        yield


def their_conversion(source: Path, out: Path, **how: Any) -> Path:
    """Let mlx-vlm quantize the folder `source`."""
    with no_processor():
        mlx_vlm.convert(str(source), str(out), quantize=True, **how)
    return out


def their_logits(folder: Path, prompt: Prompt) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return mlx-vlm's logits [tokens, rows]."""
    model = mlx_vlm.utils.load_model(folder)
    return np.array(model(mx.array([prompt.rows]), prompt.pixels, **_grid(prompt)).logits[0].astype(mx.float32))


def their_tokens(folder: Path, prompt: Prompt) -> list[int]:
    """Return the greedy tokens of mlx-vlm's own loop."""
    from mlx_vlm.generate import generate_step

    model = mlx_vlm.utils.load_model(folder)
    steps = generate_step(
        mx.array([prompt.rows]), model, prompt.pixels, None, max_tokens=TOKENS, temperature=0.0, **_grid(prompt)
    )
    return [int(token) for token, _ in steps]


def our_logits(model: VisionLanguageModel, prompt: Prompt) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return this program's logits [tokens, rows]."""
    rows = np.array(prompt.rows, np.int32)
    is_video = np.isin(np.arange(rows.size), prompt.places)
    features = model.visual(prompt.pixels, prompt.grid)
    x, deepstack = model.embed(rows, features, is_video), model.deepstack(features, is_video)
    hidden = model.model(x, model.model.rope(prompt.positions), deepstack=deepstack)
    return np.array(model.head(hidden)[0].astype(mx.float32))


def our_tokens(folder: Path, prompt: Prompt) -> list[int]:
    """Return the greedy tokens of this program."""
    model, said = load_checkpoint(folder, mx.float32).model, []
    for _ in range(TOKENS):
        said.append(int(our_logits(model, prompt)[-1].argmax()))
        prompt = prompt.grown(said[-1])
    return said


def _grid(prompt: Prompt) -> dict[str, mx.array]:
    return {"video_grid_thw" if prompt.is_video else "image_grid_thw": mx.array([prompt.grid])}
