"""Rows of cells that write what no style can."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from rich.console import Console
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip

# Writes the cells of a row from a first one up to a last one, which is left out.
Paint = Callable[[Console, int, int], str]


class PaintedStrip(Strip):
    """A row of cells that a function writes."""

    def __init__(self, paint: Paint, first: int, last: int) -> None:
        """Show the cells from `first` up to `last`, which is left out."""
        super().__init__([Segment(" " * (last - first))], last - first)
        self._paint, self._first, self._last = paint, first, last

    def render(self, console: Console) -> str:
        """Return what the terminal gets."""
        return self._paint(console, self._first, self._last)

    def apply_filter(self, filter: LineFilter, background: Color) -> Strip:  # noqa: A002, ARG002 - Textual's names
        """Return the row as it is: colours of images are not those of styles."""
        return self

    def crop(self, start: int, end: int | None = None) -> Strip:
        """Return the cells from `start` to `end`."""
        first = min(self._first + max(start, 0), self._last)
        last = self._last if end is None else min(max(self._first + end, first), self._last)
        whole = (first, last) == (self._first, self._last)
        return self if whole else PaintedStrip(self._paint, first, last)

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """Return the row divided at `cuts`, the last of which is its end."""
        return divide(self, cuts)


class JoinedStrip(Strip):
    """Rows of any kind, side by side."""

    def __init__(self, parts: Sequence[Strip]) -> None:
        super().__init__([segment for part in parts for segment in part], sum(part.cell_length for part in parts))
        self._parts = parts

    def render(self, console: Console) -> str:
        """Return what the terminal gets."""
        return "".join(part.render(console) for part in self._parts)

    def apply_filter(self, filter: LineFilter, background: Color) -> Strip:  # noqa: A002 - Textual's name
        """Return the row with `filter` applied to each part."""
        return JoinedStrip([part.apply_filter(filter, background) for part in self._parts])

    def crop(self, start: int, end: int | None = None) -> Strip:
        """Return the cells from `start` to `end`."""
        last = self.cell_length if end is None else end
        places = [0, *accumulate(part.cell_length for part in self._parts)]
        parts = [
            part.crop(max(start - at, 0), max(last - at, 0)) for part, at in zip(self._parts, places, strict=False)
        ]
        return JoinedStrip(parts)

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """Return the row divided at `cuts`, the last of which is its end."""
        return divide(self, cuts)


def divide(strip: Strip, cuts: Iterable[int]) -> list[Strip]:
    """Return `strip` divided at `cuts`, the last of which is its end."""
    ends = list(cuts)
    return [strip.crop(start, end) for start, end in zip([0, *ends], ends, strict=False)]
