"""What was said and what is true, second by second, as rows to be shown."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from streaming_vlm_mlx.sessions.subtitles import tidy

Timed = tuple[float, float, str]

# Unicode's marks for the direction of writing (UAX #9).
_TURNS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


@dataclass(frozen=True, slots=True)
class Row:
    """One second of the transcript.

    Attributes:
        number: the second.
        said: the words of the commentary.
        truth: the words of the true transcript that are heard by now.
        question: what the viewer asked in this second.
        answered: how many of the words that were said answer it; they come first.
        skipped: seconds from `number` on that the model had no time for; 0 for one that it saw.
        growing: more words may come.
        said_off: places in `said` of words that the truth does not have.
        truth_off: places in `truth` of words that were not said.
    """

    number: int
    said: tuple[str, ...] = ()
    truth: tuple[str, ...] = ()
    question: str = ""
    answered: int = 0
    skipped: int = 0
    growing: bool = False
    said_off: frozenset[int] = frozenset()
    truth_off: frozenset[int] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.said or self.truth or self.question or self.skipped or self.growing)


@dataclass
class Entry:
    """What is known of a second's commentary; `shown` is where the picture was when its first words came."""

    text: str = ""
    question: str = ""
    shown: float | None = None
    skipped: bool = False
    growing: bool = False

    @property
    def answered(self) -> int:
        """How many words answer the question: those of the first line, which models are trained to write it in."""
        return len(harmless(self.text).partition("\n")[0].split()) if self.question else 0


@dataclass
class Transcript:
    """Commentary and truth of a clip, by second.

    Attributes:
        truth: the true words of each second, with their times.
        entries: each second's commentary, its last take.
        said_off: for each second, places of words that the truth does not have.
        truth_off: for each second, places of true words that were not said.
    """

    truth: Mapping[int, tuple[Timed, ...]] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    said_off: Mapping[int, frozenset[int]] = field(default_factory=dict)
    truth_off: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def begin(self, number: int) -> None:
        """Start a take of second `number`; an older one leaves the screen."""
        self.entries[number] = Entry(growing=True)

    def add(self, number: int, piece: str, position: float) -> None:
        """Append a piece of text that came while the picture was at `position` seconds."""
        entry = self.entries.setdefault(number, Entry(growing=True))
        entry.text += piece
        if entry.shown is None and entry.text.strip():
            entry.shown = position

    def finish(self, number: int, text: str, question: str) -> None:
        """Close a take: all that was said in it, and what was asked."""
        entry = self.entries.setdefault(number, Entry())
        entry.text, entry.question, entry.growing = text, question, False

    def skip(self, number: int) -> None:
        """Mark a second that the model had no time for; an earlier take of it stays."""
        self.entries.setdefault(number, Entry(skipped=True))

    def cut(self) -> None:
        """Forget takes that were broken off."""
        for number in [n for n, entry in self.entries.items() if entry.growing]:
            del self.entries[number]

    def row(self, number: int, position: float, with_truth: bool) -> Row:
        """Return second `number` as it stands when the picture is at `position`.

        Seconds that were passed over are one row, that of the first, unless they have truth to show.
        """
        entry = self.entries.get(number, Entry())
        if number > position or (entry.skipped and self.leader(number, with_truth) != number):
            return Row(number)
        words = self.truth.get(number, ()) if with_truth else ()
        return Row(
            number,
            tuple(harmless(entry.text).split()),
            tuple(harmless(word) for start, _, word in words if start <= position),
            " ".join(harmless(entry.question).split()),
            entry.answered,
            self._passed_from(number, position, with_truth) if entry.skipped else 0,
            entry.growing,
            self.said_off.get(number, frozenset()),
            self.truth_off.get(number, frozenset()),
        )

    def rows(self, position: float, with_truth: bool, limit: int) -> list[Row]:
        """Return the last `limit` rows up to `position`, empty ones left out."""
        found: list[Row] = []
        for number in reversed(self._numbers(position, with_truth)):
            row = self.row(number, position, with_truth)
            if not row.empty:
                found.append(row)
                if len(found) == limit:
                    break
        return found[::-1]

    def leader(self, number: int, with_truth: bool) -> int:
        """Return the first second of the run of passed ones that `number` is shown with, else `number`."""
        while self._joined(number, with_truth) and self._joined(number - 1, with_truth):
            number -= 1
        return number

    def _passed_from(self, number: int, position: float, with_truth: bool) -> int:
        count = 1
        if self._joined(number, with_truth):
            while self._joined(number + count, with_truth) and number + count <= position:
                count += 1
        return count

    def _joined(self, number: int, with_truth: bool) -> bool:
        entry = self.entries.get(number)
        return entry is not None and entry.skipped and not (with_truth and number in self.truth)

    def _numbers(self, position: float, with_truth: bool) -> list[int]:
        known = self.entries.keys() | self.truth.keys() if with_truth else self.entries.keys()
        return sorted(number for number in known if number <= position)


def harmless(text: str) -> str:
    """Return `text` without what a terminal would obey: control characters, and marks that turn the line around."""
    return tidy(text).translate(_TURNS)


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
    """Return where a clip stands, in seconds, and of how many; a feed's end is not known."""
    return time_label(position) if duration is None else f"{time_label(position)} / {time_label(duration)}"


def spoken_numbers(transcript: Transcript, since: int) -> Iterator[int]:
    """Yield the seconds from `since` on that were played to their end, in order."""
    yield from sorted(n for n, entry in transcript.entries.items() if n >= since and not entry.growing)
