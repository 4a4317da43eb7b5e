import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.collator import collate, plan_rows
from streaming_vlm_mlx.data.dataset import Sample

PAD = 9


def sample(length: int, first: int, videos: int = 1) -> Sample:
    ids = np.arange(first, first + length, dtype=np.int32)
    grid = np.full((videos, 3), first, np.int32)
    return Sample(ids, np.where(ids % 2, ids, -100).astype(np.int32), np.stack([ids, ids + 1, ids + 2]), grid)


def test_rows_side_by_side() -> None:
    tokens = collate([[sample(2, 10)], [sample(4, 20, videos=2)]], PAD)
    assert tokens.input_ids.tolist() == [[10, 11, PAD, PAD], [20, 21, 22, 23]]
    assert tokens.labels.tolist() == [[-100, 11, -100, -100], [-100, 21, -100, 23]]
    assert tokens.segments.tolist() == [[0, 0, -1, -1], [0, 0, 0, 0]]
    assert tokens.position_ids[1].tolist() == [[11, 12, 0, 0], [21, 22, 23, 24]]
    assert tokens.video_grid_thw[:, 0].tolist() == [10, 20, 20]


def test_samples_end_to_end() -> None:
    tokens = collate([[sample(2, 10), sample(1, 30)], [sample(1, 20)]], PAD)
    assert tokens.input_ids.tolist() == [[10, 11, 30], [20, PAD, PAD]]
    assert tokens.segments.tolist() == [[0, 0, 1], [0, -1, -1]]
    assert tokens.video_grid_thw[:, 0].tolist() == [10, 30, 20]


@pytest.mark.parametrize(("pad_to_multiple_of", "width"), [(1, 5), (4, 8), (5, 5), (64, 64)])
def test_rows_are_padded_to_a_multiple(pad_to_multiple_of: int, width: int) -> None:
    tokens = collate([[sample(5, 0)]], PAD, pad_to_multiple_of)
    assert tokens.input_ids.shape == tokens.labels.shape == tokens.segments.shape == (1, width)
    assert tokens.position_ids.shape == (3, 1, width)


lengths = st.lists(st.integers(1, 50), min_size=1, max_size=30)


@given(lengths)
def test_a_row_each_short_ones_first(sizes: list[int]) -> None:
    rows = plan_rows(sizes, None)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert [sizes[row[0]] for row in rows] == sorted(sizes)


@given(lengths, st.integers(1, 120))
def test_packed_rows_hold_all_and_overflow_with_a_lone_sample_only(sizes: list[int], room: int) -> None:
    rows = plan_rows(sizes, room)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    totals = [sum(sizes[number] for number in row) for row in rows]
    assert all(total <= room or len(row) == 1 for total, row in zip(totals, rows, strict=True))
    assert totals == sorted(totals)
    half_empty = [total for total in totals if 2 * total <= room]
    assert len(half_empty) <= 1
