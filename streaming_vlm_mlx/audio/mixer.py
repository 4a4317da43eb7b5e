"""Mixes the clip's sound and spoken commentary into what a sound device plays."""

from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.audio.clip_track import CHANNELS, FADE, RATE, ClipTrack, Samples

# What is left of the clip while commentary is spoken: 12 dB less. The seconds that it takes to get there.
DUCKED, DUCK_TIME = 10 ** (-12 / 20), 0.05
# The seconds in which a new volume is reached.
VOLUME_TIME = 0.02
# Volumes are percent, and cubed as mpv's, so that equal steps sound equal.
MOST_VOLUME = 100


class Ramp:
    """A gain that moves to its target at a limited rate."""

    def __init__(self, value: float, seconds: float) -> None:
        """Start at `value`; a change by 1 takes `seconds`."""
        self._value, self._step = value, 1 / (seconds * RATE)

    def advance(self, target: float, count: int) -> "Samples | float":
        """Return the gains of the next `count` samples on the way to `target`: float32 [count, 1], or one for all."""
        begin = self._value
        if begin == target:
            return begin
        way = np.arange(1, count + 1, dtype=np.float32)[:, None] * np.float32(self._step)
        gains: Samples = np.minimum(begin + way, target) if target > begin else np.maximum(begin - way, target)
        self._value = target if abs(target - begin) <= count * self._step else float(gains[-1, 0])
        return gains


@dataclass(frozen=True, slots=True)
class Speech:
    """Commentary to be spoken.

    Attributes:
        number: which it is.
        first: number of the first sample that is kept; those before were played.
        samples: float32 [n, 2] at `RATE`.
        end: number of the sample behind the last one that is to be played.
    """

    number: int
    first: int
    samples: Samples
    end: int


class SpeechTrack:
    """Plays speech that is handed in, without gaps; `render` runs in the callback of the device."""

    def __init__(self) -> None:
        """Begin in silence."""
        self._speech = Speech(0, 0, np.zeros((0, CHANNELS), np.float32), 0)
        # The speech that is heard and the next sample of it; written together.
        self._heard = (0, 0)

    @property
    def spoken(self) -> int:
        """How many samples of the speech under way, or of the last one, were taken."""
        number, spoken = self._heard
        return spoken if number == self._speech.number else 0

    @property
    def speaking(self) -> bool:
        """Whether there are samples left."""
        return self.spoken < self._speech.end

    def add(self, samples: Samples) -> int:
        """Speak `samples` behind what is left, and return the number of the first; after silence, 0 of a new speech."""
        old, spoken = self._speech, self.spoken
        if spoken >= old.end:
            self._speech = Speech(old.number + 1, 0, samples, len(samples))
            return 0
        left = old.samples[max(spoken - FADE - old.first, 0) : old.end - old.first]
        joined = np.concatenate([left, samples])
        self._speech = Speech(old.number, old.end - len(left), joined, old.end + len(samples))
        return old.end

    def cut(self, at: int | None) -> None:
        """End the speech behind sample `at` of it, or at once; it fades out."""
        old = self._speech
        # What the device's next callback takes anyway.
        end = max(self.spoken + FADE if at is None else at, self.spoken)
        if end < old.end:
            kept = old.samples[: end - old.first].copy()
            fade = min(FADE, len(kept))
            kept[len(kept) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)[:, None]
            self._speech = Speech(old.number, old.first, kept, end)

    def render(self, count: int) -> Samples | None:
        """Return the next samples, float32 [count, 2]; None in silence."""
        speech = self._speech
        spoken = self._heard[1] if self._heard[0] == speech.number else 0
        end = min(spoken + count, speech.end)
        if spoken >= end:
            return None
        out = np.zeros((count, CHANNELS), np.float32)
        out[: end - spoken] = speech.samples[spoken - speech.first : end - speech.first]
        self._heard = speech.number, end
        return out


class Mixer:
    """What a sound device plays: the clip, lowered while commentary is spoken.

    `fill` runs in the callback of the device; everything else may be called from any one other thread. Nothing waits
    for a lock.

    Attributes:
        clip: the clip's sound.
        volume: of everything, 0 to `MOST_VOLUME`.
        muted: whether everything is silent.
    """

    def __init__(self, volume: float = MOST_VOLUME, muted: bool = False) -> None:
        """Begin in silence."""
        self.clip, self._speech = ClipTrack(), SpeechTrack()
        self.volume, self.muted = volume, muted
        self._duck, self._gain = Ramp(1.0, DUCK_TIME), Ramp(self._wanted_gain, VOLUME_TIME)

    @property
    def speaking(self) -> bool:
        """Whether speech is left to be played."""
        return self._speech.speaking

    @property
    def spoken(self) -> int:
        """Samples that were played of the speech under way, or of the last one."""
        return self._speech.spoken

    def play_speech(self, samples: Samples) -> int:
        """Speak `samples`, float32 [n, 2] at 48 kHz, behind the speech that is left.

        Return the number of their first sample, as `spoken` counts them.
        """
        return self._speech.add(samples)

    def cut_speech(self, at: int | None = None) -> None:
        """End the speech under way behind its sample `at`, as `spoken` counts them; at once for None. It fades out."""
        self._speech.cut(at)

    def fill(self, out: Samples, time: float) -> None:
        """Fill `out`, float32 [n, 2] at 48 kHz, of which the first sample is heard at `time` of the clock."""
        count = len(out)
        clip, speech = self.clip.render(count, time), self._speech.render(count)
        clip *= self._duck.advance(1.0 if speech is None else DUCKED, count)
        if speech is not None:
            clip += speech
        clip *= self._gain.advance(self._wanted_gain, count)
        np.clip(clip, -1.0, 1.0, out=out)

    @property
    def _wanted_gain(self) -> float:
        return 0.0 if self.muted else float(self.volume / MOST_VOLUME) ** 3
