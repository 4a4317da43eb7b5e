"""Scores against plain definitions of them, and their bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.eval.text_metrics import (
    NO_TEXT,
    Word,
    align,
    common_length,
    compare_words,
    count_errors,
    count_text,
    plain_words,
    repetition,
    spread,
    word_error_rate,
)


def rouge_l(truth: list[str], said: list[str]) -> float:
    first, second = (tuple(spread(" ".join(words), 0.0, 1.0)) for words in (truth, said))
    return compare_words(first, second).rouge_l


words = st.lists(st.sampled_from("abcd"), max_size=9)


def levenshtein(a: list[str], b: list[str]) -> int:
    """Return the edit distance by its recursive definition, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def subsequences(a: list[str]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = {()}
    for word in a:
        found |= {(*head, word) for head in found}
    return found


@given(words, words)
def test_an_alignment_has_the_fewest_edits(truth: list[str], said: list[str]) -> None:
    errors = count_errors(truth, said, align(truth, said))
    assert errors.substituted + errors.missed + errors.added == levenshtein(truth, said)
    assert errors.words == len(truth)


@given(words, words)
def test_an_alignment_holds_every_word_once_in_order(truth: list[str], said: list[str]) -> None:
    pairs = align(truth, said)
    assert [t for t, _ in pairs if t is not None] == list(range(len(truth)))
    assert [s for _, s in pairs if s is not None] == list(range(len(said)))
    assert (None, None) not in pairs


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_the_common_length_is_that_of_the_longest_common_subsequence(truth: list[str], said: list[str]) -> None:
    assert common_length(truth, said) == max(map(len, subsequences(truth) & subsequences(said)))


@given(words, words)
def test_rouge_is_symmetric_and_a_share(truth: list[str], said: list[str]) -> None:
    assert rouge_l(truth, said) == rouge_l(said, truth)
    assert 0 <= rouge_l(truth, said) <= 1
    assert rouge_l(truth, truth) == 1


def test_scores_of_a_sentence() -> None:
    # "Police killed the gunman" is Lin's own example: ROUGE-L of the first is 3/4, of the second 2/4.
    truth = ["police", "killed", "the", "gunman"]
    assert rouge_l(truth, ["police", "kill", "the", "gunman"]) == pytest.approx(0.75)
    assert rouge_l(truth, ["the", "gunman", "kill", "police"]) == pytest.approx(0.5)
    assert word_error_rate(truth, ["police", "the", "big", "gunman"]) == pytest.approx(0.5)


@pytest.mark.parametrize(("truth", "said", "rate"), [("", "", 0), ("", "a", 1), ("a", "", 1), ("a", "b c d", 3)])
def test_word_error_rate_at_its_ends(truth: str, said: str, rate: float) -> None:
    assert word_error_rate(truth.split(), said.split()) == rate


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert plain_words("It’s 15–love, Señor O'Neill! ... [and]") == ["it's", "15", "love", "señor", "o'neill", "and"]
    assert plain_words("… — !") == []


def test_delay_counts_matching_words_alone() -> None:
    truth = [Word(1.0, 1.5, "He"), Word(2.0, 2.5, "scores!"), Word(3.0, 3.5, "Now.")]
    said = [Word(1.5, 1.5, "he"), Word(9.0, 9.0, "shoots"), Word(4.5, 4.5, "now")]
    found = compare_words(truth, said)
    assert found.delays == (0.5, 1.5)
    assert found.delay == pytest.approx(1.0)
    assert compare_words([Word(0.0, 1.0, "a")], [Word(5.0, 5.0, "b")]).delay is None


def test_words_that_differ_are_named_by_their_place_in_the_display() -> None:
    truth = [Word(0.0, 0.0, word) for word in ("–", "fifteen", "love,", "Blue", "leads")]
    said = [Word(0.0, 0.0, word) for word in ("Fifteen-love", "...", "Red", "now", "leads!")]
    found = compare_words(truth, said)
    assert (found.added, found.missed) == ({2, 3}, {3})
    assert (found.errors.words, found.words, found.common) == (4, 5, 3)


def test_repetition_is_the_share_of_word_runs_that_came_before() -> None:
    assert repetition([["a", "b", "c", "d", "a", "b", "c", "d"]]) == pytest.approx(1 / 5)
    # What another text said is no repetition.
    assert repetition([["a", "b", "c", "d"], ["a", "b", "c", "d"]]) == 0
    assert repetition([["a", "b", "c"]]) is None


def test_text_is_counted_against_the_reference() -> None:
    reference, said = tuple(spread("he cuts inside", 3.0, 4.0)), tuple(spread("He cuts, outside!", 4.0, 5.0))
    assert count_text(reference, said, 3.0, 6.0).figures() == {
        "wer": pytest.approx(1 / 3),
        "rouge_l": pytest.approx(2 / 3),
        "words_per_second": 1.0,
        "silence": pytest.approx(2 / 3),
    }
    assert count_text(reference, reference, 3.0, 6.0).figures()["wer"] == 0.0


def test_silence_is_all_errors_and_nothing_has_no_figures() -> None:
    reference = (Word(0.0, 0.5, "Red."),)
    assert list(count_text(reference, (), 0.0, 4.0).figures().values()) == [1.0, 0.0, 0.0, 1.0]
    assert list(count_text((), (), 0.0, 4.0).figures().values()) == [0.0, None, 0.0, 1.0]
    assert list(NO_TEXT.figures().values()) == [None] * 4


def test_counts_are_pooled_not_shares() -> None:
    long = count_text(tuple(spread("a b c", 0.0, 1.0)), tuple(spread("a b c", 0.0, 1.0)), 0.0, 9.0)
    short = count_text(tuple(spread("a", 0.0, 1.0)), (), 0.0, 1.0)
    found = (long + short).figures()
    assert found["wer"] == 0.25
    assert found["silence"] == 0.9


@given(st.text(max_size=40), st.floats(0, 1e5), st.floats(0.01, 10))
def test_words_fill_their_second_in_order(text: str, start: float, length: float) -> None:
    words = list(spread(text, start, start + length))
    assert [w.text for w in words] == text.split()
    assert all(start <= w.start <= w.end <= start + length + 1e-6 for w in words)
