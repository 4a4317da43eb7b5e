"""Points are played by physics and rules: what is called in lands in, and nobody flies."""

from itertools import pairwise
from math import hypot

import numpy as np
import pytest

from streaming_vlm_mlx.matches.flight import position
from streaming_vlm_mlx.matches.match_truth import stream
from streaming_vlm_mlx.matches.tennis.court import (
    HALF_LENGTH,
    NET_CENTRE,
    NET_POST,
    SINGLES,
    in_court,
    in_service_box,
    net_height,
)
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.matches.tennis.rules import Opening, Score, after_point, late_score, point_texts, random_score
from streaming_vlm_mlx.matches.tennis.script import Director, PointScore, Script, events

SEEDS = range(40)


@pytest.fixture(scope="module")
def scripts() -> list[Script]:
    return [TennisMatch(seed, 60.0).script for seed in SEEDS]


@pytest.fixture(scope="module")
def points(scripts: list[Script]) -> list[PointScore]:
    return [p for script in scripts for p in script.points]


def test_every_call_is_what_the_ball_did(points: list[PointScore]) -> None:
    seen = set()
    for played in points:
        for shot in played.point.shots:
            x, y, z = shot.landing
            other = -played.ends[shot.player]
            seen.add((shot.stroke == "serve", shot.result))
            if shot.result == "net":
                assert abs(y) < 0.1
                assert 0 <= z < net_height(x)
                continue
            assert z == pytest.approx(0.0, abs=1e-6)
            if shot.stroke == "serve":
                side = other if not played.before.deuce_court else -other
                good = in_service_box(x, y, other, side)
            else:
                good = in_court(x, y, other)
            assert good == (shot.result in ("in", "winner"))
    assert seen == {(serve, r) for serve in (True, False) for r in ("in", "net", "out", "winner")}


def test_balls_cross_the_net_above_its_band(scripts: list[Script], points: list[PointScore]) -> None:
    for script in scripts:
        starts = [a.start for a in script.ball]
        for shot in script.shots:
            if shot.result == "net":
                continue
            times = np.linspace(shot.time, shot.land_time, 200)[:-1]
            places = [position(script.ball, starts, float(t)) for t in times]
            known = [p for p in places if p]
            for (x, y, z), (_, y1, _) in pairwise(known):
                if y * y1 <= 0 and y != y1:
                    assert z > net_height(x) - 0.05
                    break


def test_the_ball_is_in_one_piece_from_toss_to_ending(scripts: list[Script]) -> None:
    for script in scripts:
        starts = [a.start for a in script.ball]
        assert starts == sorted(starts)
        for played in script.points:
            last = played.point.shots[-1]
            serve = next(s for s in reversed(played.point.shots) if s.stroke == "serve")
            times = np.arange(serve.time, last.land_time, 0.01)
            places = [position(script.ball, starts, float(t)) for t in times]
            assert all(places)
            steps = np.linalg.norm(np.diff(np.array(places), axis=0), axis=1) / 0.01
            assert steps.max(initial=0.0) < 70  # metres a second; the fastest serve measured was 73


def test_players_stand_where_they_strike_and_run_like_people(scripts: list[Script]) -> None:
    for script in scripts:
        for shot in script.shots:
            x, y = script.players[shot.player].at(shot.time)
            assert hypot(shot.hit[0] - x, shot.hit[1] - y) < 1.2
            assert 0.15 < shot.hit[2] < 3.0
        times = np.arange(0, script.seconds, 0.04)
        for track in script.players:
            speed = np.hypot(*np.diff(track.sample(times), axis=0).T) / 0.04
            assert speed.max() < 7.0


def test_an_ending_is_what_the_last_stroke_was(points: list[PointScore]) -> None:
    for played in points:
        last, point = played.point.shots[-1], played.point
        assert all(s.result == "in" or s.miss for s in point.shots[:-1])
        assert point.winner == (last.player if point.outcome in ("ace", "winner") else 1 - last.player)
        served = {"winner": "ace", "net": "double_fault", "out": "double_fault"}
        assert point.outcome == (served[last.result] if last.stroke == "serve" else last.result)


