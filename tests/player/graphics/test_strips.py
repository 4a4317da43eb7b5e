"""Rows that a function writes, alone and side by side, cut as text is."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import Monochrome
from textual.strip import Strip

from tui.player.graphics.strips import JoinedStrip, PaintedStrip

CONSOLE = Console(file=io.StringIO())
LETTERS = "abcdefghijklmnop"


def letters(_: Console, first: int, last: int) -> str:
    return LETTERS[first:last]


def painted() -> PaintedStrip:
    return PaintedStrip(letters, 0, len(LETTERS))


def joined() -> JoinedStrip:
    return JoinedStrip([PaintedStrip(letters, 0, 5), Strip([Segment("FGH")]), PaintedStrip(letters, 8, 16)])


cuts = st.lists(st.integers(0, len(LETTERS)), max_size=4).map(lambda places: [*sorted(places), len(LETTERS)])


@given(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20)))
def test_part_of_a_row_is_what_text_would_be(start: int, end: int | None) -> None:
    for strip in (painted(), joined()):
        part = strip.crop(start, end)
        assert part.render(CONSOLE).lower() == LETTERS[start:end]
        assert part.cell_length == len(LETTERS[start:end])
        assert part.crop(1, 3).render(CONSOLE).lower() == LETTERS[start:end][1:3]


@given(cuts)
def test_a_row_is_divided_as_text_is(places: list[int]) -> None:
    for strip in (painted(), joined()):
        parts = strip.divide(places)
        assert [part.cell_length for part in parts] == [b - a for a, b in zip([0, *places], places, strict=False)]
        assert "".join(part.render(CONSOLE) for part in parts).lower() == LETTERS


def test_filters_reach_text_and_leave_images() -> None:
    red = Strip([Segment("FGH", Style(color="#ff0000"))])
    filtered = JoinedStrip([PaintedStrip(letters, 0, 5), red]).apply_filter(Monochrome(), Color(0, 0, 0))
    (style,) = {segment.style.color.triplet for segment in filtered if segment.style and segment.style.color}
    assert style is not None
    assert len(set(style)) == 1
    assert filtered.crop(0, 5).render(CONSOLE) == "abcde"
