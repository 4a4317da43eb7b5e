"""The help screen: every key and what it does."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

# What Textual calls these keys, and what is printed on them.
KEYS = {
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "slash": "/",
    "question_mark": "?",
    "0": "0–9",
}
READING = """
The commentary is the model's, second by second; ▌ marks the one that grows. The top line tells how far it is behind
the picture. At the pace “live” the clip keeps to the clock, and seconds that the model has no time for are passed over
(╍ below the picture); at “every second” the clip waits for the model.

Differences from the truth are underlined: in the commentary words that the truth does not have, in the truth words
that were not said. The last line but one is what the model remembers, to scale; × is what it has just let go.
"""


class HelpScreen(ModalScreen[None]):
    """Keys on the left, what they do on the right, and how to read the screen."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,space,enter", "dismiss", "close"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
    ]

    def __init__(self, bindings: Sequence[BindingType]) -> None:
        """Take the bindings to explain; hidden ones are left out."""
        super().__init__()
        self._lines = [
            (" ".join(map(key_label, b.key.split(","))), b.description)
            for b in bindings
            if isinstance(b, Binding) and b.show
        ]

    def compose(self) -> ComposeResult:
        """Lay out the lines in a box that scrolls."""
        width = max(len(key) for key, _ in self._lines)
        keys = "\n".join(f"{key:>{width}}  {text}" for key, text in [*self._lines, ("ctrl+p", "commands, themes")])
        with VerticalScroll(id="help") as box:
            box.border_title = "keys"
            box.border_subtitle = "esc closes"
            yield Static(Content(keys), id="help-keys")
            yield Static(Content(READING), id="help-reading")

    def action_scroll(self, lines: int) -> None:
        """Scroll the box."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)


def key_label(key: str) -> str:
    """Return how a key is written on a keyboard."""
    *modifiers, name = key.split("+")
    return "+".join([*modifiers, KEYS.get(name, name)])
