"""Merges the rows of seconds to rows of sentences."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from streaming_vlm_mlx.sessions.sentences import Sentence, TimedWord, ends_sentence, merge, spread
from tui.player.transcript import TranscriptRow

# Seconds that new words reach back, and on: over two sentences of the longest kind.
REACH = 15


def merge_rows(rows: Iterable[TranscriptRow], end: float) -> list[TranscriptRow]:
    """Return rows of sentences for `rows` of seconds up to `end`, both in order.

    A sentence has the truth of its seconds; of other seconds the truth has rows of its own.
    """
    seconds = {row.number: row for row in rows}
    made = [_sentence_row(sentence, seconds) for sentence in merge(_words(seconds), end)]
    wordless = (row for row in seconds.values() if row.skipped or (row.question and not row.said))
    made += [replace(row, truth=(), missed=frozenset()) for row in wordless]
    made.sort(key=order)
    return sorted(_with_truth(_with_growing(made, seconds), seconds), key=order)


def order(row: TranscriptRow) -> tuple[int, int]:
    """Return what rows are sorted by."""
    return row.number, row.place


def find_borders(rows: Sequence[TranscriptRow], number: int) -> tuple[int | None, int | None]:
    """Return the seconds between which `rows` of sentences are merged anew when second `number` changes.

    None is the beginning, or the end.
    """
    whole = [row.number for row in rows if row.said and row.place == 0]
    before = max((first for first in whole if first <= number - REACH), default=None)
    return before, min((first for first in whole if first >= number + REACH), default=None)


def _words(seconds: dict[int, TranscriptRow]) -> Iterator[TimedWord]:
    """Yield the words of the commentary.

    A sentence begins at a question, behind a second that was skipped, and where later lines begin.
    """
    was_later = False
    for number, row in seconds.items():
        before = seconds.get(number - 1)
        leads = bool(row.question) or (before is not None and before.skipped > 0) or (row.later and not was_later)
        was_later = row.later
        yield from spread(number, number + 1.0, " ".join(row.said), number, leads)


def _sentence_row(sentence: Sentence, seconds: dict[int, TranscriptRow]) -> TranscriptRow:
    first, last = sentence.words[0], sentence.words[-1]
    begins, ends = seconds[first.second], seconds[last.second]
    asked = begins.question and first.place == 0
    added = (at for at, word in enumerate(sentence.words) if word.place in seconds[word.second].added)
    return TranscriptRow(
        first.second,
        tuple(word.text for word in sentence.words),
        question=begins.question if asked else "",
        answered=begins.answered if asked else 0,
        growing=ends.growing and last.place == len(ends.said) - 1,
        added=frozenset(added),
        later=begins.later,
        place=first.place,
        seconds=last.second - first.second + 1,
    )


def _with_truth(rows: list[TranscriptRow], seconds: dict[int, TranscriptRow]) -> list[TranscriptRow]:
    """Return `rows` with the truth of their seconds, and rows with that of the others."""
    owners: dict[int, int] = {}
    for at, row in enumerate(rows):
        for number in range(row.number, row.number + max(row.seconds, row.skipped)):
            owners.setdefault(number, at)
    made = list(rows)
    alone: dict[int, TranscriptRow] = {}
    for number, second in seconds.items():
        if second.truth and number in owners:
            row = made[owners[number]]
            missed = row.missed | {len(row.truth) + at for at in second.missed}
            made[owners[number]] = replace(row, truth=row.truth + second.truth, missed=missed)
        elif second.truth:
            alone[number] = second
    words = (
        word
        for number, second in alone.items()
        for word in spread(number, number + 1.0, " ".join(second.truth), number, number - 1 not in alone)
    )
    return made + [_truth_row(sentence, alone) for sentence in merge(words)]


def _truth_row(sentence: Sentence, seconds: dict[int, TranscriptRow]) -> TranscriptRow:
    first, last = sentence.words[0], sentence.words[-1]
    missed = (at for at, word in enumerate(sentence.words) if word.place in seconds[word.second].missed)
    truth = tuple(word.text for word in sentence.words)
    length = last.second - first.second + 1
    return TranscriptRow(first.second, truth=truth, missed=frozenset(missed), place=first.place, seconds=length)


def _with_growing(rows: list[TranscriptRow], seconds: dict[int, TranscriptRow]) -> list[TranscriptRow]:
    """Return `rows` with the second under way, as long as it has no words: in the sentence that goes on, or alone."""
    number = next((number for number, row in seconds.items() if row.growing and not row.said), None)
    if number is None:
        return rows
    before = [row for row in rows if row.said and row.number < number]
    if before and before[-1].number + before[-1].seconds == number and not ends_sentence(before[-1].said[-1]):
        return [replace(row, growing=True) if row is before[-1] else row for row in rows]
    return [*rows, TranscriptRow(number, growing=True)]
