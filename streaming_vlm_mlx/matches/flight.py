"""Paths of balls and people. A ball's path is a sequence of arcs of constant acceleration.

Units are metres and seconds, z is up. Spin is part of the downward acceleration: topspin increases it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import hypot, inf, sqrt

import numpy as np
import numpy.typing as npt

Vec = tuple[float, float, float]

GRAVITY = 9.81
BOUNCE = 0.73
FRICTION = 0.74
ROLL_BELOW = 0.9
ROLL_DRAG = 1.6
WALL_KEEP = 0.3


@dataclass(frozen=True, slots=True)
class Arc:
    """One piece of a ball's path from `start` to `end`; `pull` is the acceleration."""

    start: float
    end: float
    origin: Vec
    velocity: Vec
    pull: Vec = (0.0, 0.0, -GRAVITY)

    def at(self, time: float) -> Vec:
        """Return the position at `time`."""
        t = time - self.start
        x, y, z = (o + v * t + 0.5 * a * t * t for o, v, a in zip(self.origin, self.velocity, self.pull, strict=True))
        return x, y, z

    def speed_at(self, time: float) -> Vec:
        """Return the velocity at `time`."""
        t = time - self.start
        x, y, z = (v + a * t for v, a in zip(self.velocity, self.pull, strict=True))
        return x, y, z

    def until(self, time: float) -> "Arc":
        """Return the same arc with its end at `time`."""
        return replace(self, end=time)

    def when_at_depth(self, y: float) -> float | None:
        """Return when the ball passes the depth `y`; None if it does not within this arc."""
        if abs(self.velocity[1]) < 1e-9:
            return None
        time = self.start + (y - self.origin[1]) / self.velocity[1]
        return time if self.start <= time <= self.end else None


@dataclass(frozen=True, slots=True)
class Walls:
    """The box that stops a ball: ``|x| <= x`` and ``|y| <= y``."""

    x: float
    y: float


def throw(origin: Vec, target: Vec, start: float, duration: float, gravity: float = GRAVITY) -> Arc:
    """Return the arc that leaves `origin` at `start` and reaches `target` after `duration`."""
    velocity = (
        (target[0] - origin[0]) / duration,
        (target[1] - origin[1]) / duration,
        (target[2] - origin[2]) / duration + 0.5 * gravity * duration,
    )
    return Arc(start, start + duration, origin, velocity, (0.0, 0.0, -gravity))


def bounce(arc: Arc, keep: float = FRICTION, rise: float = BOUNCE) -> Arc:
    """Return the arc from the end of `arc`, on the ground, to the next bounce."""
    x, y, _ = arc.at(arc.end)
    vx, vy, vz = arc.speed_at(arc.end)
    up = abs(vz) * rise
    return Arc(arc.end, arc.end + 2 * up / GRAVITY, (x, y, 0.0), (vx * keep, vy * keep, up))


def tumble(arc: Arc, walls: Walls) -> tuple[Arc, ...]:
    """Return the arcs after `arc`, which ends on the ground: bounces, walls, rolling, and rest for ever."""
    arcs: list[Arc] = []
    while True:
        following = _stopped_by(bounce(arc), walls)
        while following.at(following.end)[2] > 1e-6:
            arcs.append(following)
            following = _off_wall(following, walls)
        arc = following
        if abs(arc.speed_at(arc.end)[2]) * BOUNCE < ROLL_BELOW:
            return (*arcs, arc, *_roll(arc, walls))
        arcs.append(arc)


def drop(origin: Vec, velocity: Vec, start: float) -> Arc:
    """Return the arc of a ball from `origin` with `velocity` down to the ground."""
    down = (velocity[2] + sqrt(velocity[2] ** 2 + 2 * GRAVITY * origin[2])) / GRAVITY
    return Arc(start, start + down, origin, velocity)


def position(path: Sequence[Arc], starts: Sequence[float], time: float) -> Vec | None:
    """Return the position of a ball at `time`; None if no arc of `path` covers it.

    Args:
        path: arcs in order of time.
        starts: the start of each arc.
        time: seconds.
    """
    i = bisect_right(starts, time) - 1
    return path[i].at(time) if i >= 0 and time < path[i].end else None


def cut(path: Sequence[Arc], time: float) -> list[Arc]:
    """Return the part of `path` before `time`."""
    return [a.until(min(a.end, time)) for a in path if a.start < time]


