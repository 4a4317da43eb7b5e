"""The playhead: a position in the clip that moves with a clock."""

import math
from collections.abc import Callable
from typing import Literal

from streaming_vlm_mlx.audio.motion import Motion

PlaybackState = Literal["playing", "waiting", "paused", "ended"]

SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)

# Seconds of clock that count between two ticks; after an hour of sleep the clip goes on where it was.
LONGEST_TICK = 1.0

# Seconds by which a feed's second may be late before its sound waits; devices ask for sound ahead of time.
GRACE = 0.3
# Seconds by which a feed's seconds come early or late without need: the sound keeps its pace, and follows by a part.
JITTER, FOLLOWED = 0.05, 0.1


class Playhead:
    """A position in a clip that moves with the clock, times the speed, while it plays.

    Attributes:
        duration: seconds of the clip; None for a feed, whose position is set with `follow`.
        limit: the position that it does not pass while playing, in seconds; None for no limit.
    """

    def __init__(self, clock: Callable[[], float], duration: float | None = None, position: float = 0.0) -> None:
        """Start at `position` seconds, playing at normal speed; `clock` returns seconds and may jump."""
        self._clock, self._last = clock, clock()
        self.duration = duration
        self.limit: float | None = None
        self._position, self._speed, self._playing = position, 1.0, True
        self._stop: float | None = None
        # A feed: the time of the clock at which the second that is shown began to be, and where it begins.
        self._shown_at: float | None = None
        self._shown_from = position
        # Up to where its sound was heard before that: while the next second was late, the sound went on.
        self._heard = position

    @property
    def position(self) -> float:
        """Seconds from the clip's beginning, as of the last tick."""
        return self._position

    @property
    def speed(self) -> float:
        """Seconds of clip per second of clock."""
        return self._speed

    @property
    def state(self) -> PlaybackState:
        """Whether it moves; ``waiting`` is playing, but at the limit."""
        if not self._playing:
            return "ended" if self.duration is not None and self._position >= self.duration else "paused"
        return "waiting" if self.limit is not None and self._position >= self.limit else "playing"

    @property
    def playing(self) -> bool:
        """Whether it moves as soon as the limit allows it."""
        return self._playing

    @property
    def motion(self) -> Motion:
        """Where it is as of the last tick, and how it goes on; in a feed, within the second that is shown."""
        if self.duration is None:
            return self._feed_motion()
        end = min((end for end in (self.limit, self._stop, self.duration) if end is not None), default=math.inf)
        return Motion(self._last, self._position, self._speed, self.state == "playing", max(end, self._position))

    def refusal(self, verb: str) -> str:
        """Return why this cannot `verb`, as "be paused": a feed cannot; empty for a clip, which can."""
        return f"a live feed cannot {verb}: it goes on as it comes." if self.duration is None else ""

    def tick(self) -> float:
        """Move to where the clock says, and return the position."""
        now = self._clock()
        elapsed, self._last = min(max(now - self._last, 0.0), LONGEST_TICK), now
        if self._playing and self.duration is not None:
            self._move(self._position + elapsed * self._speed)
        return self._position

    def play(self) -> None:
        """Move from now on."""
        self.tick()
        self._playing = self.state != "ended"
        self._stop = None

    def pause(self) -> None:
        """Stop here."""
        self.tick()
        self._playing, self._stop = False, None

    def step(self) -> None:
        """Play to the end of the current second, then pause."""
        self.play()
        self._stop = math.floor(self._position) + 1.0

    def seek(self, position: float) -> float:
        """Go to the beginning of the second that contains `position`, within the clip, and return it."""
        self.tick()
        last = math.inf if self.duration is None else max(math.ceil(self.duration) - 1.0, 0.0)
        ended = self.state == "ended"
        self._position = float(min(max(math.floor(position), 0.0), last))
        self._stop = None
        self._playing = self._playing or ended
        return self._position

    def follow(self, start: float, end: float) -> None:
        """Take the position of a feed, whose second from `start` to `end` is shown from now on."""
        now = self._last = self._clock()
        self._heard = start if self._shown_at is None else self._feed_motion().position
        if self._shown_at is not None and start == self._position:
            expected = self._shown_at + start - self._shown_from
            if abs(now - expected) <= JITTER:
                now = expected + FOLLOWED * (now - expected)
                self._heard = start
        self._shown_at, self._shown_from, self._position = now, start, end

    def change_speed(self, steps: int) -> None:
        """Go `steps` up in `SPEEDS`, or down for a negative number."""
        self.tick()
        at = SPEEDS.index(self._speed) + steps
        self._speed = SPEEDS[min(max(at, 0), len(SPEEDS) - 1)]

    def _feed_motion(self) -> Motion:
        end = self._position + GRACE
        if self._shown_at is None:
            return Motion(self._last, self._position, end=end)
        shown = self._shown_from + max(self._last - self._shown_at, 0.0)
        if shown < self._heard:
            # Nothing is heard twice.
            return Motion(self._last, self._heard, end=end)
        return Motion(self._last, min(shown, end), 1.0, moving=True, end=end)

    def _move(self, to: float) -> None:
        ends = [end for end in (self.limit, self._stop, self.duration) if end is not None]
        self._position = max(min(to, *ends), self._position) if ends else to
        if self._position in (self._stop, self.duration):
            self._playing, self._stop = False, None
