"""Compare commentary with reference words: word error rate, ROUGE-L, delay, speed and silence.

Words are compared without case and punctuation. The word error rate is the Levenshtein distance over words, divided by
the number of reference words. ROUGE-L is the F1 of the longest common subsequence (Lin 2004, sentence level).
"""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

Table = npt.NDArray[np.int32]
Costs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its start and end in seconds."""

    start: float
    end: float
    text: str


def spread(text: str, start: float, end: float) -> Iterator[Word]:
    """Yield the words of `text`, spread evenly from `start` to `end`."""
    words = text.split()
    step = (end - start) / max(len(words), 1)
    return (Word(start + i * step, start + (i + 1) * step, word) for i, word in enumerate(words))


class Pair(NamedTuple):
    """One step of an alignment: indices into the reference and into the commentary, None where one has no word."""

    truth: int | None
    said: int | None


@dataclass(frozen=True, slots=True)
class Errors:
    """Word errors of a commentary; `words` counts the reference."""

    words: int
    substituted: int
    missed: int
    added: int

    @property
    def rate(self) -> float:
        """The word error rate; without reference words, 0 for silence and 1 for speech."""
        wrong = self.substituted + self.missed + self.added
        return wrong / self.words if self.words else float(wrong > 0)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.words + other.words,
            self.substituted + other.substituted,
            self.missed + other.missed,
            self.added + other.added,
        )


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Counts that hold for any commentary. Counts of several stretches add up.

    Attributes:
        errors: word errors against the reference.
        common: length of the longest common subsequence, in words.
        words: words that the model said.
        seconds: whole seconds of video.
        silent: seconds in which no word starts.
    """

    errors: Errors
    common: int
    words: int
    seconds: int
    silent: int

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.errors + other.errors,
            self.common + other.common,
            self.words + other.words,
            self.seconds + other.seconds,
            self.silent + other.silent,
        )

    def figures(self) -> dict[str, float | None]:
        """Return ``wer``, ``rouge_l``, ``words_per_second`` and ``silence``, None where there is nothing to measure."""
        words = self.errors.words + self.words
        return {
            "wer": self.errors.rate if self.seconds else None,
            "rouge_l": 2 * self.common / words if words else None,
            "words_per_second": self.words / self.seconds if self.seconds else None,
            "silence": self.silent / self.seconds if self.seconds else None,
        }


@dataclass(frozen=True, slots=True)
class WordComparison:
    """A commentary beside its reference, word by word.

    Attributes:
        errors: word errors.
        common: length of the longest common subsequence, in words.
        words: words of the commentary.
        delays: seconds from each matching word of the reference to that of the commentary, in order.
        added: indices of words of the commentary that are not in the reference.
        missed: indices of words of the reference that are not in the commentary.
    """

    errors: Errors
    common: int
    words: int
    delays: tuple[float, ...]
    added: frozenset[int]
    missed: frozenset[int]

    @property
    def rouge_l(self) -> float:
        """The F1 of the longest common subsequence, 0 to 1; 1 when both are silent."""
        words = self.errors.words + self.words
        return 2 * self.common / words if words else 1.0

    @property
    def delay(self) -> float | None:
        """The mean of the delays in seconds; None without a match."""
        return statistics.fmean(self.delays) if self.delays else None


NO_TEXT = TextCounts(Errors(0, 0, 0, 0), 0, 0, 0, 0)


def count_text(reference: Sequence[Word], said: Sequence[Word], start: float, end: float) -> TextCounts:
    """Compare the words `said` from `start` to `end` seconds with the words of the `reference`."""
    return count_compared(compare_words(reference, said), said, start, end)


def count_compared(found: WordComparison, said: Sequence[Word], start: float, end: float) -> TextCounts:
    """Return the counts of the words `said` from `start` to `end` seconds, which were compared already."""
    seconds = max(math.ceil(end - start - 1e-6), 1)
    # Rounding may put a second's first word slightly before the second.
    spoken = {math.floor(w.start - start + 1e-6) for w in said if plain_words(w.text)}
    return TextCounts(
        errors=found.errors,
        common=found.common,
        words=found.words,
        seconds=seconds,
        silent=seconds - len(spoken & set(range(seconds))),
    )


def compare_words(reference: Sequence[Word], said: Sequence[Word]) -> WordComparison:
    """Compare two lists of words as they are displayed: each is none, one or several words to compare.

    The time of a word is its start.
    """
    (truth, truth_places), (heard, heard_places) = _split(reference), _split(said)
    pairs = align(truth, heard)
    off = [(t, s) for t, s in pairs if t is None or s is None or truth[t] != heard[s]]
    return WordComparison(
        errors=count_errors(truth, heard, pairs),
        common=common_length(truth, heard) if truth and heard else 0,
        words=len(heard),
        delays=tuple(
            said[heard_places[s]].start - reference[truth_places[t]].start
            for t, s in pairs
            if t is not None and s is not None and truth[t] == heard[s]
        ),
        added=frozenset(heard_places[s] for _, s in off if s is not None),
        missed=frozenset(truth_places[t] for t, _ in off if t is not None),
    )


