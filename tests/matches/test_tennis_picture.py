"""The picture shows what the sidecar says: read back from pixels."""

from itertools import islice, pairwise

import numpy as np
import pytest

from streaming_vlm_mlx.matches.camera import Pixels
from streaming_vlm_mlx.matches.match_truth import Truth
from streaming_vlm_mlx.matches.people import lab
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.matches.tennis.rules import Score
from streaming_vlm_mlx.matches.tennis.scoreboard import board_state, speed
from streaming_vlm_mlx.matches.tennis.script import events

SEEDS = (0, 3, 19)
SECONDS = 5.0


@pytest.fixture(scope="module")
def films() -> list[tuple[TennisMatch, Truth, list[Pixels]]]:
    matches = [TennisMatch(seed, SECONDS) for seed in SEEDS]
    return [(m, m.truth("clip.mp4"), list(m.frames())) for m in matches]


def test_frames_are_pictures_of_360_lines(films) -> None:
    for match, truth, frames in films:
        assert len(frames) == len(truth.frames.times) == round(SECONDS * match.fps)
        assert {(f.shape, f.dtype) for f in frames} == {((360, 640, 3), np.dtype(np.uint8))}
        assert truth.frames.times[1] == pytest.approx(1 / match.fps)


def test_the_same_seed_gives_the_same_match_and_another_one_another() -> None:
    first, again, other = TennisMatch(5, 3.0), TennisMatch(5, 3.0), TennisMatch(6, 3.0)
    assert first.truth("a.mp4").to_json() == again.truth("a.mp4").to_json() != other.truth("a.mp4").to_json()
    for a, b in zip(islice(first.frames(), 20), islice(again.frames(), 20), strict=True):
        assert np.array_equal(a, b)


def test_a_longer_clip_begins_as_a_shorter_one_does() -> None:
    short, long = TennisMatch(7, 10.0).script, TennisMatch(7, 40.0).script
    assert long.shots[: len(short.shots)] == short.shots


def test_a_ball_that_leaves_by_the_edge_is_never_beside_the_picture() -> None:
    # In one frame of this match the ball is less than half a pixel from the right edge.
    truth = TennisMatch(70024, 60.0, 2).truth("clip.mp4")
    places = np.array(truth.frames.ball)
    assert places[:, 2].any()
    assert (places[:, :2] >= 0).all()
    assert (places[:, :2] < truth.size).all()


def test_the_ball_is_where_the_sidecar_says(films) -> None:
    """Around the noted pixel the most yellow-green spot is the ball: far more so than the picture is on the whole."""
    hits, seen = 0, 0
    for _, truth, frames in films:
        for i, (x, y, visible) in enumerate(truth.frames.ball):
            if not visible or not (6 < x < 633 and 6 < y < 353):
                continue
            patch = frames[i][y - 2 : y + 3, x - 2 : x + 3].astype(int)
            yellow = np.minimum(patch[..., 0], patch[..., 1]) - patch[..., 2]
            seen += 1
            hits += yellow.max() > 70
    assert seen > 120
    assert hits > 0.97 * seen


def test_the_ball_is_large_enough_and_leaves_a_trail(films) -> None:
    sizes = {0: [], 1: []}
    for _, truth, frames in films:
        for i, (x, y, visible) in enumerate(truth.frames.ball):
            if visible and 12 < x < 627 and 84 < y < 347:
                patch = frames[i][y - 9 : y + 10, x - 9 : x + 10].astype(int)
                yellow = np.minimum(patch[..., 0], patch[..., 1]) - patch[..., 2] > 45
                sizes[int(y > 200)].append(int(yellow.sum()))
    # Discs of 4 and 5 pixels across cover 12 and 19; a trail adds to that.
    assert np.median(sizes[0]) >= 12
    assert np.median(sizes[1]) >= 19


def test_players_in_their_kits_fill_their_boxes(films) -> None:
    for match, truth, frames in films:
        for row, kit in enumerate(match.script.cast.kits):
            for i in range(0, len(frames), 15):
                left, top, right, bottom = truth.frames.players[row][i]
                near = truth.frames.ends[row][i]
                assert bottom - top >= (60 if near else 35)
                if top < 80 and left < 230:
                    continue  # the score bug may lie over a far player
                body = frames[i][top:bottom, left:right].reshape(-1, 3)
                shirt = match.script.cast.looks[row].shirt
                graded = np.array([match.grade.table()[256 * c + shirt[c]] for c in range(3)])
                close = np.abs(body.astype(int) - graded).max(axis=1) < 40
                assert close.mean() > 0.06, (truth.seed, kit.name, i)


def test_far_players_are_above_near_ones(films) -> None:
    for _, truth, _ in films:
        for i in range(0, len(truth.frames.times), 10):
            assert truth.frames.ends[0][i] + truth.frames.ends[1][i] == 1
            bottoms = [truth.frames.players[row][i][3] for row in (0, 1)]
            near = 0 if truth.frames.ends[0][i] else 1
            assert bottoms[near] > bottoms[1 - near] + 60


