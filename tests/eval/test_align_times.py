"""Moments are paired one to one, near one another, and a surplus one disturbs nobody."""

from itertools import combinations, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.eval.text_metrics import TimePair, align_times

WINDOW = 2.0
times = st.lists(st.integers(0, 20_000).map(lambda ms: ms / 1000), max_size=5).map(sorted)


def cost(expected: list[float], said: list[float], pairs: list[tuple[int, int]]) -> int:
    apart = sum(abs(round(1000 * expected[a]) - round(1000 * said[s])) for a, s in pairs)
    return apart + round(1000 * WINDOW) * (len(expected) + len(said) - 2 * len(pairs))


def best_cost(expected: list[float], said: list[float]) -> int:
    """Return the least cost over every pairing that does not cross itself."""
    found = []
    for size in range(min(len(expected), len(said)) + 1):
        for first in combinations(range(len(expected)), size):
            for second in combinations(range(len(said)), size):
                pairs = list(zip(first, second, strict=True))
                if all(abs(expected[a] - said[s]) <= WINDOW + 1e-9 for a, s in pairs):
                    found.append(cost(expected, said, pairs))
    return min(found)


@given(times, times)
@example([0.0], [2.0])
@example([0.0], [2.001])
def test_no_other_pairing_costs_less(expected: list[float], said: list[float]) -> None:
    pairs = align_times(expected, said, WINDOW)
    assert all(abs(expected[a] - said[s]) <= WINDOW + 1e-9 for a, s in pairs)
    assert all(a.expected < b.expected and a.said < b.said for a, b in pairwise(pairs))
    assert cost(expected, said, pairs) == best_cost(expected, said)


@given(times, st.integers(-999, 999).map(lambda ms: ms / 1000))
def test_moments_are_their_own_partners(expected: list[float], shift: float) -> None:
    pairs = align_times(expected, expected, WINDOW)
    assert all(expected[a] == expected[s] for a, s in pairs)
    assert len(align_times(expected, [t + shift for t in expected], WINDOW)) == len(expected)


@given(times, times)
def test_both_lists_are_alike(expected: list[float], said: list[float]) -> None:
    assert len(align_times(expected, said, WINDOW)) == len(align_times(said, expected, WINDOW))


def test_a_surplus_moment_pushes_nobody_away() -> None:
    assert align_times([1.0, 3.0, 5.0], [3.0, 5.0, 6.9], WINDOW) == [TimePair(1, 0), TimePair(2, 1)]


def test_the_window_is_closed_and_nothing_lies_beyond_it() -> None:
    assert align_times([10.0], [12.0], WINDOW) == [TimePair(0, 0)]
    assert align_times([10.0], [12.002], WINDOW) == []
    assert align_times([], [1.0], WINDOW) == align_times([1.0], [], WINDOW) == []
