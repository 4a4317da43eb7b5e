"""The reference scores full marks, silence nothing, and chatter or another match's words hardly more."""

from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.eval.runner import said_words
from streaming_vlm_mlx.eval.text_metrics import Word, spread
from streaming_vlm_mlx.matches.match_truth import Event, Truth, stream
from streaming_vlm_mlx.matches.tennis.commentary import commentary
from streaming_vlm_mlx.matches.tennis.judge import (
    FACTS,
    Tally,
    TennisCounts,
    TennisJudge,
    ending_moments,
    judge_notes,
    read_mentions,
)
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.stream.events import GenerationResult

SEEDS = range(900_000, 900_012)
TENNIS = ("team_accuracy", "event_recall", "event_precision", "event_precision_shuffled", "score_accuracy")
PERFECT = ("team_accuracy", "event_recall", "event_precision", "score_accuracy")


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [TennisMatch(seed, 60.0).truth(f"match_{seed}.mp4") for seed in SEEDS]


def whole(truth: Truth, seed: int = 1) -> TennisJudge:
    return TennisJudge.of_truth(truth, 0.0, truth.seconds, seed)


def figures(*counts: TennisCounts) -> dict[str, Any]:
    return reduce(add, counts).figures()


def by_seconds(words: tuple[Word, ...], seconds: int) -> tuple[Word, ...]:
    """Return `words` as a model would say them: all of a second's words in it, their own times lost."""
    texts = [" ".join(w.text for w in words if i <= w.start < i + 1) for i in range(seconds)]
    return said_words(GenerationResult(i, i, i + 1.0, text) for i, text in enumerate(texts))


def test_the_truth_is_perfect(truths: list[Truth]) -> None:
    for truth in truths:
        found = figures(whole(truth).judge_words(truth.words))
        assert [found[name] for name in PERFECT] == [1.0] * 4, truth.seed


def test_so_is_the_truth_as_a_model_can_say_it(truths: list[Truth]) -> None:
    found = figures(*(whole(t).judge_words(by_seconds(t.words, 60)) for t in truths))
    assert [found[name] for name in PERFECT] == [1.0] * 4


def test_any_stretch_of_the_truth_is_perfect(truths: list[Truth]) -> None:
    for truth in truths[:4]:
        for start in range(0, 48, 7):
            judge = TennisJudge.of_truth(truth, start, start + 12.0, 1)
            found = figures(judge.judge_words(judge.words))
            assert {found[name] for name in PERFECT} <= {1.0, None}, (truth.seed, start)


def test_words_of_another_match_are_hardly_right(truths: list[Truth]) -> None:
    found = figures(
        *(whole(t).judge_words(other.words) for t, other in zip(truths, truths[1:] + truths[:1], strict=True))
    )
    assert found["team_accuracy"] < 0.25
    assert found["score_accuracy"] < 0.2
    assert found["event_precision"] < 0.3


def test_shuffled_times_are_right_by_chance_alone(truths: list[Truth]) -> None:
    found = figures(*(whole(t).judge_words(t.words) for t in truths))
    assert 0.02 < found["event_precision_shuffled"] < 0.3
    kinds = found["endings"]
    assert set(kinds) == set(ENDINGS)
    assert all(0 <= v["event_precision_shuffled"] < v["event_precision"] for v in kinds.values() if v["said"])


def test_the_control_is_drawn_from_its_seed(truths: list[Truth]) -> None:
    first, again, other = (whole(truths[0], seed).judge_words(truths[0].words) for seed in (1, 1, 2))
    assert first == again != other


def test_silence_is_nought_and_breaks_nothing(truths: list[Truth]) -> None:
    found = figures(*(whole(t).judge_words(()) for t in truths))
    assert [found[name] for name in TENNIS] == [0.0] * 5
    nothing = figures(TennisJudge(0.0, 4.0, ()).judge_words(()))
    assert [nothing[name] for name in TENNIS] == [None] * 5


def test_chatter_earns_nothing(truths: list[Truth]) -> None:
    names = [whole(t).judge_words(tuple(spread(" ".join(t.kits * 120), 0, 60))) for t in truths]
    assert figures(*names)["team_accuracy"] < 0.65
    everything = "ace. winner. into the net. out. fault. double fault. " * 60
    found = figures(*(whole(t).judge_words(tuple(spread(everything, 0, 60))) for t in truths))
    assert found["event_recall"] > 0.9
    assert found["event_precision"] < 0.1


def test_an_ending_said_twice_is_right_once() -> None:
    words = tuple(spread("An ace.", 10.5, 11.5))
    judge = TennisJudge(0.0, 60.0, words, (Event(10.0, "ace", "red"),))
    found = figures(judge.judge_words((*words, *spread("Ace!", 12.0, 12.5))))
    assert (found["event_recall"], found["event_precision"]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("kind", "time", "late", "recall"),
    [("ace", 10.0, 2.9, 1.0), ("ace", 10.0, 3.2, 0.0), ("ace", 10.0, -1.1, 0.0), ("winner", 10.0, 1.0, 0.0)],
)
def test_an_ending_that_the_truth_leaves_unsaid_is_due_a_second_later(
    kind: str, time: float, late: float, recall: float
) -> None:
    judge = TennisJudge(0.0, 60.0, (), (Event(time, "ace", "red"),))
    said = (Word(time + late, time + late + 0.3, f"{kind}."),)
    assert figures(judge.judge_words(said))["event_recall"] == recall


