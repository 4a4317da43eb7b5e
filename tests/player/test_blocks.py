"""Rows of half blocks."""

import io
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color as RichColor
from rich.console import Console
from textual.color import Color
from textual.filter import DimFilter, Monochrome

from tui.player.graphics.half_blocks import BLOCK, BlockStrip, block_rows

Rgb = tuple[int, int, int]


def terminal(system: str) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=system, legacy_windows=False)  # type: ignore[arg-type]


def painted(ansi: str) -> list[tuple[str, str]]:
    """Return foreground and background code of each block, as a terminal would keep them."""
    found, state = [], ("", "")
    for code, block in re.findall(rf"\x1b\[([0-9;]*)m|({BLOCK})", ansi):
        if block:
            found.append(state)
        elif code != "0":
            head, tail = re.fullmatch(r"(38;(?:5;\d+|2;\d+;\d+;\d+));(48;.*)", code).groups()  # type: ignore[union-attr]
            state = (head, tail)
    return found


rows = st.lists(st.lists(st.integers(0, 255), min_size=6, max_size=6), min_size=1, max_size=9)


@given(rows)
def test_blocks_paint_what_rich_would(cells: list[list[int]]) -> None:
    strip = BlockStrip(np.array(cells, np.uint8))
    expected = [(f"38;2;{r};{g};{b}", f"48;2;{r2};{g2};{b2}") for r, g, b, r2, g2, b2 in cells]
    assert painted(strip.render(terminal("truecolor"))) == expected
    assert painted(strip.plain().render(terminal("truecolor"))) == expected


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_few_colours_are_as_near_as_the_cube_allows(rgb: Rgb) -> None:
    strip = BlockStrip(np.array([[*rgb, *rgb]], np.uint8))
    ((front, _),) = painted(strip.render(terminal("256")))
    number = int(front.removeprefix("38;5;"))
    steps = (0, 95, 135, 175, 215, 255)
    nearest = [min(range(6), key=lambda i, v=value: abs(steps[i] - v)) for value in rgb]  # type: ignore[misc]
    distance = [abs(steps[i] - v) for i, v in zip(nearest, rgb, strict=True)]
    got = RichColor.parse(f"color({number})").get_truecolor()
    assert [abs(g - v) for g, v in zip(got, rgb, strict=True)] == distance


def test_a_terminal_of_sixteen_colours_gets_them_too() -> None:
    strip = BlockStrip(np.array([[255, 0, 0, 0, 0, 255]], np.uint8))
    assert strip.render(terminal("standard")).count(BLOCK) == 1


def test_blocks_are_cut_as_text_is() -> None:
    strip = BlockStrip(np.arange(60, dtype=np.uint8).reshape(10, 6))
    whole = painted(strip.render(terminal("truecolor")))
    assert strip.crop(0, 10) is strip
    assert painted(strip.crop(3, 7).render(terminal("truecolor"))) == whole[3:7]
    parts = strip.divide([2, 5, 10])
    assert [part.cell_length for part in parts] == [2, 3, 5]
    assert [p for part in parts for p in painted(part.render(terminal("truecolor")))] == whole


def test_without_colour_blocks_are_grey() -> None:
    strip = BlockStrip(np.array([[255, 0, 0, 0, 0, 255]], np.uint8))
    ((front, back),) = painted(strip.apply_filter(Monochrome(), Color(0, 0, 0)).render(terminal("truecolor")))
    assert all(len(set(code.split(";")[2:])) == 1 for code in (front, back))
    assert strip.apply_filter(DimFilter(), Color(0, 0, 0)) is strip


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_a_picture_stands_in_the_middle_of_its_rows(height: int, width: int, room: int) -> None:
    pixels = np.full((height, width, 3), 200, np.uint8)
    found = block_rows(pixels, room, (1, 2, 3))
    assert len(found) == -(-height // 2)
    cells = painted(found[0].render(terminal("truecolor")))
    shown = [front == "38;2;200;200;200" for front, _ in cells]
    assert len(cells) == room
    assert sum(shown) == min(width, room)
    assert abs(shown.index(True) - shown[::-1].index(True)) <= 1
