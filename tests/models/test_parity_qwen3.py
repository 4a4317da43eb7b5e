"""Compares Qwen3-VL with transformers, on weights that transformers saved."""

from importlib import import_module
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import Checkpoint
from streaming_vlm_mlx.stream.spans import Span, new_span, positions
from streaming_vlm_mlx.text.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
hf = import_module("tests.models.hugging_face")

# An approximation of GELU in the wrong place shows at 5e-4; rounding takes 4e-6, and 1e-5 in the logits.
FEATURE_LIMIT, LOGIT_LIMIT = 1e-4, 1e-4
# Patches in time, down and across; each side is an even number of patches.
GRIDS = [(1, 14, 10), (2, 4, 6), (3, 2, 2), (1, 22, 2), (2, 6, 26)]

Grid = tuple[int, int, int]
Pair = tuple[Any, Checkpoint]


@pytest.fixture(scope="module", params=hf.QWEN3_SIZES.values(), ids=hf.QWEN3_SIZES.keys())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Pair:
    """The reference, and its weights in this program's model."""
    reference = hf.make_torch(request.param, seed=11)
    return reference, hf.load_saved(reference, tmp_path_factory.mktemp("hub"), tokenizer)


def make_pixels(grid: Grid) -> np.ndarray:
    random = np.random.default_rng(sum(grid))
    return random.standard_normal((int(np.prod(grid)), 3 * 2 * 16 * 16), dtype=np.float32)


def test_features(pair: Pair) -> None:
    reference, checkpoint = pair
    for grid in GRIDS:
        pixels = make_pixels(grid)
        with torch.no_grad():
            found = reference.model.get_video_features(torch.tensor(pixels), torch.tensor([grid]))
        wanted = [found.pooler_output[0], *(layer[0] for layer in found.deepstack_features)]
        ours = np.split(np.array(checkpoint.model.visual(mx.array(pixels), grid)), len(wanted), axis=1)
        for theirs, part in zip(wanted, ours, strict=True):
            assert theirs.abs().mean() > 0.1
            assert part.shape == theirs.shape
            assert np.abs(part - theirs.numpy()).max() < FEATURE_LIMIT


def lay_out(shown: list[tuple[Grid, int]]) -> list[Span]:
    """Return text, then each picture between its marks, or each step of a video between marks behind a stamp."""
    spans = [new_span("text", 0, range(7))]
    for (steps, height, width), row in shown:
        grid = (1, height // 2, width // 2)
        for step in range(steps):
            spans.append(new_span("text", 0, range(20 + step, 24 + step)))
            spans.append(new_span("video", 0, [1, *[row] * int(np.prod(grid)), 2], grid))
    return [*spans, new_span("text", 0, range(3, 9))]


VIDEO, IMAGE = hf.VIDEO_ROW, hf.IMAGE_ROW
PROMPTS: dict[str, list[tuple[Grid, int]]] = {
    "text": [],
    "one video": [((3, 14, 10), VIDEO)],
    "one image": [((1, 2, 22), IMAGE)],
    "videos and images": [((2, 6, 10), VIDEO), ((1, 10, 6), IMAGE), ((1, 4, 2), VIDEO), ((1, 22, 18), IMAGE)],
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_logits_and_positions(pair: Pair, prompt: list[tuple[Grid, int]]) -> None:
    reference, checkpoint = pair
    model, spans = checkpoint.model, lay_out(prompt)
    ids = np.concatenate([span.ids for span in spans])
    kinds = (ids == IMAGE) + 2 * (ids == VIDEO)
    more: dict[str, Any] = {"mm_token_type_ids": torch.tensor(kinds[None])}
    for row, values, places in (
        (VIDEO, "pixel_values_videos", "video_grid_thw"),
        (IMAGE, "pixel_values", "image_grid_thw"),
    ):
        grids = [grid for grid, own in prompt if own == row]
        if grids:
            more[values] = torch.tensor(np.concatenate([make_pixels(grid) for grid in grids]))
            more[places] = torch.tensor(grids)
    tokens = torch.tensor(ids[None].astype(np.int64))
    with torch.no_grad():
        found = reference(input_ids=tokens, **more).logits[0]
    grids = {name: value for name, value in more.items() if not name.startswith("pixel")}
    theirs, _ = reference.model.get_rope_index(tokens, **grids)
    places = positions(spans, 0, StreamConfig(), 1.0)
    assert np.array_equal(places, theirs[:, 0].numpy())
    seen = [model.visual(mx.array(make_pixels(grid)), grid) for grid, _ in prompt]
    features = mx.concatenate(seen) if seen else None
    x, deepstack = model.embed(ids, features, kinds > 0), model.deepstack(features, kinds > 0)
    ours = np.array(model.head(model.model(x, model.model.rope(places), deepstack=deepstack))[0])
    assert found.std() > 0.1
    assert np.abs(ours - found.numpy()).max() < LOGIT_LIMIT