def test_what_ends_with_the_clip_need_not_be_said_but_may() -> None:
    judge = TennisJudge(0.0, 60.0, (), (Event(58.0, "ace", "red"),))
    assert [m.required for m in ending_moments(judge, [])] == [False]
    assert figures(judge.judge_words(()))["event_recall"] is None
    assert figures(judge.judge_words((Word(59.0, 59.5, "Ace!"),)))["event_precision"] == 1.0


@pytest.mark.parametrize(("said", "right"), [("red", 1), ("blue", 0), ("", 0), ("forehand", 0)])
def test_a_name_is_right_wrong_or_missed(said: str, right: int) -> None:
    judge = TennisJudge(0.0, 20.0, (Word(5.0, 5.4, "Red."),))
    words = tuple(spread(said, 6.0, 7.0))
    assert judge.judge_words(words).names == Tally(right, 1)


def test_a_score_must_be_the_one_that_is_called() -> None:
    judge = TennisJudge(0.0, 20.0, tuple(spread("Fifteen love.", 5.0, 6.0)))
    for text, right in (("fifteen love", 1.0), ("love fifteen", 0.0), ("it's fifteen love now", 1.0)):
        assert figures(judge.judge_words(tuple(spread(text, 7.0, 8.0))))["score_accuracy"] == right
    assert figures(judge.judge_words(tuple(spread("fifteen love", 8.1, 9.0))))["score_accuracy"] == 0.0


def test_a_silence_ends_a_sentence_that_has_no_full_stop() -> None:
    words = (*spread("ace from red", 1.0, 2.0), *spread("into the net", 4.0, 5.0))
    assert [m.kind for m in read_mentions(words)] == ["ace", "player", "net"]
    assert [m.kind for m in read_mentions(tuple(spread("ace from red into the net", 1.0, 2.0)))] == ["ace", "player"]


WORDS = ("red", "blue", "ace.", "out.", "fault", "fifteen", "love.", "love", "deuce.", "the", "net.", "...")


@given(st.integers(0, 3), st.lists(st.lists(st.sampled_from(WORDS)), max_size=60))
def test_every_figure_is_a_share_whatever_is_said(number: int, seconds: list[list[str]]) -> None:
    truth = MATCHES[number]
    words = said_words(GenerationResult(i, i, i + 1.0, " ".join(texts)) for i, texts in enumerate(seconds))
    found = figures(whole(truth).judge_words(words))
    assert all(found[name] is None or 0 <= found[name] <= 1 for name in TENNIS)


MATCHES = [TennisMatch(seed, 20.0).truth("m.mp4") for seed in range(900_020, 900_024)]


@pytest.fixture(scope="module")
def judge() -> TennisJudge:
    return TennisJudge.of_truth(TennisMatch(900_003, 20.0, fps=2).truth("a.mp4"), 0.0, 20.0, 1)


def noting(notes: dict[int, str]) -> list[GenerationResult]:
    return [GenerationResult(s, float(s), s + 1.0, "", notes=note) for s, note in notes.items()]


def test_what_is_to_be_seen_is_right_in_every_fact(judge: TennisJudge) -> None:
    tallies = judge_notes(judge.descriptions, noting(dict(judge.descriptions)))
    assert {name: (t.right, t.total) for name, t in tallies.items()} == dict.fromkeys(FACTS, (20, 20))


def test_one_wrong_fact_counts_against_itself_alone(judge: TennisJudge) -> None:
    notes = dict(judge.descriptions)
    near, rest = notes[4].split(" ", 1)
    notes[4] = f"{'red' if near != 'Red' else 'blue'} {rest}"
    values = {name: tally.share for name, tally in judge_notes(judge.descriptions, noting(notes)).items()}
    assert values == {**dict.fromkeys(FACTS, 1.0), "near": 0.95}


def test_a_note_that_breaks_off_lacks_the_facts_behind(judge: TennisJudge) -> None:
    notes = {4: judge.descriptions[4].split(",")[0]}
    values = {name: tally.share for name, tally in judge_notes(judge.descriptions, noting(notes)).items()}
    assert values == {**dict.fromkeys(FACTS, 0.0), "near": 1.0}


def test_nothing_noted_is_nothing_judged(judge: TennisJudge) -> None:
    assert judge_notes(judge.descriptions, noting({3: ""})) == {}


def judge_other_words(seed: int) -> TennisCounts:
    """Judge commentary that the same grammar makes of the same match with other draws."""
    match = TennisMatch(seed, 60.0, fps=2)
    words = commentary(match.script, stream(seed, "other words"))
    return TennisJudge.of_truth(match.truth("a.mp4"), 0.0, 60.0, seed).judge_words(by_seconds(words, 60))


def test_a_commentator_who_sees_everything_is_nearly_always_right() -> None:
    found = figures(*(judge_other_words(seed) for seed in range(200, 220)))
    assert found["team_accuracy"] > 0.95
    assert found["score_accuracy"] > 0.97
    assert found["event_recall"] > 0.97
    assert found["event_precision"] > 0.97
