"""The help screen: every key and what it does."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from tui.player.keymap import key_label

# Width in cells from which the keys are shown in two columns, the cells between these, and between key and text.
TWO_COLUMNS, BETWEEN, GAP = 66, 3, 2
# Cells of the narrowest text.
LEAST = 10
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
            yield KeyTable(self._lines, id="help-keys")
            texts = [*READING.split("\n\n"), *([self._preset] if self._preset else [])]
            paragraphs = (" ".join(paragraph.split()) for paragraph in texts)
            yield Static(Content("\n\n".join(paragraphs)), id="help-reading")

    def action_scroll(self, lines: int) -> None:
        """Scroll the box."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)


class KeyTable(Widget):
    """Keys and what they do, in as many columns as fit."""

    def __init__(self, entries: Sequence[tuple[str, str]], *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._entries = entries

    def render(self) -> Content:
        """Return the table."""
        return Content("\n").join(key_table(self._entries, self.size.width))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's names
        """Return the number of lines in `width` cells."""
        return len(key_table(self._entries, width))


def key_table(entries: Sequence[tuple[str, str]], width: int, two_from: int = TWO_COLUMNS) -> list[Content]:
    """Return the lines of a table of `entries`, keys and texts, in `width` cells, of two columns from `two_from` on."""
    if width < two_from:
        return _column(entries, width)
    half = -(-len(entries) // 2)
    left, right = entries[:half], entries[half:]
    # Where one column needs less than half of the room, the other one has the rest.
    room = width - BETWEEN
    first = min(_natural_width(left), max(room // 2, room - _natural_width(right)))
    rows = zip_longest(_column(left, first), _column(right, room - first), fillvalue=Content(""))
    return [one.pad_right(first - one.cell_length + BETWEEN) + other for one, other in rows]


def _column(entries: Sequence[tuple[str, str]], width: int) -> list[Content]:
    """Return `entries` in `width` cells, with the keys right-aligned and long texts indented."""
    left = _key_width(entries)
    lines = []
    for key, text in entries:
        head = Content.assemble((key.rjust(left), "bold $accent"), " " * GAP)
        wrapped = Content(text).wrap(max(width - head.cell_length, LEAST))
        lines += [(Content.blank(head.cell_length) if number else head) + part for number, part in enumerate(wrapped)]
    return lines


def _key_width(entries: Sequence[tuple[str, str]]) -> int:
    return max(len(key) for key, _ in entries)


def _natural_width(entries: Sequence[tuple[str, str]]) -> int:
    return _key_width(entries) + GAP + max(len(text) for _, text in entries)
