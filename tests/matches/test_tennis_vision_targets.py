"""The classes that vision heads are taught, held against the sidecar's own words and the pictures themselves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.matches.match_truth import Truth
from streaming_vlm_mlx.matches.people import KITS
from streaming_vlm_mlx.matches.tennis.match import Tennis, TennisMatch
from streaming_vlm_mlx.matches.tennis.rules import POINT_WORDS
from streaming_vlm_mlx.matches.tennis.vision_targets import (
    COLUMNS,
    EVERYWHERE,
    MOMENTS,
    PATCH,
    PICTURE,
    ROWS,
    STROKES,
    Values,
    vision_targets,
)
from streaming_vlm_mlx.matches.writer import make_matches
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.vision_heads import TargetReader

SEEDS = (11, 12, 13)
SECONDS = 40.0


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [TennisMatch(seed, SECONDS, fps=4).truth(f"match_{seed:06d}.mp4") for seed in SEEDS]


def test_every_class_is_one_of_its_head_s(truths: list[Truth]) -> None:
    for truth in truths:
        arrays = vision_targets(truth)
        assert set(arrays) == {"times", "ball", *PATCH, *EVERYWHERE, *PICTURE}
        for name, count in {**PATCH, **EVERYWHERE, **PICTURE}.items():
            cells = (ROWS, COLUMNS) if name in PATCH else (1, 1) if name in EVERYWHERE else ()
            assert arrays[name].shape == (len(truth.frames.times), *cells)
            assert -1 <= arrays[name].min() <= arrays[name].max() < count


def test_kits_stand_at_the_ends_where_the_events_say(truths: list[Truth]) -> None:
    seen = 0
    for truth in truths:
        arrays = vision_targets(truth)
        for event in truth.events:
            if event.kind in ("serve", "shot") and event.time < truth.seconds:
                frame = truth.frame_at(event.time)
                there = arrays["who"][frame] == (1 if event.end == "near" else 2)
                assert {KITS[k].name for k in arrays["kit"][frame][there]} <= {event.player}
                seen += there.any()
    assert seen > 10


def shown(arrays: Mapping[str, Values], name: str, frame: int) -> int:
    """Return the one class that head `name` is asked for in `frame`, -1 for none."""
    (known,) = set(arrays[name][frame][arrays[name][frame] >= 0].tolist()) or {-1}
    return int(known)


def test_the_scoreboard_s_classes_change_with_it(truths: list[Truth]) -> None:
    texts = {"0": 0, "15": 1, "30": 2, "40": 3, "AD": 4}
    for truth in truths:
        arrays = vision_targets(truth)
        for state in truth.states:
            frame = truth.frame_at(state.time + 0.25)
            for row in (0, 1):
                assert shown(arrays, f"points_{row}", frame) == texts.get(state.fields["points"][row], -1)
                assert shown(arrays, f"games_{row}", frame) == int(state.fields["games"][row])
                assert KITS[shown(arrays, f"kit_{row}", frame)].name == truth.kits[row]
            assert truth.kits[shown(arrays, "server", frame)] == state.server


def test_what_every_patch_is_asked_is_what_a_viewer_is_told(truths: list[Truth]) -> None:
    for truth in truths:
        arrays = vision_targets(truth)
        for start, _, asked, answer in Tennis().questions(truth, 1):
            frame = truth.frame_at(start + 0.4)
            answered = answer.rstrip(".").lower()
            for name, words in (("near", "Who plays near us?"), ("far", "Who is at the far end?")):
                assert asked != words or KITS[arrays[name][frame].item()].name == answered
            assert asked != "Who serves?" or KITS[arrays["serving"][frame].item()].name == answered
            if asked in ("Who hit it?", "Who hit the ball last?"):
                hitter = arrays["hitter"][frame].item()
                assert answered == (KITS[hitter - 1].name if hitter else "nobody")
            if asked == "What's the score?" and " all" not in answered and answered.split()[0] in POINT_WORDS:
                assert (
                    answered
                    == f"{POINT_WORDS[arrays['mine'][frame].item()]} {POINT_WORDS[arrays['theirs'][frame].item()]}"
                )


def test_a_moment_is_known_for_a_second_an_ending_while_it_is_shown(truths: list[Truth]) -> None:
    for truth in truths:
        arrays, times = vision_targets(truth), np.array(truth.frames.times)
        renamed = {"double_fault": "fault", "ace": "winner"}
        events = [e for e in truth.events if renamed.get(e.kind, e.kind) in MOMENTS]
        spans = [
            (e.time, e.time + 1.0) if e.kind in ("serve", "shot") else (e.time + 0.35, e.time + 2.0) for e in events
        ]
        for i, (event, (start, end)) in enumerate(zip(events, spans, strict=True)):
            until = spans[i + 1][0] if i + 1 < len(events) else np.inf
            here = (times >= start) & (times < until)
            number = 1 + 2 * MOMENTS.index(renamed.get(event.kind, event.kind)) + (event.end == "far")
            assert np.all(arrays["moment"][here & (times <= end)] == number)
            assert not np.any(arrays["moment"][here & (times > end)])
        serve = next(e for e in truth.events if e.kind == "serve")
        after, later = truth.frame_at(serve.time + 0.26), truth.frame_at(serve.time + 0.76)
        server = arrays["who"][after] == (1 if serve.end == "near" else 2)
        assert set(arrays["stroke"][after][server].tolist()) == {1 + STROKES.index("serve")}
        assert set(arrays["stroke"][later][arrays["who"][later] == arrays["who"][after][server][0]].tolist()) == {0}


def test_a_patch_with_a_kit_shows_its_colour() -> None:
    # Brown, white and black are near the colours of skin, lines and shade; this match has neither.
    match = TennisMatch(next(s for s in range(50) if _is_plain(s)), 6.0, fps=2)
    truth = match.truth("a.mp4")
    patches, hits = vision_targets(truth)["kit"], []
    for picture, kits in zip(match.frames(), patches, strict=True):
        height, width = picture.shape[0] // ROWS, picture.shape[1] / COLUMNS
        for row, column in np.argwhere(kits >= 0):
            patch = picture[row * height : (row + 1) * height, round(column * width) : round((column + 1) * width)]
            away = np.abs(patch.astype(int) - KITS[kits[row, column]].rgb).max(axis=2)
            hits.append(away.min() < 60)
    assert len(hits) > 20
    assert np.mean(hits) > 0.8


def _is_plain(seed: int) -> bool:
    return set(TennisMatch(seed, 6.0, fps=2).truth("a.mp4").kits) <= {"red", "blue", "pink", "purple", "cyan", "orange"}


def test_the_ball_is_where_the_picture_has_its_colour() -> None:
    match = TennisMatch(SEEDS[0], 20.0, fps=2)
    truth = match.truth("a.mp4")
    found = []
    for picture, (x, y) in zip(match.frames(), vision_targets(truth)["ball"], strict=True):
        if x >= 0:
            u, v = round(float(x) * 640), round(float(y) * 360)
            around = picture[max(0, v - 3) : v + 4, max(0, u - 3) : u + 4].astype(int)
            found.append((around[..., 1] - around[..., 2]).max() > 60)
    assert len(found) > 10
    assert np.mean(found) > 0.9


def test_the_trainer_reads_what_is_written_beside_a_clip(tmp_path: Path) -> None:
    (made,) = make_matches(tmp_path, Tennis(fps=4), [5], 4.0)
    heads = [HeadConfig(name, "patch", count) for name, count in PATCH.items()]
    heads += [HeadConfig(name, "patch", count) for name, count in EVERYWHERE.items()]
    heads += [HeadConfig(name, "picture", count) for name, count in PICTURE.items()]
    reader = TargetReader([*heads, HeadConfig("ball", "place")], 2, 2)
    turns = tuple(Turn(float(s), s + 1.0, "", "") for s in range(4))
    read = reader.read(StreamingRecord(str(made.clip), 0.0, 4.0, turns, fps=2), [(1, 12, 22)] * 4)
    truth = TennisMatch(5, 4.0, fps=4).truth(made.clip.name)
    arrays = vision_targets(truth)
    for second in range(4):
        for name in PATCH:
            shot = arrays[name][truth.frame_at(second + 0.5)].ravel()
            assert read[name][second].tolist() == shot.tolist()
        for name in EVERYWHERE:
            assert read[name][second].tolist() == [arrays[name][truth.frame_at(second + 0.5)].item()] * ROWS * COLUMNS


def test_an_unknown_text_of_the_scoreboard_is_no_class(truths: list[Truth]) -> None:
    first = truths[0].states[0]
    tie = replace(first, fields={**first.fields, "points": ("6", "15")})
    arrays = vision_targets(replace(truths[0], states=(tie,)))
    assert set(arrays["points_0"].ravel().tolist()) == {-1}
    assert shown(arrays, "points_1", 0) == 1


@pytest.mark.parametrize("fps", [0, 1, 61, 10_000])
def test_frame_rates_that_cannot_be_filmed_are_refused(fps: int) -> None:
    with pytest.raises(SvmError, match=f"--fps is {fps}; a match is filmed at 2 to 60"):
        Tennis(fps)
