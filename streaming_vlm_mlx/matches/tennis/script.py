"""The script of a clip: everything that happens, with times; `Director` writes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot

import numpy as np

from streaming_vlm_mlx.matches.flight import Arc, Place, Track, cut, position
from streaming_vlm_mlx.matches.match_truth import Event
from streaming_vlm_mlx.matches.match_truth import Score as Shown
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH, end_name
from streaming_vlm_mlx.matches.tennis.players import Cast
from streaming_vlm_mlx.matches.tennis.point import PREPARE, Point, PointPlay, Shot
from streaming_vlm_mlx.matches.tennis.rules import Score, after_point, call_after, ends_change, point_texts
from streaming_vlm_mlx.matches.tennis.scoreboard import Reading, readings

# Places of the officials who signal a ball out, and of the ball kids: metres, as in `court`.
JUDGES: tuple[Place, ...] = ((-6.6, -8.3), (6.6, -8.3), (-7.4, 9.4), (7.4, 9.4))
KIDS: tuple[Place, ...] = ((-7.2, -0.6), (7.2, 0.6), (-6.2, 17.4), (6.2, 17.4))


@dataclass(frozen=True, slots=True)
class Span:
    """The seconds from `start` to `end`; `who` is the index of a person."""

    start: float
    end: float
    who: int

    def holds(self, time: float) -> bool:
        """Whether `time` is within the span."""
        return self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class PointScore:
    """A point and its scores.

    Attributes:
        point: the point.
        ends: the end of each player, as the sign of y.
        before: the score before the point.
        after: the score after the point.
        shown: when the scoreboard changes, seconds.
    """

    point: Point
    ends: tuple[int, int]
    before: Score
    after: Score
    shown: float


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that happens in a clip, and shortly after its end.

    Attributes:
        seconds: the clip's length.
        cast: who plays.
        opening: the score at the start.
        points: every point, in order.
        changes: when the players start to change ends.
        players: the walks of both players.
        kids: the walks of the ball kids.
        ball: the path of the ball.
        signals: an official (index in `JUDGES`) signals a ball out.
        cheers: a player raises a fist.
        dismays: a player spreads the arms.
        applause: the crowd moves.
        clock: the readings of the serve clock.
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
    """Return the events within the clip, in order of time."""
    found = [Event(t, "change_of_ends") for t in script.changes]
    for played in script.points:
        found += [*_strokes(script, played), *_ending(script, played)]
    return tuple(sorted((e for e in found if 0 <= e.time < script.seconds), key=lambda e: e.time))


def score_shown(score: Score) -> Shown:
    """Return points, games and sets as the scoreboard shows them."""
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


WALK, JOG, SPRINT = 2.6, 4.2, 5.5
# For a change of ends, the players walk around the net posts, one on each side.
PASSAGE_X, PASSAGE_Y = 6.9, 1.6


@dataclass
class Director:
    """Fills a clip with points. `run` may be called once.

    Attributes:
        rng: draws everything random.
        cast: the players.
        score: the score of the match.
        ends: the end of each player, as the sign of y.
        seconds: the clip's length.
    """

    rng: np.random.Generator
    cast: Cast
    score: Score
    ends: tuple[int, int]
    seconds: float
    points: list[PointScore] = field(default_factory=list)
    ball: list[Arc] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    signals: list[Span] = field(default_factory=list)
    cheers: list[Span] = field(default_factory=list)
    dismays: list[Span] = field(default_factory=list)
    applause: list[Span] = field(default_factory=list)

    def run(self) -> Script:
        """Return the script of a clip that starts shortly before a serve."""
        opening = self.score
        stances = self._stances()
        self.tracks = (Track(stances[0]), Track(stances[1]))
        self.kids = tuple(Track(home) for home in KIDS)
        time = self.rng.uniform(1.4, 3.4)
        while time < self.seconds + 2 and self.score.winner is None:
            time = self._play_point(time)
        return Script(
            seconds=self.seconds,
            cast=self.cast,
            opening=opening,
            points=tuple(self.points),
            changes=tuple(self.changes),
            players=self.tracks,
            kids=self.kids,
            ball=tuple(self.ball),
            signals=tuple(self.signals),
            cheers=tuple(self.cheers),
            dismays=tuple(self.dismays),
            applause=tuple(self.applause),
            clock=readings(p.point for p in self.points),
        )

    def _play_point(self, time: float) -> float:
        """Play the point that is served at `time`; return the time of the next serve."""
        score = self.score
        play = PointPlay(self.rng, self.cast.skills, self.ends, self.tracks, score.server, score.deuce_court)
        point = play.play(time)
        self.ball = [*cut(self.ball, point.ball[0].start), *point.ball]
        self.score = after_point(score, point.winner)
        shown = point.time + self.rng.uniform(1.2, 1.7)
        self.points.append(PointScore(point, self.ends, score, self.score, shown))
        self._react(point)
        following = self._walk_on(score, point)
        self._fetch_balls(point, following)
        return following

    def _react(self, point: Point) -> None:
        """Add the reactions: officials signal, a player cheers or spreads the arms, the crowd applauds."""
        rng = self.rng
        for shot in point.shots:
            if shot.miss in ("long", "wide"):
                x, y, _ = shot.landing
                judge = min(range(len(JUDGES)), key=lambda j: hypot(JUDGES[j][0] - x, 3 * (JUDGES[j][1] - y)))
                self.signals.append(Span(shot.land_time + 0.25, shot.land_time + rng.uniform(2.0, 2.3), judge))
            elif shot.miss:
                self.dismays.append(Span(shot.land_time + 0.3, shot.land_time + rng.uniform(2.0, 2.3), shot.player))
        brilliant = point.outcome in ("ace", "winner")
        if brilliant:
            self.cheers.append(Span(point.time + 0.3, point.time + rng.uniform(2.0, 2.4), point.winner))
        if brilliant or len(point.shots) > 6:
            self.applause.append(Span(point.time + 0.2, point.time + rng.uniform(2.6, 3.6), 0))

    def _walk_on(self, before: Score, point: Point) -> float:
        """Move both players to their places for the next point; return the time of its serve."""
        rest = point.time + self.rng.uniform(1.5, 1.8)
        if self.score.winner is not None:
            for player in (0, 1):
                self.tracks[player].run(rest, rest + 20, (0.7 * (2 * player - 1), 1.2 * self.ends[player]), WALK)
            return rest
        if ends_change(before, self.score):
            return self._change_ends(rest)
        stances = self._stances()
        ways = [_distance(self.tracks[p].at(rest), stances[p]) for p in (0, 1)]
        needed = max(ways) / JOG + PREPARE + 0.2
        serve = max(point.time + self.rng.uniform(4.4, 6.0), rest + needed)
        for player in (0, 1):
            self.tracks[player].run(
                rest, serve - PREPARE, stances[player], max(WALK, ways[player] / (needed - PREPARE))
            )
        return serve

    def _change_ends(self, time: float) -> float:
        self.changes.append(time)
        self.ends = (-self.ends[0], -self.ends[1])
        stances = self._stances()
        arrivals = []
        for player, side in ((0, -1), (1, 1)):
            track, end, now = self.tracks[player], self.ends[player], time
            for goal in ((side * PASSAGE_X, -end * PASSAGE_Y), (side * PASSAGE_X, end * PASSAGE_Y), stances[player]):
                arrival = now + _distance(track.at(now), goal) / JOG
                track.go(now, arrival, goal)
                now = arrival
            arrivals.append(now)
        return max(arrivals) + PREPARE + self.rng.uniform(0.2, 0.8)

    def _stances(self) -> tuple[Place, Place]:
        """Return the places of both players for the next point."""
        rng, server = self.rng, self.score.server
        end = self.ends[server]
        side = end if self.score.deuce_court else -end
        serving = (-side * rng.uniform(0.6, 1.3), end * (HALF_LENGTH + 0.25))
        receiving = (side * rng.uniform(3.1, 3.8), -end * (HALF_LENGTH + rng.uniform(0.4, 1.5)))
        return (serving, receiving) if server == 0 else (receiving, serving)

    def _fetch_balls(self, point: Point, following: float) -> None:
        """Let ball kids pick up the balls that they can reach well before the next serve."""
        serves = [s.time for s in point.shots if s.stroke == "serve"]
        dead = [(s.land_time, serves[1]) for s in point.shots if s.detail == "first" and s.miss]
        for time, serve in [*dead, (point.time, following)]:
            self._fetch(time + 1.5, serve)

    def _fetch(self, earliest: float, serve: float) -> None:
        starts = [a.start for a in self.ball]
        for time in np.arange(earliest + 0.4, serve - PREPARE, 0.2):
            place = position(self.ball, starts, float(time))
            if place is None:
                return
            near = min(range(len(KIDS)), key=lambda k: _distance(KIDS[k], (place[0], place[1])))
            way = _distance(KIDS[near], (place[0], place[1]))
            if way > SPRINT * (time - earliest):
                continue
            if time + way / SPRINT < serve + 0.2:
                self._pick_up(near, (earliest, float(time), serve - PREPARE), (place[0], place[1]))
            return

    def _pick_up(self, kid: int, times: tuple[float, float, float], place: Place) -> None:
        """Send a kid at the first of `times` to reach the ball at the second; the ball is gone until the third."""
        leave, reach, ready = times
        track = self.kids[kid]
        if track.legs and track.legs[-1].end > leave:
            return
        track.go(leave, reach, place)
        track.go(reach, reach + _distance(place, KIDS[kid]) / SPRINT, KIDS[kid])
        self.ball = [*cut(self.ball, reach), *(a for a in self.ball if a.start >= ready)]


def _distance(a: Place, b: Place) -> float:
    return hypot(a[0] - b[0], a[1] - b[1])
