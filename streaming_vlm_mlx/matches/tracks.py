"""Where people on foot are: legs between places, begun at a time and done at another."""

from bisect import bisect_right
from dataclasses import dataclass, field
from math import hypot

import numpy as np
import numpy.typing as npt

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Leg:
    """One way from `origin` to `goal` in metres; a later leg that starts before `end` cuts it short."""

    start: float
    end: float
    origin: Place
    goal: Place

    def at(self, time: float) -> Place:
        """Return the place at `time`, with a soft start and stop."""
        span = self.end - self.start
        u = 1.0 if span <= 0 else min(max((time - self.start) / span, 0.0), 1.0)
        s = 0.5 * (u + u * u * (3 - 2 * u))
        (x0, y0), (x1, y1) = self.origin, self.goal
        return x0 + (x1 - x0) * s, y0 + (y1 - y0) * s


@dataclass
class Track:
    """The legs of one person, in order of their starts."""

    home: Place
    legs: list[Leg] = field(default_factory=list)

    def at(self, time: float) -> Place:
        """Return the place at `time`."""
        i = bisect_right(self.legs, time, key=lambda leg: leg.start) - 1
        return self.legs[i].at(time) if i >= 0 else self.home

    def go(self, start: float, end: float, goal: Place) -> None:
        """Leave at `start`, wherever that is, to be at `goal` at `end`.

        Raises:
            ValueError: the leg starts before the last one did.
        """
        if self.legs and start < self.legs[-1].start:
            raise ValueError(f"a leg that starts at {start} can not follow one that starts at {self.legs[-1].start}")
        self.legs.append(Leg(start, end, self.at(start), goal))

    def run(self, start: float, end: float, goal: Place, speed: float) -> None:
        """Leave at `start` for `goal` with at most `speed` metres a second; stop where `end` comes first."""
        x, y = self.at(start)
        way = hypot(goal[0] - x, goal[1] - y)
        share = min(1.0, speed * max(end - start, 0.0) / way) if way > 0 else 1.0
        stop = start + share * way / speed if share == 1.0 else end
        self.go(start, stop, (x + (goal[0] - x) * share, y + (goal[1] - y) * share))

    def sample(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the places [len(times), 2] at `times`."""
        return np.array([self.at(float(t)) for t in times], dtype=np.float64).reshape(-1, 2)
