"""Input lines at the foot of the screen, while the clip plays on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.validation import Validator
from textual.widgets import Input, Label

from streaming_vlm_mlx.plain_text import harmless

Purpose = Literal["question", "query", "sampling", "search"]

# Characters of a line; longer pasted text is cut.
MAX_LENGTH = 500
# Width of the screen in cells from which the labels are the long ones.
WIDE = 76
# Examples that are named.
MOST_EXAMPLES = 5
# Cells of the border at both sides.
BORDER = 2
# Keys that submit what was typed, and that discard it.
CLOSING_KEYS = ("enter", "escape")


def one_line(text: str) -> str:
    """Return `text` as a viewer can type it: one line of at most `MAX_LENGTH` harmless characters."""
    return " ".join(harmless(text[: 4 * MAX_LENGTH]).split())[:MAX_LENGTH]


def list_examples(examples: Sequence[str], count: int) -> str:
    """Return the first `count` of `examples`, and how many more there are."""
    rest = len(examples) - count
    return " ".join(map(one_line, examples[:count])) + (f" … and {rest} more" if rest > 0 else "")


@dataclass(frozen=True)
class Field:
    """An input line.

    Attributes:
        label: what stands before it.
        short: the label where the screen is narrow.
        value: what it holds at first.
        type: what may be typed.
        validators: what else is required of it.
        examples: what may be typed; those that fit are shown while the line is empty.
    """

    label: str
    short: str
    value: str = ""
    type: Literal["text", "number", "integer"] = "text"
    validators: tuple[Validator, ...] = ()
    examples: tuple[str, ...] = ()


class PromptLine(Input):
    """An input line that takes pasted text as one line of printable characters, and closes its prompt at once."""

    def __init__(self, prompt: "Prompt") -> None:
        super().__init__(max_length=MAX_LENGTH, compact=True)
        self._prompt = prompt

    async def _on_key(self, event: events.Key) -> None:
        # Textual calls the handler of Input as well, unless the event prevents it.
        if self.screen.focused is not self:
            # The prompt is closed: a key that was already queued here belongs to the player.
            event.prevent_default()
        elif event.key in CLOSING_KEYS:
            event.prevent_default()
            event.stop()
            # Direct calls: a message would be handled after the keys that are already queued here.
            if event.key == "enter":
                self._prompt.submit()
            else:
                self._prompt.close()

    def _on_paste(self, event: events.Paste) -> None:
        self.insert_text_at_cursor(one_line(event.text))
        event.stop()
        event.prevent_default()


class Prompt(Horizontal):
    """Asks for one or two lines; enter submits them, escape closes the prompt.

    It is not a modal screen, because Textual would redraw the whole player behind one at every change.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # Keeps these keys from the player while the viewer edits.
        Binding("up,down,pageup,pagedown", "nothing", show=False),
    ]

    @dataclass
    class Submitted(Message):
        """The viewer submitted valid `values`, one for each field."""

        purpose: Purpose
        values: Sequence[str]

    @dataclass
    class Refused(Message):
        """What the viewer submitted for `purpose` is not valid, for `reason`."""

        purpose: Purpose
        reason: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._labels = [Label(markup=False) for _ in range(2)]
        self._lines = [PromptLine(self) for _ in range(2)]
        self._purpose: Purpose = "question"
        self._fields: Sequence[Field] = ()

    def compose(self) -> ComposeResult:
        """Yield the lines, each after its label."""
        for label, line in zip(self._labels, self._lines, strict=True):
            yield label
            yield line

    def ask(self, purpose: Purpose, fields: Sequence[Field]) -> None:
        """Open at once with one or two `fields`; what is submitted comes as `Submitted` with `purpose`."""
        self._purpose, self._fields = purpose, fields
        for number, (label, line) in enumerate(zip(self._labels, self._lines, strict=True)):
            label.display = line.display = number < len(fields)
            if number < len(fields):
                field = fields[number]
                line.set_class(field.type != "text", "-number")
                line.type, line.validators = field.type, list(field.validators)
                line.value = field.value
        self._fit()
        self.display = True
        self.screen.add_class("-typing")
        self.screen.set_focus(self._lines[0])

    def on_resize(self) -> None:
        """Fit the labels and examples to the new width."""
        self._fit()

    def _fit(self) -> None:
        """Show the labels, and as many examples as fit whole."""
        width = self.screen.size.width
        for field, label, line in zip(self._fields, self._labels, self._lines, strict=False):
            text = f" {field.label if width >= WIDE else field.short} "
            label.update(text)
            counts = range(min(len(field.examples), MOST_EXAMPLES), 0, -1)
            lists = (list_examples(field.examples, count) for count in counts)
            room = width - BORDER - cell_len(text)
            line.placeholder = next((found for found in lists if cell_len(found) < room), "")

    def action_nothing(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close and discard what was typed."""
        self.display = False
        self.screen.remove_class("-typing")
        self.screen.set_focus(None)

    def submit(self) -> None:
        """Close and post what was typed; stay open at the first line that is not valid."""
        lines = self._lines[: len(self._fields)]
        for line in lines:
            result = line.validate(line.value)
            if result and not result.is_valid:
                self.screen.set_focus(line)
                self.post_message(self.Refused(self._purpose, result.failure_descriptions[-1]))
                return
        self.close()
        values = [one_line(line.value) for line in lines]
        self.post_message(self.Submitted(self._purpose, values))
