"""How a terminal shows the picture, and how large it is there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from tui.player.clip import fit
from tui.player.graphics.kitty import MOST_CELLS

PictureMode = Literal["kitty", "iterm2", "sixel", "sextants", "blocks"]
MODES: tuple[PictureMode, ...] = get_args(PictureMode)
MODE_NAMES = {
    "kitty": "Kitty images",
    "iterm2": "iTerm2 images",
    "sixel": "Sixel images",
    "sextants": "sextants",
    "blocks": "half blocks",
}
# Pixels of an image at most: more would cost the terminal, or the encoder, too much several times a second. Terminals
# enlarge Kitty's and iTerm2's images; a Sixel image stays as it is.
MOST_PIXELS = {"kitty": 640 * 360, "iterm2": 960 * 540, "sixel": 960 * 540}
# Pixels from which those of a Sixel image are made two by one.
MOST_NARROW_PIXELS = 640 * 360


def _no_size() -> None:
    return None


@dataclass(frozen=True)
class Display:
    """How the picture is drawn.

    Attributes:
        mode: the protocol, or the characters.
        cell: (width, height) of a cell in pixels, where `measure` returns None.
        measure: returns that of now, which changes with the font; None where the terminal does not say.
    """

    mode: PictureMode = "blocks"
    cell: tuple[int, int] = (10, 20)
    measure: Callable[[], tuple[int, int] | None] = _no_size

    @property
    def is_image(self) -> bool:
        """Whether the terminal gets pixels, not characters."""
        return self.mode in MOST_PIXELS

    @property
    def covers_text(self) -> bool:
        """Whether the image is drawn over the cells, and nothing can be written on it."""
        return self.mode in ("iterm2", "sixel")


@dataclass(frozen=True)
class Layout:
    """The size of a picture: in cells, and in the pixels that it is drawn from.

    Attributes:
        columns: cells across.
        rows: cells down.
        width: pixels across.
        height: pixels down.
        stretch: pixels of the terminal across that each of these pixels takes.
    """

    columns: int
    rows: int
    width: int
    height: int
    stretch: int = 1


def lay_out(display: Display, clip: tuple[int, int], room: tuple[int, int]) -> Layout:
    """Return the largest layout of a clip of size `clip`, in pixels, in `room`, (columns, rows)."""
    columns, rows = room
    if display.mode == "blocks":
        width, height = fit(clip, (columns, 2 * rows))
        return Layout(width, -(-height // 2), width, height)
    across, down = display.measure() or display.cell
    if display.mode == "kitty":
        columns, rows = min(columns, MOST_CELLS), min(rows, MOST_CELLS)
    width, height = fit(clip, (columns * across, rows * down))
    most = MOST_PIXELS.get(display.mode, width * height)
    if display.mode == "sixel" and width * height > most:
        width, height = _shrunk(width, height, most)
    columns, rows = max(round(width / across), 1), max(round(height / down), 1)
    if display.mode == "sixel" and columns > 1:
        # So that two pixels can be made one.
        columns -= columns * across % 2
    if display.mode == "sextants":
        return Layout(columns, rows, 2 * columns, 3 * rows)
    width, height = columns * across, rows * down
    if display.mode == "sixel":
        stretch = 2 if width * height > MOST_NARROW_PIXELS and width % 2 == 0 else 1
        return Layout(columns, rows, width // stretch, height, stretch)
    # The terminal enlarges what the clip has no more pixels for.
    return Layout(columns, rows, *_shrunk(width, height, min(most, clip[0] * clip[1])))


def _shrunk(width: int, height: int, most: int) -> tuple[int, int]:
    """Return the size with at most `most` pixels, about, and the same aspect ratio."""
    factor = min((most / (width * height)) ** 0.5, 1.0)
    return max(round(width * factor), 1), max(round(height * factor), 1)
