"""A stretch of a match as it will be filmed: every way walked, every ball, every score, with times."""

from dataclasses import dataclass

from streaming_vlm_mlx.matches.flight import Arc
from streaming_vlm_mlx.matches.tennis.cast import Cast
from streaming_vlm_mlx.matches.tennis.clock import Reading
from streaming_vlm_mlx.matches.tennis.point import Point, Shot
from streaming_vlm_mlx.matches.tennis.rules import Score
from streaming_vlm_mlx.matches.tracks import Place, Track

# Officials who show a ball out, and children who fetch balls: metres, as in `court`.
JUDGES: tuple[Place, ...] = ((-6.6, -8.3), (6.6, -8.3), (-7.4, 9.4), (7.4, 9.4))
KIDS: tuple[Place, ...] = ((-7.2, -0.6), (7.2, 0.6), (-6.2, 17.4), (6.2, 17.4))


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end`, of someone or something that `who` counts."""

    start: float
    end: float
    who: int

    def holds(self, time: float) -> bool:
        """Whether `time` lies within."""
        return self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class PointScore:
    """A point with its scores.

    Attributes:
        point: the point.
        ends: where each player stood, as signs of y.
        before: the score at which it was played.
        after: the score that it led to.
        shown: when the scoreboard changes, seconds.
    """

    point: Point
    ends: tuple[int, int]
    before: Score
    after: Score
    shown: float


@dataclass(frozen=True, slots=True)
class Script:
    """All that happens in a clip, and a little beyond its end.

    Attributes:
        seconds: the clip's length.
        cast: who plays.
        opening: the score at the beginning.
        points: every point, in order.
        changes: when players set out to change ends.
        players: their ways.
        kids: the ball kids' ways.
        ball: the ball's way.
        signals: an official (index in `JUDGES`) shows a ball out.
        cheers: a player raises a fist.
        dismays: a player spreads the arms.
        applause: the crowd stirs.
        clock: what the serve clock shows.
    """

    seconds: float
    cast: Cast
    opening: Score
    points: tuple[PointScore, ...]
    changes: tuple[float, ...]
    players: tuple[Track, Track]
    kids: tuple[Track, ...]
    ball: tuple[Arc, ...]
    signals: tuple[Span, ...]
    cheers: tuple[Span, ...]
    dismays: tuple[Span, ...]
    applause: tuple[Span, ...]
    clock: tuple[Reading, ...]

    @property
    def shots(self) -> tuple[Shot, ...]:
        """Every stroke, in order."""
        return tuple(shot for p in self.points for shot in p.point.shots)
