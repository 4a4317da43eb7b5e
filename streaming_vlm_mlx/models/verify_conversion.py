"""Checks a converted checkpoint: runs one prompt through it and through its reference, and compares the logits."""

import gc
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import load_checkpoint
from streaming_vlm_mlx.models.positions import Grid, mrope_positions
from streaming_vlm_mlx.text.vocabulary import Vocabulary

# Absolute difference of float32 logits. Larger models have larger logits, and so larger rounding errors.
LIMIT = 2e-3
_GRID = (2, 6, 8)
_TEXT = 24

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """How far the logits of two programs on one prompt, [places, shared ids], are apart.

    Attributes:
        error: the largest absolute difference.
        spread: standard deviation of the reference's logits.
        agreement: fraction of places with the same most likely id.
    """

    error: float
    spread: float
    agreement: float

    @property
    def same(self) -> bool:
        """Whether the difference is no more than rounding."""
        return self.error <= LIMIT * max(1.0, self.spread)


@dataclass(frozen=True)
class Prompt:
    """Text around a video: ids [n], which of them are video pads, positions [3, n], pixels [patches, values]."""

    ids: npt.NDArray[np.int32]
    is_video: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.float32]


def needs_torch() -> None:
    """Refuse to run the reference without torch.

    Raises:
        SvmError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise SvmError("--check runs the model in transformers, which needs torch; pip install 'svm-tui[parity]'.")


def check_against_transformers(folder: Path, seed: int = 0) -> Comparison:
    """Compare the checkpoint in `folder` here and in transformers, one after the other, in float32.

    Raises:
        SvmError: the folder cannot be read.
    """
    ours, prompt, vocabulary, config = _run_here(folder, seed)
    gc.collect()
    rows = vocabulary.to_ids(np.arange(ours.shape[1], dtype=np.int32))
    return compare_logits(ours, _run_in_transformers(folder, config, prompt)[:, rows])


def check_against_source(source: Path, folder: Path, seed: int = 0) -> Comparison:
    """Compare the checkpoints in `source` and `folder`, run here one after the other, in float32.

    Raises:
        SvmError: one of them cannot be read.
    """
    theirs, *_ = _run_here(source, seed)
    gc.collect()
    return compare_logits(_run_here(folder, seed)[0], theirs)


def make_prompt(config: ModelConfig, vocabulary: Vocabulary, seed: int) -> Prompt:
    """Return random text of ids in `vocabulary`, around a random video if the model has a vision tower."""
    random, vision = np.random.default_rng(seed), config.vision_config
    known = vocabulary.to_ids(np.arange(min(len(vocabulary), 151_643), dtype=np.int32))
    marks = (config.vision_start_token_id, config.vision_end_token_id, config.video_token_id, config.image_token_id)
    words = random.choice(np.setdiff1d(known, marks), 2 * _TEXT)
    before, after = words[:_TEXT], words[_TEXT:]
    pads = np.zeros(0, np.int32)
    pieces: list[tuple[int, Grid | None]] = [(_TEXT, None), (_TEXT, None)]
    pixels, step = np.zeros((0, 0), np.float32), 0.0
    if vision is not None:
        merge, step = vision.spatial_merge_size, vision.time_step(1.0)
        grid = (_GRID[0], _GRID[1] // merge, _GRID[2] // merge)
        pads = np.full(math.prod(grid), config.video_token_id, np.int32)
        before = np.append(before, config.vision_start_token_id)
        after = np.insert(after, 0, config.vision_end_token_id)
        pieces.insert(1, (pads.size + 2, grid))
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        pixels = random.standard_normal((math.prod(_GRID), values), dtype=np.float32)
    ids = np.concatenate([before, pads, after]).astype(np.int32)
    is_video = np.zeros(ids.size, np.bool_)
    is_video[before.size : before.size + pads.size] = True
    return Prompt(ids, is_video, mrope_positions(pieces, 0, step), pixels)


def _run_here(folder: Path, seed: int) -> tuple[Logits, Prompt, Vocabulary, ModelConfig]:
    checkpoint = load_checkpoint(folder, mx.float32)
    model, vocabulary = checkpoint.model, checkpoint.vocabulary
    prompt = make_prompt(model.config, vocabulary, seed)
    features = model.visual(mx.array(prompt.pixels), _GRID) if prompt.pixels.size else None
    x = model.embed(vocabulary.to_rows(prompt.ids), features, prompt.is_video)
    deepstack = model.deepstack(features, prompt.is_video)
    logits = model.head(model.model(x, model.model.rope(prompt.positions), deepstack=deepstack))[0]
    return np.array(logits), prompt, vocabulary, model.config


def _run_in_transformers(folder: Path, config: ModelConfig, prompt: Prompt) -> Logits:
    import torch
    import transformers

    made = getattr(transformers, family_of(config).ARCHITECTURE)
    try:
        model = made.from_pretrained(folder, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise SvmError(f"{folder} does not open in transformers: {' '.join(str(error).split()):.200}") from error
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(prompt.ids[None].astype(np.int64)),
            position_ids=torch.tensor(prompt.positions[:, None]),
            pixel_values_videos=torch.tensor(prompt.pixels),
            video_grid_thw=torch.tensor([_GRID]),
        )
    logits: Logits = out.logits[0].float().numpy()
    return logits


def compare_logits(ours: Logits, theirs: Logits) -> Comparison:
    """Compare logits [tokens, vocab_size]: their largest difference, and how often the best token is equal."""
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return Comparison(float(np.abs(ours - theirs).max()), float(theirs.std()), float(same.mean()))
