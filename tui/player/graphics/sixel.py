"""Sixel images: bands of six rows of pixels, drawn one colour at a time."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tui.player.clip import Pixels

    Bytes = npt.NDArray[np.uint8]
    Numbers = npt.NDArray[np.int32 | np.int64]

# Rows of pixels in a band.
BAND = 6
# Levels of red, green and blue. With the same colours in each picture nothing flickers.
LEVELS = (6, 7, 6)
COLOURS = 6 * 7 * 6
# A pattern that repeats every four pixels hides the steps between the levels.
DITHER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
# A longer run is written as its length and the character once.
LONGEST_PLAIN = 3
# The character without pixels, and those for a run, a colour, the band again, and the next band.
_EMPTY, _RUN, _COLOUR, _AGAIN, _NEXT = b"?!#$-"


def encode(pixels: "Pixels", stretch: int = 1) -> str:
    """Return what draws `pixels`, uint8 [height, width, 3], from the cursor on, each `stretch` times as wide."""
    height, width = pixels.shape[:2]
    data = _write(*_planes(_quantize(pixels)), stretch)
    return f'\x1bP9;1q"1;1;{width * stretch};{height}{_palette()}{data.tobytes().decode("ascii")}\x1b\\'


@cache
def _palette() -> str:
    """Return the definitions of all colours, in percent."""
    red, green, blue = (tuple(round(100 * level / (count - 1)) for level in range(count)) for count in LEVELS)
    colours = ((r, g, b) for r in red for g in green for b in blue)
    return "".join(f"#{number};2;{r};{g};{b}" for number, (r, g, b) in enumerate(colours))


def _quantize(pixels: "Pixels") -> "Bytes":
    """Return the number of each pixel's colour, uint8 [height, width]."""
    import numpy as np

    height, width = pixels.shape[:2]
    pattern = np.array(DITHER, np.uint16) * 16 + 8
    offsets = np.tile(pattern, (-(-height // 4), -(-width // 4)))[:height, :width]
    numbers = np.zeros((height, width), np.uint16)
    for channel, levels in enumerate(LEVELS):
        numbers *= levels
        numbers += (pixels[..., channel].astype(np.uint16) * (levels - 1) + offsets) >> 8
    return numbers.astype(np.uint8)


def _planes(numbers: "Bytes") -> "tuple[Bytes, Numbers, Numbers]":
    """Return the bits of each colour in each band that has it, uint8 [planes, width], and the bands and colours."""
    import numpy as np

    height, width = numbers.shape
    bands = COLOURS * np.arange(-(-height // BAND), dtype=np.int32)
    rows = [bands[: len(part), None] + part for part in (numbers[bit::BAND] for bit in range(BAND))]
    used = np.zeros(len(bands) * COLOURS, bool)
    for row in rows:
        used[row] = True
    starts = (np.cumsum(used, dtype=np.int32) - 1) * width
    bits = np.zeros(int(used.sum()) * width, np.uint8)
    columns = np.arange(width, dtype=np.int32)
    for bit, row in enumerate(rows):
        # Each column of a row has one colour, so that no place is written twice.
        bits[starts[row] + columns] |= 1 << bit
    found = np.flatnonzero(used)
    return bits.reshape(-1, width), found // COLOURS, found % COLOURS


def _write(bits: "Bytes", bands: "Numbers", colours: "Numbers", stretch: int) -> "Bytes":
    """Return the characters of the planes, each behind its colour, with runs shortened."""
    import numpy as np

    count, width = bits.shape
    begins = np.ones((count, width), bool)
    np.not_equal(bits[:, 1:], bits[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins).astype(np.int32)
    lengths = stretch * np.diff(starts, append=np.int32(count * width))
    characters = bits.ravel()[starts] + _EMPTY
    firsts = np.searchsorted(starts, width * np.arange(count))
    lasts = np.append(firsts[1:], len(starts)) - 1
    # What is empty up to the right end is left out.
    lengths[lasts[characters[lasts] == _EMPTY]] = 0
    long = np.flatnonzero(lengths > LONGEST_PLAIN)
    sizes = lengths.copy()
    sizes[long] = 2 + _digits(lengths[long])
    sizes[firsts] += 1 + _digits(colours)
    sizes[lasts] += 1
    ends = np.cumsum(sizes, dtype=np.int32)
    out = np.empty(ends[-1], np.uint8)
    out[ends[lasts] - 1] = np.where(np.append(bands[1:] != bands[:-1], True), _NEXT, _AGAIN)
    out[ends[firsts] - sizes[firsts]] = _COLOUR
    ends[lasts] -= 1
    for offset in range(1, LONGEST_PLAIN + 1):
        some = np.flatnonzero((lengths >= offset) & (lengths <= LONGEST_PLAIN))
        out[ends[some] - offset] = characters[some]
    digits = _digits(lengths[long])
    out[ends[long] - 2 - digits], out[ends[long] - 1] = _RUN, characters[long]
    _write_numbers(out, ends[long] - 1, lengths[long])
    plain = np.where(lengths[firsts] > LONGEST_PLAIN, 2 + _digits(lengths[firsts]), lengths[firsts])
    _write_numbers(out, ends[firsts] - plain, colours)
    return out


def _digits(values: "Numbers") -> "Numbers":
    """Return how many digits each of `values` has, up to 9,999."""
    return 1 + (values >= 10) + (values >= 100) + (values >= 1000)


def _write_numbers(out: "Bytes", ends: "Numbers", values: "Numbers") -> None:
    """Write `values` in digits, each in front of the place in `ends`."""
    while len(values):
        ends = ends - 1
        out[ends] = 48 + values % 10
        more = values >= 10
        ends, values = ends[more], values[more] // 10
