"""Where a clip comes in: any moment of a match, so that every score is shown now and then."""

import numpy as np

from streaming_vlm_mlx.matches.tennis.rules import Pair, Score

SET_SCORES: tuple[Pair, ...] = (*((a, b) for a in range(6) for b in range(6)), (6, 5), (5, 6))


def random_score(rng: np.random.Generator) -> Score:
    """Draw a score, the match not over; tie-breaks and deuces are commoner than in life."""
    sets = (int(rng.integers(0, 3)), int(rng.integers(0, 2)))
    if rng.random() < 0.5:
        sets = (sets[1], sets[0])
    server = int(rng.integers(2))
    if rng.random() < 0.1:
        return Score(_tiebreak_points(rng), (6, 6), sets, server)
    games = SET_SCORES[rng.integers(len(SET_SCORES))]
    return Score(_game_points(rng), games, sets, server)


def _game_points(rng: np.random.Generator) -> Pair:
    if rng.random() < 0.2:
        return ((3, 3), (4, 3), (3, 4))[rng.integers(3)]
    return int(rng.integers(4)), int(rng.integers(4))


def _tiebreak_points(rng: np.random.Generator) -> Pair:
    mine = int(rng.integers(8))
    other = int(rng.integers(7)) if mine < 7 else int(rng.integers(6, 8))
    return (mine, other) if rng.random() < 0.5 else (other, mine)
