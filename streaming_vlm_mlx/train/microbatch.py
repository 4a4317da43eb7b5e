"""Cuts a batch into microbatches, one for each core, in the form that the model takes; NumPy only."""

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
    """Some rows of a batch, n tokens each, with labels for at most k tokens of each row.

    Attributes:
        token_ids: int32 [batch, n], ids in the model's own vocabulary, which are rows of the embedding.
        is_video: bool [batch, n], tokens whose embedding is a video feature.
        position_ids: int32 [3, batch, n].
        mask: additive attention mask [batch, 1, n, n], which separates packed samples and carries out the scratchpad's
            visibility; None where plain causal attention is enough.
        pixel_values: float32 [patches, values]; or the features of a frozen vision tower, [units, features_width].
        grids: patches in time, down and across, of runs of videos of the same size.
        places: int64 [batch, k], the tokens before the labels, padded with 0.
        logits_mask: additive attention mask of these places, [batch, 1, k, n].
        is_target: bool [batch, k], the places that are not padding.
        targets: int32 [labels], the token id to predict at each of these places.
        head_targets: int32 [targets] for each vision head, video after video; -1 where the target is unknown.
    """

    token_ids: Targets
    is_video: Bools
    position_ids: Targets
    mask: Floats | None
    pixel_values: Floats
    grids: tuple[Grid, ...]
    places: Numbers
    logits_mask: Floats
    is_target: Bools
    targets: Targets
    head_targets: Mapping[str, Targets] = field(default_factory=dict)


def make_microbatches(
    batch: Batch, head_targets: Mapping[str, Sequence[Targets]], vocabulary: Vocabulary, video_token_id: int, count: int
) -> Iterator[Microbatch]:
    """Yield at most `count` microbatches of `batch`, with row counts that differ by at most one.

    Args:
        batch: ids are the tokenizer's; each must have one row of the embedding.
        head_targets: for each vision head an array of targets for each video of the batch.
        vocabulary: maps the tokenizer's ids to rows of the embedding.
        video_token_id: the placeholder of video features.
        count: the number of microbatches to make, if the batch has as many rows.
    """
    tokens = batch.tokens
    owner = _rows_of_videos(tokens, video_token_id)
    sizes = tokens.video_grid_thw.astype(np.int64).prod(axis=1)
    # One row of cached features stands for several patches.
    patches_a_row = sizes.sum() // max(len(batch.pixel_values), 1)
    patch_owner = np.repeat(owner, sizes // max(patches_a_row, 1))
    for rows in np.array_split(np.arange(len(tokens.input_ids)), min(count, len(tokens.input_ids))):
        videos = np.isin(owner, rows)
        values = batch.pixel_values[np.isin(patch_owner, rows)]
        numbers = np.flatnonzero(videos).tolist()
        targets = {name: np.concatenate([arrays[i] for i in numbers]) for name, arrays in head_targets.items()}
        yield _microbatch(_part(tokens, rows, videos), values, targets, vocabulary, video_token_id)


def _rows_of_videos(tokens: Tokens, video_token_id: int) -> Numbers:
    """Return the row that holds each video, int64 [videos]; videos come in the order of their placeholders."""
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
    head_targets: Mapping[str, Targets],
    vocabulary: Vocabulary,
    video_token_id: int,
) -> Microbatch:
    shape = tokens.input_ids.shape
    token_ids = vocabulary.to_rows(tokens.input_ids.ravel())
    assert token_ids.size == tokens.input_ids.size, "each id of a sample must have a row of its own"
    places, is_target = find_logits_to_keep(tokens.labels)
    labels = np.take_along_axis(tokens.labels, np.minimum(places + 1, shape[1] - 1), axis=1)[is_target]
    return Microbatch(
        token_ids=token_ids.reshape(shape),
        is_video=tokens.input_ids == video_token_id,
        position_ids=tokens.position_ids,
        mask=_mask(tokens),
        pixel_values=pixel_values,
        grids=join_grids(tokens.video_grid_thw.tolist()),
        places=places,
        logits_mask=_mask_at(tokens, places),
        is_target=is_target,
        targets=vocabulary.to_rows(labels),
        head_targets=head_targets,
    )


def find_logits_to_keep(labels: Targets) -> tuple[Numbers, Bools]:
    """Return the places of the tokens before the labels [batch, k], and which of them are not padding [batch, k].

    Args:
        labels: int32 [batch, n], each label at its token's own place (not shifted), -100 elsewhere. The first token of
            a row is never a target, since nothing comes before it.
    """
    before = labels[:, 1:] != IGNORED
    counts = before.sum(axis=1)
    k = max(1, int(counts.max(initial=0)))
    is_target = np.arange(k) < counts[:, None]
    places = np.zeros((len(labels), k), np.int64)
    places[is_target] = np.nonzero(before)[1]
    return places, is_target


def join_grids(grids: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    """Merge runs of videos of the same size into one video each: [[1, 12, 22], [1, 12, 22]] gives ((2, 12, 22),)."""
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