def test_winners_plainly_pass_the_other_by(scripts: list[Script]) -> None:
    closest = []
    for script in scripts:
        starts = [a.start for a in script.ball]
        for last in (p.point.shots[-1] for p in script.points):
            if last.result == "winner":
                times = [float(t) for t in np.arange(last.time + 0.2, last.land_time + 0.5, 0.02)]
                balls = [(position(script.ball, starts, t), script.players[1 - last.player].at(t)) for t in times]
                closest.append(min(hypot(b[0] - x, b[1] - y) for b, (x, y) in balls if b))
    assert len(closest) > 50
    assert min(closest) > 0.85
    assert np.percentile(closest, 5) > 1.25


def test_strokes_alternate_and_scores_follow(points: list[PointScore], scripts: list[Script]) -> None:
    for script in scripts:
        score = script.opening
        for played in script.points:
            assert played.before == score
            rally = [s for s in played.point.shots if s.detail != "first" or not s.miss]
            assert [s.player for s in rally] == [(score.server + i) % 2 for i in range(len(rally))]
            score = after_point(score, played.point.winner)
            assert played.after == score


@pytest.mark.parametrize("opening", [random_score, late_score])
def test_clips_come_in_at_scores_that_there_are(opening: Opening) -> None:
    for seed in range(3000):
        score = opening(stream(seed, "play"))
        assert score.winner is None
        assert max(score.games) < 6 or min(score.games) >= 5
        if not score.tiebreak:
            assert max(score.points) <= 4
            assert max(score.points) <= 3 or min(score.points) >= 3


def test_clips_come_in_at_every_score() -> None:
    scores = [random_score(stream(seed, "play")) for seed in range(3000)]
    assert {t for s in scores if not s.tiebreak for t in point_texts(s)} == {"0", "15", "30", "40", "AD"}
    assert {g for s in scores for g in s.games} == set(range(7))
    assert {n for s in scores for n in s.sets} == {0, 1, 2}
    assert {s.server for s in scores} == {0, 1}
    assert 0.05 < np.mean([s.tiebreak for s in scores]) < 0.2


def test_late_clips_come_in_before_games_and_sets_are_decided() -> None:
    scores = [late_score(stream(seed, "play")) for seed in range(3000)]
    games = [s for s in scores if not s.tiebreak]
    assert 0.1 < np.mean([s.tiebreak for s in scores]) < 0.35
    assert {winner for s in games for winner in (0, 1) if after_point(s, winner).games != s.games} == {0, 1}
    assert all(s.games != after_point(s, int(s.points[1] == 3)).games for s in games)
    decided = [any(after_point(s, winner).sets != s.sets for winner in (0, 1)) for s in games]
    assert 0.1 < np.mean(decided) < 0.4


def test_a_match_that_is_won_ends_with_both_at_the_net() -> None:
    match = TennisMatch(1, 30.0)
    script = Director(stream(1, "play"), match.script.cast, Score((3, 0), (5, 0), (2, 0)), (-1, 1), 40.0).run()
    assert script.points[-1].after.winner is not None
    end = script.points[-1].shown + 12
    places = [track.at(end) for track in script.players]
    assert all(abs(y) < 1.5 for _, y in places)
    assert places[0][1] * places[1][1] < 0
    assert [e.kind for e in events(script)][-1] == "match"


def test_directions_are_what_they_are_called(points: list[PointScore]) -> None:
    for played in points:
        for shot in played.point.shots:
            if shot.direction == "cross-court":
                assert shot.hit[0] * shot.landing[0] < 0
            if shot.direction == "down the line":
                assert shot.hit[0] * shot.landing[0] > 0
            if shot.direction == "middle":
                assert abs(shot.landing[0]) < SINGLES / 3


def test_a_minute_holds_several_points_with_pauses(scripts: list[Script]) -> None:
    counts = [sum(p.point.time < 60 for p in script.points) for script in scripts]
    assert 4.5 <= np.mean(counts) <= 7.5
    pauses = [
        after.point.shots[0].time - before.point.time
        for script in scripts
        for before, after in pairwise(script.points)
        if before.ends == after.ends
    ]
    assert min(pauses) > 4.0
    assert np.median(pauses) < 8.0


def test_the_court_is_the_rule_book_s() -> None:
    """ITF rule 1: 23.77 m by 8.23 m for singles, the net 0.914 m at the centre and 1.07 m at the posts."""
    assert pytest.approx(23.77) == 2 * HALF_LENGTH
    assert pytest.approx(8.23) == 2 * SINGLES
    assert net_height(0.0) == NET_CENTRE == 0.914
    assert net_height(9.0) == NET_POST == 1.07
