"""Which of two lists of moments belong together, by time alone and one to one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Costs = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """Places of two moments that belong together: one that is asked for, and one that was said."""

    asked: int
    said: int


def align_times(asked: Sequence[float], said: Sequence[float], window: float) -> list[Pair]:
    """Pair moments that lie at most `window` seconds apart, each with one other at most, none crossing another.

    Among all such pairings this is one of least cost: the seconds between partners, and `window` for every moment that
    stays alone. So partners are near one another, and a surplus moment pushes none of its neighbours away from theirs.
    The method is the dynamic programme of edit distances (Wagner and Fischer 1974), in whole milliseconds.

    Args:
        asked: seconds, ascending.
        said: seconds, ascending.
        window: seconds.
    """
    first, second, alone = _milliseconds(asked), _milliseconds(said), round(1000 * window)
    table = _table(first, second, alone)
    pairs: list[Pair] = []
    i, j = len(first), len(second)
    while i and j:
        apart = abs(int(first[i - 1]) - int(second[j - 1]))
        if apart <= alone and table[i, j] == table[i - 1, j - 1] + apart:
            i, j = i - 1, j - 1
            pairs.append(Pair(i, j))
        elif table[i, j] == table[i - 1, j] + alone:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _milliseconds(times: Sequence[float]) -> Costs:
    return np.round(1000 * np.asarray(times, np.float64)).astype(np.int64)


def _table(first: Costs, second: Costs, alone: int) -> Costs:
    """Return the least cost of all beginnings, int64 [asked + 1, said + 1]."""
    columns = alone * np.arange(len(second) + 1, dtype=np.int64)
    table = np.empty((len(first) + 1, len(second) + 1), np.int64)
    table[0] = columns
    for i, time in enumerate(first, 1):
        best = table[i - 1] + alone
        apart = np.abs(second - time)
        paired = np.where(apart <= alone, table[i - 1, :-1] + apart, best[1:])
        best[1:] = np.minimum(best[1:], paired)
        # Moments of the second list that stay alone run along the row.
        table[i] = np.minimum.accumulate(best - columns) + columns
    return table
