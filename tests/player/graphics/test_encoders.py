"""Images as terminals get them, read back."""

import hashlib
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.player.graphics.protocols import Pixels, read_iterm2, read_kitty, read_sixel
from tui.player.graphics import iterm2, kitty, sixel
from tui.player.graphics.sextants import CHARACTERS, sextant_cells, sextant_rows

# Seven levels of a channel and a dither that moves a colour by one of them at most.
LEVEL = 255 / 5 + 1


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(width: int, height: int) -> Pixels:
    """A slope in each channel, which has long runs of one colour."""
    across, down = np.linspace(0, 255, width)[None, :], np.linspace(0, 255, height)[:, None]
    planes = [across + 0 * down, down + 0 * across, 255 - (across + down) / 2]
    return np.stack(planes, axis=-1).astype(np.uint8)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_rows_and_columns_have_the_marks_of_the_protocol() -> None:
    """The sum is that of gen/rowcolumn-diacritics.txt of kitty."""
    assert len(kitty.marks()) == kitty.MOST_CELLS
    assert kitty.marks()[:3] == "\u0305\u030d\u030e"
    known = "5e5fb029e3fe73fb7f0cfc088d820ba3db79719b65a4c8da087be5fb4cd99d1e"
    assert hashlib.sha256(kitty.marks().encode()).hexdigest() == known


@given(sizes, st.integers(1, 255))
def test_a_kitty_image_arrives(size: tuple[int, int], number: int) -> None:
    pixels = noise(*size)
    (command,) = read_kitty(kitty.transmit(pixels, number, 7, 5))
    assert np.abs(command.pixels.astype(int) - pixels).max() <= 3
    expected = {"a": "T", "U": "1", "i": str(number), "c": "7", "r": "5"}
    assert expected.items() <= command.keys.items()


def test_a_large_kitty_image_comes_in_chunks_and_white_stays_white() -> None:
    (command,) = read_kitty(kitty.transmit(noise(200, 100), 3, 20, 10))
    assert len(command.data) > 3 * kitty.CHUNK
    white = np.full((2, 2, 3), 255, np.uint8)
    (command,) = read_kitty(kitty.transmit(white, 3, 1, 1))
    assert np.array_equal(command.pixels, white)


def test_a_kitty_image_is_deleted() -> None:
    (command,) = read_kitty(kitty.delete(9))
    assert {"a": "d", "d": "I", "i": "9"}.items() <= command.keys.items()


def test_placeholders_name_image_row_and_column() -> None:
    marks = kitty.marks()
    text = kitty.placeholders(42, 2, 3, 6)
    assert text == f"\x1b[38;5;42m{kitty.PLACEHOLDER}{marks[2]}{marks[3]}{2 * kitty.PLACEHOLDER}\x1b[39m"
    assert kitty.placeholders(42, 2, 3, 3) == ""


@given(sizes)
def test_a_sixel_image_is_drawn_once_and_near_its_colours(size: tuple[int, int]) -> None:
    for pixels in (noise(*size), smooth(*size)):
        drawn = read_sixel(sixel.encode(pixels))
        assert drawn.shape == pixels.shape
        assert np.abs(drawn.astype(int) - pixels).max() <= LEVEL


@pytest.mark.parametrize("size", [(1, 1), (1001, 7), (640, 1), (6, 6), (13, 12)])
def test_runs_of_any_length_are_written(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), (255, 0, 255), np.uint8)
    pixels[0, 0] = 0
    assert np.array_equal(read_sixel(sixel.encode(pixels)), pixels)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 20), (700, 6)])
def test_a_sixel_image_is_stretched(size: tuple[int, int]) -> None:
    for pixels in (noise(*size), smooth(*size)):
        narrow, wide = read_sixel(sixel.encode(pixels)), read_sixel(sixel.encode(pixels, 2))
        assert np.array_equal(wide, np.repeat(narrow, 2, axis=1))


def test_a_sixel_image_has_the_right_mean_colours() -> None:
    pixels = smooth(64, 64)
    drawn = read_sixel(sixel.encode(pixels))
    means = [image.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) for image in (drawn.astype(float), pixels.astype(float))]
    assert np.abs(means[0] - means[1]).max() < 8


@pytest.mark.skipif(shutil.which("sixel2png") is None, reason="sixel2png of libsixel is not installed")
@pytest.mark.parametrize("size", [(64, 48), (61, 47), (5, 3)])
def test_libsixel_reads_the_same_image(size: tuple[int, int], tmp_path: Path) -> None:
    for number, pixels in enumerate((noise(*size), smooth(*size))):
        source, made = tmp_path / f"{number}.six", tmp_path / f"{number}.png"
        source.write_text(sixel.encode(pixels))
        subprocess.run(["sixel2png", "-i", str(source), "-o", str(made)], check=True)
        read = np.asarray(Image.open(made).convert("RGB"))[: size[1], : size[0]]
        assert np.abs(read.astype(int) - read_sixel(source.read_text())).max() <= 1


@given(sizes)
def test_an_iterm2_image_arrives(size: tuple[int, int]) -> None:
    settings, drawn = read_iterm2(iterm2.encode(smooth(*size), 12, 9))
    assert drawn.shape == (size[1], size[0], 3)
    expected = {"inline": "1", "width": "12", "height": "9", "preserveAspectRatio": "0", "doNotMoveCursor": "1"}
    assert expected.items() <= settings.items()


def test_an_iterm2_image_has_its_colours() -> None:
    pixels = smooth(64, 48)
    _, drawn = read_iterm2(iterm2.encode(pixels, 12, 9))
    assert np.abs(drawn.astype(int) - pixels).mean() < 5


def test_each_set_of_pixels_has_a_sextant() -> None:
    others = {0: " ", 21: "▌", 42: "▐", 63: "█"}
    for bits, character in enumerate(CHARACTERS):
        digits = "".join(str(bit + 1) for bit in range(6) if bits >> bit & 1)
        assert character == others.get(bits) or unicodedata.name(character) == f"BLOCK SEXTANT-{digits}"


@given(sizes)
def test_two_colours_a_cell_are_drawn_as_they_are(size: tuple[int, int]) -> None:
    columns, rows = size
    rng = np.random.default_rng(rows)
    pair = np.repeat(np.repeat(rng.integers(0, 256, (rows, columns, 2, 3)), 3, axis=0), 2, axis=1)
    which = rng.integers(0, 2, (3 * rows, 2 * columns, 1, 1))
    pixels = np.take_along_axis(pair, which, axis=2)[:, :, 0].astype(np.uint8)
    texts, colours = sextant_cells(pixels)
    drawn = np.empty_like(pixels)
    for row, text in enumerate(texts):
        for column, character in enumerate(text):
            bits = [CHARACTERS.index(character) >> bit & 1 for bit in range(6)]
            front, back = np.split(colours[row, column], 2)
            cell = [front if bit else back for bit in bits]
            drawn[3 * row : 3 * row + 3, 2 * column : 2 * column + 2] = np.reshape(cell, (3, 2, 3))
    assert np.array_equal(drawn, pixels)


def test_sextants_stand_in_the_middle_and_are_cropped() -> None:
    pixels = np.full((6, 8, 3), 200, np.uint8)
    (first, _) = sextant_rows(*sextant_cells(pixels), 7, (1, 2, 3))
    assert first.cell_length == 7
    assert len(sextant_rows(*sextant_cells(pixels), 3, (1, 2, 3))[0].text) == 3
    assert re.fullmatch(" +", first.text)
