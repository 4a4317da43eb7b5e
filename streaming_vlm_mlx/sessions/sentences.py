"""Merges the words of seconds to sentences, as the screen shows them and subtitles hold them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# Seconds that a sentence is shown: at least, where there is room, and at most.
SHORTEST, LONGEST = 1.0, 7.0
# A pause in seconds that ends a clause, and one that ends anything.
PAUSE, LONG_PAUSE = 0.5, 1.5
# What ends a sentence and a clause, and what may follow it.
SENTENCE_ENDS, CLAUSE_ENDS, CLOSING = tuple(".!?…。！？"), tuple(",;:—–，；："), "\"'”’»)]"


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of commentary.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        text: without white space.
        second: number of the second that it belongs to.
        place: its index among the words of that second.
        leads: whether a sentence must begin with it.
        new_line: whether it begins another line of its second, as the commentary behind an answer does.
    """

    start: float
    end: float
    text: str
    second: int = 0
    place: int = 0
    leads: bool = False
    new_line: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words that belong together, and the seconds from `start` to `end` that they are shown."""

    start: float
    end: float
    words: tuple[TimedWord, ...]

    @property
    def text(self) -> str:
        """The words, with a line feed before those that begin a line."""
        first, *others = self.words
        return first.text + "".join(("\n" if word.new_line else " ") + word.text for word in others)


def spread(start: float, end: float, text: str, second: int = 0, leads: bool = False) -> list[TimedWord]:
    """Return the words of `text`, evenly spread from `start` to `end`.

    Args:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        text: of a second.
        second: its number.
        leads: whether a sentence must begin with it.
    """
    words = [(word, not at) for line in text.splitlines() for at, word in enumerate(line.split())]
    step = (end - start) / max(len(words), 1)
    return [
        TimedWord(start + n * step, start + (n + 1) * step, word, second, n, leads and not n, begins_line and n > 0)
        for n, (word, begins_line) in enumerate(words)
    ]


def merge(words: Iterable[TimedWord], end: float = math.inf) -> list[Sentence]:
    """Return `words`, which are in order, as sentences of one to seven seconds up to `end`, each word in one of them.

    A sentence ends at its punctuation or at a pause. One that is too long is divided at a comma, else between words;
    one that is too short gets the next one, else the time after it, else joins the one before.
    """
    found: list[tuple[TimedWord, ...]] = []
    runs = list(_runs(words))
    for number, run in enumerate(runs):
        following = runs[number + 1][0].start if number + 1 < len(runs) else end
        found += _divide(run, following)
    starts = [group[0].start for group in found[1:]] + [end]
    return [_timed(group, following) for group, following in zip(found, starts, strict=False)]


def _timed(group: tuple[TimedWord, ...], following: float) -> Sentence:
    """Return the sentence with its times, before the one that begins at `following` seconds."""
    start, end = group[0].start, group[-1].end
    return Sentence(start, min(max(end, min(start + SHORTEST, following)), start + LONGEST), group)


def _runs(words: Iterable[TimedWord]) -> Iterator[list[TimedWord]]:
    """Yield words that no pause divides."""
    run: list[TimedWord] = []
    for word in words:
        if run and (word.leads or _divides(run[-1], word)):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _divides(before: TimedWord, after: TimedWord) -> bool:
    pause = after.start - before.end
    return pause > LONG_PAUSE or (pause >= PAUSE and _ends(before, SENTENCE_ENDS + CLAUSE_ENDS))


def _divide(run: Sequence[TimedWord], following: float) -> list[tuple[TimedWord, ...]]:
    """Return the sentences of a run, behind which other words begin at `following` seconds."""
    groups: list[tuple[TimedWord, ...]] = []
    words: list[TimedWord] = []
    for word in run:
        while words and word.end - words[0].start > LONGEST:
            cut = _clause(words)
            groups.append(tuple(words[:cut]))
            words = words[cut:]
        words.append(word)
        if _ends(word, SENTENCE_ENDS) and _length(words) >= SHORTEST:
            groups.append(tuple(words))
            words = []
    if words:
        groups.append(tuple(words))
    if len(groups) > 1 and _length(groups[-1]) < SHORTEST and following - groups[-1][0].start < SHORTEST:
        groups[-2:] = _joined(groups[-2] + groups[-1])
    return groups


def _clause(words: Sequence[TimedWord]) -> int:
    """Return how many of `words` make the first part, up to the last comma that leaves it long enough."""
    for count in range(len(words) - 1, 0, -1):
        if _ends(words[count - 1], CLAUSE_ENDS + SENTENCE_ENDS) and _length(words[:count]) >= SHORTEST:
            return count
    return len(words)


def _joined(words: tuple[TimedWord, ...]) -> list[tuple[TimedWord, ...]]:
    """Return `words` as one sentence or, where that is too long, as two halves."""
    if _length(words) <= LONGEST:
        return [words]
    middle = (words[0].start + words[-1].end) / 2
    cut = min(range(1, len(words)), key=lambda count: abs(words[count].start - middle))
    return [words[:cut], words[cut:]]


def _length(words: Sequence[TimedWord]) -> float:
    return words[-1].end - words[0].start


def ends_sentence(word: str) -> bool:
    """Return whether a sentence ends with `word`."""
    return word.rstrip(CLOSING).endswith(SENTENCE_ENDS)


def _ends(word: TimedWord, marks: tuple[str, ...]) -> bool:
    return word.text.rstrip(CLOSING).endswith(marks)
