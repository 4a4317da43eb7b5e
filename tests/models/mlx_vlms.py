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

from streaming_vlm_mlx.models.positions import Grid, mrope_positions
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import SpecialIds
from tests.models.hugging_face import IMAGE_ROW, ROWS, VIDEO_ROW, Sizes, make_torch, qwen3

mlx_vlm = pytest.importorskip("mlx_vlm", reason="mlx-vlm is not installed; CONTRIBUTING.md says how")
START_ROW, END_ROW = 492, 493
TOKENS = 12
_TEXT = 7
# Widths that divide into groups of 64, save that of a feed-forward part in the tower, as in published sizes.
SIZES = {
    "qwen2_5_vl": Sizes(128, 4, 2, (4, 6, 6), tied=False, vision=(64, 2, 3), window_size=56),
    "qwen2_vl": Sizes(128, 4, 2, (4, 6, 6), tied=True, vision=(64, 2, 3), family="qwen2_vl"),
    "qwen3_vl": qwen3(128, 4, 2, (6, 5, 5), tied=False, vision=(64, 2, 4), deepstack=(1, 2), layers=3),
}
# Steps of a video that mlx-vlm counts as one position each, whatever the seconds between them.
_STEP = 1.0


@dataclass(frozen=True)
class Prompt:
    """An image or a video between two texts, all ids rows; its patches are at `places`."""

    family: str
    rows: list[int]
    places: list[int]
    positions: np.ndarray[Any, np.dtype[np.int64]]
    pixels: mx.array
    grid: Grid
    is_video: bool

    def grown(self, row: int) -> "Prompt":
        """Return the prompt with a token of text behind it."""
        at = np.full((3, 1), self.positions.max() + 1)
        return replace(self, rows=[*self.rows, row], positions=np.concatenate([self.positions, at], axis=1))


def make_prompt(family: str, is_video: bool, seed: int = 0) -> Prompt:
    """Return a seeded prompt with an image of 6×8 patches, or a video of two such pictures.

    Qwen3-VL has a span for each of the two, with text between them.
    """
    random, steps = np.random.default_rng(seed), 2 if is_video else 1
    patch, spans = (16, steps) if family == "qwen3_vl" else (14, 1)
    merged = (steps // spans, 3, 4)
    pads = [VIDEO_ROW if is_video else IMAGE_ROW] * (merged[0] * 12)
    rows: list[int] = random.integers(0, 400, _TEXT).tolist()
    pieces: list[tuple[int, Grid | None]] = [(_TEXT, None)]
    places: list[int] = []
    for _ in range(spans):
        places += range(len(rows) + 1, len(rows) + 1 + len(pads))
        rows += [START_ROW, *pads, END_ROW, *random.integers(0, 400, _TEXT).tolist()]
        pieces += [(len(pads) + 2, merged), (_TEXT, None)]
    pixels = random.standard_normal((steps * 48, 3 * 2 * patch**2), np.float32)
    positions = mrope_positions(pieces, 0, _STEP)
    return Prompt(family, rows, places, positions, mx.array(pixels), (steps, 6, 8), is_video)


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
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    marks = {"vision_start_token_id": START_ROW, "vision_end_token_id": END_ROW}
    del vision["model_type"]
    nested = text
    if family == "qwen3_vl":
        text["rope_scaling"] = {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": rope["mrope_section"],
        }
        nested = {"text_config": text}
    (folder / "config.json").write_text(
        json.dumps({**nested, **values, **marks, "vision_config": vision}), encoding="utf-8"
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


def their_model(folder: Path) -> Any:
    """Let mlx-vlm load the model in `folder`."""
    return mlx_vlm.utils.load_model(folder)


def their_logits(model: Any, prompt: Prompt) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the logits [tokens, rows] of mlx-vlm's `model`."""
    return np.array(model(mx.array([prompt.rows]), **_media(prompt)).logits[0].astype(mx.float32))


def their_tokens(model: Any, prompt: Prompt) -> list[int]:
    """Return the greedy tokens of mlx-vlm's own loop."""
    from mlx_vlm.generate import generate_step

    media = _media(prompt)
    pixels = media.pop("pixel_values", None)
    steps = generate_step(mx.array([prompt.rows]), model, pixels, None, max_tokens=TOKENS, temperature=0.0, **media)
    return [int(token) for token, _ in steps]


def our_logits(
    model: VisionLanguageModel, prompt: Prompt, features: mx.array | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return this program's logits [tokens, rows]; `features` are those of the pixels, None to compute them."""
    rows = np.array(prompt.rows, np.int32)
    is_video = np.isin(np.arange(rows.size), prompt.places)
    if features is None:
        features = model.visual(prompt.pixels, prompt.grid)
    x, deepstack = model.embed(rows, features, is_video), model.deepstack(features, is_video)
    hidden = model.model(x, model.model.rope(prompt.positions), deepstack=deepstack)
    return np.array(model.head(hidden)[0].astype(mx.float32))


def our_tokens(model: VisionLanguageModel, prompt: Prompt) -> list[int]:
    """Return the greedy tokens of this program."""
    said: list[int] = []
    features = model.visual(prompt.pixels, prompt.grid)
    mx.eval(features)
    for _ in range(TOKENS):
        said.append(int(our_logits(model, prompt, features)[-1].argmax()))
        prompt = prompt.grown(said[-1])
    return said


def _media(prompt: Prompt) -> dict[str, mx.array]:
    """Return an image or a video as mlx-vlm's processors name its parts."""
    # The older families forget the positions of the prompt before only where they get pixels under the first name.
    apart = prompt.is_video and prompt.family == "qwen3_vl"
    pixels = {"pixel_values_videos" if apart else "pixel_values": prompt.pixels}
    return pixels | {"video_grid_thw" if prompt.is_video else "image_grid_thw": mx.array([prompt.grid])}
