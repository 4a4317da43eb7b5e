"""When a feed is connected again: what counts as a stall, how long to wait before an attempt, and when to give up.

Nothing here reads a clock, waits or opens anything: `Reconnector` is told the time, in seconds of any clock that does
not run backwards, and says what to do.
"""

from dataclasses import dataclass
from typing import Literal

FeedState = Literal["live", "silent", "reconnecting", "ended"]
Action = Literal["read", "wait", "connect", "end"]


@dataclass(frozen=True, slots=True)
class ReconnectRules:
    """The limits, in seconds.

    Attributes:
        notice: without a picture for so long, a feed is silent.
        stall: without a picture for so long, a connection is given up.
        connecting: time that an attempt has until its first picture.
        first_wait: before the first attempt; each later one waits twice as long as the one before it.
        longest_wait: before any attempt.
        attempts: attempts in a row after which the feed has ended.
        steady: a connection that gives pictures for so long makes the next attempt the first one again.
    """

    notice: float = 3.0
    stall: float = 10.0
    connecting: float = 20.0
    first_wait: float = 1.0
    longest_wait: float = 30.0
    attempts: int = 12
    steady: float = 5.0

    def wait_before(self, attempt: int) -> float:
        """Return the seconds to wait before `attempt`, counted from 1."""
        doublings = min(attempt - 1, 32)
        return min(self.first_wait * 2.0**doublings, self.longest_wait)


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How a feed is doing.

    Attributes:
        state: ``live`` has pictures; ``silent`` is connected and has had none for a while; ``reconnecting`` waits for
            an attempt or makes it; ``ended`` makes none unless it is told to.
        seconds: since the last picture.
        attempt: the attempt that is made or waited for, counted from 1; 0 in the other states.
        reason: why the last connection was lost; empty before that.
    """

    state: FeedState
    seconds: float = 0.0
    attempt: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and the seconds after which to ask again at the latest."""

    action: Action
    timeout: float = 0.0


class Reconnector:
    """The state of one feed's connection."""

    def __init__(self, rules: ReconnectRules, now: float) -> None:
        """Start with a connection that was made `now`."""
        self._rules = rules
        self._phase: Literal["connected", "waiting", "connecting", "ended"] = "connected"
        # The last picture, the first picture of this connection, and the end of the wait or of the attempt.
        self._picture, self._first, self._due = now, now, now
        self._attempt, self._reason = 0, ""

    def received(self, now: float) -> None:
        """Note that a picture came, or that the reader of the last one asks for the next."""
        self._picture = now
        if self._phase == "connecting":
            self._phase, self._first = "connected", now
        elif self._phase == "connected" and now - self._first >= self._rules.steady:
            self._attempt = 0

    def lost(self, now: float, reason: str, final: bool = False) -> None:
        """Note that the connection, or the attempt to make one, failed for `reason`; a `final` loss is the end."""
        self._reason = reason
        if final or self._attempt >= self._rules.attempts:
            self._phase = "ended"
            return
        self._attempt += 1
        self._phase, self._due = "waiting", now + self._rules.wait_before(self._attempt)

    def retry(self, now: float) -> None:
        """Connect again at once, whatever the state; attempts count from 1 again."""
        self._phase, self._due, self._attempt = "waiting", now, 1

    def decide(self, now: float) -> Decision:
        """Return what to do `now`: a connection that ``wait``, ``connect`` and ``end`` find is to be dropped."""
        if self._phase == "connected" and now - self._picture >= self._rules.stall:
            self.lost(now, f"no picture for {self._rules.stall:g} s")
        elif self._phase == "connecting" and now >= self._due:
            self.lost(now, f"no picture within {self._rules.connecting:g} s")
        match self._phase:
            case "connected":
                return Decision("read", self._picture + self._rules.stall - now)
            case "connecting":
                return Decision("read", self._due - now)
            case "waiting" if now < self._due:
                return Decision("wait", self._due - now)
            case "waiting":
                self._phase, self._due = "connecting", now + self._rules.connecting
                return Decision("connect", self._rules.connecting)
            case "ended":
                return Decision("end")

    def status(self, now: float) -> FeedStatus:
        """Return how the feed is doing `now`."""
        silence = max(now - self._picture, 0.0)
        if self._phase == "connected":
            return FeedStatus("silent" if silence >= self._rules.notice else "live", silence, 0, self._reason)
        if self._phase == "ended":
            return FeedStatus("ended", silence, 0, self._reason)
        return FeedStatus("reconnecting", silence, self._attempt, self._reason)
