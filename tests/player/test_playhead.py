"""The playhead, on a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.audio.motion import Motion
from tests.player.fakes import DURATION, Clock, run
from tui.player.playhead import GRACE, LONGEST_TICK, SPEEDS, Playhead


def test_it_plays_at_its_speed(head: Playhead, clock: Clock) -> None:
    assert run(head, clock, 2) == 2
    head.change_speed(+2)
    assert head.speed == 1.5
    assert run(head, clock, 2) == 5
    head.change_speed(-4)
    assert head.speed == 0.5
    assert run(head, clock, 2) == 6


def test_speed_stays_within_its_range(head: Playhead) -> None:
    head.change_speed(+99)
    assert head.speed == 4.0 == SPEEDS[-1]
    head.change_speed(-99)
    assert head.speed == 0.25 == SPEEDS[0]


def test_a_pause_stands_still(head: Playhead, clock: Clock) -> None:
    run(head, clock, 1)
    clock.now += 0.5
    head.pause()
    assert run(head, clock, 5) == 1.5
    assert head.state == "paused"
    head.play()
    assert run(head, clock, 1) == 2.5
    assert head.state == "playing"


def test_it_ends_at_the_end(head: Playhead, clock: Clock) -> None:
    assert run(head, clock, 30) == DURATION
    assert head.state == "ended"
    head.play()
    assert head.state == "ended"


@pytest.mark.parametrize(("to", "lands"), [(7.9, 7), (-3, 0), (20.4, 20), (99, 20), (0, 0)])
def test_a_seek_lands_on_a_second_of_the_clip(head: Playhead, to: float, lands: float) -> None:
    assert head.seek(to) == lands == head.position


def test_a_seek_from_the_end_plays_and_from_a_pause_does_not(head: Playhead, clock: Clock) -> None:
    run(head, clock, 30)
    head.seek(4)
    assert head.state == "playing"
    head.pause()
    head.seek(9)
    assert head.state == "paused"


def test_one_second_is_played_from_wherever_it_stands(head: Playhead, clock: Clock) -> None:
    run(head, clock, 2.5)
    head.step()
    assert run(head, clock, 5) == 3
    assert head.state == "paused"
    head.step()
    assert run(head, clock, 0.5) == 3.5
    assert run(head, clock, 5) == 4


def test_it_waits_at_its_limit(head: Playhead, clock: Clock) -> None:
    head.limit = 3.0
    assert run(head, clock, 5) == 3
    assert head.state == "waiting"
    head.limit = 2.0
    assert run(head, clock, 1) == 3
    head.limit = None
    assert run(head, clock, 1) == 4


@pytest.mark.parametrize("jump", [-1e6, -0.1, 3600.0, 1e9])
def test_a_clock_that_jumps_moves_it_by_a_second_at_most(head: Playhead, clock: Clock, jump: float) -> None:
    run(head, clock, 1)
    clock.now += jump
    assert 1 <= head.tick() <= 1 + LONGEST_TICK
    assert run(head, clock, 1) <= 2 + LONGEST_TICK


def test_a_feed_stands_where_its_newest_second_ends(clock: Clock) -> None:
    head = Playhead(clock, None)
    assert run(head, clock, 3) == 0
    head.follow(11.0, 12.0)
    assert head.position == 12
    assert head.state == "playing"


def test_the_motion_of_a_feed_goes_through_the_second_that_is_shown(clock: Clock) -> None:
    head = Playhead(clock, None)
    assert not head.motion.moving
    head.follow(11.0, 12.0)
    assert head.motion == Motion(clock.now, 11.0, moving=True, end=12.0 + GRACE)
    run(head, clock, 0.75)
    assert head.motion == Motion(clock.now, 11.75, moving=True, end=12.0 + GRACE)
    run(head, clock, 5)
    assert head.motion.position_at(clock.now) is None
    assert head.motion.reached(clock.now) == 12.0 + GRACE
    head.follow(12.0, 12.5)
    # What was heard while the second was late is not heard again.
    assert head.motion == Motion(clock.now, 12.0 + GRACE, end=12.5 + GRACE)
    clock.now += GRACE + 0.1
    head.tick()
    assert head.motion.position_at(clock.now) == pytest.approx(12.1 + GRACE)


@pytest.mark.parametrize(
    ("late", "begins", "heard"),
    [(0.0, 0.0, 0.0), (0.04, 0.036, 0.0), (-0.04, -0.036, 0.0), (0.2, 0.0, 0.2), (-0.2, 0.0, 0.0)],
)
def test_the_motion_of_a_feed_keeps_its_pace_where_seconds_come_a_little_early_or_late(
    late: float, begins: float, heard: float, clock: Clock
) -> None:
    head = Playhead(clock, None)
    head.follow(3.0, 4.0)
    clock.now += 1.0 + late
    head.follow(4.0, 5.0)
    assert head.motion.position == pytest.approx(4.0 + max(begins, heard))
    assert head.motion.moving == (not heard)
    clock.now += 0.5
    head.tick()
    assert head.motion.position == pytest.approx(4.5 + begins)


keys = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(-5, 5)),
        st.tuples(st.just("seek"), st.floats(-100, 100)),
        st.tuples(st.sampled_from(["play", "pause", "step"]), st.just(0.0)),
        st.tuples(st.just("speed"), st.integers(-3, 3).map(float)),
    )
)


@given(keys)
def test_whatever_is_pressed_it_stays_within_the_clip(presses: list[tuple[str, float]]) -> None:
    clock = Clock()
    head = Playhead(clock, DURATION)
    for name, value in presses:
        before = head.position
        if name == "wait":
            clock.now += value
            assert head.tick() >= before
        elif name == "seek":
            head.seek(value)
        elif name == "speed":
            head.change_speed(round(value))
        else:
            getattr(head, name)()
        assert 0 <= head.position <= DURATION
        assert head.speed in SPEEDS
