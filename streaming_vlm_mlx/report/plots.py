"""Plots of a report: what sessions measured over time as SVG paths, each value a step as wide as its second."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streaming_vlm_mlx.eval.report import MB, PARTS
from streaming_vlm_mlx.report.figures import Stretch
from streaming_vlm_mlx.stream.events import GenerationResult

# The coordinates of a plot; the page stretches them.
WIDTH, HEIGHT = 1000.0, 100.0
# Colours of columns in the style sheet.
_COLOURS = 6
# Seconds that have a step of their own; of more, neighbours share one.
MOST_STEPS = 240
# The share of a step that is free between two bars, where they are wide enough.
GAP, GAPLESS = 0.15, 120
_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

Reduce = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Series:
    """Values over time.

    Attributes:
        name: for the legend.
        style: the CSS class of its colour.
        spans: start and end of each value, in seconds.
        values: of each span.
    """

    name: str
    style: str
    spans: Sequence[tuple[float, float]]
    values: Sequence[float]


@dataclass(frozen=True)
class Shape:
    """A path of SVG and its CSS class."""

    style: str
    path: str


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        title: what it shows.
        unit: of its values.
        ticks: the labels of the top, the middle and the bottom.
        shapes: what is drawn in `WIDTH` by `HEIGHT`.
        legend: style and name of each series; empty for a single one.
        start: seconds at its left edge.
        end: seconds at its right edge.
        largest: the largest value.
    """

    title: str
    unit: str
    ticks: tuple[str, str, str]
    shapes: tuple[Shape, ...]
    legend: tuple[tuple[str, str], ...]
    start: float
    end: float
    largest: str


def line_plot(title: str, unit: str, series: Sequence[Series], reduce: Reduce) -> Plot | None:
    """Return a plot with a line for each of `series`; None where none has a value.

    Args:
        title: what it shows.
        unit: of the values.
        series: the lines.
        reduce: makes one of the values of neighbours.
    """
    return _plot(title, unit, series, reduce, _line, stacked=False)


def bar_plot(title: str, unit: str, series: Sequence[Series], reduce: Reduce) -> Plot | None:
    """Return a plot with bars in which `series`, which share their spans, lie upon each other; None without values."""
    return _plot(title, unit, series, reduce, _bars, stacked=True)


_Step = tuple[float, float, float, float]
_Draw = Callable[[Sequence[_Step]], str]


def _plot(title: str, unit: str, series: Sequence[Series], reduce: Reduce, draw: _Draw, stacked: bool) -> Plot | None:
    series = [each for each in series if len(each.values)]
    if not series:
        return None
    start = min(first for each in series for first, _ in each.spans)
    end = max(last for each in series for _, last in each.spans)
    reduced = [_reduced(each, start, end, reduce) for each in series]
    sums = [sum(values) for values in zip(*(each.values for each in reduced), strict=True)] if stacked else []
    largest = max(sums, default=0.0) if stacked else max(value for each in reduced for value in each.values)
    top = nice_top(largest)
    below = [0.0] * len(reduced[0].values)
    shapes = []
    for each in reduced:
        floors = below if stacked else [0.0] * len(each.values)
        steps = [
            (*_scaled(each.spans[i], start, end), HEIGHT * (1 - floors[i] / top), _height(floors[i] + value, top))
            for i, value in enumerate(each.values)
        ]
        shapes.append(Shape(each.style, draw(steps)))
        if stacked:
            below = [floor + value for floor, value in zip(below, each.values, strict=True)]
    legend = tuple((each.style, each.name) for each in series) if len(series) > 1 else ()
    ticks = (number(top), number(top / 2), "0")
    return Plot(title, unit, ticks, tuple(shapes), legend, start, end, number(largest))


