"""The truth is perfect, silence is nothing, chatter and another match's words are hardly better."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.eval.measures import FIGURES, Measured, measure, summarise
from streaming_vlm_mlx.eval.reference import Reference, said_words, spread
from streaming_vlm_mlx.matches.tennis.judge import Share, ending_moments, heard
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.matches.truth import Event, Truth, Word
from streaming_vlm_mlx.stream.events import GenerationResult

SEEDS = range(900_000, 900_012)
PLAY = FIGURES[:5]
PERFECT = ("team_accuracy", "event_recall", "event_precision", "score_accuracy")


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [TennisMatch(seed, 60.0).truth(f"match_{seed}.mp4") for seed in SEEDS]


def whole(truth: Truth) -> Reference:
    return Reference.of_truth(truth, 0.0, truth.seconds)


def count(reference: Reference, words: tuple[Word, ...]) -> Measured:
    return measure(reference, words, np.random.default_rng(1))


def by_seconds(words: tuple[Word, ...], seconds: int) -> tuple[Word, ...]:
    """Return `words` as a model would say them: all of a second's words in it, their own times lost."""
    texts = [" ".join(w.text for w in words if i <= w.start < i + 1) for i in range(seconds)]
    return said_words(GenerationResult(i, i, i + 1.0, text) for i, text in enumerate(texts))


def test_the_truth_is_perfect(truths: list[Truth]) -> None:
    for truth in truths:
        found = summarise([count(whole(truth), truth.words)])
        assert [found[name] for name in PERFECT] == [1.0] * 4, truth.seed
        assert (found["wer"], found["rouge_l"]) == (0.0, 1.0)


def test_so_is_the_truth_as_a_model_can_say_it(truths: list[Truth]) -> None:
    found = summarise([count(whole(t), by_seconds(t.words, 60)) for t in truths])
    assert [found[name] for name in PERFECT] == [1.0] * 4


def test_any_stretch_of_the_truth_is_perfect(truths: list[Truth]) -> None:
    for truth in truths[:4]:
        for start in range(0, 48, 7):
            reference = Reference.of_truth(truth, start, start + 12.0)
            found = summarise([count(reference, reference.words)])
            assert {found[name] for name in PERFECT} <= {1.0, None}, (truth.seed, start)


def test_words_of_another_match_are_hardly_right(truths: list[Truth]) -> None:
    found = summarise([count(whole(t), other.words) for t, other in zip(truths, truths[1:] + truths[:1], strict=True)])
    assert found["team_accuracy"] < 0.25
    assert found["score_accuracy"] < 0.2
    assert found["event_precision"] < 0.3
    assert found["wer"] > 0.8


def test_shuffled_times_are_right_by_chance_alone(truths: list[Truth]) -> None:
    found = summarise([count(whole(t), t.words) for t in truths])
    assert 0.02 < found["event_precision_shuffled"] < 0.3
    kinds = found["events"]
    assert set(kinds) == set(ENDINGS)
    assert all(0 <= v["event_precision_shuffled"] < v["event_precision"] for v in kinds.values() if v["said"])


