"""Scores against plain definitions of them, and their bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.eval.text_metrics import (
    align,
    common_length,
    count_errors,
    mean_delay,
    plain_words,
    rouge_l,
    word_error_rate,
)

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
    truth, said = ["he", "scores", "now"], ["he", "shoots", "now"]
    pairs = align(truth, said)
    assert mean_delay(truth, said, ([1.0, 2.0, 3.0], [1.5, 9.0, 4.5]), pairs) == pytest.approx(1.0)
    assert mean_delay(["a"], ["b"], ([0.0], [5.0]), align(["a"], ["b"])) is None
