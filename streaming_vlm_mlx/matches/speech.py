"""A voice: one phrase at a time, at a pace that can be spoken, behind what it speaks of; else silence."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streaming_vlm_mlx.eval.text_metrics import Word

BREATH = 0.2
LEAST_LAG, MOST_LAG, LAG_VARIES = 0.5, 1.5, 0.3
SLOWEST, FASTEST = 2.0, 4.0
DRAWS = 20

Draw = Callable[[], str]
Fits = Callable[[Sequence[Word]], bool]


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something worth a phrase.

    Attributes:
        time: when it can be seen, seconds.
        draw: makes a phrase; each call may make another one.
        until: the phrase must end by then.
        lag: the shortest lag that the voice may choose here.
        latest: the longest lag after which the phrase is still worth saying.
        fits: what else must hold of the timed words, if anything.
    """

    time: float
    draw: Draw
    until: float
    lag: float = LEAST_LAG
    latest: float = MOST_LAG
    fits: Fits | None = None


@dataclass
class Voice:
    """Places phrases in time; what cannot begin in time is dropped.

    Attributes:
        rng: draws pace and lag.
        pace: words a second.
        phrases: what is said, in order of time.
    """

    rng: np.random.Generator
    pace: float
    phrases: list[tuple[Word, ...]] = field(default_factory=list)

    def say(self, cue: Utterance) -> bool:
        """Say a phrase for `cue` if one fits into the silence behind it; return whether. The clip begins at 0."""
        if cue.time < 0:
            return False
        start = self._after(cue.time + self.rng.uniform(cue.lag, min(cue.lag + LAG_VARIES, cue.latest)))
        for _ in range(DRAWS):
            words = timed(cue.draw(), start, self.pace * self.rng.uniform(0.92, 1.08))
            if self._fits(cue, words):
                self.phrases.insert(bisect_left(self.phrases, start, key=lambda p: p[0].start), words)
                return True
        return False

    def words(self) -> tuple[Word, ...]:
        """Return all that is said, in order."""
        return tuple(w for phrase in self.phrases for w in phrase)

    def _after(self, time: float) -> float:
        """Return the first moment from `time` on when nothing is being said."""
        for phrase in self.phrases:
            if phrase[0].start - BREATH < time < phrase[-1].end + BREATH:
                time = phrase[-1].end + BREATH
        return round(time, 2)

    def _fits(self, cue: Utterance, words: Sequence[Word]) -> bool:
        in_time = words[0].start - cue.time <= cue.latest and words[-1].end <= cue.until
        return in_time and self._free(words) and (cue.fits is None or cue.fits(words))

    def _free(self, words: Sequence[Word]) -> bool:
        start, end = words[0].start - BREATH, words[-1].end + BREATH
        return all(p[-1].end <= start + 1e-9 or p[0].start >= end - 1e-9 for p in self.phrases)


def timed(phrase: str, start: float, pace: float) -> tuple[Word, ...]:
    """Return `phrase` word by word from `start` on, long words longer, at `pace` words a second on the whole."""
    texts = phrase.split()
    pace = min(max(pace, SLOWEST), FASTEST)
    weights = np.array([3.0 + len(t) + (2.0 if t[-1] in ".,!?" else 0.0) for t in texts])
    edges = start + np.concatenate([[0.0], np.cumsum(weights)]) * (len(texts) / pace / weights.sum())
    times = [round(float(t), 2) for t in edges]
    return tuple(Word(a, b, t) for a, b, t in zip(times, times[1:], texts, strict=False))


def sentence(text: str) -> str:
    """Return `text` with a capital and a full stop, unless it ends in a mark of its own."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
