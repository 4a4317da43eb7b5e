"""A stretch of a match as it will be filmed: every way walked, every ball, every score, with times."""

from collections.abc import Iterator
from dataclasses import dataclass

from streaming_vlm_mlx.matches.flight import Arc, Place, Track
from streaming_vlm_mlx.matches.tennis.court import end_name
from streaming_vlm_mlx.matches.tennis.players import Cast
from streaming_vlm_mlx.matches.tennis.point import Point, Shot
from streaming_vlm_mlx.matches.tennis.rules import Score, call_after, point_texts
from streaming_vlm_mlx.matches.tennis.scoreboard import Reading
from streaming_vlm_mlx.matches.truth import Event
from streaming_vlm_mlx.matches.truth import Score as Shown

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


def events(script: Script) -> tuple[Event, ...]:
    """Return what happens within the clip, in order of time."""
    found = [Event(t, "change_of_ends") for t in script.changes]
    for played in script.points:
        found += [*_strokes(script, played), *_ending(script, played)]
    return tuple(sorted((e for e in found if 0 <= e.time < script.seconds), key=lambda e: e.time))


def score_shown(score: Score) -> Shown:
    """Return points, games and sets as a scoreboard shows them."""
    games, sets = score.games, score.sets
    return {
        "points": point_texts(score),
        "games": (str(games[0]), str(games[1])),
        "sets": (str(sets[0]), str(sets[1])),
    }


def _strokes(script: Script, played: PointScore) -> Iterator[Event]:
    score = score_shown(played.before)
    for shot in played.point.shots:
        kind = "serve" if shot.stroke == "serve" else "shot"
        yield Event(
            time=round(shot.time, 3),
            kind=kind,
            player=script.cast.names[shot.player],
            end=end_name(played.ends[shot.player]),
            stroke=shot.stroke,
            direction=shot.direction,
            detail=shot.detail,
            score=score,
        )
        if shot.detail == "first" and shot.miss:
            yield Event(
                time=round(shot.land_time, 3),
                kind="fault",
                player=script.cast.names[shot.player],
                end=end_name(played.ends[shot.player]),
                stroke=shot.stroke,
                detail=shot.miss,
                score=score,
            )


def _ending(script: Script, played: PointScore) -> Iterator[Event]:
    names, last = script.cast.names, played.point.shots[-1]
    winner = played.point.winner
    score = score_shown(played.after)
    yield Event(
        time=round(played.point.time, 3),
        kind=played.point.outcome,
        player=names[last.player],
        end=end_name(played.ends[last.player]),
        stroke=last.stroke,
        direction=last.direction,
        detail=last.miss,
        score=score,
    )
    kinds = ["point"]
    if played.before.games != played.after.games or played.before.sets != played.after.sets:
        kinds.append("game")
    if played.before.sets != played.after.sets:
        kinds.append("set")
    if played.after.winner is not None:
        kinds.append("match")
    call = call_after(played.before, played.after, names)
    for kind in kinds:
        yield Event(
            time=round(played.shown, 3),
            kind=kind,
            player=names[winner],
            end=end_name(played.ends[winner]),
            call=call,
            score=score,
        )
