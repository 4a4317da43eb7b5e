"""Pictures as sextants: a cell shows two by three pixels in two colours."""

from typing import TYPE_CHECKING

from tui.player.graphics.half_blocks import BlockStrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from tui.player.clip import Pixels

    Cells = npt.NDArray[np.uint8]

# Pixels of a cell across and down.
ACROSS, DOWN = 2, 3


def _characters() -> str:
    """Return the character for each set of pixels; the first bit is the upper left one, the second its right one.

    Unicode has a block for all but four, which are older.
    """
    older = {0: " ", 0b010101: "▌", 0b101010: "▐", 0b111111: "█"}
    others = iter(range(0x1FB00, 0x1FB3C))
    return "".join(older.get(bits) or chr(next(others)) for bits in range(64))


CHARACTERS = _characters()


def sextant_cells(pixels: "Pixels") -> "tuple[Sequence[str], Cells]":
    """Return the characters of each row, and colours, uint8 [rows, columns, 6]: RGB of the text, RGB behind it.

    The pixels of a cell are divided at the mean of the channel that differs most, and each part gets its mean colour.

    Args:
        pixels: uint8 [3 * rows, 2 * columns, 3], RGB.
    """
    import numpy as np

    rows, columns = pixels.shape[0] // DOWN, pixels.shape[1] // ACROSS
    parts = pixels.reshape(rows, DOWN, columns, ACROSS, 3).transpose(0, 2, 1, 3, 4).reshape(rows, columns, 6, 3)
    values = parts.astype(np.float32)
    widest = (parts.max(axis=2) - parts.min(axis=2)).argmax(axis=-1)[..., None, None]
    keys = np.take_along_axis(values, widest, axis=-1)[..., 0]
    bright = keys > keys.mean(axis=-1, keepdims=True)
    count = bright.sum(axis=-1)[..., None]
    upper = (values * bright[..., None]).sum(axis=2)
    total = values.sum(axis=2)
    # Where all pixels are alike, there is no bright one.
    front = np.where(count > 0, upper / np.maximum(count, 1), total / 6)
    back = (total - upper) / (6 - count)
    bits = (bright << np.arange(6)).sum(axis=-1)
    texts = ["".join([CHARACTERS[number] for number in row]) for row in bits.tolist()]
    return texts, np.concatenate([front, back], axis=-1).round().astype(np.uint8)


def sextant_rows(
    texts: "Sequence[str]", colours: "Cells", width: int, background: tuple[int, int, int]
) -> list[BlockStrip]:
    """Return rows of `width` cells with what `sextant_cells` returned in the centre.

    The margins show `background`; of a wider picture the middle is shown.
    """
    import numpy as np

    columns = colours.shape[1]
    shown = min(columns, width)
    left, cut = (width - shown) // 2, (columns - shown) // 2
    cells = np.empty((len(texts), width, 6), np.uint8)
    cells[:] = background * 2
    cells[:, left : left + shown] = colours[:, cut : cut + shown]
    right = width - shown - left
    lines = (" " * left + text[cut : cut + shown] + " " * right for text in texts)
    return [BlockStrip(row, line) for row, line in zip(cells, lines, strict=True)]