def _split(words: Sequence[Word]) -> tuple[list[str], list[int]]:
    """Return the words to compare, and the index in `words` of each."""
    parts = [(part, place) for place, word in enumerate(words) for part in plain_words(word.text)]
    return [part for part, _ in parts], [place for _, place in parts]


def repetition(texts: Iterable[Sequence[str]], length: int = 4) -> float | None:
    """Return the share of runs of `length` words that occurred before in their text, 0 to 1; None without a run.

    This is seq-rep-n of Welleck et al. 2019 ("Neural text generation with unlikelihood training").
    """
    total = different = 0
    for words in texts:
        runs = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
        total, different = total + len(runs), different + len(set(runs))
    return 1 - different / total if total else None


def plain_words(text: str) -> list[str]:
    """Return the words of `text` in lower case and without punctuation; ``it's`` is one word."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def align(truth: Sequence[str], said: Sequence[str]) -> list[Pair]:
    """Return the alignment with the fewest edits, in order; every word is in exactly one pair."""
    table = _distances(truth, said)
    pairs: list[Pair] = []
    i, j = len(truth), len(said)
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (truth[i - 1] != said[j - 1]):
            i, j = i - 1, j - 1
            pairs.append(Pair(i, j))
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            pairs.append(Pair(i, None))
        else:
            j -= 1
            pairs.append(Pair(None, j))
    return pairs[::-1]


def count_errors(truth: Sequence[str], said: Sequence[str], pairs: Sequence[Pair]) -> Errors:
    """Count the errors in the alignment `pairs` of `truth` and `said`."""
    return Errors(
        words=len(truth),
        substituted=sum(t is not None and s is not None and truth[t] != said[s] for t, s in pairs),
        missed=sum(s is None for _, s in pairs),
        added=sum(t is None for t, _ in pairs),
    )


def word_error_rate(truth: Sequence[str], said: Sequence[str]) -> float:
    """Return the word error rate of `said`; above 1 when there are more errors than reference words."""
    return count_errors(truth, said, align(truth, said)).rate


def common_length(truth: Sequence[str], said: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    first, second = _numbered(truth, said)
    row = np.zeros(len(second) + 1, np.int32)
    for word in first:
        taken = row[:-1] + (second == word)
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], taken))
    return int(row[-1])


def _distances(truth: Sequence[str], said: Sequence[str]) -> Table:
    """Return the Levenshtein distances of all prefixes, int32 [truth + 1, said + 1]."""
    first, second = _numbered(truth, said)
    columns = np.arange(len(second) + 1, dtype=np.int32)
    table = np.empty((len(first) + 1, len(second) + 1), np.int32)
    table[0] = columns
    for i, word in enumerate(first, 1):
        above = table[i - 1]
        best = np.minimum(above + 1, i + columns)
        best[1:] = np.minimum(best[1:], above[:-1] + (second != word))
        # Each added word costs one more than the word before it in the row.
        table[i] = np.minimum.accumulate(best - columns) + columns
    return table


def _numbered(truth: Sequence[str], said: Sequence[str]) -> tuple[list[int], Table]:
    numbers = {word: number for number, word in enumerate(dict.fromkeys((*truth, *said)))}
    return [numbers[word] for word in truth], np.array([numbers[word] for word in said], np.int32)


class TimePair(NamedTuple):
    """Indices of two moments that belong together: one of the truth, and one of the commentary."""

    expected: int
    said: int


def align_times(expected: Sequence[float], said: Sequence[float], window: float) -> list[TimePair]:
    """Pair moments that are at most `window` seconds apart; each moment is in one pair at most, and no pairs cross.

    The pairing has the least cost: the seconds between the two moments of each pair, and `window` for each moment
    without a partner. So partners are close together, and a surplus moment does not displace the pairs around it.
    The algorithm is the dynamic programme of edit distances (Wagner and Fischer 1974), in whole milliseconds.

    Args:
        expected: seconds, ascending.
        said: seconds, ascending.
        window: seconds.
    """
    first, second, alone = _milliseconds(expected), _milliseconds(said), round(1000 * window)
    table = _time_costs(first, second, alone)
    pairs: list[TimePair] = []
    i, j = len(first), len(second)
    while i and j:
        apart = abs(int(first[i - 1]) - int(second[j - 1]))
        if apart <= alone and table[i, j] == table[i - 1, j - 1] + apart:
            i, j = i - 1, j - 1
            pairs.append(TimePair(i, j))
        elif table[i, j] == table[i - 1, j] + alone:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _milliseconds(times: Sequence[float]) -> Costs:
    return np.round(1000 * np.asarray(times, np.float64)).astype(np.int64)


def _time_costs(first: Costs, second: Costs, alone: int) -> Costs:
    """Return the least cost of all prefixes, int64 [expected + 1, said + 1]."""
    columns = alone * np.arange(len(second) + 1, dtype=np.int64)
    table = np.empty((len(first) + 1, len(second) + 1), np.int64)
    table[0] = columns
    for i, time in enumerate(first, 1):
        best = table[i - 1] + alone
        apart = np.abs(second - time)
        paired = np.where(apart <= alone, table[i - 1, :-1] + apart, best[1:])
        best[1:] = np.minimum(best[1:], paired)
        # Unpaired moments of the second list add up along the row.
        table[i] = np.minimum.accumulate(best - columns) + columns
    return table
