"""Which questions a checkpoint was taught, and whether a viewer's is one of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.checkpoint_files import QUESTIONS
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.matches.tennis.questions import QUESTIONS as ASKED
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.taught_questions import MOST, choose_questions, is_taught, read_questions

TAUGHT = read_questions(CHECKPOINT)


def test_the_shipped_checkpoint_names_what_its_matches_ask() -> None:
    assert set(TAUGHT) == {wording for wordings, _ in ASKED.values() for wording in wordings}


@pytest.mark.parametrize(
    "question", ["what's the score", "The score?", "WHO SERVES NOW?", "Where’s the ball?", "who is playing"]
)
def test_the_same_question_in_similar_words_is_taught(question: str) -> None:
    assert is_taught(question, TAUGHT)


@pytest.mark.parametrize(
    "question", ["Is it raining?", "Who will win?", "What colour is the ball?", "Why?", "", "?!", "Qui sert ?", "is it"]
)
def test_another_question_is_not(question: str) -> None:
    assert not is_taught(question, TAUGHT)


@given(st.text())
def test_a_checkpoint_that_names_none_may_be_asked_anything(question: str) -> None:
    assert is_taught(question, ())


def test_a_folder_without_the_file_names_none(tmp_path: Path) -> None:
    assert read_questions(tmp_path) == ()


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]", '"Who?"'])
def test_a_file_that_is_no_list_of_questions_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / QUESTIONS).write_text(content)
    with pytest.raises(SvmError, match=QUESTIONS):
        read_questions(tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / QUESTIONS).write_text(json.dumps(["Qui sert ?", "誰?"]), encoding="utf-8")
    assert read_questions(tmp_path) == ("Qui sert ?", "誰?")


def test_questions_that_are_asked_freely_are_no_list() -> None:
    assert len(choose_questions(f"Where is {number}?" for number in range(MOST))) == MOST
    assert choose_questions((f"Where is {number}?" for number in range(MOST + 1)), known=("Why?",)) == ()
