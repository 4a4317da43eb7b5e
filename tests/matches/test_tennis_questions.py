"""What a viewer asks of a match, held against the script that it was filmed from."""

import numpy as np
import pytest

from streaming_vlm_mlx.data.livecc_annotations import Annotation
from streaming_vlm_mlx.data.record_builder import make_turns
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.matches.match_truth import Truth
from streaming_vlm_mlx.matches.tennis.match import Tennis, TennisMatch
from streaming_vlm_mlx.matches.tennis.questions import QUESTIONS, questions
from streaming_vlm_mlx.matches.writer import check, make_matches


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [TennisMatch(seed, 60.0, fps=4).truth("a.mp4") for seed in range(40, 60)]


def answers(truth: Truth, kind: str) -> list[tuple[float, str]]:
    """Return every answer to questions of `kind`, with the moment that it is about."""
    wordings = QUESTIONS[kind][0]
    return [(start + 0.4, answer) for start, _, asked, answer in questions(truth, 1) if asked in wordings]


def test_the_score_is_what_was_called_last(truths: list[Truth]) -> None:
    compared = 0
    for truth in truths:
        called = [(e.time, e.call) for e in truth.events if e.kind == "point" and not e.call.startswith("game")]
        games = [e.time for e in truth.events if e.kind == "game"]
        for time, answer in answers(truth, "score"):
            before = [pair for pair in called if pair[0] <= time]
            if before and not any(before[-1][0] <= game <= time for game in games):
                assert answer.lower() == f"{before[-1][1]}."
                compared += 1
    assert compared > 20


def test_ends_and_hitters_are_those_of_the_events(truths: list[Truth]) -> None:
    compared = 0
    for truth in truths:
        strokes = [e for e in truth.events if e.kind in ("serve", "shot")]
        near, far = dict(answers(truth, "near")), dict(answers(truth, "far"))
        for event in strokes:
            for time, answer in (near if event.end == "near" else far).items():
                if abs(time - event.time) < 0.5:
                    assert answer.lower() == f"{event.player}."
                    compared += 1
        for time, answer in answers(truth, "hitter"):
            last = [e for e in strokes if e.time <= time]
            expected = last[-1].player if last and time - last[-1].time <= 2.5 else "nobody"
            assert answer.lower() == f"{expected}."
            compared += 1
    assert compared > 40


def test_the_ball_is_in_the_part_that_is_named(truths: list[Truth]) -> None:
    names: set[str] = set()
    for truth in truths:
        for time, answer in answers(truth, "ball"):
            x, y, visible = truth.frames.ball[truth.frame_at(time)]
            names.add(answer)
            if not visible:
                assert answer == "Out of sight."
                continue
            assert ("Upper" in answer) == (y < 180)
            assert ("left" in answer) == (x < 640 / 3 - 1) or abs(x - 640 / 3) <= 1
            assert ("right" in answer) == (x > 2 * 640 / 3 + 1) or abs(x - 2 * 640 / 3) <= 1
    assert len(names) == 7


@pytest.mark.parametrize("every", [1.0, 3.5, 12.0])
def test_one_question_falls_in_each_stretch_and_becomes_a_turn(every: float, truths: list[Truth]) -> None:
    for truth in truths[:5]:
        asked = questions(truth, every)
        starts = np.array([start for start, *_ in asked])
        assert len(asked) == int(60 // every)
        assert np.all(np.diff(np.floor(starts)) >= 1)
        words = tuple((w.start, w.end, w.text) for w in truth.words)
        made = make_turns(Annotation("a.mp4", 0.0, 60.0, words, asked), 60)
        assert [(t.question, t.answer) for t in made if t.question] == [(q, a) for *_, q, a in asked]
        assert asked == questions(truth, every)


def test_questions_closer_than_a_second_are_refused(tmp_path) -> None:
    with pytest.raises(SvmError, match=r"--ask is 0\.5"):
        check(range(1), 10.0, 1, 0.5)
    with pytest.raises(SvmError, match="--ask is 0"):
        list(make_matches(tmp_path, Tennis(), range(1), 10.0, every=0.0))
