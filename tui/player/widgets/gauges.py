"""The gauges: one line each, in as many columns as fit."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from tui.player.metrics import LEVELS, Meter, bar, sparkline

# Widths in cells: the name and the value of a gauge, a bar, and a column of gauges.
NAME, VALUE, BAR, COLUMN = 12, 12, 10, 46
# Without the full block, which would touch the line above.
LOW = LEVELS[:-1]


class Gauges(Widget):
    """Shows meters; where there is little room, only the first ones."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "gauges--name",
        "gauges--value",
        "gauges--graph",
        "gauges--bar",
        "gauges--note",
    }

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._meters: Sequence[Meter] = ()

    def show(self, meters: Sequence[Meter]) -> None:
        """Show `meters`, the most important first."""
        if meters != self._meters:
            self._meters = meters
            self.refresh()

    def render(self) -> Content:
        """Return the meters in columns."""
        width, height = self.size
        columns = max(min(width // COLUMN, 3), 1)
        shown = self._meters[: columns * height]
        rows = max(-(-len(shown) // columns), 1)
        lines = [self._line(shown[start : start + rows], width // columns) for start in range(0, len(shown), rows)]
        joined = zip_longest(*lines, fillvalue=Content(""))
        # An empty line between the meters, where there is room.
        return Content("\n\n" if height >= 2 * rows - 1 else "\n").join(Content("").join(cells) for cells in joined)

    def _line(self, meters: Sequence[Meter], width: int) -> list[Content]:
        return [self._meter(meter, width - 1).pad_right(1) for meter in meters]

    def _meter(self, meter: Meter, width: int) -> Content:
        name = Content(meter.name.ljust(NAME)).stylize(self.get_visual_style("gauges--name", partial=True))
        value = Content(meter.value.rjust(VALUE)).stylize(self.get_visual_style("gauges--value", partial=True))
        room = max(width - NAME - VALUE - 2, 0)
        note = meter.note if len(meter.note) <= room else ""
        room = max(room - len(note) - bool(note), 0)
        # In steps of four cells: a shorter bar says nothing.
        graph = (
            sparkline(meter.history, room, LOW) if meter.share is None else bar(meter.share, min(room, BAR) // 4 * 4)
        )
        drawn = Content(graph).stylize(self.get_visual_style("gauges--graph", partial=True))
        remark = Content(note).stylize(self.get_visual_style("gauges--note", partial=True))
        whole = name + value + "  " + drawn + (" " if graph and note else "") + remark
        return whole.truncate(width, ellipsis=True, pad=True)
