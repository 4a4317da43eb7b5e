"""Rows of the transcript."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.plain_text import harmless
from tui.player.metrics import WINDOW, compare
from tui.player.transcript import Transcript, by_second, time_label

TRUTH = by_second([(0.2, 0.4, "He"), (0.6, 0.9, "shoots"), (2.1, 2.5, "and"), (2.6, 2.9, "scores!")])


def test_words_grow_and_the_last_take_stays() -> None:
    transcript = Transcript()
    transcript.begin(3)
    assert transcript.row(3, 3.5, False).growing
    transcript.add(3, " he ", 3.2)
    transcript.add(3, "scores", 3.4)
    assert transcript.row(3, 3.5, False).said == ("he", "scores")
    transcript.finish(3, "he scores", "who?")
    row = transcript.row(3, 3.5, False)
    assert (row.said, row.question, row.growing) == (("he", "scores"), "who?", False)
    transcript.begin(3)
    assert transcript.row(3, 3.5, False).said == ()


def test_a_take_that_is_broken_off_leaves_the_one_before() -> None:
    transcript = Transcript()
    transcript.finish(3, "he scores", "who?")
    before = transcript.row(3, 3.5, False)
    for _ in range(2):
        transcript.begin(3)
        transcript.add(3, "she", 3.1)
    transcript.discard_unfinished()
    assert transcript.row(3, 3.5, False) == before
    transcript.begin(4)
    transcript.discard_unfinished()
    assert list(transcript.entries) == [3]
    transcript.skip(5)
    transcript.begin(5)
    transcript.finish(5, "out", "")
    transcript.discard_unfinished()
    assert transcript.row(5, 5.5, False).said == ("out",)


def test_the_first_line_answers_a_question() -> None:
    transcript = Transcript(TRUTH)
    transcript.finish(0, "Two nil.\n He shoots", "what's the score?")
    row = transcript.row(0, 0.9, True)
    assert (row.said, row.answered) == (("Two", "nil.", "He", "shoots"), 2)
    found = compare(transcript)
    assert (found.errors.rate, found.added) == (0.0, {})
    # Without a question a line break is only a line break.
    transcript.finish(0, "Two nil.\n He shoots", "")
    assert transcript.row(0, 0.9, True).answered == 0
    assert compare(transcript).added == {0: {0, 1}}


def test_a_take_that_was_broken_off_is_forgotten() -> None:
    transcript = Transcript()
    transcript.finish(1, "whole", "")
    transcript.begin(2)
    transcript.add(2, "half", 2.5)
    transcript.discard_unfinished()
    assert [row.said for row in transcript.rows(9.0, False, 99)] == [("whole",)]


def test_nothing_is_shown_before_the_picture_is_there() -> None:
    transcript = Transcript(TRUTH)
    transcript.finish(0, "early", "")
    transcript.finish(2, "late", "")
    # What was said before the viewer went back is known, and what is true there is not told.
    assert [(row.number, row.later, row.truth) for row in transcript.rows(1.9, True, 99)] == [
        (0, False, ("He", "shoots")),
        (2, True, ()),
    ]
    transcript.begin(3)
    transcript.skip(4)
    assert [row.number for row in transcript.rows(1.9, True, 99)] == [0, 2]
    assert transcript.row(0, 0.5, True).truth == ("He",)
    assert transcript.row(0, 0.7, True).truth == ("He", "shoots")
    assert transcript.row(3, 1.0, True).empty


def test_truth_can_be_left_out() -> None:
    transcript = Transcript(TRUTH)
    assert transcript.rows(9.0, False, 99) == []
    assert [row.number for row in transcript.rows(9.0, True, 99)] == [0, 2]


def test_seconds_that_were_skipped_are_one_row() -> None:
    transcript = Transcript(TRUTH)
    transcript.finish(0, "a", "")
    for number in (3, 4, 5, 7):
        transcript.skip(number)
    rows = {row.number: row.skipped for row in transcript.rows(9.0, False, 99)}
    assert rows == {0: 0, 3: 3, 7: 1}
    assert transcript.first_skipped(5, False) == 3
    assert transcript.row(4, 9.0, False).empty
    # Where there is truth to show, a second has a row of its own.
    transcript.skip(2)
    assert {row.number: row.skipped for row in transcript.rows(9.0, True, 99)} == {0: 0, 2: 1, 3: 3, 7: 1}


def test_passing_over_keeps_an_older_take() -> None:
    transcript = Transcript()
    transcript.finish(1, "said before", "")
    transcript.skip(1)
    assert transcript.row(1, 5.0, False).said == ("said", "before")


def test_the_last_rows_are_kept_when_there_are_too_many() -> None:
    transcript = Transcript()
    for number in range(50):
        transcript.finish(number, f"w{number}", "")
    assert [row.number for row in transcript.rows(99.0, False, 10)] == list(range(40, 50))


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    shown = harmless(text)
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    transcript = Transcript(by_second([(0.0, 1.0, text)]))
    transcript.finish(0, text, text)
    row = transcript.row(0, 1.0, True)
    assert "\x1b" not in "".join((*row.said, *row.truth, row.question))


@pytest.mark.parametrize(
    ("seconds", "label"), [(0, "00:00"), (61.9, "01:01"), (3599, "59:59"), (3600, "1:00:00"), (36061, "10:01:01")]
)
def test_time_labels(seconds: float, label: str) -> None:
    assert time_label(seconds) == label


def test_differences_are_marked_by_word() -> None:
    transcript = Transcript(TRUTH)
    transcript.finish(0, "He passes,", "")
    transcript.finish(2, "— and SCORES", "")
    transcript.entries[0].shown, transcript.entries[2].shown = 0.5, 3.1
    found = compare(transcript)
    assert found.added == {0: {1}}
    assert found.missed == {0: {1}}
    assert found.errors.rate == pytest.approx(1 / 4)
    assert found.rouge_l == pytest.approx(3 / 4)
    assert found.delay == pytest.approx(((0.5 - 0.2) + (3.1 - 2.1) + (3.1 - 2.6)) / 3)


def test_only_what_was_played_is_compared_and_what_was_skipped_counts_as_silence() -> None:
    transcript = Transcript(TRUTH)
    transcript.finish(0, "He shoots", "")
    assert compare(transcript).errors.words == 2
    transcript.skip(2)
    found = compare(transcript)
    assert (found.errors.words, found.errors.missed) == (4, 2)
    assert found.missed == {2: {0, 1}}


def test_a_long_session_is_compared_over_its_last_minutes() -> None:
    transcript = Transcript(by_second((float(n), n + 0.5, "word") for n in range(2 * WINDOW)))
    for number in range(2 * WINDOW):
        transcript.finish(number, "word", "")
    assert compare(transcript).errors.words == WINDOW + 1


def test_the_second_that_grows_is_not_compared_yet() -> None:
    transcript = Transcript(TRUTH)
    transcript.begin(0)
    transcript.add(0, "nonsense", 0.1)
    assert compare(transcript).errors.words == 0
