"""Commentary against the truth: word error rate, ROUGE-L, delay.

Words are compared without case and punctuation. The word error rate is the Levenshtein distance over words, divided by
the number of words in the truth; ROUGE-L is the F1 of the longest common subsequence (Lin 2004, sentence level).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

Table = npt.NDArray[np.int32]


class Pair(NamedTuple):
    """One step of an alignment: places of a word in the truth and in what was said, None where one lacks it."""

    truth: int | None
    said: int | None


@dataclass(frozen=True, slots=True)
class Errors:
    """How what was said differs from the truth, counted in words."""

    words: int
    substituted: int
    missed: int
    added: int

    @property
    def rate(self) -> float:
        """The word error rate; with no truth, 0 for silence and 1 for speech."""
        wrong = self.substituted + self.missed + self.added
        return wrong / self.words if self.words else float(wrong > 0)


def plain_words(text: str) -> list[str]:
    """Return the words of `text` as they are compared: lower case, no punctuation, ``it's`` one word."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def align(truth: Sequence[str], said: Sequence[str]) -> list[Pair]:
    """Return an alignment with the fewest edits, in order; every word is in one pair."""
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
    """Count what the alignment `pairs` of `truth` and `said` comes to."""
    return Errors(
        words=len(truth),
        substituted=sum(t is not None and s is not None and truth[t] != said[s] for t, s in pairs),
        missed=sum(s is None for _, s in pairs),
        added=sum(t is None for t, _ in pairs),
    )


def word_error_rate(truth: Sequence[str], said: Sequence[str]) -> float:
    """Return the word error rate of `said`; above 1 when more is wrong than there is truth."""
    return count_errors(truth, said, align(truth, said)).rate


def rouge_l(truth: Sequence[str], said: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence, 0 to 1; 1 when both are silent."""
    if not truth or not said:
        return float(not truth and not said)
    return 2 * common_length(truth, said) / (len(truth) + len(said))


def common_length(truth: Sequence[str], said: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    first, second = _numbered(truth, said)
    row = np.zeros(len(second) + 1, np.int32)
    for word in first:
        taken = row[:-1] + (second == word)
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], taken))
    return int(row[-1])


def mean_delay(
    truth: Sequence[str], said: Sequence[str], times: tuple[Sequence[float], Sequence[float]], pairs: Sequence[Pair]
) -> float | None:
    """Return how much later matching words are said than in the truth, in seconds; None when none matches.

    Args:
        truth: the true words.
        said: the words that were said.
        times: when each of `truth` and each of `said` is heard or shown, in seconds.
        pairs: their alignment.
    """
    late = [times[1][s] - times[0][t] for t, s in pairs if t is not None and s is not None and truth[t] == said[s]]
    return sum(late) / len(late) if late else None


def _distances(truth: Sequence[str], said: Sequence[str]) -> Table:
    """Return the Levenshtein distances of all beginnings, int32 [truth + 1, said + 1]."""
    first, second = _numbered(truth, said)
    columns = np.arange(len(second) + 1, dtype=np.int32)
    table = np.empty((len(first) + 1, len(second) + 1), np.int32)
    table[0] = columns
    for i, word in enumerate(first, 1):
        above = table[i - 1]
        best = np.minimum(above + 1, i + columns)
        best[1:] = np.minimum(best[1:], above[:-1] + (second != word))
        # Added words run along the row: each costs one more than the word before it.
        table[i] = np.minimum.accumulate(best - columns) + columns
    return table


def _numbered(truth: Sequence[str], said: Sequence[str]) -> tuple[list[int], Table]:
    numbers = {word: number for number, word in enumerate(dict.fromkeys((*truth, *said)))}
    return [numbers[word] for word in truth], np.array([numbers[word] for word in said], np.int32)
