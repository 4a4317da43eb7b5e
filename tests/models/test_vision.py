"""Tests the order of patches for window attention."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.models.vision import plan_windows

MERGE = 2
sides = st.integers(1, 9).map(lambda n: n * MERGE)


@given(sides, sides, st.integers(1, 5))
def test_every_patch_lies_in_the_window_of_its_corner(height: int, width: int, window: int) -> None:
    plan = plan_windows(height, width, MERGE, window)
    assert sum(n * size for n, size in plan.runs) == height * width
    assert len({*zip(plan.rows.tolist(), plan.columns.tolist(), strict=True)}) == height * width
    bounds = np.cumsum([0, *(size for n, size in plan.runs for _ in range(n))])
    side = MERGE * window
    corners = []
    for start, end in pairwise(bounds):
        inside = {
            *zip((plan.rows[start:end] // side).tolist(), (plan.columns[start:end] // side).tolist(), strict=True)
        }
        assert len(inside) == 1
        corners += inside
    assert len(set(corners)) == len(corners)


@given(sides, sides, st.integers(1, 5))
def test_merged_patches_stay_together_in_the_processors_order(height: int, width: int, window: int) -> None:
    plan = plan_windows(height, width, MERGE, window)
    rows, columns = (x.reshape(-1, MERGE**2) for x in (plan.rows, plan.columns))
    assert np.array_equal(np.sort(plan.order), np.arange(height * width // MERGE**2))
    assert np.array_equal(plan.order, rows[:, 0] // MERGE * (width // MERGE) + columns[:, 0] // MERGE)
    assert np.array_equal(rows - rows[:, :1], np.tile([0, 0, 1, 1], (len(rows), 1)))
    assert np.array_equal(columns - columns[:, :1], np.tile([0, 1, 0, 1], (len(rows), 1)))
