"""A voice that speaks one phrase at a time, at a natural pace, shortly after what it describes."""

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
    """Something to say, and when.

    Attributes:
        time: when it becomes visible, seconds.
        draw: returns a phrase; each call may return another one.
        until: the phrase ends by then.
        lag: the shortest delay in seconds.
        latest: the longest delay in seconds; after that the phrase is dropped.
        fits: a further condition on the timed words, if any.
    """

    time: float
    draw: Draw
    until: float
    lag: float = LEAST_LAG
    latest: float = MOST_LAG
    fits: Fits | None = None


@dataclass
class Voice:
    """Places phrases in time, and drops those that cannot start in time.

    Attributes:
        rng: draws pace and delay.
        pace: words a second.
        phrases: the spoken phrases, in order of time.
    """

    rng: np.random.Generator
    pace: float
    phrases: list[tuple[Word, ...]] = field(default_factory=list)

    def say(self, utterance: Utterance) -> bool:
        """Speak a phrase of `utterance` if one fits into the next silence; return whether. The clip starts at 0."""
        if utterance.time < 0:
            return False
        start = self._after(
            utterance.time + self.rng.uniform(utterance.lag, min(utterance.lag + LAG_VARIES, utterance.latest))
        )
        for _ in range(DRAWS):
            words = timed(utterance.draw(), start, self.pace * self.rng.uniform(0.92, 1.08))
            if self._fits(utterance, words):
                self.phrases.insert(bisect_left(self.phrases, start, key=lambda p: p[0].start), words)
                return True
        return False

    def words(self) -> tuple[Word, ...]:
        """Return all spoken words, in order."""
        return tuple(w for phrase in self.phrases for w in phrase)

    def _after(self, time: float) -> float:
        """Return the first silent moment from `time` on."""
        for phrase in self.phrases:
            if phrase[0].start - BREATH < time < phrase[-1].end + BREATH:
                time = phrase[-1].end + BREATH
        return round(time, 2)

    def _fits(self, utterance: Utterance, words: Sequence[Word]) -> bool:
        in_time = words[0].start - utterance.time <= utterance.latest and words[-1].end <= utterance.until
        return in_time and self._free(words) and (utterance.fits is None or utterance.fits(words))

    def _free(self, words: Sequence[Word]) -> bool:
        start, end = words[0].start - BREATH, words[-1].end + BREATH
        return all(p[-1].end <= start + 1e-9 or p[0].start >= end - 1e-9 for p in self.phrases)


def timed(phrase: str, start: float, pace: float) -> tuple[Word, ...]:
    """Return the words of `phrase` from `start` on, at `pace` words a second; longer words take longer."""
    texts = phrase.split()
    pace = min(max(pace, SLOWEST), FASTEST)
    weights = np.array([3.0 + len(t) + (2.0 if t[-1] in ".,!?" else 0.0) for t in texts])
    edges = start + np.concatenate([[0.0], np.cumsum(weights)]) * (len(texts) / pace / weights.sum())
    times = [round(float(t), 2) for t in edges]
    return tuple(Word(a, b, t) for a, b, t in zip(times, times[1:], texts, strict=False))


def sentence(text: str) -> str:
    """Return `text` with a capital letter, and with a full stop unless it ends in ``.``, ``!`` or ``?``."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
