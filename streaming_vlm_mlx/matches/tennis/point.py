"""Play one point, stroke by stroke."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from streaming_vlm_mlx.matches.flight import Arc, Place, Track, Vec, cut, throw, tumble
from streaming_vlm_mlx.matches.tennis import strokes
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH
from streaming_vlm_mlx.matches.tennis.players import (
    HOME_DEPTH,
    NET_DEPTH,
    REACTION,
    RUN,
    SERVE_REACTION,
    Skill,
    draw_intent,
    rally_chances,
)
from streaming_vlm_mlx.matches.tennis.strokes import Flight, Meet, Receiver, best_meet, missed_by

# Seconds from the toss, and from the server getting ready, to the serve.
TOSS, PREPARE = 0.75, 2.75
# The ball is tossed beside the server, because the camera would not see it behind a back.
SERVE_HEIGHT, SERVE_ASIDE = 2.75, 0.42
RECOVER = 4.2
PASSED_BY = 0.7
# A missed ball is clearly out of reach (metres); a reached ball does not need full speed (share).
MISSED, COMFORT = 0.6, 0.92
TRIES = 48


@dataclass(frozen=True, slots=True)
class Shot:
    """One stroke.

    Attributes:
        time: when the racket meets the ball, seconds.
        player: 0 or 1.
        stroke: serve, forehand, backhand, volley, smash or lob.
        wing: forehand or backhand, whatever the stroke; a serve counts as forehand.
        hit: position of the ball then, metres.
        direction: cross-court, down the line, middle or empty; for a serve wide, body or T.
        detail: first or second (serve), approach, pass, or empty.
        landing: first touch of the ground or the net, metres.
        land_time: seconds of the landing.
        result: in (the opponent plays it), winner, net or out.
        miss: long, wide or net for an error, else empty.
    """

    time: float
    player: int
    stroke: str
    wing: str
    hit: Vec
    direction: str = ""
    detail: str = ""
    landing: Vec = (0.0, 0.0, 0.0)
    land_time: float = 0.0
    result: str = ""
    miss: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A finished point.

    Attributes:
        shots: all strokes in order, including faults.
        ball: path of the ball from before the first toss until it rests.
        outcome: ace, winner, net, out or double_fault.
        time: when the outcome is visible, seconds.
        winner: the player who won it.
    """

    shots: tuple[Shot, ...]
    ball: tuple[Arc, ...]
    outcome: str
    time: float
    winner: int


