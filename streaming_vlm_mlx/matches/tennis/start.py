"""Where a clip comes in: at any moment of a match, or where a game is about to be decided."""

from collections.abc import Callable

import numpy as np

from streaming_vlm_mlx.matches.tennis.rules import Pair, Score

SETS: tuple[Pair, ...] = (*((0, 0), (0, 1), (1, 0), (1, 1)) * 2, (2, 0), (0, 2), (2, 1), (1, 2))
GAMES: tuple[Pair, ...] = (*((a, b) for a in range(6) for b in range(6)), (6, 5), (5, 6))
# One game more is a set for the leader.
SET_GAMES: tuple[Pair, ...] = (*((5, b) for b in range(5)), (6, 5))
# With two sets won the match could be over in a moment, and the clip would show an empty court.
EARLY_GAMES: tuple[Pair, ...] = tuple((a, b) for a, b in GAMES if max(a, b) <= 3)

Opening = Callable[[np.random.Generator], Score]


def random_score(rng: np.random.Generator) -> Score:
    """Draw a score some games before the match is over; tie-breaks and deuces are commoner than in life."""
    sets = SETS[rng.integers(len(SETS))]
    server = int(rng.integers(2))
    if max(sets) == 2:
        return Score(_game_points(rng), EARLY_GAMES[rng.integers(len(EARLY_GAMES))], sets, server)
    if rng.random() < 0.13:
        return Score(_tiebreak_points(rng), (6, 6), sets, server)
    return Score(_game_points(rng), GAMES[rng.integers(len(GAMES))], sets, server)


def late_score(rng: np.random.Generator) -> Score:
    """Draw a score at game point or in a tie-break; games that may end a set are far commoner than in life."""
    sets = SETS[rng.integers(len(SETS))]
    server, kind = int(rng.integers(2)), rng.random()
    if max(sets) == 2:
        return Score(_late_points(rng), EARLY_GAMES[rng.integers(len(EARLY_GAMES))], sets, server)
    if kind < 1 / 3:
        return Score(_tiebreak_points(rng), (6, 6), sets, server)
    if kind < 2 / 3:
        return Score(_late_points(rng), _either(rng, SET_GAMES[rng.integers(len(SET_GAMES))]), sets, server)
    return Score(_late_points(rng), GAMES[rng.integers(len(GAMES))], sets, server)


def _late_points(rng: np.random.Generator) -> Pair:
    return _either(rng, (3, int(rng.integers(3))))


def _either(rng: np.random.Generator, pair: Pair) -> Pair:
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def _game_points(rng: np.random.Generator) -> Pair:
    if rng.random() < 0.2:
        return ((3, 3), (4, 3), (3, 4))[rng.integers(3)]
    return int(rng.integers(4)), int(rng.integers(4))


def _tiebreak_points(rng: np.random.Generator) -> Pair:
    mine = int(rng.integers(8))
    other = int(rng.integers(7)) if mine < 7 else int(rng.integers(6, 8))
    return _either(rng, (mine, other))
