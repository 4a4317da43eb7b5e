"""Where a player can meet a ball, and how fast they would have to run."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, inf

from streaming_vlm_mlx.matches.flight import Arc, Vec
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH
from streaming_vlm_mlx.matches.tennis.players import REACH, RUN
from streaming_vlm_mlx.matches.tracks import Place

LOWEST, HIGHEST, OVERHEAD = 0.2, 2.2, 2.75
STANCE = 0.25


@dataclass(frozen=True, slots=True)
class Flight:
    """A stroke's ball: from the racket to the ground, and from there to its second bounce."""

    first: Arc
    second: Arc

    @property
    def landing(self) -> Vec:
        """Where it touches the ground first."""
        return self.second.origin


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is to meet a ball.

    Attributes:
        place: where they are when it is struck.
        end: their end, as a sign of y.
        hand: the sign of x on which they hit forehands.
        at_net: they may take it out of the air.
        reaction: seconds before they start to run.
    """

    place: Place
    end: int
    hand: int
    at_net: bool
    reaction: float


@dataclass(frozen=True, slots=True)
class Meet:
    """A ball met: `time`, the `ball` then, the `place` to stand, and metres a second to get there."""

    time: float
    ball: Vec
    place: Place
    wing: str
    kind: str
    speed: float

    @property
    def cost(self) -> float:
        """What a player weighs: less running first, then the forehand."""
        return max(self.speed, 2.0) + (0.8 if self.wing == "backhand" else 0.0)


def best_meet(receiver: Receiver, flight: Flight) -> Meet | None:
    """Return the meeting that costs the receiver least, None where the ball is out of all reach in height."""
    return min(meetings(receiver, flight), key=lambda m: m.cost, default=None)


def missed_by(receiver: Receiver, flight: Flight) -> float:
    """Return the metres that a receiver at full speed is short of the ball; 0 where they reach it."""
    start = flight.first.start + receiver.reaction
    return max(
        min(((m.speed - RUN) * (m.time - start) for m in meetings(receiver, flight)), default=inf),
        0.0,
    )


def meetings(receiver: Receiver, flight: Flight) -> Iterator[Meet]:
    """Yield the ways in which a ball can be met: volley or smash from the net, after the bounce from anywhere."""
    if receiver.at_net:
        yield from _in_the_air(receiver, flight.first)
    bounced = abs(flight.landing[1])
    for depth in (bounced + 1.4, bounced + 2.6, bounced + 3.8, abs(receiver.place[1]) - STANCE):
        time = flight.second.when_at_depth(receiver.end * min(depth, HALF_LENGTH + 3.4))
        if time is not None and LOWEST <= flight.second.at(time)[2] <= HIGHEST:
            yield from _with_either_wing(receiver, flight, time, flight.second.at(time), "ground")


def _in_the_air(receiver: Receiver, arc: Arc) -> Iterator[Meet]:
    time = arc.when_at_depth(receiver.place[1])
    if time is not None and 2 * LOWEST <= arc.at(time)[2] <= HIGHEST:
        yield from _with_either_wing(receiver, Flight(arc, arc), time, arc.at(time), "volley")
    if arc.velocity[2] <= 0 or arc.at(arc.start + arc.velocity[2] / -arc.pull[2])[2] < OVERHEAD + 0.8:
        return
    speed = arc.speed_at(arc.end)[2]
    falling = arc.end + (-speed - (speed * speed + 2 * arc.pull[2] * OVERHEAD) ** 0.5) / arc.pull[2]
    ball = arc.at(falling)
    if 0 < ball[1] * receiver.end < HALF_LENGTH - 2:
        yield _meet(receiver, arc, falling, ball, ("forehand", "smash", 0.25))


def _with_either_wing(receiver: Receiver, flight: Flight, time: float, ball: Vec, kind: str) -> Iterator[Meet]:
    for wing in ("forehand", "backhand"):
        yield _meet(receiver, flight.first, time, ball, (wing, kind, REACH))


def _meet(receiver: Receiver, arc: Arc, time: float, ball: Vec, how: tuple[str, str, float]) -> Meet:
    wing, kind, reach = how
    side = receiver.hand if wing == "forehand" else -receiver.hand
    place = (ball[0] - side * reach, ball[1] + receiver.end * STANCE)
    way = hypot(place[0] - receiver.place[0], place[1] - receiver.place[1])
    return Meet(time, ball, place, wing, kind, way / max(time - arc.start - receiver.reaction, 1e-3))