def nice_top(largest: float) -> float:
    """Return a round number from `largest` up, 1 for nothing."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (*_NICE, 10.0 * _NICE[-1]) if step * power >= largest * (1 - 1e-9))


def number(value: float) -> str:
    """Return `value` with three digits, or more where it is a large whole number."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _reduced(series: Series, start: float, end: float, reduce: Reduce) -> Series:
    """Return `series` with at most `MOST_STEPS` values, each of the same time."""
    if len(series.values) <= MOST_STEPS:
        return series
    width = (end - start) / MOST_STEPS
    groups: dict[int, list[float]] = {}
    for (first, _), value in zip(series.spans, series.values, strict=True):
        groups.setdefault(min(int((first - start) / width), MOST_STEPS - 1), []).append(value)
    spans = [(start + at * width, start + (at + 1) * width) for at in sorted(groups)]
    return Series(series.name, series.style, spans, [reduce(groups[at]) for at in sorted(groups)])


def _scaled(span: tuple[float, float], start: float, end: float) -> tuple[float, float]:
    length = (end - start) or 1.0
    return WIDTH * (span[0] - start) / length, WIDTH * (span[1] - start) / length


def _height(value: float, top: float) -> float:
    return HEIGHT * (1 - value / top)


def _line(steps: Sequence[_Step]) -> str:
    """Return a line of steps, broken where no value is."""
    parts: list[str] = []
    at = None
    for left, right, _, height in steps:
        joined = at is not None and abs(at - left) < 1
        parts.append(f"{'V' if joined else f'M{left:.1f},'}{height:.1f}H{right:.1f}")
        at = right
    return "".join(parts)


def _bars(steps: Sequence[_Step]) -> str:
    gap = GAP if len(steps) <= GAPLESS else 0.0
    return "".join(
        f"M{left:.1f},{bottom:.1f}V{height:.1f}H{right - gap * (right - left):.1f}V{bottom:.1f}Z"
        for left, right, bottom, height in steps
        if height < bottom
    )


def session_plots(stretches: Sequence[Stretch], columns: Sequence[str]) -> list[Plot]:
    """Return the plots of work, tokens, memory and cache over the time of the stretches, one after the other."""
    timed = [_timed(stretches, column) for column in range(len(columns))]
    plots: list[Plot | None] = []
    for name, seconds in zip(columns, timed, strict=True):
        spans = [at for at, second in seconds if second.timings.total_ms]
        parts = [
            Series(
                PARTS[part], part, spans, [getattr(s.timings, f"{part}_ms") for _, s in seconds if s.timings.total_ms]
            )
            for part in ("vision", "prefill", "decode")
        ]
        title = f"Work a second, {name}" if len(columns) > 1 else "Work a second"
        plots.append(bar_plot(title, "ms", parts if spans else [], statistics.fmean))

    def lines(title: str, unit: str, value: Callable[[GenerationResult], float | None], reduce: Reduce) -> Plot | None:
        series = []
        for number, (name, seconds) in enumerate(zip(columns, timed, strict=True)):
            known = [(at, found) for at, second in seconds if (found := value(second)) is not None]
            series.append(Series(name, f"c{number % _COLOURS}", [at for at, _ in known], [found for _, found in known]))
        return line_plot(title, unit, series, reduce)

    plots.append(lines("Tokens a second", "tokens", _token_speed, statistics.fmean))
    plots.append(lines("Memory of the process", "MB", lambda s: s.memory.process / MB if s.memory else None, max))
    plots.append(lines("Memory of MLX's arrays", "MB", lambda s: s.memory.active / MB if s.memory else None, max))
    plots.append(lines("KV cache", "tokens", lambda s: s.cache_tokens or None, max))
    plots.append(lines("KV cache", "MB", lambda s: s.cache_bytes / MB if s.cache_bytes else None, max))
    return [plot for plot in plots if plot]


def _token_speed(second: GenerationResult) -> float | None:
    milliseconds = second.timings.decode_ms
    return 1e3 * second.tokens / milliseconds if milliseconds > 0 else None


def _timed(stretches: Sequence[Stretch], column: int) -> list[tuple[tuple[float, float], GenerationResult]]:
    """Return the seconds of a column with their time; several stretches follow one another from 0 on."""
    found = []
    offset = 0.0 if len(stretches) == 1 else -stretches[0].start
    for number, stretch in enumerate(stretches):
        found += [((s.start + offset, s.end + offset), s) for s in stretch.sessions[column].seconds]
        if number + 1 < len(stretches):
            offset += stretch.end - stretches[number + 1].start
    return found
