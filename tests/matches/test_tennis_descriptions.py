"""What is to be seen in each second, held against the script that it was filmed from."""

import itertools
import re
from collections import Counter

import pytest

from streaming_vlm_mlx.matches.match_truth import Event
from streaming_vlm_mlx.matches.tennis.match import Tennis, TennisMatch
from streaming_vlm_mlx.matches.tennis.questions import CALLED, ENDED, FRESH, PLAIN, description, play

STROKES = {"serve", "forehand", "backhand", "volley", "smash", "lob"}
SENTENCE = re.compile(
    r"(\w+) near(?: forward)?, (\w+) far(?: forward)?, "
    r"(?:(?:upper|lower) (?:left|middle|right)|out of sight), (\w+) serves, ([^,]+), (.+)"
)


@pytest.fixture(scope="module")
def matches() -> list[TennisMatch]:
    return [TennisMatch(seed, 60.0, fps=2) for seed in range(40, 60)]


def test_every_second_names_the_same_facts_in_the_same_order(matches: list[TennisMatch]) -> None:
    number: Counter[str] = Counter()
    for match in matches:
        truth = match.truth("a.mp4")
        for start, _, _, answer in Tennis(2).descriptions(truth):
            found = SENTENCE.fullmatch(answer[:-1].lower())
            assert found, answer
            near, far, server, standing, playing = found.groups()
            assert {near, far} == set(truth.kits)
            assert server == truth.board_at(start + 0.4).server
            score, _, counts = standing.partition(" at ")
            assert bool(counts) == (playing.split(" ", 1)[1] not in STROKES)
            called = [e for e in truth.events if e.kind == "point" and e.time <= start + 0.4]
            if called and counts and "game" in called[-1].call:
                ended = max(p.point.time for p in match.script.points if p.shown <= start + 0.4)
                new = ("love all", "zero all") if start + 0.4 > ended + CALLED else (called[-1].call,)
                assert score in new
                number[score.split()[0]] += 1
            elif called and "game" not in called[-1].call:
                assert score == called[-1].call
            if called and counts:
                assert counts == games(called[-1], truth.kits.index(server))
    assert min(number["game"], number["love"]) > 20


def games(event: Event, server: int) -> str:
    """Return the games after `event`, in words and the server's first, from the score that it carries."""
    assert event.score
    words = ("zero", "one", "two", "three", "four", "five", "six")
    mine, other = (words[int(event.score["games"][player])] for player in (server, 1 - server))
    return f"{mine} all" if mine == other else f"{mine} {other}"


def test_the_ends_are_those_that_the_players_stand_at(matches: list[TennisMatch]) -> None:
    for match in matches:
        truth, script = match.truth("a.mp4"), match.script
        for point in (p.point for p in script.points if p.point.shots[0].time < 59):
            time = point.shots[0].time
            near = next(p for p in (0, 1) if script.players[p].at(time)[1] < 0)
            assert description(truth, time).startswith(f"{truth.kits[near]} near, {truth.kits[1 - near]} far")


def test_a_stroke_holds_until_the_next_and_an_ending_comes_before_all_else(matches: list[TennisMatch]) -> None:
    number: Counter[str] = Counter()
    for match in matches:
        truth = match.truth("a.mp4")
        for played in match.script.points:
            shots = played.point.shots
            for shot, following in itertools.pairwise(shots):
                if shot.result == "in" and shot.time < 59:
                    name = truth.kits[shot.player]
                    assert play(truth, shot.time + 0.01) == f"{name} {shot.stroke}"
                    assert play(truth, following.time - 0.01) == f"{name} {shot.stroke}"
            plain = played.point.time + PLAIN
            if plain + FRESH < 58:
                last, won = truth.kits[shots[-1].player], truth.kits[played.point.winner]
                expected = f"{last} {ENDED[played.point.outcome]} for {won}"
                assert play(truth, plain + 0.01) == expected
                assert play(truth, played.point.time + FRESH - 0.01) == expected
                number[played.point.outcome] += 1
    assert {kind for kind, count in number.items() if count > 3} >= {"ace", "winner", "net", "out"}


def test_who_serves_next_is_ready_before(matches: list[TennisMatch]) -> None:
    for match in matches:
        truth = match.truth("a.mp4")
        for played in match.script.points[1:]:
            first = played.point.shots[0]
            if first.time < 59:
                assert play(truth, first.time - 0.5) == f"{truth.kits[first.player]} ready to serve"


def test_whoever_follows_a_stroke_in_is_forward_until_the_point_ends(matches: list[TennisMatch]) -> None:
    seen = 0
    for match in matches:
        truth = match.truth("a.mp4")
        for played in match.script.points:
            for shot in (s for s in played.point.shots if s.detail == "approach" and played.point.time < 58):
                name, begun, ended = truth.kits[shot.player], shot.time + PLAIN, played.point.time + PLAIN
                if begun + 0.02 > ended:
                    continue
                mark = re.compile(rf"{name} (near|far) forward,")
                assert not mark.search(description(truth, begun - 0.02))
                assert mark.search(description(truth, begun + 0.01))
                assert mark.search(description(truth, ended - 0.01))
                assert not mark.search(description(truth, ended + 0.01))
                seen += 1
    assert seen > 10
