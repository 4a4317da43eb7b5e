"""Pictures as they are written to a terminal."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from textual.strip import Strip

from tui.player.clip import Frame, scale
from tui.player.graphics import iterm2, kitty, sixel
from tui.player.graphics.display import Display, Layout
from tui.player.graphics.half_blocks import block_rows
from tui.player.graphics.sextants import sextant_cells, sextant_rows
from tui.player.graphics.strips import PaintedStrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.player.clip import Pixels
    from tui.player.graphics.sextants import Cells

Rgb = tuple[int, int, int]
# Two images of Kitty's, in turn: one is written while the other is shown.
NUMBERS = (251, 252)
# What removes them.
CLEAR = "".join(map(kitty.delete, NUMBERS))
_KEEP_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"


@dataclass
class Drawing:
    """A frame, encoded.

    Attributes:
        frame: the pixels.
        layout: its size.
        data: the escape sequences of the image; empty for characters.
        number: of Kitty's image.
        cells: what `sextant_cells` returned; None where there are no sextants.
        is_sent: whether the terminal has the image.
    """

    frame: Frame
    layout: Layout
    data: str = ""
    number: int = NUMBERS[0]
    cells: "tuple[Sequence[str], Cells] | None" = None
    is_sent: bool = field(default=False, compare=False)

    @property
    def time(self) -> float:
        """Of the frame, in seconds."""
        return self.frame.time

    def take(self, again: bool) -> str:
        """Return the data the first time, and later where it is wanted `again`."""
        if self.is_sent and not again:
            return ""
        self.is_sent = True
        return self.data


def draw(frame: Frame, layout: Layout, display: Display, before: int) -> Drawing:
    """Return `frame`, whose pixels have the size in `layout`, encoded for `display`; slow, for any thread.

    Args:
        frame: the frame.
        layout: its size.
        display: the protocol.
        before: number of the Kitty image that is shown now.
    """
    if display.mode == "kitty":
        number = NUMBERS[before == NUMBERS[0]]
        data = kitty.transmit(frame.pixels, number, layout.columns, layout.rows) + kitty.delete(before)
        return Drawing(frame, layout, data, number)
    if display.mode == "iterm2":
        return Drawing(frame, layout, iterm2.encode(frame.pixels, layout.columns, layout.rows))
    if display.mode == "sixel":
        return Drawing(frame, layout, sixel.encode(frame.pixels, layout.stretch))
    return Drawing(frame, layout, cells=sextant_cells(frame.pixels) if display.mode == "sextants" else None)


def character_rows(drawing: Drawing, display: Display, width: int, background: Rgb) -> "Sequence[Strip]":
    """Return `drawing` as rows of `width` cells of characters."""
    if drawing.cells:
        return sextant_rows(*drawing.cells, width, background)
    return block_rows(_block_pixels(drawing, display), width, background)


def image_rows(drawing: Drawing, display: Display, width: int, background: Rgb) -> "Sequence[Strip]":
    """Return rows of `width` cells that write the image of `drawing`; the first one has it as often as it is drawn."""
    paint = _paint_over if display.covers_text else _paint_placeholders
    left = (width - drawing.layout.columns) // 2
    return [
        PaintedStrip(partial(paint, drawing, row, left, _Margin(background)), 0, width)
        for row in range(drawing.layout.rows)
    ]


def _block_pixels(drawing: Drawing, display: Display) -> "Pixels":
    """Return the pixels for half blocks, which an image has too many of."""
    layout = drawing.layout
    return scale(drawing.frame.pixels, (layout.columns, 2 * layout.rows)) if display.is_image else drawing.frame.pixels


@dataclass(frozen=True)
class _Margin:
    background: Rgb

    def write(self, console: Console, length: int) -> str:
        style = Style.parse("on rgb({},{},{})".format(*self.background))
        return Strip.blank(length, style).render(console) if length > 0 else ""


def _paint_placeholders(
    drawing: Drawing, row: int, left: int, margin: _Margin, console: Console, first: int, last: int
) -> str:
    columns = drawing.layout.columns
    begin, end = (min(max(place, left), left + columns) for place in (first, last))
    cells = kitty.placeholders(drawing.number, row, begin - left, end - left)
    data = drawing.take(again=row == 0)
    return data + margin.write(console, begin - first) + cells + margin.write(console, last - end)


def _paint_over(drawing: Drawing, row: int, left: int, margin: _Margin, console: Console, first: int, last: int) -> str:
    """Write the image with its first row, and leave the cells of the others as they are: it lies on them.

    Part of a row cannot be drawn, and stays as it is, until the widget draws characters.
    """
    right = left + drawing.layout.columns
    begin, end = (min(max(place, left), right) for place in (first, last))
    image = ""
    if row == 0 and (begin, end) == (left, right):
        image = f"{_KEEP_CURSOR}{drawing.take(again=True)}{_RESTORE_CURSOR}"
    skip = f"\x1b[{end - begin}C" if end > begin else ""
    return margin.write(console, begin - first) + image + skip + margin.write(console, last - end)
