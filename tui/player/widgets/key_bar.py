"""The bottom line: the most important keys, as many as fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui.player.keymap import Keymap, key_label, remap


@dataclass(frozen=True, slots=True)
class KeyHint:
    """A key's label, its description, its action on a click, and the ids of its bindings with spaces between."""

    key: str
    text: str
    action: str
    ids: str

    def remapped(self, bindings: Sequence[BindingType], keymap: Keymap) -> "KeyHint":
        """Return the hint with the keys that `keymap` gives to its bindings, which are among `bindings`."""
        ids = self.ids.split()
        if keymap.keys().isdisjoint(ids):
            return self
        keys = {binding.id: key_label(binding.key.partition(",")[0]) for binding in remap(bindings, keymap)}
        return replace(self, key=" ".join(keys[name] for name in ids))

    @property
    def width(self) -> int:
        """Cells, without the gap after it."""
        return len(self.key) + 1 + len(self.text)


class KeyBar(Widget):
    """Key hints in one line; Textual's footer does not fit into 80 columns."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"keys--key", "keys--text"}

    @dataclass
    class Pressed(Message):
        """The viewer clicked a hint."""

        hint: KeyHint

    def __init__(self, hints: Sequence[KeyHint], *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        """Show `hints`; where there is little room, the last but one goes first, and the last always stays."""
        super().__init__(id=id)
        self._hints = tuple(hints)

    def fitting(self, width: int) -> tuple[KeyHint, ...]:
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

    def on_click(self, event: events.Click) -> None:
        """Post the hint under the pointer."""
        edge = 0
        for hint in self.fitting(self.size.width):
            edge += hint.width + 2
            if event.x < edge:
                self.post_message(self.Pressed(hint))
                return
