"""Flights that strokes are aimed along: over the net and in, past an opponent, into the net, out."""

from math import hypot

import numpy as np

from streaming_vlm_mlx.matches.flight import Arc, Vec, Walls, bounce, drop, throw, tumble
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH, SERVICE, SINGLES, WALL_X, WALL_Y, net_height
from streaming_vlm_mlx.matches.tennis.meeting import Flight

WALLS = Walls(WALL_X - 0.2, WALL_Y - 0.2)
CLEAR = 0.1
# Metres inside the lines for a good ball, outside for one that is out: a call should be plain to see.
INSIDE, OUTSIDE = 0.12, 0.35

Range = tuple[float, float]
Spot = tuple[float, float]


def clears_net(arc: Arc) -> bool:
    """Whether a ball passes over the net's band."""
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
    """Return a flight towards `spot` that ends in the net, and the ball's fall behind it."""
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
    """Return a spot outside the court of `end`, and whether that is ``long`` or ``wide``."""
    if rng.random() < 0.55:
        return (sign * rng.uniform(0.2, 3.6), end * (HALF_LENGTH + OUTSIDE + rng.uniform(0.0, 1.5))), "long"
    return (sign * (SINGLES + OUTSIDE + rng.uniform(0.0, 1.1)), end * rng.uniform(7.0, 11.0)), "wide"


def serve_spot(rng: np.random.Generator, aim: str, side: int, end: int) -> Spot:
    """Return a spot in the service box of `end` with x of the sign `side`; `aim` is ``wide``, ``body`` or ``T``."""
    across = {"wide": (3.0, SINGLES - INSIDE), "body": (1.5, 2.5), "T": (0.2, 0.8)}[aim]
    return side * rng.uniform(*across), end * rng.uniform(4.7, SERVICE - INSIDE)


def fault_spot(rng: np.random.Generator, side: int, end: int) -> tuple[Spot, str]:
    """Return a spot outside the service box, and whether that is ``long`` or ``wide``."""
    if rng.random() < 0.65:
        return (side * rng.uniform(0.4, 3.7), end * (SERVICE + OUTSIDE + rng.uniform(0.05, 1.5))), "long"
    return (side * (SINGLES + OUTSIDE + rng.uniform(0.0, 0.9)), end * rng.uniform(4.4, 6.0)), "wide"


def direction(origin: Vec, landing: Spot) -> str:
    """Return ``cross-court``, ``down the line``, ``middle``, or nothing for a stroke from the middle to a side."""
    if abs(landing[0]) < 1.3:
        return "middle"
    if abs(origin[0]) < 0.9:
        return ""
    return "cross-court" if origin[0] * landing[0] < 0 else "down the line"
