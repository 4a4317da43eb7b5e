"""Samples and batches of made-up tokens."""

from collections.abc import Sequence

import numpy as np

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.collator import Batch, Position, collate
from streaming_vlm_mlx.data.dataset import IGNORED, Sample
from streaming_vlm_mlx.stream.spans import Span, join_ids, new_span, positions

VIDEO, PAD, ROWS = 490, 0, 500
STEPS_PER_GRID = 2.0

Grid = tuple[int, int, int]


def lay_out(seconds: int, grid: Grid, rng: np.random.Generator) -> list[Span]:
    """A head, then for each second words of the user, a video of `grid` patches between its marks, words to learn."""
    merged = grid[0], grid[1] // 2, grid[2] // 2
    spans = [new_span("head", -1, rng.integers(3, 400, 5))]
    for second in range(seconds):
        pads = [VIDEO] * int(np.prod(merged))
        spans.append(new_span("time", second, rng.integers(3, 400, rng.integers(1, 5))))
        spans.append(new_span("video", second, [1, *pads, 2], merged))
        spans.append(new_span("text", second, rng.integers(3, 400, rng.integers(1, 6))))
    return spans


def make_sample(seconds: int, grid: Grid, seed: int) -> Sample:
    """Return a sample whose labels follow each video."""
    spans = lay_out(seconds, grid, np.random.default_rng(seed))
    ids = join_ids(spans)
    train_set = np.concatenate([np.full(len(span.ids), span.part == "text") for span in spans])
    labels = np.where(train_set, ids, IGNORED).astype(np.int32)
    counted = positions(spans, 0, StreamConfig(), STEPS_PER_GRID).astype(np.int32)
    return Sample(ids, labels, counted, np.array([grid] * seconds, np.int32))


def make_batch(
    rows: Sequence[Sequence[Sample]], seed: int = 0, pad_to_multiple_of: int = 1, patch_size: int = 14
) -> Batch:
    """Return a batch of `rows` with noise for pixels."""
    tokens = collate(rows, PAD, pad_to_multiple_of)
    patches = int(tokens.video_grid_thw.prod(axis=1).sum())
    pixels = np.random.default_rng(seed).standard_normal((patches, 3 * 2 * patch_size**2), np.float32)
    return Batch(tokens, pixels, tuple(range(len(rows))), len(tokens.video_grid_thw), 0, Position())
