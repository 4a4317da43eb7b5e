"""Where the playhead is and where it goes, for what follows it on another thread."""

import math
from dataclasses import dataclass

# Seconds without a new motion after which the playhead is taken to stand: the screen hangs, or the machine slept.
LONGEST = 1.0


@dataclass(frozen=True, slots=True)
class Motion:
    """A position in the clip, and how it moves.

    Attributes:
        at: the time of the clock in seconds at which it is there.
        position: seconds from the clip's beginning.
        speed: seconds of clip per second of clock while it moves.
        moving: whether it moves.
        end: the position at which it stops.
    """

    at: float
    position: float
    speed: float = 1.0
    moving: bool = False
    end: float = math.inf

    def reached(self, time: float) -> float:
        """Return the position at `time` of the clock, whether it moves or stands."""
        elapsed = min(max(time - self.at, 0.0), LONGEST) if self.moving else 0.0
        return max(min(self.position + elapsed * self.speed, self.end), self.position)

    def position_at(self, time: float) -> float | None:
        """Return the position at `time` of the clock; None where it stands then."""
        elapsed = max(time - self.at, 0.0)
        position = self.position + elapsed * self.speed
        return position if self.moving and elapsed <= LONGEST and position < self.end else None
