"""Gauges, sparklines and bars."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.player.fakes import second_done
from tui.player.metrics import HISTORY, PlayerMetrics, bar, compare, sparkline
from tui.player.transcript import Transcript, by_second

Rgb = tuple[int, int, int]


def test_meters_tell_what_a_second_cost() -> None:
    metrics = PlayerMetrics()
    assert {meter.value for meter in metrics.meters(0.0)} == {"–", "0.0 s"}
    metrics.add(second_done(0, "he scores now", milliseconds=650.0))
    metrics.add(second_done(1, "he scores", milliseconds=250.0))
    meters = {meter.name: meter for meter in metrics.meters(0.7)}
    assert meters["tokens/s"].value == "20.0"
    assert meters["speed"].value == "×4.0"
    assert meters["first word"].value == "160 ms"
    assert meters["delay"].value == "0.7 s"
    assert (meters["memory"].value, meters["memory"].note) == ("4.1 GB", "of 16 GB")
    assert (meters["MLX"].value, meters["MLX"].note) == ("1.2 + 0.3 GB", "peak 2.0 GB")
    assert (meters["cache"].value, meters["cache"].note) == ("440 tokens", "34 MB")
    metrics.skipped = 3
    assert {m.name: m.note for m in metrics.meters(0.0)}["delay"] == "3 skipped"


def test_the_cost_of_a_minute_is_kept() -> None:
    metrics = PlayerMetrics()
    for number in range(3 * HISTORY):
        metrics.add(second_done(number))
    assert len(metrics.timings) == HISTORY


@given(st.lists(st.floats(-1e3, 1e6), max_size=30), st.integers(-2, 20))
def test_sparklines_fit_and_show_the_largest_as_a_full_cell(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), max(width, 0))
    shown = values[-width:] if width > 0 else []
    if shown and max(shown) > 0:
        assert line[shown.index(max(shown))] == "█"


@given(st.floats(-1, 2), st.integers(0, 30))
def test_bars_fit_and_grow(amount: float, width: int) -> None:
    drawn = bar(amount, width)
    assert len(drawn) == width
    assert drawn.count("━") + drawn.count("╸") / 2 == pytest.approx(min(max(amount, 0), 1) * width, abs=0.25 + 1e-9)


@pytest.mark.parametrize(("delay", "shown"), [(-0.04, "0.0 s"), (0.04, "0.0 s"), (-0.06, "-0.1 s"), (1.0, "+1.0 s")])
def test_a_word_delay_of_zero_has_no_sign(delay: float, shown: str) -> None:
    transcript = Transcript(by_second([(0.2, 0.4, "goal")]))
    transcript.finish(0, "goal", "")
    metrics = PlayerMetrics(comparison=replace(compare(transcript), delay=delay))
    assert {meter.name: meter.value for meter in metrics.meters(0.0)}["word delay"] == shown
