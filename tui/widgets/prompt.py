"""Lines to type into, at the foot of the screen, while the clip plays on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.validation import Validator
from textual.widgets import Input, Label

from tui.transcript import harmless

# Characters of a line; a pasted novel is cut.
LONGEST = 500


@dataclass(frozen=True)
class Field:
    """A line to fill in: what stands before it, what stands in it, and what may."""

    label: str
    value: str = ""
    type: Literal["text", "number", "integer"] = "text"
    validators: tuple[Validator, ...] = ()


class Line(Input):
    """An input line that takes pasted text as one line of what can be written."""

    def _on_paste(self, event: events.Paste) -> None:
        self.insert_text_at_cursor(" ".join(harmless(event.text[: 4 * LONGEST]).split())[:LONGEST])
        event.stop()
        event.prevent_default()


class Prompt(Horizontal):
    """Asks for one or more lines; enter gives them, escape leaves.

    It is no screen of its own: Textual would draw the whole player anew behind one at every change.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave"),
        # Else they would play while the viewer edits.
        Binding("up,down,pageup,pagedown", "nothing", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._done: Callable[[Sequence[str]], None] = lambda _: None

    async def ask(self, fields: Sequence[Field], done: Callable[[Sequence[str]], None]) -> None:
        """Open with `fields`; `done` gets what they hold in the end."""
        self._done = done
        await self.remove_children()
        for field in fields:
            await self.mount(Label(f" {field.label} ", markup=False))
            line = Line(field.value, type=field.type, validators=field.validators, max_length=LONGEST, compact=True)
            line.set_class(field.type != "text", "-number")
            await self.mount(line)
        self.display = True
        self.query(Line).first().focus()

    def action_leave(self) -> None:
        """Close, nothing asked."""
        self.display = False
        self.screen.set_focus(None)

    def action_nothing(self) -> None:
        """Keep a key from the player."""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Close and give what was typed, once all of it is good."""
        event.stop()
        lines = list(self.query(Line))
        bad = [line for line in lines if not line.is_valid]
        if bad:
            bad[0].focus()
            self.app.bell()
            return
        self.action_leave()
        self._done([" ".join(harmless(line.value).split()) for line in lines])
