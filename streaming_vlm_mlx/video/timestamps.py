"""Which frame stands for a moment: plain rules over timestamps, no decoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

P = TypeVar("P")

# Seconds within which two times are the same: time bases are rational, sampling times are floats.
TOLERANCE = 1e-6

# Seconds that a frame of a feed may lie behind its fellow; in a clip, as much more as the clip is long.
LONGEST_STEP = 60.0

# More frames than any decoder holds back (H.264's limit); a longer run of strange times means a clock that began anew.
HELD_BACK = 16


@dataclass(frozen=True, slots=True)
class Timed(Generic[P]):
    """A picture, the second at which it appears and the second at which it goes, from the clip's beginning."""

    time: float
    end: float
    picture: P


class Cursor(Generic[P]):
    """A place in a run of pictures in order of time; it moves forward only.

    Attributes:
        end: where the run ends, in seconds: the end of its last picture or `limit`, whichever comes first; None until
            that was met.
    """

    def __init__(self, pictures: Iterator[Timed[P]], limit: float = math.inf) -> None:
        """Start before the first of `pictures`; those at or after `limit` seconds do not count."""
        self._pictures = pictures
        self._limit = limit
        self._current: Timed[P] | None = None
        self.end: float | None = None

    def at(self, time: float) -> Timed[P] | None:
        """Return the first picture at or after `time` seconds, the last one where none is left, None where none was."""
        while self.end is None and (self._current is None or self._current.time < time - TOLERANCE):
            self._advance()
        return self._current

    def _advance(self) -> None:
        picture = next(self._pictures, None)
        if picture is not None and picture.time < self._limit - TOLERANCE:
            self._current = picture
        elif picture is not None:
            self.end = self._limit
        else:
            self.end = min(self._current.end, self._limit) if self._current else 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream counts time.

    Attributes:
        time_base: seconds a tick of its timestamps.
        frame_rate: frames a second, for frames without a timestamp.
        origin: the timestamp that is 0 seconds.
        counted: its timestamps mean nothing (raw streams have none of their own), frames are counted instead.
    """

    time_base: Fraction
    frame_rate: float
    origin: int
    counted: bool

    def ticks(self, seconds: float) -> int:
        """Return the timestamp at or before `seconds` from the clip's beginning."""
        return self.origin + math.floor(seconds / self.time_base)

    def length(self, ticks: int | None) -> float:
        """Return the seconds of a frame that lasts `ticks`, or as long as the rate says where that means nothing."""
        if self.counted or not ticks:
            return 1 / self.frame_rate
        return float(ticks * self.time_base)


class Timeline:
    """Turns the timestamps of successive frames into seconds from the clip's beginning, which never go back.

    A frame that damage let out too late, or threw far ahead, is dropped. A clock that begins anew (joined recordings, a
    feed that wraps) goes on from where it was.
    """

    def __init__(self, pace: Pace, longest_step: float) -> None:
        """Start at 0 seconds; frames that lie more than `longest_step` seconds behind their fellow are not believed."""
        self._pace = pace
        self._longest_step = longest_step
        self._offset = 0.0
        self._last: float | None = None
        self._strange = 0

    def seconds(self, pts: int | None) -> float | None:
        """Return the time of the next frame, None if it is not to be believed.

        A frame without a timestamp follows its fellow at the stream's frame rate.
        """
        following = 0.0 if self._last is None else self._last + 1 / self._pace.frame_rate
        if pts is None or self._pace.counted:
            time = following
        else:
            time = float((pts - self._pace.origin) * self._pace.time_base) + self._offset
        last = self._last or 0.0
        if not last <= time <= last + self._longest_step:
            self._strange += 1
            if self._strange <= HELD_BACK:
                return None
            self._offset += following - time
            time = following
        self._strange = 0
        self._last = time
        return time