def _when_past(origin: float, speed: float, wall: float) -> float:
    if speed > 0 and origin <= wall:
        return (wall - origin) / speed
    if speed < 0 and origin >= -wall:
        return (-wall - origin) / speed
    return inf


def _stopped_by(arc: Arc, walls: Walls) -> Arc:
    first = min(
        _when_past(arc.origin[0], arc.velocity[0], walls.x), _when_past(arc.origin[1], arc.velocity[1], walls.y)
    )
    return arc.until(min(arc.end, arc.start + first))


def _off_wall(arc: Arc, walls: Walls) -> Arc:
    x, y, z = arc.at(arc.end)
    vx, vy, vz = arc.speed_at(arc.end)
    sideways = abs(abs(x) - walls.x) < 1e-6 and x * vx > 0
    back = (-vx * WALL_KEEP, vy * WALL_KEEP, vz) if sideways else (vx * WALL_KEEP, -vy * WALL_KEEP, vz)
    inside = (min(max(x, -walls.x), walls.x), min(max(y, -walls.y), walls.y), z)
    return _stopped_by(drop(inside, back, arc.end), walls)


def _roll(arc: Arc, walls: Walls) -> tuple[Arc, ...]:
    x, y, _ = arc.at(arc.end)
    vx, vy, _ = arc.speed_at(arc.end)
    vx, vy = vx * FRICTION, vy * FRICTION
    speed = hypot(vx, vy)
    if speed < 1e-3:
        return (Arc(arc.end, inf, (x, y, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),)
    ax, ay = -ROLL_DRAG * vx / speed, -ROLL_DRAG * vy / speed
    rolling = Arc(arc.end, arc.end + speed / ROLL_DRAG, (x, y, 0.0), (vx, vy, 0.0), (ax, ay, 0.0))
    way = speed * speed / (2 * ROLL_DRAG)
    room = min(_when_past(x, vx / speed, walls.x), _when_past(y, vy / speed, walls.y))
    if room < way:
        rolling = rolling.until(arc.end + (speed - sqrt(speed * speed - 2 * ROLL_DRAG * room)) / ROLL_DRAG)
    rest = Arc(rolling.end, inf, rolling.at(rolling.end), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    return rolling, rest


Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Leg:
    """A straight walk from `origin` to `goal`, metres. A later leg may start before `end` and replaces the rest."""

    start: float
    end: float
    origin: Place
    goal: Place

    def at(self, time: float) -> Place:
        """Return the place at `time`; the walk starts and stops softly."""
        span = self.end - self.start
        u = 1.0 if span <= 0 else min(max((time - self.start) / span, 0.0), 1.0)
        s = 0.5 * (u + u * u * (3 - 2 * u))
        (x0, y0), (x1, y1) = self.origin, self.goal
        return x0 + (x1 - x0) * s, y0 + (y1 - y0) * s


@dataclass
class Track:
    """The walks of one person, in order of their starts."""

    home: Place
    legs: list[Leg] = field(default_factory=list)

    def at(self, time: float) -> Place:
        """Return the place at `time`."""
        i = bisect_right(self.legs, time, key=lambda leg: leg.start) - 1
        return self.legs[i].at(time) if i >= 0 else self.home

    def go(self, start: float, end: float, goal: Place) -> None:
        """Walk from the place at `start` to `goal`, to arrive at `end`.

        Raises:
            ValueError: the last leg starts later than this one.
        """
        if self.legs and start < self.legs[-1].start:
            raise ValueError(f"a leg that starts at {start} cannot follow a leg that starts at {self.legs[-1].start}")
        self.legs.append(Leg(start, end, self.at(start), goal))

    def run(self, start: float, end: float, goal: Place, speed: float) -> None:
        """Run towards `goal` from `start` on with at most `speed` metres a second, until `end` at the latest."""
        x, y = self.at(start)
        way = hypot(goal[0] - x, goal[1] - y)
        share = min(1.0, speed * max(end - start, 0.0) / way) if way > 0 else 1.0
        stop = start + share * way / speed if share == 1.0 else end
        self.go(start, stop, (x + (goal[0] - x) * share, y + (goal[1] - y) * share))

    def sample(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the places [len(times), 2] at `times`."""
        return np.array([self.at(float(t)) for t in times], dtype=np.float64).reshape(-1, 2)
