"""Plots: their scale, their steps, and their gaps."""

import re
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.report.figures import stretch_of
from streaming_vlm_mlx.report.plots import (
    HEIGHT,
    MOST_STEPS,
    WIDTH,
    Series,
    bar_plot,
    line_plot,
    nice_top,
    session_plots,
)
from tests.report.made import session


def seconds(count, first=0):
    return [(float(first + at), first + at + 1.0) for at in range(count)]


def numbers(path):
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", path)]


@given(st.floats(1e-6, 1e12))
def test_the_top_is_a_round_number_little_above(value):
    top = nice_top(value)
    assert value * (1 - 1e-9) <= top <= 2 * value
    assert len(f"{top:.6g}".replace(".", "").strip("0").split("e")[0].strip("0")) <= 2


def test_a_line_has_a_step_for_each_value_and_breaks_where_none_is():
    plot = line_plot("speed", "tokens", [Series("a", "c0", [(0, 1), (1, 2), (3, 4)], [4.0, 8.0, 2.0])], fmean)
    assert plot is not None
    assert plot.ticks == ("8", "4", "0")
    assert plot.shapes[0].path == "M0.0,50.0H250.0V0.0H500.0M750.0,75.0H1000.0"
    assert (plot.legend, plot.largest) == ((), "8")


def test_bars_lie_upon_each_other():
    lower, upper = Series("a", "vision", seconds(2), [1.0, 0.0]), Series("b", "decode", seconds(2), [1.0, 4.0])
    plot = bar_plot("work", "ms", [lower, upper], fmean)
    assert plot is not None
    assert plot.shapes[0].path == "M0.0,100.0V75.0H425.0V100.0Z"
    assert plot.shapes[1].path == "M0.0,75.0V50.0H425.0V75.0ZM500.0,100.0V0.0H925.0V100.0Z"
    assert plot.legend == (("vision", "a"), ("decode", "b"))


@pytest.mark.parametrize("count", [1, MOST_STEPS, MOST_STEPS + 1, 10 * MOST_STEPS])
def test_hours_are_drawn_in_few_steps_within_the_plot(count):
    values = [float(at % 7) + 1 for at in range(count)]
    plot = line_plot("speed", "tokens", [Series("a", "c0", seconds(count), values)], max)
    assert plot is not None
    assert plot.shapes[0].path.count("H") == min(count, MOST_STEPS)
    assert all(0 <= number <= max(WIDTH, HEIGHT) for number in numbers(plot.shapes[0].path))
    assert plot.largest == f"{max(values):g}"


def test_what_nobody_measured_has_no_plot():
    assert line_plot("speed", "tokens", [Series("a", "c0", [], [])], fmean) is None
    assert bar_plot("work", "ms", [], fmean) is None
    bare = session("a")
    bare = type(bare).from_dict({"version": 2, "seconds": [{"index": 0, "start": 0, "end": 1, "text": "a"}]})
    assert session_plots([stretch_of("game", (), [bare])], ["a"]) == []


def test_stretches_follow_one_another():
    late = session("a", "b")
    first = stretch_of("one", (), [late])
    second = stretch_of("two", (), [session(*"abcdefg", skipped=range(5))])
    plots = {plot.title: plot for plot in session_plots([second, first], ["run1"])}
    tokens = plots["KV cache"]
    assert (tokens.start, tokens.end) == (5, 14)
    assert plots["Work a second"].legend[0] == ("vision", "vision tower")
