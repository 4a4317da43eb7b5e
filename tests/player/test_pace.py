"""The pace rules and the delay, on a clock that the test moves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.player.fakes import DURATION, Clock, run
from tui.player.pace import Delay, Pace, Pacer
from tui.player.playhead import Playhead


def pacer(head: Playhead, pace: Pace = "live", latency: float = 0.0) -> Pacer:
    return Pacer(head, pace, latency)


def test_a_second_waits_for_its_turn_and_is_spoken_in_it(head: Playhead, clock: Clock) -> None:
    run(head, clock, 2.75)
    assert pacer(head).decide(3.0) == "wait"
    run(head, clock, 0.25)
    assert pacer(head).decide(3.0) == "generate"
    run(head, clock, 0.75)
    assert pacer(head).decide(3.0) == "generate"


def test_live_passes_over_what_is_gone_and_every_does_not(head: Playhead, clock: Clock) -> None:
    run(head, clock, 6.5)
    assert pacer(head).decide(5.0) == "skip"
    assert pacer(head, "every").decide(5.0) == "generate"
    assert pacer(head).second_to_read(3) == 6
    assert pacer(head).second_to_read(9) == 9
    assert pacer(head, "every").second_to_read(3) == 3


def test_nothing_begins_in_a_pause_that_was_not_seen(head: Playhead, clock: Clock) -> None:
    run(head, clock, 3)
    head.pause()
    assert pacer(head).decide(3.0) == "wait"
    head.play()
    run(head, clock, 0.25)
    head.pause()
    assert pacer(head).decide(3.0) == "generate"


def test_standing_still_there_is_time_for_the_second_seen_last(head: Playhead, clock: Clock) -> None:
    head.step()
    run(head, clock, 3)
    assert pacer(head).decide(0.0) == "generate"
    assert pacer(head).second_to_read(0) == 0
    head.play()
    assert pacer(head).decide(0.0) == "skip"
    run(head, clock, 60)
    assert head.state == "ended"
    assert pacer(head).decide(20.0) == "generate"
    assert pacer(head).decide(19.0) == "skip"


def test_a_feed_is_patient_for_a_second(clock: Clock) -> None:
    head = Playhead(clock, None)
    head.follow(4.0, 5.0)
    assert pacer(head, latency=1.0).decide(4.0) == "generate"
    head.follow(5.0, 6.0)
    assert pacer(head, latency=1.0).decide(4.0) == "skip"


@given(st.floats(0, DURATION), st.integers(0, 20))
def test_what_is_read_next_is_never_skipped_at_once(position: float, number: int) -> None:
    clock = Clock()
    head = Playhead(clock, DURATION, position)
    number = pacer(head).second_to_read(number)
    assert pacer(head).decide(float(number)) != "skip"


def test_delay_counts_from_a_second_s_beginning_to_its_end() -> None:
    delay = Delay()
    assert delay.at(5.0) == 0
    delay.begin(5.0)
    assert delay.at(5.4) == pytest.approx(0.4)
    delay.finish(5.6)
    assert delay.at(5.9) == pytest.approx(0.6)
    delay.begin(6.0)
    assert delay.at(6.1) == pytest.approx(0.6)
    assert delay.at(7.0) == pytest.approx(1.0)
    delay.reset()
    assert delay.at(99.0) == 0


@given(st.floats(0, 1e6))
def test_delay_is_never_negative(position: float) -> None:
    delay = Delay()
    delay.begin(500.0)
    assert delay.at(position) >= 0
    delay.finish(position)
    assert math.isfinite(delay.at(position))
    assert delay.at(position) >= 0
