"""What a report holds: sessions on stretches of clips beside their reference, and the figures of each."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from streaming_vlm_mlx.eval.report import figures
from streaming_vlm_mlx.eval.runner import CaseRun, JudgeCounts
from streaming_vlm_mlx.eval.text_metrics import (
    NO_TEXT,
    TextCounts,
    Word,
    compare_words,
    count_compared,
    plain_words,
    repetition,
    spread,
)
from streaming_vlm_mlx.plain_text import harmless
from streaming_vlm_mlx.report.pictures import Picture
from streaming_vlm_mlx.sessions.record import SessionRecord

# Seconds that are compared at once: an alignment takes memory with the square of its words.
PIECE = 600.0


@dataclass(frozen=True)
class Stretch:
    """A stretch of a clip.

    Attributes:
        name: what the reader calls it.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        reference: the true words from `start` to `end`; empty where they are not known.
        sessions: one for each column of the report.
        judged: what a judge counted in the first session; None without one.
        pictures: of the clip, in order.
    """

    name: str
    start: float
    end: float
    reference: tuple[Word, ...]
    sessions: tuple[SessionRecord, ...]
    judged: JudgeCounts | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def compared_with(self) -> tuple[Word, ...]:
        """The words that the commentary is compared with: without a reference, those of the first of many sessions."""
        return self.reference or (said_words(self.sessions[0]) if len(self.sessions) > 1 else ())


@dataclass(frozen=True)
class Contents:
    """A report.

    Attributes:
        title: what it is on.
        columns: the name of each session of a stretch.
        stretches: the stretches, at least one.
        created: when it was made, ISO 8601.
        command: the command line that made it.
        notes: what the reader has to know, a sentence each.
    """

    title: str
    columns: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    created: str
    command: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marks:
    """The commentary of a session beside what it is compared with.

    Attributes:
        counts: of words.
        delays: seconds from each matching word of the reference to that of the commentary.
        added: indices of words of the commentary without a counterpart.
        missed: indices of words of the reference without a counterpart.
        heard: indices of words of the reference in the time of the session.
    """

    counts: TextCounts
    delays: tuple[float, ...]
    added: frozenset[int]
    missed: frozenset[int]
    heard: range


def stretch_of(name: str, reference: Sequence[Word], sessions: Sequence[SessionRecord]) -> Stretch:
    """Return the stretch that all `sessions` cover together, with the words of the `reference` in its time."""
    spans = [span(session) for session in sessions]
    start, end = min(first for first, _ in spans), max(last for _, last in spans)
    words = (replace(word, text=" ".join(harmless(word.text).split())) for word in reference)
    heard = (word for word in words if word.text and start <= word.start < end)
    return Stretch(name, start, end, tuple(sorted(heard, key=lambda word: word.start)), tuple(sessions))


def span(session: SessionRecord) -> tuple[float, float]:
    """Return the first and the last moment of a session that has seconds, in seconds of the clip."""
    times = [(second.start, second.end) for second in session.seconds]
    times += [(skipped.start, skipped.end) for skipped in session.skipped]
    return min(start for start, _ in times), max(end for _, end in times)


def said_words(session: SessionRecord) -> tuple[Word, ...]:
    """Return the commentary without unsafe characters; each second's words are spread evenly over the second."""
    return tuple(word for second in session.seconds for word in second_words(second.commentary, second))


def second_words(text: str, second: Any) -> Iterator[Word]:
    """Yield the words of `text`, spread evenly over `second`, which has a start and an end."""
    return spread(harmless(text), second.start, second.end)


