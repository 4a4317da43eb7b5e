"""The list of bookmarks."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList

from tui.player.transcript import time_label


class BookmarksScreen(ModalScreen[float | None]):
    """Lists bookmarks, each with what was said there; returns the position in seconds of the one that is chosen."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,B,q", "dismiss", "close"),
        Binding("k", "app.simulate_key('up')", show=False),
        Binding("j", "app.simulate_key('down')", show=False),
    ]

    def __init__(self, bookmarks: Sequence[tuple[float, str]]) -> None:
        """List `bookmarks`: positions in seconds, and the commentary there."""
        super().__init__()
        self._bookmarks = bookmarks

    def compose(self) -> ComposeResult:
        """Yield the list."""
        lines = (Content(f"{time_label(position)}  {said}".rstrip()) for position, said in self._bookmarks)
        box = OptionList(*lines, id="bookmarks")
        box.border_title, box.border_subtitle = "bookmarks", "enter plays from there, esc closes"
        yield box

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Return the position that was chosen."""
        self.dismiss(self._bookmarks[event.option_index][0])
