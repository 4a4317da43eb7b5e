"""Moments are paired one to one, near one another, and a surplus one disturbs nobody."""

from itertools import combinations, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.matches.tennis.judge import Pair, align_times

WINDOW = 2.0
times = st.lists(st.integers(0, 20_000).map(lambda ms: ms / 1000), max_size=5).map(sorted)


def cost(asked: list[float], said: list[float], pairs: list[tuple[int, int]]) -> int:
    apart = sum(abs(round(1000 * asked[a]) - round(1000 * said[s])) for a, s in pairs)
    return apart + round(1000 * WINDOW) * (len(asked) + len(said) - 2 * len(pairs))


def best_cost(asked: list[float], said: list[float]) -> int:
    """Return the least cost over every pairing that does not cross itself."""
    found = []
    for size in range(min(len(asked), len(said)) + 1):
        for first in combinations(range(len(asked)), size):
            for second in combinations(range(len(said)), size):
                pairs = list(zip(first, second, strict=True))
                if all(abs(asked[a] - said[s]) <= WINDOW + 1e-9 for a, s in pairs):
                    found.append(cost(asked, said, pairs))
    return min(found)


@given(times, times)
@example([0.0], [2.0])
@example([0.0], [2.001])
def test_no_other_pairing_costs_less(asked: list[float], said: list[float]) -> None:
    pairs = align_times(asked, said, WINDOW)
    assert all(abs(asked[a] - said[s]) <= WINDOW + 1e-9 for a, s in pairs)
    assert all(a.asked < b.asked and a.said < b.said for a, b in pairwise(pairs))
    assert cost(asked, said, pairs) == best_cost(asked, said)


@given(times, st.integers(-999, 999).map(lambda ms: ms / 1000))
def test_moments_are_their_own_partners(asked: list[float], shift: float) -> None:
    pairs = align_times(asked, asked, WINDOW)
    assert all(asked[a] == asked[s] for a, s in pairs)
    assert len(align_times(asked, [t + shift for t in asked], WINDOW)) == len(asked)


@given(times, times)
def test_both_lists_are_alike(asked: list[float], said: list[float]) -> None:
    assert len(align_times(asked, said, WINDOW)) == len(align_times(said, asked, WINDOW))


def test_a_surplus_moment_pushes_nobody_away() -> None:
    assert align_times([1.0, 3.0, 5.0], [3.0, 5.0, 6.9], WINDOW) == [Pair(1, 0), Pair(2, 1)]


def test_the_window_is_closed_and_nothing_lies_beyond_it() -> None:
    assert align_times([10.0], [12.0], WINDOW) == [Pair(0, 0)]
    assert align_times([10.0], [12.002], WINDOW) == []
    assert align_times([], [1.0], WINDOW) == align_times([1.0], [], WINDOW) == []
