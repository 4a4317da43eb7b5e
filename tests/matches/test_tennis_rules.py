from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.matches.tennis.rules import Score, after_point, call_after, call_points, ends_change, point_texts

NAMES = ("red", "blue")
# ITF rule 6: a set is won by two games from six on, or by the tie-break.
SET_RESULTS = {(6, 0), (6, 1), (6, 2), (6, 3), (6, 4), (7, 5), (7, 6)}

winners = st.lists(st.integers(0, 1), max_size=500)


def played(winners: list[int], start: Score | None = None) -> list[Score]:
    """The score before the first point and after each one, until the match is won."""
    scores = [start or Score()]
    for winner in winners:
        if scores[-1].winner is not None:
            break
        scores.append(after_point(scores[-1], winner))
    return scores


@given(winners)
def test_sets_end_as_the_rules_say(winners: list[int]) -> None:
    scores = played(winners)
    for (before, after), winner in zip(pairwise(scores), winners, strict=False):
        if before.sets != after.sets:
            games = [before.games[0], before.games[1]]
            games[winner] += 1
            assert (games[winner], games[1 - winner]) in SET_RESULTS
            assert after.sets[winner] == before.sets[winner] + 1
            assert after.games == (0, 0)


@given(winners)
def test_a_game_takes_four_points_and_two_more_than_the_other(winners: list[int]) -> None:
    scores = played(winners)
    mine, other = 0, 0
    for (before, after), winner in zip(pairwise(scores), winners, strict=False):
        mine, other = (mine + 1, other) if winner == 0 else (mine, other + 1)
        enough = 7 if before.tiebreak else 4
        won = max(mine, other) >= enough and abs(mine - other) >= 2
        assert won == (before.games != after.games or before.sets != after.sets)
        assert won or after.points == (mine, other)
        if won:
            mine, other = 0, 0


@given(winners)
def test_service_changes_with_every_game(winners: list[int]) -> None:
    scores = played(winners)
    for before, after in pairwise(scores):
        new_game = before.games != after.games or before.sets != after.sets
        assert after.game_server == (1 - before.game_server if new_game else before.game_server)


@given(st.lists(st.integers(0, 1), min_size=30, max_size=60), st.integers(0, 1))
def test_a_tiebreak_is_served_one_two_two(winners: list[int], first: int) -> None:
    scores = played(winners, Score(games=(6, 6), game_server=first))
    tiebreak = [s.server for s in scores if s.games == (6, 6)]
    second = 1 - first
    assert tiebreak == ([first] + [second, second, first, first] * len(tiebreak))[: len(tiebreak)]


@given(winners)
def test_ends_change_after_a_set_s_first_game_and_then_after_every_second(winners: list[int]) -> None:
    scores = played(winners)
    for before, after in pairwise(scores):
        if before.games == after.games and before.sets == after.sets:
            assert ends_change(before, after) == (before.tiebreak and sum(after.points) % 6 == 0)
        elif after.winner is None:
            games_played = sum(before.games) + 1
            assert ends_change(before, after) == (games_played in (1, 3, 5, 7, 9, 11, 13))
        else:
            assert not ends_change(before, after)


def test_ends_change_after_odd_games_and_not_at_six_four() -> None:
    assert ends_change(Score((3, 0), (0, 0)), after_point(Score((3, 0), (0, 0)), 0))
    assert not ends_change(Score((3, 0), (1, 0)), after_point(Score((3, 0), (1, 0)), 0))
    assert not ends_change(Score((3, 0), (5, 4)), after_point(Score((3, 0), (5, 4)), 0))
    assert ends_change(Score((6, 0), (6, 6)), after_point(Score((6, 0), (6, 6)), 0))


def test_points_are_called_and_shown() -> None:
    assert call_points(Score((0, 1), game_server=1), NAMES) == "fifteen love"
    assert call_points(Score((2, 1)), NAMES) == "thirty fifteen"
    assert call_points(Score((1, 1)), NAMES) == "fifteen all"
    assert call_points(Score((3, 3)), NAMES) == call_points(Score((5, 5)), NAMES) == "deuce"
    assert call_points(Score((3, 4)), NAMES) == "advantage blue"
    assert call_points(Score((3, 1), (6, 6)), NAMES) == "three one"
    assert point_texts(Score((4, 3))) == ("AD", "40")
    assert point_texts(Score((3, 3))) == ("40", "40")
    assert point_texts(Score((0, 2))) == ("0", "30")
    assert point_texts(Score((11, 12), (6, 6))) == ("11", "12")


def test_games_sets_and_the_match_are_called() -> None:
    game, set_, match = Score((3, 0), (2, 2)), Score((0, 3), (2, 5)), Score((3, 0), (5, 2), (2, 1))
    assert call_after(game, after_point(game, 0), NAMES) == "game red"
    assert call_after(set_, after_point(set_, 1), NAMES) == "game and set blue"
    assert call_after(match, after_point(match, 0), NAMES) == "game set and match red"
    assert call_after(Score((3, 3)), after_point(Score((3, 3)), 1), NAMES) == "advantage blue"


@given(winners)
def test_the_match_is_won_by_three_sets(winners: list[int]) -> None:
    for score in played(winners):
        assert (score.winner is not None) == (max(score.sets) == 3)
        assert max(score.sets) <= 3
