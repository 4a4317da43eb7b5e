"""Commentary and true transcript, second by second, as rows to show."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from streaming_vlm_mlx.plain_text import harmless

Timed = tuple[float, float, str]


@dataclass(frozen=True, slots=True)
class TranscriptRow:
    """One second of the transcript, or one sentence, as it is shown.

    Attributes:
        number: the second, of a sentence the first one.
        said: the words of the commentary.
        truth: the words of the true transcript that have been heard so far.
        question: the viewer's question in this second.
        answered: number of words in `said` that answer it; they come first.
        skipped: number of skipped seconds from `number` on; 0 for a second that the model saw.
        growing: whether more words may come.
        added: indices in `said` of words that are not in the truth.
        missed: indices in `truth` of words that are not in the commentary.
        later: whether the playhead has not reached it, since the viewer went back.
        place: how many words of its first second belong to the sentence before.
        seconds: how many seconds it covers.
    """

    number: int
    said: tuple[str, ...] = ()
    truth: tuple[str, ...] = ()
    question: str = ""
    answered: int = 0
    skipped: int = 0
    growing: bool = False
    added: frozenset[int] = frozenset()
    missed: frozenset[int] = frozenset()
    later: bool = False
    place: int = 0
    seconds: int = 1

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.said or self.truth or self.question or self.skipped or self.growing)


@dataclass(slots=True)
class CommentaryEntry:
    """The commentary of one second, as far as it has come.

    Attributes:
        text: all of its text.
        question: the viewer's question in this second.
        notes: what the model wrote down before it spoke.
        shown: position of the playhead when the first word came, in seconds.
        skipped: whether the model had no time for it.
        growing: whether more words may come.
    """

    text: str = ""
    question: str = ""
    notes: str = ""
    shown: float | None = None
    skipped: bool = False
    growing: bool = False

    @property
    def answered(self) -> int:
        """Number of words that answer the question: those of the first line, as models are trained to write it."""
        return len(harmless(self.text).partition("\n")[0].split()) if self.question else 0


@dataclass
class Transcript:
    """Commentary and reference of a clip, by second.

    Attributes:
        truth: the reference words of each second, with their times.
        entries: the last commentary of each second.
        added: for each second, indices of words that are not in the truth.
        missed: for each second, indices of true words that are not in the commentary.
    """

    truth: Mapping[int, tuple[Timed, ...]] = field(default_factory=dict)
    entries: dict[int, CommentaryEntry] = field(default_factory=dict)
    added: Mapping[int, frozenset[int]] = field(default_factory=dict)
    missed: Mapping[int, frozenset[int]] = field(default_factory=dict)
    # What a second that is under way had before, in case it is broken off.
    _before: dict[int, CommentaryEntry] = field(default_factory=dict)

    def begin(self, number: int) -> None:
        """Start the commentary of second `number`; a finished one comes back if this one is broken off."""
        before = self.entries.get(number)
        if before and not before.growing:
            self._before[number] = before
        self.entries[number] = CommentaryEntry(growing=True)

    def add(self, number: int, piece: str, position: float) -> None:
        """Append a piece of text that came with the playhead at `position` seconds."""
        entry = self.entries.setdefault(number, CommentaryEntry(growing=True))
        entry.text += piece
        if entry.shown is None and entry.text.strip():
            entry.shown = position

    def finish(self, number: int, text: str, question: str, notes: str = "") -> None:
        """Set the whole commentary of a second, the viewer's question, and the model's notes."""
        entry = self.entries.setdefault(number, CommentaryEntry())
        entry.text, entry.question, entry.notes = text, question, notes
        entry.growing = entry.skipped = False
        self._before.pop(number, None)

    def skip(self, number: int) -> None:
        """Mark a second as skipped; an earlier commentary on it stays."""
        self.entries.setdefault(number, CommentaryEntry(skipped=True))

    def discard_unfinished(self) -> None:
        """Remove commentary that was broken off, and show again what it began to replace."""
        for number in [n for n, entry in self.entries.items() if entry.growing]:
            del self.entries[number]
        self.entries |= self._before
        self._before.clear()

    def said_from(self, number: int) -> str:
        """Return the commentary of second `number` or, while that is silent, of the next one that is not."""
        last = max(self.entries, default=number)
        texts = (self.entries[n].text for n in range(number, last + 1) if n in self.entries)
        return next(filter(None, (" ".join(harmless(text).split()) for text in texts)), "")

    def notes_at(self, position: float) -> str:
        """Return the newest notes up to `position` seconds, with their time; empty where there are none."""
        numbers = (number for number, entry in self.entries.items() if entry.notes and number <= position)
        number = max(numbers, default=None)
        return (
            "" if number is None else f"{time_label(number)}  {' '.join(harmless(self.entries[number].notes).split())}"
        )

    def row(self, number: int, position: float, with_truth: bool) -> TranscriptRow:
        """Return second `number` as it is with the playhead at `position`.

        Consecutive skipped seconds share one row, that of the first, unless there is truth to show for them. Of a later
        second there is only the commentary.
        """
        entry = self.entries.get(number, CommentaryEntry())
        if number > position and not (entry.growing or entry.skipped):
            said, question = tuple(harmless(entry.text).split()), " ".join(harmless(entry.question).split())
            return TranscriptRow(number, said, question=question, answered=entry.answered, later=True)
        if number > position or (entry.skipped and self.first_skipped(number, with_truth) != number):
            return TranscriptRow(number)
        words = self.truth.get(number, ()) if with_truth else ()
        return TranscriptRow(
            number,
            tuple(harmless(entry.text).split()),
            tuple(harmless(word) for start, _, word in words if start <= position),
            " ".join(harmless(entry.question).split()),
            entry.answered,
            self._skipped_from(number, position, with_truth) if entry.skipped else 0,
            entry.growing,
            self.added.get(number, frozenset()),
            self.missed.get(number, frozenset()),
        )

    def rows(self, position: float, with_truth: bool, limit: int) -> list[TranscriptRow]:
        """Return the last `limit` rows up to `position` that are not empty, with up to half as many later ones."""
        later = (self.row(number, position, with_truth) for number in sorted(n for n in self.entries if n > position))
        following = list(islice((row for row in later if not row.empty), limit // 2))
        found: list[TranscriptRow] = []
        for number in reversed(self._numbers(position, with_truth)):
            row = self.row(number, position, with_truth)
            if not row.empty:
                found.append(row)
                if len(found) == limit - len(following):
                    break
        return found[::-1] + following

    def rows_between(self, first: int, last: int, position: float, with_truth: bool) -> list[TranscriptRow]:
        """Return the rows of the seconds from `first` to before `last` that are not empty."""
        rows = (self.row(number, position, with_truth) for number in range(first, last))
        return [row for row in rows if not row.empty]

    def first_skipped(self, number: int, with_truth: bool) -> int:
        """Return the first of the skipped seconds that `number` shares a row with, else `number`."""
        while self._shares_row(number, with_truth) and self._shares_row(number - 1, with_truth):
            number -= 1
        return number

    def _skipped_from(self, number: int, position: float, with_truth: bool) -> int:
        count = 1
        if self._shares_row(number, with_truth):
            while self._shares_row(number + count, with_truth) and number + count <= position:
                count += 1
        return count

    def _shares_row(self, number: int, with_truth: bool) -> bool:
        entry = self.entries.get(number)
        return entry is not None and entry.skipped and not (with_truth and number in self.truth)

    def _numbers(self, position: float, with_truth: bool) -> list[int]:
        known = self.entries.keys() | self.truth.keys() if with_truth else self.entries.keys()
        return sorted(number for number in known if number <= position)


def by_second(words: Iterable[Timed]) -> dict[int, tuple[Timed, ...]]:
    """Return `words` (start, end, text) grouped by the second that each starts in."""
    grouped: dict[int, list[Timed]] = {}
    for word in words:
        grouped.setdefault(math.floor(word[0]), []).append(word)
    return {number: tuple(group) for number, group in grouped.items()}


def time_label(seconds: float) -> str:
    """Return a time as ``mm:ss``, with hours from the first hour on."""
    whole = max(math.floor(seconds), 0)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes


def position_label(position: float, duration: float | None) -> str:
    """Return position and duration, in seconds, as text; a feed has no duration."""
    return time_label(position) if duration is None else f"{time_label(position)} / {time_label(duration)}"


def finished_seconds(transcript: Transcript, since: int) -> Iterator[int]:
    """Yield the seconds from `since` on that are generated or skipped, in order."""
    yield from sorted(n for n, entry in transcript.entries.items() if n >= since and not entry.growing)
