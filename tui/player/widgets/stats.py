"""The stats overlay: what each second cost, as a stacked plot, all gauges, versions and the machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from streaming_vlm_mlx.plain_text import visible
from streaming_vlm_mlx.stream.events import Timings
from tui.player.metrics import LEVELS, Meter, size_label

# The parts of a second's work, from the bottom of the plot to its top.
PARTS = ("vision", "prefill", "decode")
# Rows of the plot, and the cells of its scale.
ROWS, SCALE = 8, 8
# Cells of the names of values.
NAME = 12


@dataclass(frozen=True, slots=True)
class PlotCell:
    """One cell of a stacked plot: eighths that the part `below` fills, and the part `above` that, None for none."""

    eighths: int
    below: int | None
    above: int | None

    @property
    def parts(self) -> tuple[int | None, int | None]:
        """The lower part, and the one above."""
        return self.below, self.above


EMPTY = PlotCell(8, None, None)


def stack(columns: Sequence[Sequence[float]], rows: int, top: float) -> list[list[PlotCell]]:
    """Return the rows of a stacked plot, the upper one first.

    Args:
        columns: for each column, the sizes of its parts, the lowest first.
        rows: height of the plot in cells.
        top: the sum that fills a column.
    """
    return [[_cell(column, row, 8 * rows, top) for column in columns] for row in range(rows)][::-1]


def _cell(column: Sequence[float], row: int, eighths: int, top: float) -> PlotCell:
    """Return the cell in `row` from the bottom, where `eighths` of a cell are as high as `top`."""
    edge, edges = 0.0, []
    for size in column:
        edge += max(size, 0.0)
        # Divided first: the reciprocal of a tiny sum is infinite.
        edges.append((round(edge / top * eighths) if top > 0 else 0) - 8 * row)
    # The part of each filled eighth, from the bottom.
    parts = [next(part for part, edge in enumerate(edges) if edge > eighth) for eighth in range(min(edges[-1], 8))]
    if not parts:
        return EMPTY
    if len(parts) < 8:
        # A cell has two colours, and what is above the column takes one of them.
        return PlotCell(len(parts), max(set(parts), key=parts.count), None)
    # Of three parts the middle one is left out.
    filled = parts.count(parts[0])
    return PlotCell(filled, parts[0], parts[-1] if filled < 8 else None)


@dataclass(frozen=True)
class StatsInfo:
    """What the overlay shows.

    Attributes:
        timings: of the last seconds, the oldest first.
        meters: all gauges.
        generated: number of generated seconds.
        skipped: number of skipped seconds.
        versions: of the program and its packages.
        machine: what it runs on, as sessions keep it.
    """

    timings: Sequence[Timings]
    meters: Sequence[Meter]
    generated: int
    skipped: int
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]


class Stats(Widget):
    """Shows the figures of the stream over the picture."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"stats--{part}" for part in PARTS), "stats--name", "stats--value"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._info: StatsInfo | None = None

    def show(self, info: StatsInfo) -> None:
        """Show `info`."""
        if info != self._info:
            self._info = info
            self.refresh()

    def render(self) -> Content:
        """Return the plot and the lines below it, as many as fit."""
        info = self._info
        if info is None:
            return Content("")
        width, height = self.size
        facts = [("seconds", f"{info.generated} commented on, {info.skipped} skipped")]
        facts += [(meter.name, f"{meter.value}  {meter.note}".rstrip()) for meter in info.meters]
        facts += _describe(info)
        rows = min(ROWS, max(height - 1 - len(facts), 3))
        lines = [self._legend(info.timings), *self._plot(info.timings, width, rows)]
        lines += [self._fact(name, value).truncate(width, ellipsis=True) for name, value in facts]
        return Content("\n").join(lines[:height])

    def _legend(self, timings: Sequence[Timings]) -> Content:
        if not timings:
            return Content("no second was commented on yet")
        return Content("  ").join(
            Content.assemble(("■", self._style(part)), f" {part} {value:.0f} ms")
            for part, value in zip(PARTS, _parts(timings[-1]), strict=True)
        )

    def _plot(self, timings: Sequence[Timings], width: int, rows: int) -> Iterable[Content]:
        columns = [_parts(timing) for timing in timings[-max(width - SCALE, 1) :]]
        top = max(map(sum, columns), default=0.0)
        for number, row in enumerate(stack(columns, rows, top)):
            label = f"{top:.0f} ms" if not number else "0" if number == rows - 1 else ""
            scale = Content(label.rjust(SCALE - 1) + " ").stylize(self._style("name"))
            runs = ((cell, len(list(run))) for cell, run in groupby(row))
            yield scale + Content.assemble(*((_letter(cell) * count, self._colours(cell)) for cell, count in runs))

    def _colours(self, cell: PlotCell) -> Style:
        below, above = (part if part is None else self._style(PARTS[part]).foreground for part in cell.parts)
        return Style(foreground=below, background=above)

    def _fact(self, name: str, value: str) -> Content:
        styled = Content(name.ljust(NAME)).stylize(self._style("name"))
        return styled + Content(visible(value)).stylize(self._style("value"))

    def _style(self, part: str) -> Style:
        return self.get_visual_style(f"stats--{part}", partial=True)


def _letter(cell: PlotCell) -> str:
    return " " if cell.below is None else LEVELS[cell.eighths - 1]


def _parts(timing: Timings) -> tuple[float, float, float]:
    return timing.vision_ms, timing.prefill_ms, timing.decode_ms


def _describe(info: StatsInfo) -> Iterable[tuple[str, str]]:
    """Yield the device, the machine and the versions, each where it is known."""
    machine = info.machine
    device = [str(machine[name]) for name in ("device", "blas") if machine.get(name)]
    if device:
        yield "device", ", ".join(device)
    memory = machine.get("memory_bytes")
    parts = [str(machine[name]) for name in ("processor", "system") if machine.get(name)]
    if parts:
        yield "machine", ", ".join([*parts, *([size_label(memory)] if isinstance(memory, int) else [])])
    if info.versions:
        yield "versions", ", ".join(f"{name} {number}" for name, number in info.versions.items())