@dataclass
class PointPlay:
    """A point in progress. `play` may be called once.

    Attributes:
        rng: draws everything random.
        skills: of both players.
        ends: the end of each player, as the sign of y.
        tracks: walks of both players; the walks of this point are added.
        server: the player who serves.
        deuce_court: whether it is served from the right of the centre mark.
    """

    rng: np.random.Generator
    skills: tuple[Skill, Skill]
    ends: tuple[int, int]
    tracks: tuple[Track, Track]
    server: int
    deuce_court: bool
    ball: list[Arc] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    at_net: list[bool] = field(default_factory=lambda: [False, False])

    def play(self, time: float) -> Point:
        """Return the point whose first serve is struck at `time`."""
        meet = self._serve(time, "first")
        if self.shots[-1].miss:
            meet = self._serve(self.shots[-1].land_time + self.rng.uniform(2.9, 3.5), "second")
        while meet is not None:
            meet = self._reply(1 - self.shots[-1].player, meet)
        last = self.shots[-1]
        served = last.stroke == "serve"
        if last.result == "winner":
            outcome, plain = "ace" if served else "winner", last.land_time + PASSED_BY
        else:
            outcome, plain = "double_fault" if served else last.result, last.land_time
        winner = last.player if last.result == "winner" else 1 - last.player
        return Point(tuple(self.shots), tuple(self.ball), outcome, plain, winner)

    def _serve(self, time: float, which: str) -> Meet | None:
        skill, end = self.skills[self.server], self.ends[self.server]
        first = which == "first"
        x, y = self.tracks[self.server].at(time)
        aside = self._hand(self.server) * SERVE_ASIDE
        hit = (x + aside, y - end * 0.3, SERVE_HEIGHT)
        side = end if self.deuce_court else -end
        ready = _prepared(self.rng, (hit[0], hit[1] + end * 0.1), 0.4 * aside, time)
        self.ball = [*cut(self.ball, time - PREPARE), *ready]
        draft = Shot(time, self.server, "serve", "forehand", hit, detail=which)
        speed = (30.0, 37.0) if first else (23.0, 28.0)
        if self.rng.random() > (skill.first_serve if first else skill.second_serve):
            self._serve_fault(draft, side, speed)
            return None
        intent = "winner" if first and self.rng.random() < skill.ace else "in"
        aims = ("wide", "T") if intent == "winner" else ("wide", "body", "T")

        def make(_: float) -> tuple[Flight, str]:
            aim = str(self.rng.choice(aims))
            fast = (38.0, 46.0) if intent == "winner" else speed
            spot = strokes.serve_spot(self.rng, aim, side, -end)
            return strokes.over_net(self.rng, hit, spot, time, fast), aim

        flight, aim = self._find(draft, intent, make)
        return self._settle(replace(draft, direction=aim), flight)

    def _serve_fault(self, draft: Shot, side: int, speed: strokes.Range) -> None:
        end = self.ends[self.server]
        if self.rng.random() < 0.35:
            spot = strokes.serve_spot(self.rng, "body", side, -end)
            self._miss(draft, strokes.into_net(self.rng, draft.hit, spot, draft.time, speed), "net")
        else:
            spot, how = strokes.fault_spot(self.rng, side, -end)
            arc = strokes.over_net(self.rng, draft.hit, spot, draft.time, speed).first
            self._miss(draft, (arc, *tumble(arc, strokes.WALLS)), how)

    def _reply(self, player: int, meet: Meet) -> Meet | None:
        passing, smash = self.at_net[1 - player], meet.kind == "smash"
        chances = rally_chances(
            self.skills[player], len(self.shots), at_net=self.at_net[player], passing=passing, smash=smash
        )
        intent = draw_intent(self.rng, chances)
        lobs = passing and meet.kind == "ground" and intent != "net" and self.rng.random() < 0.3
        stroke = "lob" if lobs else meet.wing if meet.kind == "ground" else meet.kind
        draft = Shot(meet.time, player, stroke, meet.wing, meet.ball)
        if intent in ("net", "out"):
            self._error(draft, intent, lobs=lobs)
            return None
        flight, _ = self._find(draft, intent, lambda share: (self._rally_flight(draft, intent, share), ""))
        detail = "pass" if passing and stroke in ("forehand", "backhand") else ""
        if intent == "in" and self._follows_in(draft, passing=passing):
            self.at_net[player], detail = True, "approach"
        direction = strokes.direction(draft.hit, flight.landing[:2])
        return self._settle(replace(draft, direction=direction, detail=detail), flight)

    def _follows_in(self, draft: Shot, *, passing: bool) -> bool:
        if passing or self.at_net[draft.player] or abs(draft.hit[1]) > HALF_LENGTH + 0.4:
            return False
        return self.rng.random() < self.skills[draft.player].approach

    def _error(self, draft: Shot, intent: str, *, lobs: bool) -> None:
        sign, end = int(self.rng.choice((-1, 1))), -self.ends[draft.player]
        speed = _speed(draft.stroke, "in")
        if intent == "net":
            spot = strokes.good_spot(self.rng, (0.5, 3.8), (7.0, 11.0), sign, end)
            self._miss(draft, strokes.into_net(self.rng, draft.hit, spot, draft.time, speed), "net")
            return
        spot, how = strokes.out_spot(self.rng, sign, end)
        make = strokes.lob(self.rng, draft.hit, spot, draft.time) if lobs else None
        flight = make or strokes.over_net(self.rng, draft.hit, spot, draft.time, speed)
        self._miss(draft, (flight.first, *tumble(flight.first, strokes.WALLS)), how)

    def _rally_flight(self, draft: Shot, intent: str, share: float) -> Flight:
        """Return one attempt; `share` grows from 0 to 1 with the attempts and moves the ball towards the opponent."""
        sign, end = int(self.rng.choice((-1, 1))), -self.ends[draft.player]
        if draft.stroke == "lob":
            spot = strokes.good_spot(self.rng, (0.0, 3.4), (8.8, 11.3), sign, end)
            return strokes.lob(self.rng, draft.hit, spot, draft.time)
        if intent == "winner":
            depth = (4.5, 9.5) if draft.stroke in ("volley", "smash") else (6.5, 11.3)
            spot = strokes.good_spot(self.rng, (2.6, 4.0), depth, sign, end)
        else:
            across = (0.0, 1.2) if self.rng.random() < 0.25 else (1.5, 3.6)
            x, y = strokes.good_spot(self.rng, across, (6.8, 11.2), sign, end)
            spot = (x + (self.tracks[1 - draft.player].at(draft.time)[0] * 0.7 - x) * share, y)
        return strokes.over_net(self.rng, draft.hit, spot, draft.time, _speed(draft.stroke, intent))

    def _find(self, draft: Shot, intent: str, make: Callable[[float], tuple[Flight, str]]) -> tuple[Flight, str]:
        """Return the first attempt that the opponent reaches or clearly misses, as `intent` says; else the last."""
        receiver = self._receiver(draft)
        for i in range(TRIES):
            flight, aim = make(i / TRIES)
            if intent == "winner":
                if missed_by(receiver, flight) > MISSED:
                    break
            elif (meet := best_meet(receiver, flight)) and meet.speed < COMFORT * RUN:
                break
        return flight, aim

    def _settle(self, draft: Shot, flight: Flight) -> Meet | None:
        """Add a good shot and move both players; return how the opponent meets it, None if they do not."""
        player, other = draft.player, 1 - draft.player
        receiver = self._receiver(draft)
        meet = best_meet(receiver, flight)
        reached = meet is not None and meet.speed <= RUN
        self.shots.append(
            replace(draft, landing=flight.landing, land_time=flight.first.end, result="in" if reached else "winner")
        )
        until = meet.time if meet else flight.first.end + PASSED_BY
        self.tracks[player].run(draft.time + 0.25, until, self._home(player, flight.landing), RECOVER)
        if meet:
            self.tracks[other].run(draft.time + receiver.reaction, meet.time, meet.place, RUN)
        if not meet or not reached:
            self.ball += [flight.first, *tumble(flight.first, strokes.WALLS)]
            return None
        arcs = [a for a in (flight.first, flight.second) if a.start < meet.time]
        self.ball += [*arcs[:-1], arcs[-1].until(meet.time)]
        return meet

    def _miss(self, draft: Shot, arcs: tuple[Arc, ...], how: str) -> None:
        first = arcs[0]
        result = "net" if how == "net" else "out"
        landing = first.at(first.end)
        self.shots.append(replace(draft, landing=landing, land_time=first.end, result=result, miss=how))
        self.ball += arcs

    def _home(self, player: int, landing: Vec) -> Place:
        """Return where `player` waits for the reply to a ball that lands at `landing`."""
        end = self.ends[player]
        if self.at_net[player]:
            return 0.35 * landing[0], end * NET_DEPTH
        return 0.15 * landing[0], end * HOME_DEPTH

    def _receiver(self, draft: Shot) -> Receiver:
        other = 1 - draft.player
        place = self.tracks[other].at(draft.time)
        reaction = SERVE_REACTION if draft.stroke == "serve" else REACTION
        return Receiver(place, self.ends[other], self._hand(other), self.at_net[other], reaction)

    def _hand(self, player: int) -> int:
        """Return the sign of x on which `player` hits forehands."""
        return self.ends[player] if self.skills[player].left_handed else -self.ends[player]


def _prepared(rng: np.random.Generator, place: Place, aside: float, time: float) -> list[Arc]:
    """Return the path of a ball that is bounced two or three times and tossed for a serve at `time`.

    Args:
        rng: draws the number of bounces.
        place: the ground below the toss.
        aside: offset in x from the toss to the bounces, metres.
        time: seconds.
    """
    x, y = place
    low, high = (x + aside, y, 0.0), (x + aside, y, 0.95)
    arcs = []
    count = int(rng.integers(2, 4))
    for i in range(count):
        start = time - TOSS - 0.3 - (count - i) * 0.55
        arcs += [throw(high, low, start, 0.23), throw(low, high, start + 0.23, 0.32)]
    return [*arcs, throw((x, y, 1.5), (x, y, SERVE_HEIGHT), time - TOSS, TOSS)]


def _speed(stroke: str, intent: str) -> strokes.Range:
    """Return the range of horizontal speeds of a stroke, metres a second."""
    speeds = {"volley": (13.0, 18.0), "smash": (24.0, 30.0)}
    if stroke in speeds:
        return speeds[stroke]
    return (24.0, 31.0) if intent == "winner" else (13.0, 18.0)
