"""Rows of sentences."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.player.sentence_rows import find_borders, merge_rows, order
from tui.player.transcript import Transcript, TranscriptRow, by_second

TEXTS = st.lists(st.sampled_from(["Red", "to", "serve.", "Out!", "wide,", "Deuce."]), max_size=4).map(" ".join)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    words = [(n + k / 3, n + (k + 1) / 3, w) for n in range(60) for k, w in enumerate(draw(TEXTS).split()[:3])]
    made = Transcript(by_second(words) if draw(st.booleans()) else {})
    for number in range(draw(st.integers(1, 60))):
        kind = draw(st.integers(0, 19))
        if kind == 0:
            made.skip(number)
        else:
            made.finish(number, draw(TEXTS), "who?" if kind == 1 else "")
            marks = made.entries[number].text.split()
            made.added = {**made.added, number: frozenset(draw(st.sets(st.integers(0, max(len(marks) - 1, 0)))))}
    return made


def merged(transcript: Transcript, position: float) -> list[TranscriptRow]:
    return merge_rows(transcript.rows(position, True, 999), math.inf)


def marked(rows: list[TranscriptRow]) -> list[str]:
    """Return the words of the commentary that are marked."""
    return [word for row in rows for at, word in enumerate(row.said) if at in row.added]


@given(transcripts(), st.floats(0, 60))
def test_rows_hold_all_words_truth_and_marks(transcript: Transcript, position: float) -> None:
    seconds, rows = transcript.rows(position, True, 999), merged(transcript, position)
    for part in ("said", "truth"):
        assert [w for row in rows for w in getattr(row, part)] == [w for row in seconds for w in getattr(row, part)]
    assert sum(row.skipped for row in rows) == sum(row.skipped for row in seconds)
    assert [row.question for row in rows if row.question] == [row.question for row in seconds if row.question]
    assert marked(rows) == marked(seconds)
    assert [order(row) for row in rows] == sorted({order(row) for row in rows})


def changed(transcript: Transcript, number: int, position: float) -> list[TranscriptRow]:
    """Return the rows after a change of second `number` in the way of the screen."""
    rows = merged(transcript, position)
    transcript.finish(number, "Red wins. And", "")
    first, last = find_borders(rows, number)
    end = 61 if last is None else last
    inner = transcript.rows_between(first or 0, end, position, True)
    kept = [row for row in rows if not (first or 0) <= row.number < end]
    return sorted([*kept, *merge_rows(inner, math.inf if last is None else last)], key=order)


@given(transcripts())
def test_words_at_the_end_change_only_the_last_rows(transcript: Transcript) -> None:
    rows = changed(transcript, max(transcript.entries) + 1, 99.0)
    assert rows == merged(transcript, 99.0)


@given(transcripts(), st.integers(0, 59))
def test_a_change_in_the_middle_loses_nothing(transcript: Transcript, number: int) -> None:
    rows, seconds = changed(transcript, number, 99.0), transcript.rows(99.0, True, 999)
    for part in ("said", "truth"):
        assert [w for row in rows for w in getattr(row, part)] == [w for row in seconds for w in getattr(row, part)]


def test_later_lines_have_rows_of_their_own() -> None:
    transcript = Transcript()
    transcript.finish(0, "Red to", "")
    transcript.finish(1, "serve", "")
    transcript.finish(2, "wide.", "")
    rows = merged(transcript, 1.5)
    assert [(row.number, row.said, row.later) for row in rows] == [
        (0, ("Red", "to", "serve"), False),
        (2, ("wide.",), True),
    ]
    assert [row.said for row in merged(transcript, 2.0)] == [("Red", "to", "serve", "wide.")]


def test_truth_beside_silence_has_rows_of_its_own() -> None:
    words = [(0.1, 0.4, "Red"), (1.2, 1.5, "serves."), (4.1, 4.5, "An"), (5.2, 5.5, "ace.")]
    transcript = Transcript(by_second(words))
    transcript.finish(0, "Red to", "")
    transcript.finish(1, "serve.", "")
    assert [(row.number, row.said, row.truth) for row in merged(transcript, 9.0)] == [
        (0, ("Red", "to", "serve."), ("Red", "serves.")),
        (4, (), ("An", "ace.")),
    ]


@pytest.mark.parametrize(("said", "rows"), [("Red to", [(0, True)]), ("Red.", [(0, False), (1, True)])])
def test_a_second_without_words_grows_in_the_sentence_that_goes_on(said: str, rows: list[tuple[int, bool]]) -> None:
    transcript = Transcript()
    transcript.finish(0, said, "")
    transcript.begin(1)
    assert [(row.number, row.growing) for row in merged(transcript, 1.0)] == rows
