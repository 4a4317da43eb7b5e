"""How large a picture is drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.player.graphics.display import MODES, MOST_PIXELS, Display, Layout, PictureMode, lay_out

CLIP = (640, 360)
sides = st.integers(1, 4000)
rooms = st.tuples(st.integers(1, 400), st.integers(1, 200))
cells = st.tuples(st.integers(1, 40), st.integers(1, 60))


@pytest.mark.parametrize(
    ("mode", "layout"),
    [
        ("blocks", Layout(80, 23, 80, 45)),
        ("sextants", Layout(80, 22, 160, 66)),
        # As many pixels as the clip has.
        ("kitty", Layout(80, 22, 647, 356)),
        ("iterm2", Layout(80, 22, 647, 356)),
        ("sixel", Layout(80, 22, 400, 440, 2)),
    ],
)
def test_a_picture_is_as_large_as_fits_and_has_as_many_pixels_as_it_may(mode: PictureMode, layout: Layout) -> None:
    assert lay_out(Display(mode), CLIP, (80, 30)) == layout


def test_a_cell_of_another_size_gets_other_pixels() -> None:
    sizes = iter([(10, 20), (5, 10)])
    display = Display("sixel", measure=lambda: next(sizes))
    assert lay_out(display, CLIP, (40, 30)) == Layout(40, 11, 400, 220)
    assert lay_out(display, CLIP, (40, 30)) == Layout(40, 11, 200, 110)


@given(st.sampled_from(MODES), st.tuples(sides, sides), rooms, cells)
def test_a_picture_fits_its_room(
    mode: PictureMode, clip: tuple[int, int], room: tuple[int, int], cell: tuple[int, int]
) -> None:
    layout = lay_out(Display(mode, cell), clip, room)
    assert 1 <= layout.columns <= room[0]
    assert 1 <= layout.rows <= room[1]
    assert min(layout.width, layout.height) >= 1
    if mode == "sixel":
        assert (layout.stretch * layout.width, layout.height) == (layout.columns * cell[0], layout.rows * cell[1])
    if mode in MOST_PIXELS:
        # Rounding to whole cells adds half a cell at most on each side, and one cell is always there.
        most = (MOST_PIXELS[mode] ** 0.5 + sum(cell)) ** 2 if mode == "sixel" else 1.1 * MOST_PIXELS[mode] + 4000
        assert layout.width * layout.height <= max(most, 2 * max(layout.width, layout.height))
