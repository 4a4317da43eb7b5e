"""Tests the properties of rotary embeddings."""

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.models.rope import MRope, rotate, vision_angles

SECTIONS = (2, 3, 3)
ROPE = MRope(16, 10_000.0, SECTIONS)
KEYS = np.random.default_rng(5).standard_normal((2, 1, 6, 16), dtype=np.float32)

places = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=6, max_size=6)


def scores(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    queries, keys = (rotate(mx.array(x), *ROPE(positions)) for x in KEYS[:, None])
    return np.array(queries @ keys.swapaxes(-1, -2))


@given(places, st.integers(0, 500))
def test_scores_depend_on_distances_only(rows: list[tuple[int, int, int]], shift: int) -> None:
    positions = np.array(rows, np.int64).T
    assert np.allclose(scores(positions), scores(positions + shift), atol=1e-3)


@given(places)
def test_lengths_stay(rows: list[tuple[int, int, int]]) -> None:
    turned = np.array(rotate(mx.array(KEYS), *ROPE(np.array(rows, np.int64).T)))
    assert np.allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(KEYS, axis=-1), rtol=1e-5)


def test_position_0_does_not_rotate() -> None:
    assert mx.array_equal(rotate(mx.array(KEYS), *ROPE(np.zeros((3, 6), np.int64))), mx.array(KEYS))


def test_a_pair_turns_by_its_speed_times_its_axis_position() -> None:
    """The channels as complex numbers: pair j, (x[j], x[j + 8]), is multiplied by e^(i · speed · position)."""
    rows = np.array([[7, 1, 2], [3, 9, 4]], np.int64).T
    speeds = 10_000.0 ** (-np.arange(8) / 8)
    axis = [0, 0, 1, 1, 1, 2, 2, 2]
    x = KEYS[0, :, :2]
    expected = (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * speeds * rows[axis].T)
    turned = np.array(rotate(mx.array(x), *ROPE(rows)))
    assert np.allclose(turned, np.concatenate([expected.real, expected.imag], -1), atol=1e-5)


def test_half_of_a_vision_head_turns_with_rows_and_half_with_columns() -> None:
    cos, sin = vision_angles(np.array([0, 5]), np.array([3, 0]), head_dim=16)
    angles = np.arctan2(np.array(sin)[:, 8:], np.array(cos)[:, 8:])
    assert np.all(angles[0, :4] == 0)
    assert np.all(angles[1, 4:] == 0)
    assert np.allclose(np.cos(angles[0, 4:]), np.cos(3 * 10_000.0 ** (-np.arange(4) / 4)), atol=1e-6)


def test_half_precision_is_turned_in_float32_and_given_back() -> None:
    angles = ROPE(np.full((3, 6), 40, np.int64))
    half = mx.array(KEYS).astype(mx.bfloat16)
    turned = rotate(half, *angles)
    assert turned.dtype == mx.bfloat16
    assert mx.array_equal(turned, rotate(half.astype(mx.float32), *angles).astype(mx.bfloat16))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("position", [0, 1, 700, 32_000])
def test_a_token_whose_axes_agree_is_turned_by_one_kernel(position: int, interleaved: bool) -> None:
    """At each position of a long stream, and for a head of a common size."""
    rope = MRope(128, 1_000_000.0, (24, 20, 20) if interleaved else (16, 24, 24), interleaved)
    x = mx.array(np.random.default_rng(1).standard_normal((1, 4, 1, 128)).astype(np.float32))
    assert np.allclose(rotate(x, *rope.at(position, True)), rotate(x, *rope.at(position, False)), atol=3e-6)
    assert mx.array_equal(rotate(x, *rope.at(position, False)), rotate(x, *rope(np.full((3, 1), position))))
