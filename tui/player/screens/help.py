"""The help screen: every key and what it does."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.player.keymap import key_label

# Width in cells from which the keys are shown in two columns.
TWO_COLUMNS = 76
READING = """\
The model comments on the clip one second at a time; ▌ marks the second that is being generated. The top line
shows how late the commentary is. At the pace “real time” the clip keeps to the clock, and seconds that the model has no
time for are skipped (╍ on the timeline); at “wait for model” the clip waits until each second has its commentary.

Differences from the truth are underlined: commentary words that are not in the truth, and truth words that are not in
the commentary. The answer to a question comes in the next second, after ↳. The cache line shows to scale what the model
remembers; × marks what it has just dropped.
"""


class HelpScreen(ModalScreen[None]):
    """The keys, and how to read the screen."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,space,enter", "dismiss", "close"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
    ]

    def __init__(self, bindings: Sequence[BindingType], preset: str = "") -> None:
        """Explain `bindings`, without the hidden ones, and how the model runs, if the sentence `preset` says so."""
        super().__init__()
        self._preset = preset
        self._lines = [
            (" ".join(map(key_label, b.key.split(","))), b.description)
            for b in bindings
            if isinstance(b, Binding) and b.show
        ]
        self._lines.append(("ctrl+p", "commands, themes"))

    def compose(self) -> ComposeResult:
        """Yield the lines in a box that scrolls."""
        with VerticalScroll(id="help") as box:
            box.border_title = "keys"
            box.border_subtitle = "esc closes"
            yield Static(self._keys(self.app.size.width), id="help-keys")
            texts = [*READING.split("\n\n"), *([self._preset] if self._preset else [])]
            paragraphs = (" ".join(paragraph.split()) for paragraph in texts)
            yield Static(Content("\n\n".join(paragraphs)), id="help-reading")

    def on_resize(self, event: events.Resize) -> None:
        """Lay out the keys for the new width."""
        self.call_later(self.query_one("#help-keys", Static).update, self._keys(event.size.width))

    def _keys(self, width: int) -> Content:
        """Return the keys in as many columns as fit into `width` cells."""
        columns = 2 if width >= TWO_COLUMNS else 1
        length = -(-len(self._lines) // columns)
        blocks = [_aligned(self._lines[start : start + length]) for start in range(0, len(self._lines), length)]
        rows = zip_longest(*blocks, fillvalue=Content(""))
        return Content("\n").join(Content("  ").join(row) for row in rows)

    def action_scroll(self, lines: int) -> None:
        """Scroll the box."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)


def _aligned(lines: Sequence[tuple[str, str]]) -> list[Content]:
    """Return one line for each key, all of the same width, with the keys right-aligned."""
    left, right = (max(map(len, column)) for column in zip(*lines, strict=True))
    return [Content.assemble((key.rjust(left), "bold $accent"), f"  {text.ljust(right)}") for key, text in lines]
