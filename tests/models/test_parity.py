"""Compares the model with transformers, on weights that transformers saved."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import Checkpoint
from streaming_vlm_mlx.stream.spans import Span, new_span, positions
from streaming_vlm_mlx.text.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
hf = import_module("tests.models.hugging_face")

FEATURE_LIMIT, LOGIT_LIMIT = 1e-3, 2e-3
GRIDS = [(1, 14, 10), (2, 4, 6), (3, 8, 12), (1, 2, 2), (1, 10, 4), (2, 22, 26)]

Grid = tuple[int, int, int]
Pair = tuple[Any, Checkpoint]


@pytest.fixture(scope="module", params=hf.SIZES.values(), ids=hf.SIZES.keys())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Pair:
    """The reference, and its weights in this program's model."""
    reference = hf.make_torch(request.param, seed=11)
    return reference, hf.load_saved(reference, tmp_path_factory.mktemp("hub"), tokenizer)


def make_pixels(grid: Grid, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((int(np.prod(grid)), 3 * 2 * 14 * 14), dtype=np.float32)


def lay_out(pieces: list[int | Grid], rows: dict[int, int] | None = None) -> list[Span]:
    """Text of so many tokens, or a video of so many patches between its marks; `rows` are of pieces that are none."""
    spans = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, int):
            spans.append(new_span("text", number, range(piece)))
        else:
            time, height, width = piece
            grid, row = (time, height // 2, width // 2), (rows or {}).get(number, hf.VIDEO_ROW)
            spans.append(new_span("video", number, [1, *[row] * int(np.prod(grid)), 2], grid))
    return spans


def kinds(ids: np.ndarray) -> np.ndarray:
    """Text 0, images 1, videos 2, as the reference takes it."""
    return (ids == hf.IMAGE_ROW) + 2 * (ids == hf.VIDEO_ROW)


def reference_positions(reference: Any, spans: list[Span], grids: list[Grid], seconds_per_grid: float) -> np.ndarray:
    ids = np.concatenate([s.ids for s in spans])
    found, _ = reference.model.get_rope_index(
        torch.tensor(ids[None].astype(np.int64)),
        mm_token_type_ids=torch.tensor(kinds(ids)[None]),
        video_grid_thw=torch.tensor(grids),
        second_per_grid_ts=torch.tensor([seconds_per_grid] * len(grids)),
    )
    return found[:, 0].numpy()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features(pair: Pair, grid: Grid) -> None:
    reference, checkpoint = pair
    pixels = make_pixels(grid, seed=sum(grid))
    with torch.no_grad():
        found = reference.model.get_video_features(torch.tensor(pixels), torch.tensor([grid])).pooler_output[0].numpy()
    ours = np.array(checkpoint.model.visual(mx.array(pixels), grid))
    assert np.abs(found).mean() > 0.1
    assert ours.shape == found.shape
    assert np.abs(ours - found).max() < FEATURE_LIMIT


PROMPTS: dict[str, tuple[list[Grid], list[Grid]]] = {
    "one video": ([(1, 14, 10)], []),
    "three videos": ([(2, 4, 6), (1, 6, 4), (3, 8, 12)], []),
    "videos and images": ([(2, 6, 10), (1, 4, 2)], [(1, 10, 6), (1, 2, 14), (1, 22, 18)]),
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_logits(pair: Pair, prompt: tuple[list[Grid], list[Grid]]) -> None:
    reference, checkpoint = pair
    model, (videos, images) = checkpoint.model, prompt
    # Images and videos by turns, text between them, a second of two steps a grid.
    pictures = [*zip(videos, images, strict=False)] or [(v,) for v in videos]
    shown = [grid for pair_ in pictures for grid in pair_] + images[len(videos) :]
    pieces = [7, *(piece for grid in shown for piece in (grid, 5))]
    is_image = [grid in images for grid in shown]
    spans = lay_out(pieces, {1 + 2 * k: hf.IMAGE_ROW for k, image in enumerate(is_image) if image})
    ids = np.concatenate([s.ids for s in spans])
    pixels = {grid: make_pixels(grid, seed=sum(grid)) for grid in shown}

    def seen(grids: list[Grid], values: str, places: str) -> dict[str, Any]:
        joined = [pixels[grid] for grid in grids]
        return {values: torch.tensor(np.concatenate(joined)), places: torch.tensor(grids)} if grids else {}

    more = {} if checkpoint.model.config.model_type == "qwen2_vl" else {"second_per_grid_ts": [1.0] * len(videos)}
    with torch.no_grad():
        found = reference(
            input_ids=torch.tensor(ids[None].astype(np.int64)),
            mm_token_type_ids=torch.tensor(kinds(ids)[None]),
            **seen(videos, "pixel_values_videos", "video_grid_thw"),
            **seen(images, "pixel_values", "image_grid_thw"),
            **{name: torch.tensor(value) for name, value in more.items()},
        ).logits[0]
    features = mx.concatenate([model.visual(mx.array(pixels[grid]), grid) for grid in shown])
    assert model.config.vision_config is not None
    angles = model.model.rope(positions(spans, 0, StreamConfig(), model.config.vision_config.time_step(1.0)))
    ours = np.array(model.head(model.model(model.embed(ids, features, kinds(ids) > 0), angles))[0])
    assert found.std() > 0.1
    assert np.abs(ours - found.numpy()).max() < LOGIT_LIMIT


def test_weights_and_linear_layers_are_as_many(pair: Pair) -> None:
    reference, checkpoint = pair
    tied = checkpoint.model.config.text_config.tie_word_embeddings
    linears = [m for m in reference.modules() if isinstance(m, torch.nn.Linear)]
    assert checkpoint.model.parameter_count() == sum(p.numel() for p in reference.parameters())
    assert len(list(checkpoint.model.linears())) == len(linears) - tied


def test_a_sharded_folder_is_read(pair: Pair, tmp_path: Path, tokenizer: Tokenizer) -> None:
    reference, whole = pair
    sharded = hf.load_saved(reference, tmp_path, tokenizer, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    for (name, array), (_, same) in zip(sharded.model.named_arrays(), whole.model.named_arrays(), strict=True):
        assert mx.array_equal(array, same), name


def test_a_bfloat16_folder_is_read_as_float32(tmp_path: Path, tokenizer: Tokenizer) -> None:
    half = hf.make_torch(hf.SIZES["tied, one query a key"], seed=11).to(torch.bfloat16)
    loaded = hf.load_saved(half, tmp_path, tokenizer)
    expected = {n: p.detach().float().numpy() for n, p in half.model.language_model.named_parameters()}
    for name, array in tree_flatten(loaded.model.model.parameters()):
        assert array.dtype == mx.float32, name
        assert np.array_equal(np.array(array), expected[name]), name


even = st.integers(1, 4).map(lambda n: 2 * n)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int | Grid], float]:
    """Text and videos in any order, and seconds a grid, where no video is longer in time than in its picture.

    Beyond that Hugging Face's text follows the picture's longer side; the published program's, and ours, the largest
    position of all.
    """
    seconds = draw(st.sampled_from([0.25, 0.5, 1.0, 2.0]))
    pieces: list[int | Grid] = [draw(st.integers(1, 4))]
    for _ in range(draw(st.integers(1, 4))):
        height, width = draw(even), draw(even)
        longest = int((max(height, width) // 2 - 1) / (2 * seconds)) + 1
        pieces += [(draw(st.integers(1, longest)), height, width), draw(st.integers(1, 4))]
    return pieces, seconds


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    return hf.make_torch(hf.SIZES["tied, one query a key"], seed=0)


@settings(max_examples=50, deadline=None)
@given(layout=layouts())
def test_positions(reference: Any, layout: tuple[list[int | Grid], float]) -> None:
    pieces, seconds = layout
    spans = lay_out(pieces)
    grids = [p for p in pieces if not isinstance(p, int)]
    found = reference_positions(reference, spans, grids, seconds)
    assert np.array_equal(positions(spans, 0, StreamConfig(), 2 * seconds), found)