def test_the_control_is_drawn_from_its_seed(truths: list[Truth]) -> None:
    reference = whole(truths[0])
    first, again, other = (measure(reference, truths[0].words, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


def test_silence_is_nought_and_breaks_nothing(truths: list[Truth]) -> None:
    found = summarise([count(whole(t), ()) for t in truths])
    assert [found[name] for name in PLAY] == [0.0] * 5
    assert (found["wer"], found["rouge_l"], found["words_per_second"], found["silence"]) == (1.0, 0.0, 0.0, 1.0)
    nothing = summarise([count(Reference(0.0, 4.0, (), ()), ())])
    assert [nothing[name] for name in (*PLAY, "wer", "rouge_l")] == [None] * 5 + [0.0, None]
    assert [summarise([])[name] for name in FIGURES] == [None] * len(FIGURES)


def test_chatter_earns_nothing(truths: list[Truth]) -> None:
    names = [count(whole(t), tuple(spread(" ".join(t.kits * 120), 0, 60))) for t in truths]
    assert summarise(names)["team_accuracy"] < 0.65
    everything = "ace. winner. into the net. out. fault. double fault. " * 60
    found = summarise([count(whole(t), tuple(spread(everything, 0, 60))) for t in truths])
    assert found["event_recall"] > 0.9
    assert found["event_precision"] < 0.1


def test_an_ending_said_twice_is_right_once() -> None:
    words = tuple(spread("An ace.", 10.5, 11.5))
    reference = Reference(0.0, 60.0, words, (Event(10.0, "ace", "red"),))
    found = summarise([count(reference, (*words, *spread("Ace!", 12.0, 12.5)))])
    assert (found["event_recall"], found["event_precision"]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("kind", "time", "late", "recall"),
    [("ace", 10.0, 2.9, 1.0), ("ace", 10.0, 3.2, 0.0), ("ace", 10.0, -1.1, 0.0), ("winner", 10.0, 1.0, 0.0)],
)
def test_an_ending_that_the_truth_leaves_unsaid_is_due_a_second_later(
    kind: str, time: float, late: float, recall: float
) -> None:
    reference = Reference(0.0, 60.0, (), (Event(time, "ace", "red"),))
    said = (Word(time + late, time + late + 0.3, f"{kind}."),)
    assert summarise([count(reference, said)])["event_recall"] == recall


def test_what_ends_with_the_clip_need_not_be_said_but_may() -> None:
    reference = Reference(0.0, 60.0, (), (Event(58.0, "ace", "red"),))
    assert [m.asked for m in ending_moments(reference, [])] == [False]
    assert summarise([count(reference, ())])["event_recall"] is None
    assert summarise([count(reference, (Word(59.0, 59.5, "Ace!"),))])["event_precision"] == 1.0


@pytest.mark.parametrize(("said", "right"), [("red", 1), ("blue", 0), ("", 0), ("forehand", 0)])
def test_a_name_is_right_wrong_or_missed(said: str, right: int) -> None:
    reference = Reference(0.0, 20.0, (Word(5.0, 5.4, "Red."),), ())
    words = tuple(spread(said, 6.0, 7.0))
    play = count(reference, words).play
    assert play is not None
    assert play.names == Share(right, 1)


def test_a_score_must_be_the_one_that_is_called() -> None:
    reference = Reference(0.0, 20.0, tuple(spread("Fifteen love.", 5.0, 6.0)), ())
    for text, right in (("fifteen love", 1.0), ("love fifteen", 0.0), ("it's fifteen love now", 1.0)):
        assert summarise([count(reference, tuple(spread(text, 7.0, 8.0)))])["score_accuracy"] == right
    assert summarise([count(reference, tuple(spread("fifteen love", 8.1, 9.0)))])["score_accuracy"] == 0.0


def test_a_silence_ends_a_sentence_that_has_no_full_stop() -> None:
    words = (*spread("ace from red", 1.0, 2.0), *spread("into the net", 4.0, 5.0))
    assert [m.kind for m in heard(words)] == ["ace", "player", "net"]
    assert [m.kind for m in heard(tuple(spread("ace from red into the net", 1.0, 2.0)))] == ["ace", "player"]


def test_words_alone_are_measured_where_nobody_knows_what_happened() -> None:
    reference = Reference(3.0, 6.0, tuple(spread("he cuts inside", 3.0, 4.0)))
    found = summarise([count(reference, tuple(spread("He cuts, outside!", 4.0, 5.0)))])
    assert [found[name] for name in PLAY] == [None] * 5
    assert found["events"] == {}
    assert found["wer"] == pytest.approx(1 / 3)
    assert found["rouge_l"] == pytest.approx(2 / 3)
    assert (found["words_per_second"], found["silence"]) == (1.0, pytest.approx(2 / 3))


def test_counts_are_pooled_not_shares() -> None:
    long = count(Reference(0.0, 9.0, tuple(spread("a b c", 0.0, 1.0))), tuple(spread("a b c", 0.0, 1.0)))
    short = count(Reference(0.0, 1.0, tuple(spread("a", 0.0, 1.0))), ())
    found = summarise([long, short])
    assert found["wer"] == 0.25
    assert found["silence"] == 0.9


@given(st.text(max_size=40), st.floats(0, 1e5), st.floats(0.01, 10))
def test_words_fill_their_second_in_order(text: str, start: float, length: float) -> None:
    words = list(spread(text, start, start + length))
    assert [w.text for w in words] == text.split()
    assert all(start <= w.start <= w.end <= start + length + 1e-6 for w in words)


WORDS = ("red", "blue", "ace.", "out.", "fault", "fifteen", "love.", "love", "deuce.", "the", "net.", "...")


@given(st.integers(0, 3), st.lists(st.lists(st.sampled_from(WORDS)), max_size=60))
def test_every_figure_is_a_share_whatever_is_said(number: int, seconds: list[list[str]]) -> None:
    truth = MATCHES[number]
    words = said_words(GenerationResult(i, i, i + 1.0, " ".join(texts)) for i, texts in enumerate(seconds))
    found = summarise([count(whole(truth), words)])
    shares = [*PLAY, "rouge_l", "silence"]
    assert all(found[name] is None or 0 <= found[name] <= 1 for name in shares)
    assert found["wer"] >= 0


MATCHES = [TennisMatch(seed, 20.0).truth("m.mp4") for seed in range(900_020, 900_024)]
