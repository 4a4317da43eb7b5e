"""Where the clip stands, and which second's turn it is: plain rules over a clock that is handed in."""

import math
from collections.abc import Callable
from typing import Literal

Pace = Literal["live", "every"]
State = Literal["playing", "waiting", "paused", "ended"]
Verdict = Literal["wait", "speak", "pass"]

PACES: tuple[Pace, ...] = ("live", "every")
SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)

# Seconds of clock that count between two ticks; a machine that slept for an hour goes on where it was.
LONGEST_TICK = 1.0


class Playhead:
    """A place in a clip that moves with the clock, times the speed, while it plays.

    Attributes:
        duration: seconds of the clip; None for a feed, whose place is set with `follow`.
        hold: where it waits while playing, in seconds; None waits nowhere.
    """

    def __init__(self, clock: Callable[[], float], duration: float | None = None, position: float = 0.0) -> None:
        """Stand at `position` seconds, playing at normal speed; `clock` returns seconds and may jump."""
        self._clock, self._last = clock, clock()
        self.duration = duration
        self.hold: float | None = None
        self._position, self._speed, self._playing = position, 1.0, True
        self._stop: float | None = None

    @property
    def position(self) -> float:
        """Seconds from the clip's beginning, as of the last tick."""
        return self._position

    @property
    def speed(self) -> float:
        """Seconds of clip a second of clock."""
        return self._speed

    @property
    def state(self) -> State:
        """Whether it moves; ``waiting`` is playing, but at the hold."""
        if not self._playing:
            return "ended" if self.duration is not None and self._position >= self.duration else "paused"
        return "waiting" if self.hold is not None and self._position >= self.hold else "playing"

    @property
    def playing(self) -> bool:
        """Whether it would move if nothing held it."""
        return self._playing

    def tick(self) -> float:
        """Move to where the clock says, and return the position."""
        now = self._clock()
        skipped, self._last = min(max(now - self._last, 0.0), LONGEST_TICK), now
        if self._playing and self.duration is not None:
            self._move(self._position + skipped * self._speed)
        return self._position

    def play(self) -> None:
        """Move from now on."""
        self.tick()
        self._playing = self.state != "ended"
        self._stop = None

    def pause(self) -> None:
        """Stand still from now on."""
        self.tick()
        self._playing, self._stop = False, None

    def step(self) -> None:
        """Play to the end of the second that it stands in, then pause."""
        self.play()
        self._stop = math.floor(self._position) + 1.0

    def seek(self, position: float) -> float:
        """Go to the beginning of the second that `position` lies in, as near as the clip allows, and return it."""
        self.tick()
        last = math.inf if self.duration is None else max(math.ceil(self.duration) - 1.0, 0.0)
        ended = self.state == "ended"
        self._position = float(min(max(math.floor(position), 0.0), last))
        self._stop = None
        self._playing = self._playing or ended
        return self._position

    def follow(self, position: float) -> None:
        """Stand where a feed stands."""
        self._position = position

    def change_speed(self, steps: int) -> None:
        """Take the speed `steps` further up, or down, in `SPEEDS`."""
        self.tick()
        at = SPEEDS.index(self._speed) + steps
        self._speed = SPEEDS[min(max(at, 0), len(SPEEDS) - 1)]

    def _move(self, to: float) -> None:
        ends = [end for end in (self.hold, self._stop, self.duration) if end is not None]
        self._position = max(min(to, *ends), self._position) if ends else to
        if self._position in (self._stop, self.duration):
            self._playing, self._stop = False, None


class Pacer:
    """Decides when a second is spoken, and whether.

    Attributes:
        pace: ``live`` keeps to the clock and passes over seconds whose picture is gone, ``every`` waits for the model.
        patience: seconds that a second may be over and still be spoken; a feed's arrive when they are over.
    """

    def __init__(self, playhead: Playhead, pace: Pace, patience: float = 0.0) -> None:
        self._playhead = playhead
        self.pace: Pace = pace
        self.patience = patience

    def judge(self, start: float) -> Verdict:
        """Say whether the second that begins at `start` waits for its turn, is spoken now, or is passed over."""
        head = self._playhead
        if math.floor(start) < self.following(math.floor(start)):
            return "pass"
        # Standing still at its very beginning, after a seek or a step, the second is not seen yet.
        return "speak" if head.position > start or (head.position == start and head.playing) else "wait"

    def following(self, number: int) -> int:
        """Return the second to speak when `number` would be next: a later one if that is over already."""
        if self.pace == "every":
            return number
        seen = self._playhead.position - self.patience
        # Standing still, there is time for the second that was seen last.
        return max(number, math.floor(seen) if self._playhead.playing else math.ceil(seen) - 1)


class Delay:
    """How far the commentary is behind the picture, in seconds of clip, from a second's beginning to its last word."""

    def __init__(self) -> None:
        self._pending: float | None = None
        self._last = 0.0

    def begin(self, start: float) -> None:
        """Enter a second whose turn has come."""
        self._pending = start

    def finish(self, position: float) -> None:
        """Enter that it is spoken, at `position`."""
        if self._pending is not None:
            self._last, self._pending = position - self._pending, None

    @property
    def pending(self) -> bool:
        """Whether a second is being spoken."""
        return self._pending is not None

    def forget(self) -> None:
        """Begin anew, for a seek."""
        self._pending, self._last = None, 0.0

    def at(self, position: float) -> float:
        """Return the lag at `position`: the last second's, or that of the one under way once it is larger."""
        waited = 0.0 if self._pending is None else position - self._pending
        return max(self._last, waited, 0.0)
