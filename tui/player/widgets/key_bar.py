"""The bottom line: the keys that matter most, as many as fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.content import Content
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class Hint:
    """A key as it is shown, what it does, and the action of a click."""

    key: str
    text: str
    action: str

    @property
    def width(self) -> int:
        """Cells that it takes, without the gap behind it."""
        return len(self.key) + 1 + len(self.text)


class KeyBar(Widget):
    """Hints in one line; Textual's footer would run over the edge of 80 columns."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"keys--key", "keys--text"}

    def __init__(self, hints: Sequence[Hint], *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        """Take `hints`, the ones to leave out first at the end but one: the last is always shown."""
        super().__init__(id=id)
        self._hints = tuple(hints)

    def fitting(self, width: int) -> tuple[Hint, ...]:
        """Return the hints that fit `width` cells."""
        *many, last = self._hints
        while many and sum(hint.width + 2 for hint in many) + last.width > width:
            many.pop()
        return (*many, last)

    def render(self) -> Content:
        """Return the line."""
        key, text = (self.get_visual_style(f"keys--{part}", partial=True) for part in ("key", "text"))
        shown = (Content.assemble((hint.key, key), (f" {hint.text}", text)) for hint in self.fitting(self.size.width))
        return Content("  ").join(shown)

    async def on_click(self, event: events.Click) -> None:
        """Do what the hint under the pointer says."""
        edge = 0
        for hint in self.fitting(self.size.width):
            edge += hint.width + 2
            if event.x < edge:
                await self.run_action(hint.action)
                return
