"""Samples side by side or end to end: the arrays of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.data.samples import ALWAYS, IGNORED, Flags, Ids, Sample

NO_SAMPLE = -1


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch: `rows` rows of `length` places.

    A row holds one sample, or several end to end; a token attends to those before it in its own sample only.

    Attributes:
        input_ids: int32 [rows, length], the padding id behind the last sample of a row.
        labels: int32 [rows, length], the id to learn at its own place (not shifted), -100 elsewhere.
        position_ids: int32 [3, rows, length], each sample's start at 0.
        segments: int32 [rows, length], which sample of its row a token belongs to, -1 for padding.
        video_grid_thw: int32 [videos, 3], patches of each second's video, row by row in the order of the tokens.
        until: int32 [rows, length], the place of its row from which on a token is not seen any more; None where each is
            seen by all behind it.
        looked_until: int32 [rows, length], the same for tokens that only look, those not in `speaks`.
        speaks: bool [rows, length].
    """

    input_ids: Ids
    labels: Ids
    position_ids: Ids
    segments: Ids
    video_grid_thw: Ids
    until: Ids | None = None
    looked_until: Ids | None = None
    speaks: Flags | None = None


def collate(rows: Sequence[Sequence[Sample]], pad_id: int, multiple: int = 1) -> Tokens:
    """Lay `rows` of samples under one another, padded to the longest's length, or to the next `multiple` of tokens."""
    longest = max(sum(len(sample) for sample in row) for row in rows)
    shape = len(rows), -(-longest // multiple) * multiple
    hides = any(sample.until is not None for row in rows for sample in row)
    tokens = Tokens(
        input_ids=np.full(shape, pad_id, np.int32),
        labels=np.full(shape, IGNORED, np.int32),
        position_ids=np.zeros((3, *shape), np.int32),
        segments=np.full(shape, NO_SAMPLE, np.int32),
        video_grid_thw=np.concatenate([sample.video_grid_thw for row in rows for sample in row]),
        until=np.full(shape, ALWAYS, np.int32) if hides else None,
        looked_until=np.full(shape, ALWAYS, np.int32) if hides else None,
        speaks=np.ones(shape, np.bool_) if hides else None,
    )
    for number, row in enumerate(rows):
        at = 0
        for segment, sample in enumerate(row):
            here = slice(at, at + len(sample))
            tokens.input_ids[number, here] = sample.input_ids
            tokens.labels[number, here] = sample.labels
            tokens.position_ids[:, number, here] = sample.position_ids
            tokens.segments[number, here] = segment
            for ours, theirs in ((tokens.until, sample.until), (tokens.looked_until, sample.looked_until)):
                if ours is not None and theirs is not None:
                    ours[number, here] = np.where(theirs < ALWAYS, theirs + at, ALWAYS)
            if tokens.speaks is not None and sample.speaks is not None:
                tokens.speaks[number, here] = sample.speaks
            at += len(sample)
    return tokens


def plan_rows(lengths: Sequence[int], row_tokens: int | None) -> list[list[int]]:
    """Put samples of `lengths` tokens into rows, short rows first.

    Args:
        lengths: tokens of each sample.
        row_tokens: None gives each sample a row of its own; else as many share a row as fit in so many tokens (best
            fit, longest first), and a longer sample has a row of its own.

    Returns:
        the numbers of the samples in each row.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    if row_tokens is None:
        return [[int(number)] for number in order]
    rows: list[list[int]] = []
    room: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for number in reversed(order.tolist()):
        fitting = np.flatnonzero(room >= lengths[number])
        if len(fitting):
            best = int(fitting[np.argmin(room[fitting])])
            rows[best].append(number)
            room[best] -= lengths[number]
        else:
            rows.append([number])
            room = np.append(room, row_tokens - lengths[number])
    return sorted(rows, key=lambda row: sum(lengths[number] for number in row))
