"""The transcript: commentary and truth, one row for each sentence or second."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import ClassVar, Literal

from rich.segment import Segment
from textual import events
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from tui.player.transcript import TranscriptRow, time_label

TruthMode = Literal["off", "beside", "differences"]
TRUTH_MODES: tuple[TruthMode, ...] = ("off", "beside", "differences")

# Rows that the widget keeps; the session keeps all.
MAX_ROWS = 600
# Width in cells from which there is room for two columns of text.
WIDE = 56

GAP = Content("  ")
# Cells of a time and its gap, in the first hour.
LABEL = 7
# Comes before the truth where that is below the commentary, and before the answer below a question.
ASIDE, ANSWER = Content("› "), Content("↳ ")
CURSOR = "▌"


class TranscriptView(ScrollView, can_focus=False):
    """Rows of time, commentary and truth; it follows the newest row unless the viewer scrolled up."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "transcript--time",
        "transcript--said",
        "transcript--growing",
        "transcript--added",
        "transcript--truth",
        "transcript--missed",
        "transcript--question",
        "transcript--answer",
        "transcript--skipped",
        "transcript--found",
        "transcript--later",
    }

    @dataclass
    class Clicked(Message):
        """The viewer clicked the row that begins at `position` seconds."""

        position: float

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._mode: TruthMode = "off"
        self._rows: list[TranscriptRow] = []
        self._blocks: list[list[Strip]] = []
        self._ends: list[int] = []
        self._following = True
        self._marked: float | None = None

    @property
    def rows(self) -> Sequence[TranscriptRow]:
        """The rows that are shown, in order."""
        return self._rows

    @property
    def newest(self) -> Region:
        """Where on the screen the newest row is that the playhead has reached; empty where it is not seen."""
        at = bisect_left(self._rows, 1, key=lambda row: row.later) - 1
        if at < 0:
            return Region()
        height = len(self._blocks[at])
        row = Region(0, self._ends[at] - height, self.size.width, height)
        return row.translate(self.region.offset - self.scroll_offset).intersection(self.region)

    def set_rows(self, rows: Sequence[TranscriptRow], mode: TruthMode) -> None:
        """Show `rows`, ordered by number, and nothing else."""
        rows = list(rows)[-MAX_ROWS:]
        same = 0
        if mode == self._mode:
            same = next((i for i, (a, b) in enumerate(zip(self._rows, rows, strict=False)) if a != b), len(rows))
            same = min(same, len(self._rows))
        self._mode, self._rows = mode, rows
        self._lay_from(same)

    def follow(self) -> None:
        """Scroll to the newest row, and follow it."""
        self._following = True
        # Textual knows the new height only after that.
        self.call_after_refresh(self._scroll_to_newest)

    def _scroll_to_newest(self) -> None:
        self.scroll_to(y=self._newest, animate=False, immediate=True)

    @property
    def _newest(self) -> int:
        """The offset at which the newest line is seen: at the foot, or a quarter above it where later ones follow."""
        later = bisect_left(self._rows, 1, key=lambda row: row.later)
        if later == len(self._rows):
            return self.max_scroll_y
        end = self._ends[later - 1] if later else 0
        return min(max(end - self.size.height * 3 // 4, 0), self.max_scroll_y)

    def mark(self, position: float | None) -> None:
        """Mark the row of `position` in seconds, and scroll there; None removes the mark."""
        self._marked = position
        at = self._marked_row()
        if at is not None:
            top = self._ends[at] - len(self._blocks[at])
            self.scroll_to(y=max(top - self.size.height // 2, 0), animate=False, immediate=True)
        self.refresh()

    def _marked_row(self) -> int | None:
        """Return the index of the row with the mark; None where no row has it."""
        if self._marked is None:
            return None
        at = bisect_right(self._rows, self._marked, key=lambda row: row.number) - 1
        if at < 0:
            return None
        row = self._rows[at]
        return at if self._marked < row.number + max(row.seconds, row.skipped) else None

    def put(self, row: TranscriptRow) -> None:
        """Show `row` in place of the one with its number; an empty row is removed."""
        self.replace(row.number, row.number + 1, [] if row.empty else [row])

    def replace(self, first: int, last: int, rows: Sequence[TranscriptRow]) -> None:
        """Show `rows` in place of those with numbers from `first` to before `last`."""
        at, end = (bisect_left(self._rows, number, key=lambda row: row.number) for number in (first, last))
        while at < end and rows and self._rows[at] == rows[0]:
            at, rows = at + 1, rows[1:]
        while at < end and rows and self._rows[end - 1] == rows[-1]:
            end, rows = end - 1, rows[:-1]
        if at == end and not rows:
            return
        self._rows[at:end] = rows
        self._lay_between(at, end, at + len(rows))
        if len(self._rows) > MAX_ROWS:
            self._forget(len(self._rows) - MAX_ROWS)

    def on_click(self, event: events.Click) -> None:
        """Post the position of the row under the pointer."""
        at = bisect_right(self._ends, event.y + self.scroll_offset.y)
        if at < len(self._rows):
            self.post_message(self.Clicked(self._rows[at].number))

    def render_line(self, y: int) -> Strip:
        """Return line `y` of the visible window."""
        line = y + self.scroll_offset.y
        at = bisect_right(self._ends, line)
        if at == len(self._blocks):
            return Strip.blank(self.size.width, self.rich_style)
        block = self._blocks[at]
        strip = block[line - self._ends[at] + len(block)].adjust_cell_length(self.size.width, self.rich_style)
        if at == self._marked_row():
            marked = Segment.apply_style(
                strip, post_style=self.get_component_rich_style("transcript--found", partial=True)
            )
            strip = Strip(marked, strip.cell_length)
        return strip

    def on_resize(self, _: events.Resize) -> None:
        """Wrap the text to the new width."""
        self._lay_from(0)

    def notify_style_update(self) -> None:
        """Draw in the colours of the new theme."""
        super().notify_style_update()
        self._lay_from(0)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the newest row while it is visible."""
        super().watch_scroll_y(old_value, new_value)
        self._following = new_value >= self.max_scroll_y or new_value == self._newest

    def _lay_from(self, at: int) -> None:
        """Lay out the rows from index `at` on."""
        self._lay_between(at, len(self._blocks), len(self._rows))

    def _lay_between(self, at: int, old: int, new: int) -> None:
        """Lay out the rows from index `at` to before `new`, which stand where those to before `old` were laid out."""
        # One empty cell before the scrollbar.
        width = self.scrollable_content_region.width - 1
        before = self._ends[-1] if self._ends else 0
        self._blocks[at:old] = [
            [Strip(line.render_segments(self.visual_style), line.cell_length) for line in self._lay(row, width)]
            for row in self._rows[at:new]
        ]
        top = self._ends[at - 1] if at else 0
        self._ends[at:] = accumulate(map(len, self._blocks[at:]), initial=top)
        del self._ends[at]
        after = self._ends[-1] if self._ends else 0
        self._take_size(Size(width, after))
        self.refresh_lines(top, max(before, after) - top)

    def _forget(self, count: int) -> None:
        """Remove the first `count` rows; the visible ones stay where they are."""
        gone = self._ends[count - 1]
        del self._rows[:count], self._blocks[:count]
        self._ends = [end - gone for end in self._ends[count:]]
        if not self._following:
            self.scroll_to(y=self.scroll_y - gone, animate=False)
        self._take_size(Size(self.virtual_size.width, self._ends[-1]))
        self.refresh()

    def _take_size(self, size: Size) -> None:
        """Set the virtual size, and lay out the whole screen only when a scrollbar comes or goes."""
        room, old = self.scrollable_content_region.height, self.virtual_size
        if size.width != old.width or (size.height > room) != (old.height > room):
            self.virtual_size = size
            if self._following:
                self.follow()
            return
        self.set_reactive(ScrollView.virtual_size, size)
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = size.height
        if self._following:
            self.scroll_to(y=self._newest, animate=False)

    def _lay(self, row: TranscriptRow, width: int) -> list[Content]:
        """Return the lines of one row, at most `width` cells wide."""
        label = Content.assemble((time_label(row.number), self._style("time")), GAP)
        room = max(width - label.cell_length, 2)
        said, truth = self._said(row), self._truth(row)
        if column := column_width(width, self._mode, label.cell_length):
            lines = _side_by_side(said, truth, column)
        else:
            lines = [*(said.wrap(room) if said else []), *_indented(ASIDE, truth, room)]
        blank = Content.blank(label.cell_length)
        return [(blank if number else label) + line for number, line in enumerate(lines or [Content("")])]

    def _said(self, row: TranscriptRow) -> Content:
        """Return the left side: question, answer, note on skipped seconds, and commentary, one line each."""
        parts = [Content(f"? {row.question}").stylize(self._style("question"))] if row.question else []
        if row.answered:
            parts.append(ANSWER + Content(" ".join(row.said[: row.answered])).stylize(self._style("answer")))
        if row.skipped:
            text = "skipped" if row.skipped == 1 else f"{row.skipped} seconds skipped"
            parts.append(Content(f"· {text} ·").stylize(self._style("skipped")))
        tense = "later" if row.later else "growing" if row.growing else "said"
        styles = self._style(tense), self._style("added")
        words = [(word, styles[index in row.added]) for index, word in enumerate(row.said) if index >= row.answered]
        if words or row.growing:
            parts.append(_words(words) + (CURSOR if row.growing else ""))
        return Content("\n").join(parts)

    def _truth(self, row: TranscriptRow) -> Content:
        styles = self._style("truth"), self._style("missed")
        return _words((word, styles[index in row.missed]) for index, word in enumerate(row.truth))

    def _style(self, name: str) -> Style:
        return self.get_visual_style(f"transcript--{name}", partial=True)


def column_width(width: int, mode: TruthMode, label: int) -> int:
    """Return the width of each of two columns after a `label`, in `width` cells; 0 where one column holds both."""
    return (width - label - len(GAP)) // 2 if mode != "off" and width >= WIDE else 0


def _words(words: Iterable[tuple[str, Style]]) -> Content:
    return Content(" ").join(Content.styled(*word) for word in words)


def _indented(lead: Content, text: Content, room: int) -> list[Content]:
    """Return the lines of `text`, the first one after `lead` and the others indented; none without text."""
    blank = Content.blank(lead.cell_length)
    lines = text.wrap(max(room - lead.cell_length, 2)) if text else []
    return [(blank if number else lead) + line for number, line in enumerate(lines)]


def _side_by_side(left: Content, right: Content, column: int) -> list[Content]:
    """Return lines with `left` and `right` each wrapped to a column."""
    sides = [side.wrap(column) if side else [] for side in (left, right)]
    rows = zip_longest(*sides, fillvalue=Content(""))
    return [side.rstrip().pad_right(column - side.rstrip().cell_length) + GAP + other for side, other in rows]


# Cells of the transcript without text: an empty one, and the scrollbar.
EDGE = 2


class Heading(Widget):
    """One line: the names of the columns in their colours and, in the mode that marks differences, a legend."""

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
        """Show the columns of `mode`."""
        self._mode = mode
        self.refresh()

    def render(self) -> Content:
        """Return the line."""
        blank = Content.blank(LABEL)
        said, truth = self._named("commentary", "added", "said"), self._named("truth", "missed", "truth")
        if self._mode == "off":
            return blank + said
        if column := column_width(self.size.width - EDGE, self._mode, LABEL):
            return blank + said.pad_right(column - said.cell_length) + GAP + truth
        both = said + GAP + ASIDE + truth
        # Where room is short the legend matters more than the alignment.
        return blank + both if LABEL + both.cell_length <= self.size.width else both

    def _named(self, name: str, mark: str, part: str) -> Content:
        named = Content(name).stylize(self._style(part))
        if self._mode != "differences":
            return named
        return named + Content(" · ").stylize(self._style("dot")) + Content(mark).stylize(self._style(mark))

    def _style(self, part: str) -> Style:
        return self.get_visual_style(f"heading--{part}", partial=True)
