"""Kitty's graphics protocol, with Unicode placeholders: cells of text in which the terminal shows parts of an image.

Such cells are covered and cropped as all text is, so that a prompt or a note may lie on the picture.
"""

import base64
import unicodedata
import zlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.player.clip import Pixels

PLACEHOLDER = "\U0010eeee"
# Bytes of base64 in one escape sequence.
CHUNK = 4096
# Of zlib: the fastest, since the terminal is near.
LEVEL = 1
# Rows and columns that have a number.
MOST_CELLS = 297
# Which marks number rows and columns: those of class 230 without decompositions in Unicode 6.0, but for some that fuse
# with a letter. These ranges leave out what later versions added.
_RANGES = (
    *((0x305, 0x5C4), (0x610, 0x65E), (0x6D6, 0x6EC), (0x730, 0x74A), (0x7EB, 0x7F3), (0x816, 0x82D), (0x951, 0x954)),
    *((0xF82, 0xF87), (0x135D, 0x135F), (0x17DD, 0x17DD), (0x193A, 0x193A), (0x1A17, 0x1A17), (0x1A75, 0x1A7C)),
    *((0x1B6B, 0x1B73), (0x1CD0, 0x1CE0), (0x1DC0, 0x1DE6), (0x1DFE, 0x1DFE), (0x20D0, 0x20F0), (0x2CEF, 0x2CF1)),
    *((0x2DE0, 0x2DFF), (0xA66F, 0xA66F), (0xA67C, 0xA67D), (0xA6F0, 0xA6F1), (0xA8E0, 0xA8F1), (0xAAB0, 0xAAC1)),
    *((0xFE20, 0xFE26), (0x10A0F, 0x10A38), (0x1D185, 0x1D1AD), (0x1D242, 0x1D244)),
)
_FUSING = frozenset("\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030f\u0311\u0313\u0314\u0342\u0653\u0654")


@cache
def marks() -> str:
    """Return the combining marks that stand for the numbers of rows and columns, from 0."""
    return "".join(
        mark
        for first, last in _RANGES
        for mark in map(chr, range(first, last + 1))
        if unicodedata.combining(mark) == 230 and not unicodedata.decomposition(mark) and mark not in _FUSING
    )


def transmit(pixels: "Pixels", number: int, columns: int, rows: int) -> str:
    """Return what gives the terminal image `number` and shows it in the placeholders of that number.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        number: of the image, 1 to 255; an earlier one of that number is replaced.
        columns: cells across, up to `MOST_CELLS`.
        rows: cells down, up to `MOST_CELLS`.
    """
    height, width = pixels.shape[:2]
    # Six bits a channel, which look the same, take a third less.
    data = base64.standard_b64encode(zlib.compress((pixels & 0xFC | pixels >> 6).tobytes(), LEVEL)).decode("ascii")
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    head = f"a=T,U=1,i={number},f=24,o=z,s={width},v={height},c={columns},r={rows},q=2,"
    last = len(parts) - 1
    return "".join(
        f"\x1b_G{head if at == 0 else 'q=2,'}m={int(at < last)};{part}\x1b\\" for at, part in enumerate(parts)
    )


def delete(number: int) -> str:
    """Return what removes image `number` from the terminal."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


def placeholders(number: int, row: int, first: int, last: int) -> str:
    """Return the cells of image `number` in `row`, from column `first` up to `last`, which is left out."""
    if first >= last:
        return ""
    # The cells behind the first one go on from it.
    start = PLACEHOLDER + marks()[row] + marks()[first]
    return f"\x1b[38;5;{number}m{start}{PLACEHOLDER * (last - first - 1)}\x1b[39m"
