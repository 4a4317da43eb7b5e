"""Pictures as rows of half blocks: the upper pixel of a cell is its foreground, the lower one its background."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.color import Color as RichColor
from rich.console import Console
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.color import Color
from textual.filter import LineFilter, Monochrome
from textual.strip import Strip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Cells = npt.NDArray[np.uint8]

BLOCK = "▀"


class BlockStrip(Strip):
    """A row of half blocks that writes its own colour codes; one style for each cell takes 20 times as long."""

    def __init__(self, cells: "Cells", characters: str = "") -> None:
        """Show `cells`, uint8 [width, 6]: RGB of the upper pixels, then RGB of the lower ones.

        Other `characters`, one a cell, have the first colour on the second.
        """
        characters = characters or BLOCK * len(cells)
        super().__init__([Segment(characters)], len(cells))
        self._cells, self._characters = cells, characters
        self._ansi: str | None = None

    def render(self, console: Console) -> str:
        """Return the row in the colours that the terminal supports."""
        if self._ansi is None:
            system = console.color_system
            if system == "truecolor":
                self._ansi = _true_colours(self._cells, self._characters)
            elif system == "256":
                self._ansi = _cube_colours(self._cells, self._characters)
            else:
                self._ansi = self.plain().render(console)
        return self._ansi

    def plain(self) -> Strip:
        """Return the row as styled text, for screenshots and terminals with few colours."""
        return Strip(
            [
                Segment(text, RichStyle(color=RichColor.from_rgb(*cell[:3]), bgcolor=RichColor.from_rgb(*cell[3:])))
                for cell, text in zip(self._cells.tolist(), self._characters, strict=True)
            ],
            len(self._cells),
        )

    def apply_filter(self, filter: LineFilter, background: Color) -> Strip:  # noqa: A002, ARG002 - Textual's names
        """Return the row in grey for a `Monochrome` filter, and unchanged for any other."""
        if not isinstance(filter, Monochrome):
            return self
        import numpy as np

        pixels = self._cells.reshape(-1, 2, 3)
        grey = (pixels @ np.array([0.2126, 0.7152, 0.0722]))[..., None].astype(np.uint8)
        return BlockStrip(np.repeat(grey, 3, axis=2).reshape(-1, 6), self._characters)

    def crop(self, start: int, end: int | None = None) -> Strip:
        """Return the cells from `start` to `end`."""
        whole = start <= 0 and (end is None or end >= len(self._cells))
        start = max(start, 0)
        return self if whole else BlockStrip(self._cells[start:end], self._characters[start:end])

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """Return the row divided at `cuts`, the last of which is its end."""
        ends = list(cuts)
        return [self.crop(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def block_rows(pixels: "Cells", width: int, background: tuple[int, int, int]) -> list[BlockStrip]:
    """Return rows of `width` cells with `pixels`, uint8 [height, width, 3], in the centre, cropped where wider.

    The margins, and the lower half of the last row for an odd height, show `background`.
    """
    import numpy as np

    shown = min(pixels.shape[1], width)
    left, cut = (width - shown) // 2, (pixels.shape[1] - shown) // 2
    canvas = np.empty((len(pixels) + len(pixels) % 2, width, 3), np.uint8)
    canvas[:] = background
    canvas[: len(pixels), left : left + shown] = pixels[:, cut : cut + shown]
    return [BlockStrip(row) for row in np.concatenate([canvas[0::2], canvas[1::2]], axis=2)]


def _true_colours(cells: "Cells", characters: str) -> str:
    return _joined(cells.tolist(), characters, "\x1b[38;2;%d;%d;%d;48;2;%d;%d;%dm")


def _cube_colours(cells: "Cells", characters: str) -> str:
    """Return `cells` in the nearest colours of xterm's 6×6×6 cube, with steps at 0, 95, 135, 175, 215 and 255."""
    import numpy as np

    steps = np.searchsorted([48, 115, 155, 195, 235], cells, side="right").reshape(-1, 2, 3)
    numbers = 16 + steps @ np.array([36, 6, 1])
    return _joined(numbers.tolist(), characters, "\x1b[38;5;%d;48;5;%dm")


def _joined(cells: list[list[int]], characters: str, code: str) -> str:
    """Return the cells as text, with a colour code wherever the colours change."""
    parts, last = [], None
    for cell, character in zip(cells, characters, strict=True):
        parts.append(character if cell == last else code % tuple(cell) + character)
        last = cell
    return "".join(parts) + "\x1b[0m"
