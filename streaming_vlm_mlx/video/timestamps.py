"""Timestamps to seconds, and the choice of a frame for a moment; no decoding."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

P = TypeVar("P")

# Seconds within which two times are equal: time bases are rational, sampling times are floats.
TOLERANCE = 1e-6

# Largest plausible step between two frames of a feed, in seconds; a clip adds its own duration.
LONGEST_STEP = 60.0

# More frames than any decoder holds back (H.264's limit). A longer run of odd times means that the clock restarted.
HELD_BACK = 16


@dataclass(frozen=True, slots=True)
class TimedPicture(Generic[P]):
    """A picture with the seconds at which it appears and disappears, from the start of the clip."""

    time: float
    end: float
    picture: P


class FrameCursor(Generic[P]):
    """A forward-only position in a sequence of pictures ordered by time.

    Attributes:
        end: end of the sequence in seconds: the end of the last picture or `limit`, whichever comes first; None until
            the cursor reaches it.
    """

    def __init__(self, pictures: Iterator[TimedPicture[P]], limit: float = math.inf, by_end: bool = False) -> None:
        """Start before the first of `pictures`; pictures at or after `limit` seconds are ignored.

        With `by_end`, `at` goes by the times at which pictures disappear.
        """
        self._pictures = pictures
        self._limit, self._by_end = limit, by_end
        self._current: TimedPicture[P] | None = None
        self.end: float | None = None

    def at(self, time: float) -> TimedPicture[P] | None:
        """Return the first picture at or after `time` seconds, else the last one; None if there is no picture."""
        while self.end is None and (self._current is None or self._time(self._current) < time - TOLERANCE):
            self._advance()
        return self._current

    def _time(self, picture: TimedPicture[P]) -> float:
        return picture.end if self._by_end else picture.time

    def _advance(self) -> None:
        picture = next(self._pictures, None)
        if picture is not None and picture.time < self._limit - TOLERANCE:
            self._current = picture
        elif picture is not None:
            self.end = self._limit
        else:
            self.end = min(self._current.end, self._limit) if self._current else 0.0


@dataclass(frozen=True, slots=True)
class StreamClock:
    """How the timestamps of a stream map to seconds.

    Attributes:
        time_base: seconds per tick.
        frame_rate: frames per second, for frames without a timestamp.
        origin: the timestamp of 0 seconds.
        counted: the timestamps are meaningless (raw streams have none), so frames are counted instead.
    """

    time_base: Fraction
    frame_rate: float
    origin: int
    counted: bool

    def ticks(self, seconds: float) -> int:
        """Return the last timestamp at or before `seconds` from the start of the clip."""
        return self.origin + math.floor(seconds / self.time_base)

    def length(self, ticks: int | None) -> float:
        """Return the seconds of a frame of `ticks`; one frame interval if `ticks` is missing or meaningless."""
        if self.counted or not ticks:
            return 1 / self.frame_rate
        return float(ticks * self.time_base)


class TimestampReader:
    """Maps the timestamps of successive frames to seconds that never decrease.

    Drops a frame that damage delayed or moved far ahead. When the clock restarts (joined recordings, a feed that
    wraps), time continues from the last frame. When the clock runs backwards, frames are counted from then on.
    """

    def __init__(self, clock: StreamClock, longest_step: float, start: float = 0.0) -> None:
        """Begin at `start` seconds; a frame more than `longest_step` seconds after the previous one is implausible."""
        self._clock = clock
        self._longest_step = longest_step
        self._start = self._offset = start
        self._last: float | None = None
        self._implausible = 0
        # Whether no frame since the last restart was plausible.
        self._restarted = False
        self._counted = clock.counted

    def seconds(self, pts: int | None) -> float | None:
        """Return the time of the next frame, None if it is implausible.

        A frame without a timestamp follows the previous one at the frame rate of the stream.
        """
        following = self._start if self._last is None else self._last + 1 / self._clock.frame_rate
        if pts is None or self._counted:
            time = following
        else:
            time = float((pts - self._clock.origin) * self._clock.time_base) + self._offset
        last = self._start if self._last is None else self._last
        if not last <= time <= last + self._longest_step:
            self._implausible += 1
            if self._implausible <= HELD_BACK:
                return None
            # A clock that restarts twice in a row is none: it runs backwards.
            self._counted = self._restarted
            self._restarted = True
            self._offset += following - time
            time = following
        else:
            self._restarted = False
        self._implausible = 0
        self._last = time
        return time
