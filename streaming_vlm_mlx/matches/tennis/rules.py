"""Tennis scoring: points, games, sets, tie-breaks, the server, and changes of ends.

Source: the ITF Rules of Tennis, rules 5 to 10 and 14; best of five sets, tie-break at six games all in every set.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Pair = tuple[int, int]

SETS_TO_WIN = 3
POINT_TEXTS = ("0", "15", "30", "40")
POINT_WORDS = ("love", "fifteen", "thirty", "forty")
COUNT_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a match; a pair has the numbers of player 0 and player 1.

    Attributes:
        points: points in the current game or tie-break.
        games: games in the current set.
        sets: sets won.
        game_server: the server of this game; in a tie-break, of its first point.
    """

    points: Pair = (0, 0)
    games: Pair = (0, 0)
    sets: Pair = (0, 0)
    game_server: int = 0

    @property
    def tiebreak(self) -> bool:
        """Whether the current game is a tie-break."""
        return self.games == (6, 6)

    @property
    def server(self) -> int:
        """The server of the next point; in a tie-break one point, then two each in turn."""
        if not self.tiebreak:
            return self.game_server
        turns = (sum(self.points) + 1) // 2
        return self.game_server if turns % 2 == 0 else 1 - self.game_server

    @property
    def deuce_court(self) -> bool:
        """Whether the next point is served from the right of the centre mark."""
        return sum(self.points) % 2 == 0

    @property
    def winner(self) -> int | None:
        """The winner of the match; None before its end."""
        return next((p for p in (0, 1) if self.sets[p] >= SETS_TO_WIN), None)


def _plus_one(pair: Pair, player: int) -> Pair:
    return (pair[0] + 1, pair[1]) if player == 0 else (pair[0], pair[1] + 1)


def _takes(pair: Pair, player: int, enough: int) -> bool:
    """Whether `player` has reached `enough` with two more than the other."""
    return pair[player] >= enough and pair[player] - pair[1 - player] >= 2


def after_point(score: Score, player: int) -> Score:
    """Return the score after `player` wins a point."""
    points = _plus_one(score.points, player)
    if not _takes(points, player, 7 if score.tiebreak else 4):
        return replace(score, points=points)
    games = _plus_one(score.games, player)
    following = Score(games=games, sets=score.sets, game_server=1 - score.game_server)
    if not (score.tiebreak or _takes(games, player, 6)):
        return following
    return replace(following, games=(0, 0), sets=_plus_one(score.sets, player))


def ends_change(before: Score, after: Score) -> bool:
    """Whether the players change ends after the point between `before` and `after`.

    They do so after an odd number of games in a set, and after every six points of a tie-break.
    """
    if after.winner is not None:
        return False
    if before.games == after.games and before.sets == after.sets:
        return before.tiebreak and sum(after.points) % 6 == 0
    return (sum(before.games) + 1) % 2 == 1


def point_texts(score: Score) -> tuple[str, str]:
    """Return the points as a scoreboard shows them: 0, 15, 30, 40, AD, or a tie-break's numbers."""
    if score.tiebreak:
        return str(score.points[0]), str(score.points[1])
    first, second = score.points
    if min(first, second) >= 3:
        return ("AD" if first > second else "40"), ("AD" if second > first else "40")
    return POINT_TEXTS[first], POINT_TEXTS[second]


def call_points(score: Score, names: tuple[str, str]) -> str:
    """Return the current points as the umpire calls them, the server's first: ``fifteen love``, ``advantage red``."""
    mine, other = score.points[score.server], score.points[1 - score.server]
    if score.tiebreak:
        return f"{COUNT_WORDS[mine]} {'all' if mine == other else COUNT_WORDS[other]}"
    if min(mine, other) >= 3:
        return "deuce" if mine == other else f"advantage {names[0] if score.points[0] > score.points[1] else names[1]}"
    return f"{POINT_WORDS[mine]} {'all' if mine == other else POINT_WORDS[other]}"


def call_after(before: Score, after: Score, names: tuple[str, str]) -> str:
    """Return the umpire's call after a point: the points, or who won the game, set or match."""
    if before.games == after.games and before.sets == after.sets:
        return call_points(after, names)
    if before.sets == after.sets:
        return f"game {names[0] if after.games[0] > before.games[0] else names[1]}"
    taker = names[0] if after.sets[0] > before.sets[0] else names[1]
    return f"game set and match {taker}" if after.winner is not None else f"game and set {taker}"


SETS: tuple[Pair, ...] = (*((0, 0), (0, 1), (1, 0), (1, 1)) * 2, (2, 0), (0, 2), (2, 1), (1, 2))
GAMES: tuple[Pair, ...] = (*((a, b) for a in range(6) for b in range(6)), (6, 5), (5, 6))
# One more game wins the set for the leader.
SET_GAMES: tuple[Pair, ...] = (*((5, b) for b in range(5)), (6, 5))
# With two sets won, the match could end early in the clip, which would then show an empty court.
EARLY_GAMES: tuple[Pair, ...] = tuple((a, b) for a, b in GAMES if max(a, b) <= 3)

Opening = Callable[[np.random.Generator], Score]


def random_score(rng: np.random.Generator) -> Score:
    """Draw a score some games before the end of the match. Tie-breaks and deuces are more frequent than in reality."""
    sets = SETS[rng.integers(len(SETS))]
    server = int(rng.integers(2))
    if max(sets) == 2:
        return Score(_game_points(rng), EARLY_GAMES[rng.integers(len(EARLY_GAMES))], sets, server)
    if rng.random() < 0.13:
        return Score(_tiebreak_points(rng), (6, 6), sets, server)
    return Score(_game_points(rng), GAMES[rng.integers(len(GAMES))], sets, server)


def late_score(rng: np.random.Generator) -> Score:
    """Draw a score at game point or in a tie-break. Games that may end a set are more frequent than in reality."""
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
