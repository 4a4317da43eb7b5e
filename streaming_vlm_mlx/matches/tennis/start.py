"""Where a clip comes in: any moment of a match, so that every score is shown now and then."""

import numpy as np

from streaming_vlm_mlx.matches.tennis.rules import Pair, Score

SETS: tuple[Pair, ...] = (*((0, 0), (0, 1), (1, 0), (1, 1)) * 2, (2, 0), (0, 2), (2, 1), (1, 2))
GAMES: tuple[Pair, ...] = (*((a, b) for a in range(6) for b in range(6)), (6, 5), (5, 6))
# With two sets won the match could be over in a moment, and the clip would show an empty court.
EARLY_GAMES: tuple[Pair, ...] = tuple((a, b) for a, b in GAMES if max(a, b) <= 3)


def random_score(rng: np.random.Generator) -> Score:
    """Draw a score some games before the match is over; tie-breaks and deuces are commoner than in life."""
    sets = SETS[rng.integers(len(SETS))]
    server = int(rng.integers(2))
    if max(sets) == 2:
        return Score(_game_points(rng), EARLY_GAMES[rng.integers(len(EARLY_GAMES))], sets, server)
    if rng.random() < 0.13:
        return Score(_tiebreak_points(rng), (6, 6), sets, server)
    return Score(_game_points(rng), GAMES[rng.integers(len(GAMES))], sets, server)


def _game_points(rng: np.random.Generator) -> Pair:
    if rng.random() < 0.2:
        return ((3, 3), (4, 3), (3, 4))[rng.integers(3)]
    return int(rng.integers(4)), int(rng.integers(4))


def _tiebreak_points(rng: np.random.Generator) -> Pair:
    mine = int(rng.integers(8))
    other = int(rng.integers(7)) if mine < 7 else int(rng.integers(6, 8))
    return (mine, other) if rng.random() < 0.5 else (other, mine)
