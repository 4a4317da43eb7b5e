"""The serve clock beside the score bug: which serve it is, and how fast the last one was, as broadcasts show it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import hypot

from streaming_vlm_mlx.matches.tennis.point import Point, Shot

# A speed is shown so long after the ball has landed, unless it is played back.
KEPT = 2.9
# A second serve is announced so long after the fault.
ANNOUNCED = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the clock shows from `start` to `end`, seconds.

    Attributes:
        start: from then.
        end: until then.
        serve: 1 for a first serve, 2 for a second.
        speed: km/h; None before it is struck.
    """

    start: float
    end: float
    serve: int
    speed: int | None = None

    @property
    def text(self) -> str:
        """What is written there."""
        name = "1ST" if self.serve == 1 else "2ND"
        return name if self.speed is None else f"{name} {self.speed}"


def readings(points: Iterable[Point]) -> tuple[Reading, ...]:
    """Return all that the clock shows while `points` are played, in order of time."""
    return tuple(r for point in points for r in _readings(point))


def _readings(point: Point) -> Iterator[Reading]:
    for shot in (s for s in point.shots if s.stroke == "serve"):
        serve = 1 if shot.detail == "first" else 2
        following = next((s.time for s in point.shots if s.time > shot.time), None)
        if following is None:
            yield Reading(shot.time, shot.land_time + KEPT, serve, speed(shot))
        elif shot.miss:
            announced = shot.land_time + ANNOUNCED
            yield Reading(shot.time, announced, serve, speed(shot))
            yield Reading(announced, following, 2)
        else:
            yield Reading(shot.time, following, serve, speed(shot))


def speed(shot: Shot) -> int:
    """Return a serve's mean speed over the ground until it lands, km/h."""
    metres = hypot(shot.landing[0] - shot.hit[0], shot.landing[1] - shot.hit[1])
    return round(3.6 * metres / (shot.land_time - shot.time))
