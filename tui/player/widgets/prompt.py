"""Lines to type into, at the foot of the screen, while the clip plays on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.validation import Validator
from textual.widgets import Input, Label

from tui.player.transcript import harmless

# Characters of a line; a pasted novel is cut.
LONGEST = 500
# Keys that take what was typed, and that leave it.
ENDINGS = ("enter", "escape")


@dataclass(frozen=True)
class Field:
    """A line to fill in: what stands before it, what stands in it, and what may."""

    label: str
    value: str = ""
    type: Literal["text", "number", "integer"] = "text"
    validators: tuple[Validator, ...] = ()


class Line(Input):
    """An input line that takes pasted text as one line of what can be written, and knows at once when it is left."""

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        """Call `enter` or `leave` at once: a binding or a message would come behind the keys that follow."""
        super().__init__(max_length=LONGEST, compact=True)
        self._now = dict(zip(ENDINGS, (enter, leave), strict=True))

    async def _on_key(self, event: events.Key) -> None:
        # Textual goes on to Input's own way with a key, unless that is prevented.
        if self.screen.focused is not self:
            # What was on its way when the prompt closed is for the player.
            event.prevent_default()
        elif event.key in self._now:
            event.prevent_default()
            event.stop()
            self._now[event.key]()

    def _on_paste(self, event: events.Paste) -> None:
        self.insert_text_at_cursor(" ".join(harmless(event.text[: 4 * LONGEST]).split())[:LONGEST])
        event.stop()
        event.prevent_default()


class Prompt(Horizontal):
    """Asks for one or two lines; enter gives them, escape leaves.

    It is no screen of its own: Textual would draw the whole player anew behind one at every change.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # Else they would play while the viewer edits.
        Binding("up,down,pageup,pagedown", "nothing", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._labels = [Label(markup=False) for _ in range(2)]
        self._lines = [Line(self._submit, self._leave) for _ in range(2)]
        self._asked = 0
        self._done: Callable[[Sequence[str]], None] = lambda _: None

    def compose(self) -> ComposeResult:
        """Lay out the lines, each behind its label."""
        for label, line in zip(self._labels, self._lines, strict=True):
            yield label
            yield line

    def ask(self, fields: Sequence[Field], done: Callable[[Sequence[str]], None]) -> None:
        """Open with one or two `fields`, at once; `done` gets what they hold in the end."""
        self._asked, self._done = len(fields), done
        for number, (label, line) in enumerate(zip(self._labels, self._lines, strict=True)):
            label.display = line.display = number < len(fields)
            if number < len(fields):
                field = fields[number]
                label.update(f" {field.label} ")
                line.set_class(field.type != "text", "-number")
                line.type, line.validators = field.type, list(field.validators)
                line.value = field.value
        self.display = True
        self.screen.set_focus(self._lines[0])

    def action_nothing(self) -> None:
        """Keep a key from the player."""

    def _leave(self) -> None:
        """Close, nothing asked."""
        self.display = False
        self.screen.set_focus(None)

    def _submit(self) -> None:
        """Close and give what was typed, once all of it is good."""
        lines = self._lines[: self._asked]
        bad = [line for line in lines if (result := line.validate(line.value)) and not result.is_valid]
        if bad:
            self.screen.set_focus(bad[0])
            self.app.bell()
            return
        self._leave()
        self._done([" ".join(harmless(line.value).split()) for line in lines])
