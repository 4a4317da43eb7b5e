"""Strokes: where a player can meet a ball, and where a stroke sends it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, inf

import numpy as np

from streaming_vlm_mlx.matches.flight import Arc, Place, Vec, Walls, bounce, drop, throw, tumble
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH, SERVICE, SINGLES, WALL_X, WALL_Y, net_height
from streaming_vlm_mlx.matches.tennis.players import REACH, RUN

LOWEST, HIGHEST, OVERHEAD = 0.2, 2.2, 2.75
STANCE = 0.25


@dataclass(frozen=True, slots=True)
class Flight:
    """The path of a stroke: from the racket to the ground, and on to the second bounce."""

    first: Arc
    second: Arc

    @property
    def landing(self) -> Vec:
        """Where the ball first touches the ground."""
        return self.second.origin


@dataclass(frozen=True, slots=True)
class Receiver:
    """The player who has to meet a ball.

    Attributes:
        place: their place when it is struck.
        end: their end, as the sign of y.
        hand: the side of their forehand, as the sign of x.
        at_net: whether they may volley.
        reaction: seconds until they start to run.
    """

    place: Place
    end: int
    hand: int
    at_net: bool
    reaction: float


@dataclass(frozen=True, slots=True)
class Meet:
    """A way to meet a ball: `time`, `ball` position, `place` to stand, and the `speed` needed in metres a second."""

    time: float
    ball: Vec
    place: Place
    wing: str
    kind: str
    speed: float

    @property
    def cost(self) -> float:
        """The cost to the player: running speed first, then the backhand."""
        return max(self.speed, 2.0) + (0.8 if self.wing == "backhand" else 0.0)


def best_meet(receiver: Receiver, flight: Flight) -> Meet | None:
    """Return the meeting with the least cost; None if the ball is too high or too low everywhere."""
    return min(meetings(receiver, flight), key=lambda m: m.cost, default=None)


def missed_by(receiver: Receiver, flight: Flight) -> float:
    """Return by how many metres a receiver at full speed misses the ball; 0 if they reach it."""
    start = flight.first.start + receiver.reaction
    return max(
        min(((m.speed - RUN) * (m.time - start) for m in meetings(receiver, flight)), default=inf),
        0.0,
    )


def meetings(receiver: Receiver, flight: Flight) -> Iterator[Meet]:
    """Yield the ways to meet a ball: volley or smash from the net, and after the bounce from anywhere."""
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


WALLS = Walls(WALL_X - 0.2, WALL_Y - 0.2)
CLEAR = 0.1
# Metres inside the lines for a good ball, and outside for an out ball, so that the call is visible.
INSIDE, OUTSIDE = 0.12, 0.35

Range = tuple[float, float]
Spot = tuple[float, float]


def clears_net(arc: Arc) -> bool:
    """Whether a ball clears the net."""
    time = arc.when_at_depth(0.0)
    if time is None:
        return False
    x, _, z = arc.at(time)
    return z > net_height(x) + CLEAR


def over_net(rng: np.random.Generator, origin: Vec, spot: Spot, start: float, speed: Range) -> Flight:
    """Return a flight from `origin` to the ground at `spot`, slowed until it clears the net.

    Args:
        rng: draws speed and spin.
        origin: where the racket meets the ball, metres.
        spot: where it lands.
        start: seconds.
        speed: least and largest horizontal speed, metres a second.
    """
    way = hypot(spot[0] - origin[0], spot[1] - origin[1])
    duration, gravity = way / rng.uniform(*speed), rng.uniform(9.9, 12.5)
    while True:
        arc = throw(origin, (spot[0], spot[1], 0.0), start, duration, gravity)
        if clears_net(arc):
            return Flight(arc, bounce(arc))
        duration *= 1.08


def lob(rng: np.random.Generator, origin: Vec, spot: Spot, start: float) -> Flight:
    """Return a high flight to `spot`."""
    arc = throw(origin, (spot[0], spot[1], 0.0), start, rng.uniform(1.75, 2.15))
    return Flight(arc, bounce(arc, keep=0.62))


def into_net(rng: np.random.Generator, origin: Vec, spot: Spot, start: float, speed: Range) -> tuple[Arc, ...]:
    """Return the arcs of a ball towards `spot` that hits the net and drops."""
    share = origin[1] / (origin[1] - spot[1])
    x, side = origin[0] + (spot[0] - origin[0]) * share, np.sign(origin[1])
    hit = (x, 0.06 * side, rng.uniform(0.25, 0.75))
    arc = throw(origin, hit, start, hypot(hit[0] - origin[0], hit[1] - origin[1]) / rng.uniform(*speed), 11.0)
    vx, _, _ = arc.speed_at(arc.end)
    down = drop(hit, (0.06 * vx, side * rng.uniform(0.3, 0.9), 0.0), arc.end)
    return (arc, down, *tumble(down, WALLS))


def good_spot(rng: np.random.Generator, x: Range, depth: Range, sign: int, end: int) -> Spot:
    """Return a spot in the court of `end`, on the side of `sign`, well inside the lines."""
    across = min(rng.uniform(*x), SINGLES - INSIDE)
    return sign * across, end * min(rng.uniform(*depth), HALF_LENGTH - INSIDE)


def out_spot(rng: np.random.Generator, sign: int, end: int) -> tuple[Spot, str]:
    """Return a spot outside the court of `end`, and ``long`` or ``wide``."""
    if rng.random() < 0.55:
        return (sign * rng.uniform(0.2, 3.6), end * (HALF_LENGTH + OUTSIDE + rng.uniform(0.0, 1.5))), "long"
    return (sign * (SINGLES + OUTSIDE + rng.uniform(0.0, 1.1)), end * rng.uniform(7.0, 11.0)), "wide"


def serve_spot(rng: np.random.Generator, aim: str, side: int, end: int) -> Spot:
    """Return a spot in the service box of `end` with x of the sign `side`; `aim` is ``wide``, ``body`` or ``T``."""
    across = {"wide": (3.0, SINGLES - INSIDE), "body": (1.5, 2.5), "T": (0.2, 0.8)}[aim]
    return side * rng.uniform(*across), end * rng.uniform(4.7, SERVICE - INSIDE)


def fault_spot(rng: np.random.Generator, side: int, end: int) -> tuple[Spot, str]:
    """Return a spot outside the service box, and ``long`` or ``wide``."""
    if rng.random() < 0.65:
        return (side * rng.uniform(0.4, 3.7), end * (SERVICE + OUTSIDE + rng.uniform(0.05, 1.5))), "long"
    return (side * (SINGLES + OUTSIDE + rng.uniform(0.0, 0.9)), end * rng.uniform(4.4, 6.0)), "wide"


def direction(origin: Vec, landing: Spot) -> str:
    """Return ``cross-court``, ``down the line``, ``middle``, or empty for a stroke from the middle to a side."""
    if abs(landing[0]) < 1.3:
        return "middle"
    if abs(origin[0]) < 0.9:
        return ""
    return "cross-court" if origin[0] * landing[0] < 0 else "down the line"
