"""The rules of pace: when a second is generated, when it is skipped, and where the playhead waits for the model."""

import math
from typing import Literal

from streaming_vlm_mlx.errors import SvmError
from tui.player.playhead import Playhead
from tui.player.states import State

Pace = Literal["live", "every"]
Decision = Literal["wait", "generate", "skip"]

PACES: tuple[Pace, ...] = ("live", "every")

# Seconds of clip before a second begins from which it is read even while the model computes, which slows the model.
READ_AHEAD = 0.4


def choose_pace(clip: str, is_feed: bool, wanted: Pace, must_wait: bool) -> Pace:
    """Return the pace of `clip` where `wanted` is the viewer's; a feed cannot wait.

    Raises:
        SvmError: it is a feed, and `must_wait`, since the viewer said so for it.
    """
    if is_feed and must_wait:
        raise SvmError(f"{clip} is a live feed, which cannot wait for the model; leave out --pace every.")
    return "live" if is_feed else wanted


class Pacer:
    """Decides which second the model generates next, and when; only the controller asks it.

    Attributes:
        pace: ``live`` keeps to the clock and skips seconds whose picture is gone; ``every`` waits for the model.
        latency: seconds by which seconds arrive late: a feed delivers a second when it is over.
    """

    def __init__(self, playhead: Playhead, pace: Pace, latency: float = 0.0) -> None:
        self._playhead = playhead
        self.pace: Pace = pace
        self.latency = latency
        self._skipped_last = False

    def decide(self, start: float) -> Decision:
        """Decide on the second that begins at `start`, which has been read.

        Where reading alone takes a second or more, every second would come too late and be skipped. A second that
        comes too late is therefore generated when the one before it was skipped here.
        """
        head = self._playhead
        if math.floor(start) < self.second_to_read(math.floor(start)) and not self._skipped_last:
            self._skipped_last = True
            return "skip"
        # At a second's very beginning, paused after a seek or a step, the viewer has not seen any of it.
        if head.position > start or (head.position == start and head.playing):
            self._skipped_last = False
            return "generate"
        return "wait"

    def second_to_read(self, number: int) -> int:
        """Return the second to read when `number` is the next in order: a later one if `number` is over."""
        if self.pace == "every":
            return number
        seen = self._playhead.position - self.latency
        # While the clip is paused, there is time for the second that was seen last.
        return max(number, math.floor(seen) if self._playhead.playing else math.ceil(seen) - 1)

    def may_read(self, number: int, pending: int) -> bool:
        """Return whether second `number` may be read, when `pending` is the first one not yet generated or skipped."""
        return pending >= number or self._playhead.duration is None or self._playhead.position >= number - READ_AHEAD

    def limit(self, state: State, pending: int) -> float | None:
        """Return the position that the playhead waits at, None for nowhere.

        The clip waits where it stands while the model is loaded. At the pace ``every`` it waits at the end of second
        `pending`, the first one that is not yet generated or skipped. It never waits for a model that is not there,
        and a feed never waits.
        """
        if self._playhead.duration is None:
            return None
        if state is State.LOADING:
            return self._playhead.position
        follows = state in (State.GENERATING, State.SEEKING, State.FINISHED)
        return pending + 1.0 if follows and self.pace == "every" else None


class Delay:
    """The delay of the commentary, in seconds of clip: from a second's beginning to its last word."""

    def __init__(self) -> None:
        self._pending: float | None = None
        self._last = 0.0

    def begin(self, start: float) -> None:
        """Note that the second that begins at `start` is being generated."""
        self._pending = start

    def finish(self, position: float) -> None:
        """Note that it is done, with the playhead at `position`."""
        if self._pending is not None:
            self._last, self._pending = position - self._pending, None

    @property
    def pending(self) -> bool:
        """Whether a second is being generated."""
        return self._pending is not None

    def reset(self) -> None:
        """Forget the last second and the one under way."""
        self._pending, self._last = None, 0.0

    def at(self, position: float) -> float:
        """Return the delay at `position`: that of the last second, or of the one under way once it is larger."""
        waited = 0.0 if self._pending is None else position - self._pending
        return max(self._last, waited, 0.0)
