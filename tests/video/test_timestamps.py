import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.video.timestamps import HELD_BACK, FrameCursor, StreamClock, TimedPicture, TimestampReader

MILLISECOND = Fraction(1, 1000)

# Timestamps in milliseconds, in order, some of them equal; and moments to ask for.
stamps = st.lists(st.integers(0, 9000), min_size=1, max_size=40).map(sorted)
moments = st.lists(st.integers(0, 10_000), min_size=1, max_size=20).map(sorted)


def run(stamps: list[int], length: int = 40) -> list[TimedPicture[int]]:
    return [TimedPicture(ms / 1000, (ms + length) / 1000, number) for number, ms in enumerate(stamps)]


def reader(rate: float = 25.0, origin: int = 0, counted: bool = False) -> TimestampReader:
    return TimestampReader(StreamClock(MILLISECOND, rate, origin, counted), longest_step=10.0)


@given(stamps, moments)
def test_each_moment_takes_the_first_frame_at_or_after_it(stamps: list[int], moments: list[int]) -> None:
    cursor = FrameCursor(iter(run(stamps)))
    for moment in moments:
        chosen = cursor.at(moment / 1000)
        assert chosen is not None
        assert chosen.picture == next((n for n, ms in enumerate(stamps) if ms >= moment), len(stamps) - 1)


@given(stamps, moments)
def test_a_moment_can_take_the_first_frame_that_ends_at_or_after_it(stamps: list[int], moments: list[int]) -> None:
    cursor = FrameCursor(iter(run(stamps)), by_end=True)
    for moment in moments:
        chosen = cursor.at(moment / 1000)
        assert chosen is not None
        assert chosen.picture == next((n for n, ms in enumerate(stamps) if ms + 40 >= moment), len(stamps) - 1)


@given(stamps, moments, st.integers(1, 10_000))
def test_pictures_after_the_limit_are_ignored(stamps: list[int], moments: list[int], limit: int) -> None:
    bounded = FrameCursor(iter(run(stamps)), limit / 1000)
    cut = FrameCursor(iter(run([ms for ms in stamps if ms < limit])))
    for moment in moments:
        assert bounded.at(moment / 1000) == cut.at(moment / 1000)
    assert bounded.end is None or bounded.end <= limit / 1000


def test_the_end_is_the_last_frames_own_once_it_was_met() -> None:
    cursor = FrameCursor(iter(run([0, 500, 1000])))
    cursor.at(1.0)
    assert cursor.end is None
    cursor.at(1.001)
    assert cursor.end == pytest.approx(1.04)


def test_floats_that_miss_a_timestamp_by_rounding_still_take_it() -> None:
    cursor = FrameCursor(iter(run([100, 200, 300])))
    chosen = cursor.at(0.1 + 0.2)  # 0.30000000000000004
    assert chosen is not None
    assert chosen.picture == 2
    assert cursor.end is None


@given(st.lists(st.one_of(st.none(), st.integers(0, 5000)), max_size=60))
def test_time_never_goes_back(pts: list[int | None]) -> None:
    clock = reader()
    times = [time for stamp in pts if (time := clock.seconds(stamp)) is not None]
    assert all(a <= b for a, b in itertools.pairwise(times))


@given(stamps)
def test_timestamps_in_order_are_kept_from_the_origin_on(stamps: list[int]) -> None:
    clock = reader(origin=stamps[0])
    assert [clock.seconds(ms) for ms in stamps] == pytest.approx([(ms - stamps[0]) / 1000 for ms in stamps])


def test_missing_timestamps_are_counted() -> None:
    clock = reader(rate=25.0)
    assert [clock.seconds(pts) for pts in (None, None, 100, None)] == pytest.approx([0, 0.04, 0.1, 0.14])


def test_timestamps_that_mean_nothing_are_counted_over() -> None:
    clock = reader(rate=25.0, counted=True)
    assert [clock.seconds(pts) for pts in (700, 3, 900)] == pytest.approx([0, 0.04, 0.08])


def test_a_late_frame_is_dropped() -> None:
    clock = reader()
    assert [clock.seconds(pts) for pts in (0, 80, 40, 120)] == [0.0, 0.08, None, 0.12]


def test_a_frame_thrown_far_ahead_is_dropped() -> None:
    clock = reader()
    assert [clock.seconds(pts) for pts in (0, 10_041, 40, 9_000)] == [0.0, None, 0.04, 9.0]


def test_time_continues_after_a_clock_restarts() -> None:
    clock = reader(rate=25.0)
    before = [clock.seconds(ms) for ms in range(0, 2000, 40)]
    after = [time for ms in range(0, 2000, 40) if (time := clock.seconds(ms)) is not None]
    assert len(after) == len(before) - HELD_BACK
    assert after[0] == pytest.approx(2.0)
    assert after[-1] - after[0] == pytest.approx(40 * (len(after) - 1) / 1000)


def test_frames_are_counted_when_the_clock_runs_backwards() -> None:
    clock = reader(rate=25.0)
    times = [time for ms in range(4000, 0, -40) if (time := clock.seconds(ms)) is not None]
    # Two restarts cost what a decoder may hold back; nothing is dropped after them.
    assert len(times) >= 100 - 2 * (HELD_BACK + 1)
    assert times[-1] - times[2] == pytest.approx(40 * (len(times) - 3) / 1000)
