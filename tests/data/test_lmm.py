import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.annotations import Annotation, Question
from streaming_vlm_mlx.data.record_builder import make_turns
from streaming_vlm_mlx.data.transcripts import Word


def annotation(words: list[Word], questions: list[Question] | None = None, start: float = 0.0) -> Annotation:
    return Annotation("a.mp4", start, start + 9, tuple(words), tuple(questions or []))


def said(made: Annotation, count: int) -> list[str]:
    return [turn.assistant_text for turn in make_turns(made, count)]


def test_a_word_is_said_in_the_second_it_ends_in() -> None:
    made = annotation([(0.0, 1.0, "on"), (0.9, 1.01, "time"), (1.0, 3.5, "late"), (3.0, 9.9, "never")])
    assert said(made, 4) == ["\n on ...", "\n time ...", "\n ...", "\n late ..."]


def test_what_was_said_before_the_stretch_comes_in_its_first_second() -> None:
    made = annotation([(3.0, 4.0, "before"), (5.0, 5.5, "now")], start=5.0)
    assert said(made, 1) == ["\n before now ..."]


def test_a_word_waits_for_one_that_ends_later() -> None:
    made = annotation([(0.0, 2.5, "slow"), (0.5, 0.9, "quick")])
    assert said(made, 3) == ["\n ...", "\n ...", "\n slow quick ..."]


def test_times_have_one_decimal_and_a_space_from_the_second_on() -> None:
    texts = [turn.user_text for turn in make_turns(annotation([], start=1.25), 3)]
    assert texts == ["Time=1.2-2.2s", "Time=2.2-3.2s ", "Time=3.2-4.2s "]


class TestQuestions:
    def test_in_the_first_second_and_later(self) -> None:
        made = make_turns(annotation([(0, 1, "w")], [(0.0, 0.5, "Who?", "He."), (1.0, 2.0, "What?", "It.")]), 3)
        assert [turn.user_text for turn in made] == ["Time=0.0-1.0sWho?", "Time=1.0-2.0s What?", "Time=2.0-3.0s "]
        assert [turn.assistant_text for turn in made] == ["He.\n w ...", "It.\n ...", "\n ..."]
        assert [(turn.question, turn.answer) for turn in made] == [("Who?", "He."), ("What?", "It."), ("", "")]

    def test_two_in_a_second_lose_all_that_follow(self) -> None:
        made = make_turns(annotation([], [(0, 1, "1?", ""), (0, 1, "2?", ""), (1, 2, "3?", "")]), 3)
        assert [turn.question for turn in made] == ["1?", "", ""]

    def test_one_before_the_stretch_loses_all_that_follow(self) -> None:
        made = make_turns(annotation([], [(0, 5, "1?", ""), (6, 7, "2?", "")], start=5.0), 3)
        assert [turn.question for turn in made] == ["", "", ""]


words = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 1), st.sampled_from("abcde")), max_size=20)


@given(words, st.integers(1, 12), st.integers(0, 3))
def test_every_word_in_time_is_said_once_in_order(raw: list[tuple[float, float, str]], count: int, start: int) -> None:
    stream = sorted((begin, begin + length, word) for begin, length, word in raw)
    stream.sort(key=lambda word: word[1])
    made = make_turns(annotation(list(stream), start=float(start)), count)
    assert [word for turn in made for word in turn.commentary.split()] == [
        w for _, e, w in stream if e <= start + count
    ]
    for turn in made[1:]:
        assert turn.commentary.split() == [w for _, e, w in stream if turn.start < e <= turn.end]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_seconds_follow_one_another(count: int) -> None:
    made = make_turns(annotation([], start=2.0), count)
    assert [(turn.start, turn.end) for turn in made] == [(2.0 + n, 3.0 + n) for n in range(count)]
