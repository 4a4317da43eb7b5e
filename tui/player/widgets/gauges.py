"""The gauges in one line: the most important ones, as many as fit; the stats overlay has all of them."""

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from tui.player.metrics import Meter

GAP = Content("   ")


class Gauges(Widget):
    """Shows meters in one line."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"gauges--name", "gauges--value"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._meters: Sequence[Meter] = ()

    def show(self, meters: Sequence[Meter]) -> None:
        """Show `meters`, the most important first."""
        if meters != self._meters:
            self._meters = meters
            self.refresh()

    def render(self) -> Content:
        """Return the line."""
        line = Content("")
        for meter in self._meters:
            longer = line + GAP + self._meter(meter) if line else self._meter(meter)
            if longer.cell_length > self.size.width:
                break
            line = longer
        return line

    def _meter(self, meter: Meter) -> Content:
        name, value = (self.get_visual_style(f"gauges--{part}", partial=True) for part in ("name", "value"))
        return Content.assemble((f"{meter.name} ", name), (meter.value, value))
