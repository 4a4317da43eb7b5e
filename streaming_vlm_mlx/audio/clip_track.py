"""The clip's sound at the pace of the playhead: what was decoded, placed where it belongs in time."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.audio.motion import Motion

Samples = npt.NDArray[np.float32]

# Samples a second of everything that is mixed and played, and its channels.
RATE, CHANNELS = 48_000, 2
# Seconds by which sound may be early or late before it jumps to its place; below, it is stretched into place.
JUMP = 0.04
# Seconds from which it is stretched, and to which.
LOOSE, TIGHT = 0.004, 0.0005
# The largest stretch, as a part of the samples: 9 cents of pitch, which nobody hears.
STRETCH = 0.005
# More seconds than a device takes at once.
MOST_AT_ONCE = 10.0
# Samples over which sound fades in and out.
FADE = 240


@dataclass(frozen=True, slots=True)
class Block:
    """Decoded sound.

    Attributes:
        time: seconds of clip of the first sample.
        first: number of the first sample in its run.
        samples: float32 [n, 2] at `RATE`.
    """

    time: float
    first: int
    samples: Samples

    @property
    def end(self) -> int:
        """The number in its run of the sample behind the last."""
        return self.first + len(self.samples)


@dataclass(frozen=True, slots=True)
class Run:
    """Sound that was decoded in one go, at one speed.

    Attributes:
        number: which run it is.
        speed: seconds of clip per second of sound.
        blocks: what is kept of it, without gaps in `first`; times may jump where the file's do.
    """

    number: int
    speed: float
    blocks: tuple[Block, ...] = ()

    def add(self, time: float, samples: Samples, keep_from: float = -math.inf) -> "Run":
        """Return the run with `samples` behind it, which begin at `time`, without what ends before `keep_from`."""
        first = self.blocks[-1].end if self.blocks else 0
        kept = next((i for i, block in enumerate(self.blocks) if self.end_time(block) >= keep_from), len(self.blocks))
        return replace(self, blocks=(*self.blocks[kept:], Block(time, first, samples)))

    def end_time(self, block: Block) -> float:
        """Return the seconds of clip at the end of `block`."""
        return block.time + len(block.samples) * self.speed / RATE

    def time_of(self, frame: int) -> float | None:
        """Return the seconds of clip of the sample numbered `frame`; None if it is not there."""
        block = self._block_of(frame)
        return None if block is None else block.time + (frame - block.first) * self.speed / RATE

    def find(self, time: float) -> tuple[int, int] | None:
        """Return the samples of silence from `time` to the next sound, and that sound's number; None if there is none.

        A clip's sound has gaps where its file has.
        """
        for block in self.blocks:
            if time < self.end_time(block):
                offset = round((time - block.time) * RATE / self.speed)
                return max(-offset, 0), block.first + min(max(offset, 0), len(block.samples))
        return None

    def read(self, frame: int, count: int) -> Samples:
        """Return `count` samples from the one numbered `frame` on, fewer where there are no more."""
        parts: list[Samples] = []
        for block in self.blocks:
            if block.end > frame and block.first < frame + count:
                parts.append(block.samples[max(frame - block.first, 0) : frame + count - block.first])
        return np.concatenate(parts) if parts else np.zeros((0, CHANNELS), np.float32)

    def _block_of(self, frame: int) -> Block | None:
        at = bisect_right(self.blocks, frame, key=lambda block: block.first) - 1
        return self.blocks[at] if at >= 0 and frame < self.blocks[at].end else None


class ClipTrack:
    """Renders the sound of a clip in step with a motion; `render` runs in the callback of the device.

    `run` and `motion` are set by other threads, each whole, so that no lock is needed.

    Attributes:
        run: the decoded sound; None for silence.
        motion: where the playhead is.
        jumps: how often sound that was out of place was moved.
        gaps: how often there was no sound yet where it was needed.
    """

    def __init__(self) -> None:
        """Begin in silence."""
        self.run: Run | None = None
        self.motion = Motion(0.0, 0.0)
        self.jumps = self.gaps = 0
        # The run that is heard, and the next sample of it; None in silence.
        self._heard: Run | None = None
        self._next = 0
        self._stretching = False

    def render(self, count: int, time: float) -> Samples:
        """Return the next samples, float32 [count, 2], of which the first is heard at `time` of the clock."""
        out = np.zeros((count, CHANNELS), np.float32)
        motion, run = self.motion, self.run
        position = motion.position_at(time)
        if position is None or run is None or run.speed != motion.speed:
            self._leave(out)
            return out
        begin = 0
        if self._heard is not None:
            if self._heard.number == run.number and (error := self._error(run, position)) is not None:
                self._continue(out, run, motion, error)
                return out
            self._leave(out)
            begin = min(FADE, count)
        self._enter(out, run, motion, begin, time + begin / RATE)
        return out

    def _error(self, run: Run, position: float) -> float | None:
        """Return by how many seconds of sound the next sample is early; None where it has to be placed anew."""
        at = run.time_of(self._next)
        if at is None:
            self.gaps += 1
            return None
        error = (at - position) / run.speed
        if abs(error) > JUMP:
            self.jumps += 1
            return None
        return error

    def _leave(self, out: Samples) -> None:
        """Fade out what is heard."""
        if self._heard is not None:
            tail = self._heard.read(self._next, min(FADE, len(out)))
            out[: len(tail)] = tail * _slope(len(tail))[::-1]
            self._heard, self._stretching = None, False

    def _enter(self, out: Samples, run: Run, motion: Motion, begin: int, time: float) -> None:
        """Fade in from sample `begin` of `out` on, which is heard at `time`, with the sound that belongs there."""
        position = motion.position_at(time)
        found = None if position is None else run.find(position)
        if found is None or begin + found[0] >= len(out):
            return
        silence, self._next = found
        self._heard = run
        part = out[begin + silence :]
        self._continue(part, run, motion, 0.0)
        fade = min(FADE, len(part))
        part[:fade] *= _slope(fade)

    def _continue(self, out: Samples, run: Run, motion: Motion, error: float) -> None:
        """Fill `out` with what follows, stretched a little where it is early or late by `error` seconds."""
        self._heard = run
        self._stretching = abs(error) > (TIGHT if self._stretching else LOOSE)
        count = len(out)
        most = max(round(count * STRETCH), 1)
        taken = count - min(max(round(error * RATE), -most), most) if self._stretching else count
        left = self._left(run, motion)
        samples = run.read(self._next, min(taken + 1, left))
        if len(samples) < taken:
            self.gaps += left >= taken
            last = min(len(samples), count)
            out[:last] = samples[:last]
            fade = min(FADE, last)
            out[last - fade : last] *= _slope(fade)[::-1]
            self._heard, self._stretching = None, False
            return
        out[:] = samples[:count] if taken == count else _resample(samples, taken, count)
        self._next += taken

    def _left(self, run: Run, motion: Motion) -> int:
        """Return how many samples there are before the end of the motion, as far as that is near."""
        at = run.time_of(self._next)
        seconds = min((motion.end - at) / run.speed, MOST_AT_ONCE) if at is not None else 0.0
        return max(math.floor(seconds * RATE), 0)


def _slope(count: int) -> Samples:
    """Return a rise from 0 to 1, float32 [count, 1]."""
    slope: Samples = np.linspace(0.0, 1.0, count, dtype=np.float32)[:, None]
    return slope


def _resample(samples: Samples, taken: int, count: int) -> Samples:
    """Return the first `taken` of the `samples` as `count`, by linear interpolation."""
    at = np.arange(count, dtype=np.float32) * np.float32(taken / count)
    left = at.astype(np.int64)
    right = np.minimum(left + 1, len(samples) - 1)
    part = (at - left)[:, None]
    resampled: Samples = samples[left] * (1 - part) + samples[right] * part
    return resampled
