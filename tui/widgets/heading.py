"""What stands above the columns of the transcript, and what its marks mean."""

from typing import ClassVar

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from tui.widgets.transcript_view import ASIDE, GAP, LABEL, TruthMode, beside

# Cells of the transcript that hold no text: air, and its scrollbar.
EDGE = 2


class Heading(Widget):
    """One line: the names of the columns, each in its colour, and where differences are marked, these marks."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "heading--said",
        "heading--added",
        "heading--truth",
        "heading--missed",
        "heading--dot",
    }

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._mode: TruthMode = "off"

    def show(self, mode: TruthMode) -> None:
        """Show what stands where the truth is shown as `mode` says."""
        self._mode = mode
        self.refresh()

    def render(self) -> Content:
        """Return the line."""
        blank = Content.blank(LABEL)
        said, truth = self._named("commentary", "added", "said"), self._named("truth", "missed", "truth")
        if self._mode == "off":
            return blank + said
        if column := beside(self.size.width - EDGE, self._mode, LABEL):
            return blank + said.pad_right(column - said.cell_length) + GAP + truth
        both = said + GAP + ASIDE + truth
        # Marks are to be read, where the words stand tells itself.
        return blank + both if LABEL + both.cell_length <= self.size.width else both

    def _named(self, name: str, mark: str, part: str) -> Content:
        named = Content(name).stylize(self._style(part))
        if self._mode != "differences":
            return named
        return named + Content(" · ").stylize(self._style("dot")) + Content(mark).stylize(self._style(mark))

    def _style(self, part: str) -> Style:
        return self.get_visual_style(f"heading--{part}", partial=True)