def test_boxes_and_board_lie_in_the_picture(films) -> None:
    for _, truth, _ in films:
        boxes = [b for row in truth.frames.players for b in row] + [b for pair in truth.layout.values() for b in pair]
        assert all(0 <= x0 <= x1 <= 640 and 0 <= y0 <= y1 <= 360 for x0, y0, x1, y1 in boxes)
        assert set(truth.layout) == {"server", "kit", "code", "sets", "games", "points", "clock"}
        assert {f for s in truth.states for f in s.fields} == {"code", "sets", "games", "points"}


def test_digits_are_tall_and_lie_in_their_boxes(films) -> None:
    match, _, _ = films[0]
    bug, cast = match.bug, match.script.cast
    blank = np.asarray(bug.image(board_state(0.0, cast, Score()))).astype(int)
    image = np.asarray(bug.image(board_state(0.0, cast, Score((2, 1), (5, 3), (1, 2))))).astype(int)
    changed = np.abs(image - blank).max(axis=2) > 60
    for field in ("points", "games", "sets"):
        for row in (0, 1):
            left, top, right, bottom = (v - c for v, c in zip(bug.layout[field][row], 2 * bug.corner, strict=True))
            inside = changed[top:bottom, left:right]
            rows = np.flatnonzero(inside.any(axis=1))
            assert rows[-1] - rows[0] + 1 >= 18
            changed[top:bottom, left:right] = False
    assert not changed.any()


def test_the_server_is_marked(films) -> None:
    for match, truth, frames in films:
        x, y = match.bug.corner
        bug = frames[0][y : y + 66, x : x + 212].astype(int)
        yellow = np.minimum(bug[..., 0], bug[..., 1]) - bug[..., 2] > 50
        rows = [yellow[33 * row : 33 * row + 33, 4:18].sum() for row in (0, 1)]
        assert int(np.argmax(rows)) == truth.kits.index(truth.states[0].server)
        assert min(rows) == 0 < max(rows)


def test_kits_on_the_board_are_those_on_court(films) -> None:
    for match, truth, frames in films:
        for row, kit in enumerate(match.script.cast.kits):
            left, top, right, bottom = truth.layout["kit"][row]
            patch = frames[0][top + 9 : bottom - 9, left + 4 : right - 6].reshape(-1, 3).mean(axis=0)
            graded = [match.grade.table()[256 * c + kit.rgb[c]] for c in range(3)]
            seen = (int(patch[0]), int(patch[1]), int(patch[2]))
            assert np.linalg.norm(np.subtract(lab(seen), lab((graded[0], graded[1], graded[2])))) < 8


def test_officials_show_what_was_out() -> None:
    shown = []
    for seed in range(20):
        script = TennisMatch(seed, 60.0).script
        for event in events(script):
            if event.detail in ("long", "wide") and event.kind in ("out", "fault", "double_fault"):
                shown.append(any(s.holds(event.time + 0.6) for s in script.signals))
    assert len(shown) > 20
    assert all(shown)


def test_the_player_it_was_about_makes_a_gesture() -> None:
    counts = {"net": 0, "ace": 0, "winner": 0}
    for seed in range(20):
        script = TennisMatch(seed, 60.0).script
        for event in events(script):
            if event.kind in counts:
                spans = script.dismays if event.kind == "net" else script.cheers
                names = {script.cast.names[s.who] for s in spans if s.holds(event.time + 1.0)}
                assert names == {event.player}
                counts[event.kind] += 1
    assert min(counts.values()) > 3


def test_the_serve_clock_tells_first_from_second_until_it_is_played_back(films) -> None:
    for match, truth, frames in films:
        clock = dict(zip(truth.frames.times, truth.frames.clock, strict=True))
        _, top, right, bottom = truth.layout["clock"][0]
        for event in (e for e in truth.events if e.kind == "serve" and e.time < SECONDS - 0.5):
            after = next(t for t in clock if t >= event.time + 0.002)
            assert clock[after] == (1 if event.detail == "first" else 2)
        for i, (time, shown) in enumerate(clock.items()):
            reading = next((r for r in match.script.clock if r.start <= time < r.end), None)
            assert (reading.serve if reading else 0) == shown
            paper = frames[i][top + 1 : bottom - 1, right - 4 : right - 1].reshape(-1, 3)
            assert bool(paper.std(axis=0).max() < 8) == bool(shown)
        played = [e for e in truth.events if e.kind in ("serve", "shot")]
        for serve, reply in pairwise(played):
            if serve.kind == "serve" and reply.kind == "shot" and reply.time < SECONDS - 0.1:
                assert clock[next(t for t in clock if t >= reply.time + 0.002)] == 0


def test_a_serve_is_as_fast_as_its_ball() -> None:
    speeds = {"first": [], "second": []}
    for seed in range(10):
        for shot in TennisMatch(seed, 60.0).script.shots:
            if shot.stroke == "serve" and shot.miss != "net":
                speeds[shot.detail].append(speed(shot))
    assert all(100 <= v <= 170 for v in speeds["first"])
    assert all(75 <= v <= 110 for v in speeds["second"])


def test_the_sidecar_notes_an_official_s_signal(films) -> None:
    for match, truth, _ in films:
        times = [t for t, on in zip(truth.frames.times, truth.frames.signal, strict=True) if on]
        assert all(any(s.holds(t) for s in match.script.signals) for t in times)
        inside = [s for s in match.script.signals if s.start < SECONDS - 0.1]
        assert bool(times) == bool(inside)
