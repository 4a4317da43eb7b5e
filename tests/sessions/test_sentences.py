"""Merging seconds to sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.sessions.sentences import LONGEST, PAUSE, SHORTEST, TimedWord, merge, spread

WORDS = st.sampled_from(["Red", "to", "serve.", "Out!", "wide,", "and", "Deuce.”", "3.5", "—", "a"])
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


@st.composite
def seconds(draw: st.DrawFn) -> list[TimedWord]:
    """Return the words of seconds that follow each other, some of them silent, some with a question."""
    words, start = [], draw(st.floats(0, 1e4))
    for number in range(draw(st.integers(1, 40))):
        end = start + draw(st.sampled_from([1.0, 1.0, 1.0, 0.4]))
        words += spread(start, end, draw(TEXTS), number, draw(st.integers(0, 9)) == 0)
        start = end
    return words


@given(seconds())
def test_sentences_hold_every_word_once_and_last_one_to_seven_seconds(words: list[TimedWord]) -> None:
    sentences = merge(words)
    assert [word for sentence in sentences for word in sentence.words] == words
    for number, sentence in enumerate(sentences):
        following = sentences[number + 1].start if number + 1 < len(sentences) else float("inf")
        assert sentence.start == sentence.words[0].start
        assert sentence.start < sentence.end <= following + 1e-9
        length = sentence.end - sentence.start
        assert length <= LONGEST + 1e-9
        # What is said alone, between a pause and a question, may be shorter.
        pause = sentence.start - sentences[number - 1].words[-1].end if number else PAUSE
        alone = sentence.words[0].leads or pause >= PAUSE
        assert length >= SHORTEST - 1e-9 or (alone and following < sentence.start + SHORTEST)
        assert all(not word.leads for word in sentence.words[1:])


@given(seconds())
def test_what_is_divided_is_merged_again(words: list[TimedWord]) -> None:
    sentences = merge(words)
    assert merge([word for sentence in sentences for word in sentence.words]) == sentences


@given(seconds(), st.integers(0, 40))
def test_later_words_change_only_the_last_two_sentences(words: list[TimedWord], count: int) -> None:
    before, after = merge(words[:count]), merge(words)
    assert [s.words for s in after[: max(len(before) - 2, 0)]] == [s.words for s in before[:-2]]


def said(*lines: str) -> list[str]:
    """Return the sentences of seconds with `lines`."""
    words = [word for number, line in enumerate(lines) for word in spread(number, number + 1.0, line, number)]
    return [f"{s.start:g}-{s.end:g} {s.text}" for s in merge(words)]


@pytest.mark.parametrize(
    ("lines", "sentences"),
    [
        (["Red to", "serve."], ["0-2 Red to serve."]),
        (["into the net.", "That's out."], ["0-1 into the net.", "1-2 That's out."]),
        (["into", "net. That's", "a fault."], ["0-1.5 into net.", "1.5-3 That's a fault."]),
        # A short one gets the time behind it, or the next one.
        (["into", "net. That's", "", "wide."], ["0-1.5 into net.", "1.5-4 That's wide."]),
        (["into", "net. Out!", "", "wide."], ["0-1.5 into net.", "1.5-2.5 Out!", "3-4 wide."]),
        (["Out! Yes! No!", "He", "plays."], ["0-1 Out! Yes! No!", "1-3 He plays."]),
        # A comma ends a clause before a pause; a long pause ends anything.
        (["red,", "", "out"], ["0-1 red,", "2-3 out"]),
        (["red", "", "", "out"], ["0-1 red", "3-4 out"]),
        # Without punctuation seven seconds are enough, and a comma is a good place.
        (["a b"] * 9, ["0-7 a b a b a b a b a b a b a b", "7-9 a b a b"]),
        (["a b", "a b", "a b,", *["a b"] * 6], ["0-3 a b a b a b,", "3-9 a b a b a b a b a b a b"]),
        (["", ""], []),
    ],
)
def test_sentences_end_at_punctuation_and_pauses(lines: list[str], sentences: list[str]) -> None:
    assert said(*lines) == sentences


def test_a_question_begins_a_sentence_and_its_answer_is_a_line() -> None:
    words = [*spread(0, 1, "Red is about"), *spread(1, 2, "Forty all.\nand he", 1, True), *spread(2, 3, "serves.", 2)]
    first, second = merge(words)
    assert first.text == "Red is about"
    assert second.text == "Forty all.\nand he serves."


def test_a_short_end_before_a_question_joins_what_was_before() -> None:
    words = [*spread(0, 1, "He"), *spread(1, 2, "nets. Oh", 1), *spread(2, 3, "Yes.", 2, True)]
    assert [s.text for s in merge(words)] == ["He nets. Oh", "Yes."]
