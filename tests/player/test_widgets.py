"""Widgets and figures by themselves: blocks, cache strip, gauges, title, rows."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color as RichColor
from rich.console import Console
from textual.color import Color
from textual.filter import DimFilter, Monochrome

from streaming_vlm_mlx.stream.events import SpanView
from tests.player.stand_ins import second_done, span_map
from tui.player.metrics import HISTORY, PlayerMetrics, bar, sparkline
from tui.player.transcript import Transcript
from tui.player.widgets.blocks import BLOCK, BlockStrip, block_rows
from tui.player.widgets.cache_strip import Cell, lay_strip, share
from tui.player.widgets.title import TitleState

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


@given(st.integers(0, 200), st.lists(st.integers(1, 10**6), max_size=8))
def test_shares_add_up_and_nothing_is_lost_while_there_is_room(width: int, weights: list[int]) -> None:
    shares = share(width, weights)
    assert len(shares) == len(weights)
    if weights:
        assert sum(shares) == width
        assert all(cells >= (width >= len(weights)) for cells in shares)
        exact = [width * weight / sum(weights) for weight in weights]
        assert all(abs(cells - part) <= len(weights) + 1 for cells, part in zip(shares, exact, strict=True))


spans = st.lists(
    st.builds(
        SpanView,
        kind=st.sampled_from(["system", "previous", "user", "video", "text"]),
        round=st.integers(-1, 50),
        tokens=st.integers(1, 500),
    ),
    max_size=30,
)


@given(spans, spans, st.integers(0, 120))
def test_the_strip_has_its_width_and_its_order(kept: list[SpanView], dropped: list[SpanView], width: int) -> None:
    cells = lay_strip(kept, dropped, width)
    assert len(cells) == (width if kept or dropped else 0)
    order = ["sink", "previous", "text", "video"]
    places = [order.index(cell.part) for cell in cells]
    assert places == sorted(places)


def test_the_strip_is_to_scale() -> None:
    kept = [SpanView("system", -1, 100), SpanView("previous", -1, 100), SpanView("video", 3, 400)]
    cells = lay_strip(kept, [SpanView("video", 2, 400)], 103)
    assert [sum(c.part == part for c in cells) for part in ("sink", "previous", "video")] == [11, 11, 81]
    lit = [cell for cell in cells if cell.part == "video"]
    assert lit[0] == Cell("video", False, True)
    assert lit[-1] == Cell("video", True, False)
    assert abs(sum(cell.dropped for cell in lit) - len(lit) / 2) <= 1


def test_meters_tell_what_a_second_cost() -> None:
    metrics = PlayerMetrics()
    assert {meter.value for meter in metrics.meters(0.0)} == {"–", "0.0 s"}
    metrics.add(second_done(0, "he scores now", milliseconds=650.0), 0.4)
    metrics.add(second_done(1, "he scores", milliseconds=250.0), 0.3)
    meters = {meter.name: meter for meter in metrics.meters(0.7)}
    assert meters["tokens/s"].value == "20.0"
    assert meters["tokens/s"].history == pytest.approx((6.0, 20.0))
    assert meters["real time"].value == "×4.0"
    assert meters["first word"].value == "160 ms"
    assert meters["behind"].value == "0.7 s"
    assert (meters["memory"].value, meters["memory"].note) == ("4.1 GB", "of 16 GB")
    assert meters["memory"].share == pytest.approx(4.1 / 16)
    assert (meters["MLX"].value, meters["MLX"].note) == ("1.2 + 0.3 GB", "peak 2.0 GB")
    assert (meters["cache"].value, meters["cache"].note) == ("440 tokens", "34 MB")
    metrics.skipped = 3
    assert {m.name: m.note for m in metrics.meters(0.0)}["behind"] == "3 passed"


def test_gauges_remember_a_minute() -> None:
    metrics = PlayerMetrics()
    for number in range(3 * HISTORY):
        metrics.add(second_done(number), 0.0)
    assert len(metrics.meters(0.0)[0].history) == HISTORY


@given(st.lists(st.floats(-1e3, 1e6), max_size=30), st.integers(-2, 20))
def test_sparklines_fit_and_show_the_largest_as_a_full_cell(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), max(width, 0))
    shown = values[-width:] if width > 0 else []
    if shown and max(shown) > 0:
        assert line[shown.index(max(shown))] == "█"


@given(st.floats(-1, 2), st.integers(0, 30))
def test_bars_fit_and_grow(amount: float, width: int) -> None:
    drawn = bar(amount, width)
    assert len(drawn) == width
    assert drawn.count("━") + drawn.count("╸") / 2 == pytest.approx(min(max(amount, 0), 1) * width, abs=0.25 + 1e-9)


def test_the_top_line_says_how_it_stands() -> None:
    standing = TitleState("a.mp4", "run1", "00:07 / 00:40", "playing", 1.5, "live", 0.24, 2)
    assert [text for _, text in standing.parts] == ["00:07 / 00:40", "1.5×", "▶", "live −0.2 s", "2 passed over"]
    waiting = TitleState("a", "b", "00:00", "waiting", 1.0, "every", 0.0, 0)
    assert dict(waiting.parts)["state"] == "◌ waits for the model"
    assert waiting.parts[-1] == ("pace", "every second −0.0 s")


def test_span_maps_of_the_stand_in_are_what_an_engine_sends() -> None:
    found = span_map(6)
    assert {s.round for s in found.spans if s.kind == "video"} == {3, 4, 5, 6}
    assert [s.round for s in found.dropped] == [2]
    assert Transcript().rows(0.0, True, 5) == []