def mark(stretch: Stretch, session: SessionRecord) -> Marks:
    """Compare a session with the reference of the same time, ten minutes at a time."""
    reference, said, (start, end) = stretch.compared_with, said_words(session), span(session)
    heard = [place for place, word in enumerate(reference) if start <= word.start < end]
    counts, delays = NO_TEXT, list[float]()
    added, missed = set[int](), set[int]()
    truth_pieces, said_pieces = _pieces(reference, heard, start), _pieces(said, range(len(said)), start)
    for number in range(int((end - start) // PIECE) + 1):
        first = start + number * PIECE
        truth_at, said_at = truth_pieces.get(number, []), said_pieces.get(number, [])
        last = min(first + PIECE, end)
        if last <= first:
            break
        spoken = [said[at] for at in said_at]
        found = compare_words([reference[at] for at in truth_at], spoken)
        counts += count_compared(found, spoken, first, last)
        delays += found.delays
        added |= {said_at[at] for at in found.added}
        missed |= {truth_at[at] for at in found.missed}
    return Marks(
        counts,
        tuple(delays),
        frozenset(added),
        frozenset(missed),
        range(heard[0], heard[-1] + 1) if heard else range(0),
    )


def _pieces(words: Sequence[Word], places: Sequence[int], start: float) -> Mapping[int, list[int]]:
    """Return the `places` of words by the number of the piece that each begins in, counted from `start`."""
    numbered = sorted((max(int((words[place].start - start + 1e-6) // PIECE), 0), place) for place in places)
    return {number: [place for _, place in group] for number, group in groupby(numbered, key=lambda each: each[0])}


def column_figures(stretches: Sequence[Stretch], column: int) -> dict[str, Any]:
    """Return the figures of one column over all `stretches`; counts are pooled.

    - What `eval.report.figures` returns; ``wer`` and ``rouge_l`` are None without a reference.
    - ``word_delay``: the mean of the seconds by which matching words come after those of the reference.
    - ``repetition``: see `text_metrics.repetition`.
    - ``seconds``, ``skipped``: seconds with a result, and without one.
    - ``tokens``, ``tokens_per_second``: generated tokens, and those in a second of decode.
    - ``on_time``: the share of seconds whose work took no longer than the second.

    A figure is None where there is nothing to measure.
    """
    sessions = [stretch.sessions[column] for stretch in stretches]
    marks = [mark(stretch, session) for stretch, session in zip(stretches, sessions, strict=True)]
    runs = [
        CaseRun(session.seconds, found.counts, stretch.judged if column == 0 else None)
        for stretch, session, found in zip(stretches, sessions, marks, strict=True)
    ]
    delays = [delay for found in marks for delay in found.delays]
    seconds = [second for session in sessions for second in session.seconds]
    timed = [second for second in seconds if second.timings.total_ms]
    decoding = sum(second.timings.decode_ms for second in timed) / 1e3
    late = sum(second.timings.total_ms > 1e3 * (second.end - second.start) for second in timed)
    compared = any(stretch.compared_with for stretch in stretches)
    return {
        **figures(runs),
        **({} if compared else {"wer": None, "rouge_l": None}),
        "word_delay": statistics.fmean(delays) if delays else None,
        "repetition": repetition(_plain(said_words(session)) for session in sessions),
        "seconds": len(seconds),
        "skipped": sum(len(session.skipped) for session in sessions),
        "tokens": sum(second.tokens for second in seconds),
        "tokens_per_second": sum(second.tokens for second in timed) / decoding if decoding else None,
        "on_time": 1 - late / len(timed) if timed else None,
    }


def reference_figures(stretches: Sequence[Stretch]) -> dict[str, float | None]:
    """Return ``words_per_second``, ``silence`` and ``repetition`` of the reference; empty where there is none."""
    told = [stretch for stretch in stretches if stretch.reference]
    if not told:
        return {}
    counts = NO_TEXT
    for stretch in told:
        found = compare_words((), stretch.reference)
        counts += count_compared(found, stretch.reference, stretch.start, stretch.end)
    figures_of_words = counts.figures()
    return {
        "words_per_second": figures_of_words["words_per_second"],
        "silence": figures_of_words["silence"],
        "repetition": repetition(_plain(stretch.reference) for stretch in told),
    }


def _plain(words: Sequence[Word]) -> list[str]:
    return [part for word in words for part in plain_words(word.text)]
