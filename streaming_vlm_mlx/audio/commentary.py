"""Commentary over a clip's sound: phrases are spoken where they were said, and both are mixed to one track."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from av.audio.frame import AudioFrame

from streaming_vlm_mlx.audio.clip_track import CHANNELS, FADE, RATE, Samples
from streaming_vlm_mlx.audio.mixer import DUCK_TIME, DUCKED, Ramp
from streaming_vlm_mlx.audio.reader import SoundReader, TempoFilter
from streaming_vlm_mlx.audio.voice import Utterance

# Samples that are mixed at once: a frame of AAC.
BLOCK = 1024
# Seconds before a phrase in which the clip is lowered already; in shorter pauses it stays lowered.
EARLY = 0.25
# How much faster than its voice speaks a phrase may become to fit.
FASTEST = 1.4

Speak = Callable[[str], Utterance]


@dataclass(frozen=True, slots=True)
class PlacedSound:
    """Samples, float32 [n, 2] at 48 kHz, of which the first is number `first` from the clip's beginning."""

    first: int
    samples: Samples

    @property
    def end(self) -> int:
        """Number of the sample behind the last one."""
        return self.first + len(self.samples)


class SoundTimeline:
    """Sounds at their places, which may overlap; reads on from the clip's beginning."""

    def __init__(self, sounds: Iterator[PlacedSound]) -> None:
        """Take `sounds` in the order of their places; they are drawn as they are needed."""
        self._sounds, self._position = sounds, 0
        self._near: list[PlacedSound] = []
        self._next = next(sounds, None)

    def read(self, count: int) -> Samples | None:
        """Return the next samples, float32 [count, 2], silence between sounds; None without any sound."""
        first, end = self._position, self._position + count
        while self._next is not None and self._next.first < end:
            self._near.append(self._next)
            self._next = next(self._sounds, None)
        self._position = end
        self._near = [sound for sound in self._near if sound.end > first]
        if all(sound.first >= end for sound in self._near):
            return None
        out = np.zeros((count, CHANNELS), np.float32)
        for sound in self._near:
            begin, stop = max(sound.first, first), min(sound.end, end)
            out[begin - first : stop - first] += sound.samples[begin - sound.first : stop - sound.first]
        return out


def mix(clip: SoundTimeline, speech: SoundTimeline) -> Iterator[Samples]:
    """Yield blocks of `clip`, lowered where there is `speech`, with the speech: float32 [1024, 2], without end."""
    duck = Ramp(1.0, DUCK_TIME)
    ahead: deque[Samples | None] = deque(speech.read(BLOCK) for _ in range(math.ceil(EARLY * RATE / BLOCK)))
    while True:
        ahead.append(speech.read(BLOCK))
        sound, spoken = clip.read(BLOCK), ahead[0]
        if sound is None:
            sound = np.zeros((BLOCK, CHANNELS), np.float32)
        sound *= duck.advance(1.0 if all(block is None for block in ahead) else DUCKED, BLOCK)
        if spoken is not None:
            sound += spoken
        ahead.popleft()
        yield np.clip(sound, -1.0, 1.0)


def place_speech(phrases: Sequence[tuple[float, str]], end: float, speak: Speak) -> Iterator[PlacedSound]:
    """Yield `phrases`, pairs of the seconds at which they begin and a text, as `speak` speaks them.

    A phrase that is too long for the time up to the next one, or up to `end` seconds, becomes faster; if that is not
    enough, it is cut behind a word.
    """
    begins = [*(start for start, _ in phrases[1:]), end]
    for (start, text), following in zip(phrases, begins, strict=False):
        samples = fit(speak(text), following - start).samples
        if len(samples):
            yield PlacedSound(round(max(start, 0.0) * RATE), samples)


def fit(utterance: Utterance, seconds: float) -> Utterance:
    """Return `utterance` in at most `seconds`: faster, and cut behind a word if that is not enough."""
    if utterance.seconds <= seconds:
        return utterance
    faster = hurried(utterance, seconds)
    room = max(math.floor(seconds * RATE), 0)
    if len(faster.samples) <= room:
        return faster
    # Of a first word that is too long, a part is better than nothing.
    end = faster.word_end_before(room) or room
    return replace(faster, samples=faded(faster.samples[:end]))


def hurried(utterance: Utterance, seconds: float) -> Utterance:
    """Return `utterance` as much faster as it takes to last `seconds`, up to `FASTEST` times."""
    tempo = min(utterance.seconds / max(seconds, 1e-3), FASTEST)
    return utterance if tempo <= 1 else change_tempo(utterance, tempo)


def faded(samples: Samples) -> Samples:
    """Return `samples`, float32 [n, 2], with their last 5 ms faded out."""
    count = min(FADE, len(samples))
    faded = samples.copy()
    faded[len(faded) - count :] *= np.linspace(1, 0, count, dtype=np.float32)[:, None]
    return faded


def change_tempo(utterance: Utterance, tempo: float) -> Utterance:
    """Return `utterance` spoken `tempo` times as fast, 0.5 to 2, at the same pitch."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(utterance.samples.T), format="fltp", layout="stereo")
    frame.sample_rate = RATE
    tempo_filter = TempoFilter(frame, 0.0, tempo)
    parts = [sound.samples for part in (frame, None) for sound in tempo_filter.convert(part)]
    samples = np.concatenate(parts) if parts else utterance.samples[:0]
    ends = (min(round(end / tempo), len(samples)) for end in utterance.word_ends)
    return Utterance(samples, tuple(ends))


def place_clip(reader: SoundReader) -> Iterator[PlacedSound]:
    """Yield the sound of a clip at its places.

    Raises:
        SvmError: the clip cannot be read.
    """
    for sound in reader.sounds(0.0):
        yield PlacedSound(round(sound.time * RATE), sound.samples)
