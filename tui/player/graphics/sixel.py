"""Sixel images: bands of six rows of pixels, drawn one colour at a time."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tui.player.clip import Pixels

    Bytes = npt.NDArray[np.uint8]
    Numbers = npt.NDArray[np.int64]

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


def encode(pixels: "Pixels") -> str:
    """Return what draws `pixels`, uint8 [height, width, 3], from the cursor on."""
    height, width = pixels.shape[:2]
    data = _write(*_planes(_quantize(pixels)))
    return f'\x1bP9;1q"1;1;{width};{height}{_palette()}{data.tobytes().decode("ascii")}\x1b\\'


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
    bits = np.zeros((-(-height // BAND) * COLOURS, width), np.uint8)
    for bit in range(BAND):
        rows = numbers[bit::BAND]
        # Each column of a row has one colour, so that no place is written twice.
        bits[COLOURS * np.arange(len(rows))[:, None] + rows, np.arange(width)] |= 1 << bit
    used = np.flatnonzero(bits.any(axis=1))
    return bits[used], used // COLOURS, used % COLOURS


def _write(bits: "Bytes", bands: "Numbers", colours: "Numbers") -> "Bytes":
    """Return the characters of the planes, each behind its colour, with runs shortened."""
    import numpy as np

    count, width = bits.shape
    begins = np.ones((count, width), bool)
    np.not_equal(bits[:, 1:], bits[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths, characters = np.diff(starts, append=count * width), bits.ravel()[starts] + _EMPTY
    first = starts % width == 0
    last = np.append(first[1:], True)
    # What is empty up to the right end is left out.
    lengths[last & (characters == _EMPTY)] = 0
    plain = lengths <= LONGEST_PLAIN
    heads = np.zeros(len(starts), np.int64)
    heads[first] = 1 + _digits(colours)
    ends = np.cumsum(heads + np.where(plain, lengths, 2 + _digits(lengths)) + last)
    out = np.empty(ends[-1], np.uint8)
    out[ends[last] - 1] = np.where(np.append(bands[1:] != bands[:-1], True), _NEXT, _AGAIN)
    places = ends - last - np.where(plain, lengths, 2 + _digits(lengths))
    out[places[first] - heads[first]] = _COLOUR
    _write_numbers(out, places[first], colours)
    for offset in range(LONGEST_PLAIN):
        some = plain & (lengths > offset)
        out[places[some] + offset] = characters[some]
    ends_of_runs = (ends - last)[~plain]
    out[places[~plain]], out[ends_of_runs - 1] = _RUN, characters[~plain]
    _write_numbers(out, ends_of_runs - 1, lengths[~plain])
    return out


def _digits(values: "Numbers") -> "Numbers":
    """Return how many digits each of `values` has, up to 9,999."""
    import numpy as np

    return 1 + np.searchsorted([10, 100, 1000], values, side="right")


def _write_numbers(out: "Bytes", ends: "Numbers", values: "Numbers") -> None:
    """Write `values` in digits, each in front of the place in `ends`."""
    rest, ends = values, ends
    while len(rest):
        ends = ends - 1
        out[ends] = 48 + rest % 10
        rest = rest // 10
        ends, rest = ends[rest > 0], rest[rest > 0]
