"""The figures of a report, and what is marked."""

import pytest

from streaming_vlm_mlx.eval.text_metrics import spread
from streaming_vlm_mlx.report.figures import (
    PIECE,
    column_figures,
    mark,
    reference_figures,
    said_words,
    stretch_of,
)
from tests.report.made import reference, second, session


def marked(stretch, number=0):
    found = mark(stretch, stretch.sessions[number])
    said, told = said_words(stretch.sessions[number]), stretch.compared_with
    return [said[at].text for at in sorted(found.added)], [told[at].text for at in sorted(found.missed)]


def test_words_that_differ_are_marked_on_both_sides():
    stretch = stretch_of("game", reference("he passes now,", "and scores"), [session("He shoots now", "and scores")])
    assert marked(stretch) == (["shoots"], ["passes"])
    found = column_figures([stretch], 0)
    assert found["wer"] == pytest.approx(1 / 5)
    assert found["rouge_l"] == pytest.approx(4 / 5)
    assert found["word_delay"] == 0


def test_a_session_is_compared_with_the_reference_of_its_own_time():
    told = reference("a", "b", "c", "d")
    short = session("a", "b")
    stretch = stretch_of("game", told, [short, session("a", "b", "c", "x")])
    assert (stretch.start, stretch.end) == (0, 4)
    assert marked(stretch) == ([], [])
    assert marked(stretch, 1) == (["x"], ["d"])
    assert column_figures([stretch], 0)["wer"] == 0


def test_words_before_and_after_the_sessions_do_not_count():
    told = (*spread("before", -1.0, 0.0), *reference("he scores"), *spread("much later", 50.0, 51.0))
    assert [word.text for word in stretch_of("game", told, [session("he scores")]).reference] == ["he", "scores"]


def test_without_a_reference_sessions_are_compared_with_the_first():
    stretch = stretch_of("game", (), [session("he scores now"), session("he misses now")])
    assert marked(stretch, 1) == (["misses"], ["scores"])
    assert column_figures([stretch], 1)["wer"] == pytest.approx(1 / 3)
    assert reference_figures([stretch]) == {}


def test_without_any_counterpart_there_are_no_errors():
    stretch = stretch_of("game", (), [session("he scores now")])
    found = column_figures([stretch], 0)
    assert (found["wer"], found["rouge_l"], found["word_delay"]) == (None, None, None)
    assert found["words_per_second"] == 3


def test_a_long_session_is_compared_in_pieces():
    """As a whole, its alignment would take gigabytes; and a word that is ten minutes late is no match."""
    texts = ["he scores now" if number % 100 == 0 else "" for number in range(int(2.5 * PIECE))]
    stretch = stretch_of("game", reference(*texts), [session(*texts)])
    assert marked(stretch) == ([], [])
    found = column_figures([stretch], 0)
    assert (found["wer"], found["seconds"], found["rouge_l"]) == (0, 1500, 1)
    assert found["silence"] == pytest.approx(0.99)
    late = stretch_of("game", reference("goal"), [session(*[""] * int(PIECE), "goal")])
    assert marked(late) == (["goal"], ["goal"])


def test_time_is_counted_of_all_stretches():
    slow = session("a", "b")
    slow = type(slow)(clip="b.mp4", seconds=(second(0, "a", 1600.0), second(1, "b", 800.0)))
    found = column_figures([stretch_of("a", (), [session("a", "b")]), stretch_of("b", (), [slow])], 0)
    assert found["on_time"] == pytest.approx(3 / 4)
    assert found["tokens_per_second"] == pytest.approx(40 / 1.6)
    assert found["latency_ms"]["decode"] == {"p50": 300, "p95": pytest.approx(740), "max": 800}
    assert found["memory"] == {
        "process": 201_000_000,
        "active": 20_000_000,
        "peak": 30_000_000,
        "cache_bytes": 8_000_000,
        "cache_tokens": 110,
    }


def test_skipped_seconds_are_silent():
    stretch = stretch_of("game", reference("a", "b", "c"), [session("a", "c", skipped=[1])])
    found = column_figures([stretch], 0)
    assert (found["skipped"], found["seconds"]) == (1, 2)
    assert found["silence"] == pytest.approx(1 / 3)
    assert marked(stretch) == ([], ["b"])


def test_the_reference_has_figures_of_its_own():
    told = reference("one two three four", "one two three four", "")
    found = reference_figures([stretch_of("game", told, [session("a", "b", "c")])])
    assert found["words_per_second"] == pytest.approx(8 / 3)
    assert found["silence"] == pytest.approx(1 / 3)
    assert found["repetition"] == pytest.approx(1 / 5)


def test_an_answer_is_no_commentary():
    asked = session("a")
    asked = type(asked)(seconds=(second(0, "Blue leads.\nhe serves", question="who leads?"),))
    assert [word.text for word in said_words(asked)] == ["he", "serves"]
