"""What a model noted for itself, held against what each second shows."""

import pytest

from streaming_vlm_mlx.eval.reference import Reference
from streaming_vlm_mlx.matches.tennis.judge import FACTS, judge_notes
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.stream.events import GenerationResult


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of_truth(TennisMatch(900_003, 20.0, fps=2).truth("a.mp4"), 0.0, 20.0)


def noting(notes: dict[int, str]) -> list[GenerationResult]:
    return [GenerationResult(s, float(s), s + 1.0, "", notes=note) for s, note in notes.items()]


def test_what_is_to_be_seen_is_right_in_every_fact(reference: Reference) -> None:
    shares = judge_notes(reference, noting(dict(reference.descriptions)))
    assert {name: (share.hits, share.of) for name, share in shares.items()} == dict.fromkeys(FACTS, (20, 20))


def test_one_wrong_fact_counts_against_itself_alone(reference: Reference) -> None:
    notes = dict(reference.descriptions)
    near, rest = notes[4].split(" ", 1)
    notes[4] = f"{'red' if near != 'Red' else 'blue'} {rest}"
    values = {name: share.value for name, share in judge_notes(reference, noting(notes)).items()}
    assert values == {**dict.fromkeys(FACTS, 1.0), "near": 0.95}


def test_a_note_that_breaks_off_lacks_the_facts_behind(reference: Reference) -> None:
    notes = {4: reference.descriptions[4].split(",")[0]}
    values = {name: share.value for name, share in judge_notes(reference, noting(notes)).items()}
    assert values == {**dict.fromkeys(FACTS, 0.0), "near": 1.0}


def test_nothing_noted_is_nothing_judged(reference: Reference) -> None:
    assert judge_notes(reference, noting({3: ""})) == {}
