"""Microbatches: a batch in the form that the model takes, split over the workers. NumPy only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.data.collator import Batch, Tokens
from streaming_vlm_mlx.data.dataset import IGNORED
from streaming_vlm_mlx.stream.masks import visibility_mask
from streaming_vlm_mlx.text.vocabulary import Vocabulary

Grid = tuple[int, int, int]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Targets = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Microbatch:
    """Some rows of a batch, n tokens each; at k places of each row the model predicts the next token.

    Attributes:
        rows: int32 [batch, n], embedding rows of the tokens.
        is_video: bool [batch, n], where vision features replace the embedding.
        position_ids: int32 [3, batch, n].
        mask: additive attention mask [batch, 1, n, n], which separates packed samples and applies the visibility of
            scratchpads; None where plain causal attention is enough.
        pixel_values: float32 [patches, 1176]; or the features of a frozen vision tower, [merged patches, hidden_size].
        grids: patches in time, down and across, of runs of videos of one size.
        places: int64 [batch, k], the places before the labels, padded with 0.
        logits_mask: additive attention mask of these places, [batch, 1, k, n].
        is_target: bool [batch, k], which of the places are not padding.
        targets: int32 [labels], the embedding row to predict at each of these.
        known: int32 [targets] for each vision head, its targets, video by video; -1 where the target is unknown.
    """

    rows: Targets
    is_video: Bools
    position_ids: Targets
    mask: Floats | None
    pixel_values: Floats
    grids: tuple[Grid, ...]
    places: Numbers
    logits_mask: Floats
    is_target: Bools
    targets: Targets
    known: Mapping[str, Targets] = field(default_factory=dict)


def make_microbatches(
    batch: Batch, known: Mapping[str, Sequence[Targets]], vocabulary: Vocabulary, video_token_id: int, parts: int
) -> Iterator[Microbatch]:
    """Yield at most `parts` microbatches of `batch`, with numbers of rows that differ by one at most.

    Args:
        batch: a batch; each of its ids must have an embedding row of its own.
        known: the targets of each vision head, one array for each video of the batch.
        vocabulary: maps ids to embedding rows.
        video_token_id: the id that vision features replace.
        parts: number of microbatches.
    """
    tokens = batch.tokens
    owner = _rows_of_videos(tokens, video_token_id)
    sizes = tokens.video_grid_thw.astype(np.int64).prod(axis=1)
    # With precomputed features, one row stands for several patches.
    patches_a_row = sizes.sum() // max(len(batch.pixel_values), 1)
    patch_owner = np.repeat(owner, sizes // max(patches_a_row, 1))
    for rows in np.array_split(np.arange(len(tokens.input_ids)), min(parts, len(tokens.input_ids))):
        videos = np.isin(owner, rows)
        values = batch.pixel_values[np.isin(patch_owner, rows)]
        theirs = {k: np.concatenate([v[i] for i in np.flatnonzero(videos).tolist()]) for k, v in known.items()}
        yield _microbatch(_part(tokens, rows, videos), values, theirs, vocabulary, video_token_id)


def _rows_of_videos(tokens: Tokens, video_token_id: int) -> Numbers:
    """Return the row of each video, int64 [videos]; videos come in the order of their placeholders."""
    pads = np.count_nonzero(tokens.input_ids == video_token_id, axis=1)
    sizes = tokens.video_grid_thw.astype(np.int64).prod(axis=1)
    if not len(sizes):
        return np.zeros(0, np.int64)
    patches_a_pad = sizes.sum() // pads.sum()
    ends = np.cumsum(pads * patches_a_pad)
    rows: Numbers = np.searchsorted(ends, np.cumsum(sizes), side="left")
    return rows


def _part(tokens: Tokens, rows: Numbers, videos: Bools) -> Tokens:
    return Tokens(
        tokens.input_ids[rows],
        tokens.labels[rows],
        tokens.position_ids[:, rows],
        tokens.segments[rows],
        tokens.video_grid_thw[videos],
        None if tokens.visibility is None else tokens.visibility[rows],
        None if tokens.dropped_at is None else tokens.dropped_at[rows],
    )


def _microbatch(
    tokens: Tokens,
    pixel_values: Floats,
    known: Mapping[str, Targets],
    vocabulary: Vocabulary,
    video_token_id: int,
) -> Microbatch:
    shape = tokens.input_ids.shape
    rows = vocabulary.to_rows(tokens.input_ids.ravel())
    assert rows.size == tokens.input_ids.size, "every id of a sample must have a row of its own"
    places, is_target = find_logits_to_keep(tokens.labels)
    said = np.take_along_axis(tokens.labels, np.minimum(places + 1, shape[1] - 1), axis=1)[is_target]
    return Microbatch(
        rows=rows.reshape(shape),
        is_video=tokens.input_ids == video_token_id,
        position_ids=tokens.position_ids,
        mask=_mask(tokens),
        pixel_values=pixel_values,
        grids=join_grids(tokens.video_grid_thw.tolist()),
        places=places,
        logits_mask=_mask_at(tokens, places),
        is_target=is_target,
        targets=vocabulary.to_rows(said),
        known=known,
    )


def find_logits_to_keep(labels: Targets) -> tuple[Numbers, Bools]:
    """Return the places before labels [batch, k], and which of them are not padding [batch, k].

    Args:
        labels: int32 [batch, n], the id to learn at its own place, -100 elsewhere; the first place of a row is never
            learned, since nothing comes before it.
    """
    before = labels[:, 1:] != IGNORED
    counts = before.sum(axis=1)
    k = max(1, int(counts.max(initial=0)))
    is_target = np.arange(k) < counts[:, None]
    places = np.zeros((len(labels), k), np.int64)
    places[is_target] = np.nonzero(before)[1]
    return places, is_target


def join_grids(grids: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    """Return runs of videos of one size as one video each: [[1, 12, 22], [1, 12, 22]] is ((2, 12, 22),)."""
    runs = groupby(grids, key=lambda grid: (grid[1], grid[2]))
    return tuple((sum(grid[0] for grid in run), *size) for size, run in runs)


def _mask(tokens: Tokens) -> Floats | None:
    """Return the mask of all tokens, [batch, 1, n, n]; None where plain causal attention is enough."""
    segments = tokens.segments
    if segments.max(initial=0) <= 0 and tokens.visibility is None:
        return None
    return _mask_at(tokens, np.broadcast_to(np.arange(segments.shape[1]), segments.shape))


def _mask_at(tokens: Tokens, places: Numbers) -> Floats:
    """Return the mask of the tokens at `places` [batch, k], [batch, 1, k, n]."""
    length = tokens.segments.shape[1]
    return visibility_mask(places, length, tokens.visibility, tokens.dropped_at, tokens.segments)[:, None]
