"""The stats overlay."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.player.fakes import RECORD, Blank, Scripted, StartPlayer, wait
from tui.player.widgets.stats import EMPTY, PARTS, PlotCell, Stats, stack

TIMES = st.lists(st.tuples(*[st.floats(0, 1e4)] * 3), min_size=1, max_size=20)


def eighths(column: list[PlotCell]) -> int:
    """Return how many eighths of a column are filled, from the bottom."""
    return sum((8 if cell.above is not None else cell.eighths) for cell in column if cell.below is not None)


@given(TIMES, st.integers(1, 12))
def test_columns_are_as_high_as_their_sums(columns: list[tuple[float, ...]], rows: int) -> None:
    top = max(map(sum, columns))
    plot = stack(columns, rows, top)
    assert [len(row) for row in plot] == [len(columns)] * rows
    for number, parts in enumerate(columns):
        column = [row[number] for row in plot]
        if top > 0:
            assert eighths(column) == pytest.approx(8 * rows * sum(parts) / top, abs=0.51)
        # From the bottom up, parts follow each other, and nothing stands on nothing.
        order = [part for cell in reversed(column) for part in (cell.below, cell.above) if part is not None]
        assert order == sorted(order)
        assert sorted((cell == EMPTY for cell in column), reverse=True) == [cell == EMPTY for cell in column]


def test_a_cell_shows_two_parts() -> None:
    assert stack([(12, 4, 0)], 2, 16) == [[PlotCell(4, 0, 1)], [PlotCell(8, 0, None)]]
    assert stack([(2, 2, 4)], 1, 8) == [[PlotCell(2, 0, 2)]]
    assert stack([(0, 0, 0), (0, 8, 0)], 1, 8) == [[EMPTY, PlotCell(8, 1, None)]]
    assert stack([(0, 0, 0)], 1, 0) == [[EMPTY]]
    assert stack([(1e-308, 0, 0)], 1, 1e-308) == [[PlotCell(8, 0, None)]]


async def test_o_shows_times_counts_versions_and_the_machine(start_player: StartPlayer) -> None:
    record = replace(RECORD, versions={"mlx": "0.32.4"}, machine={"processor": "A16", "memory_bytes": 16_000_000_000})
    described = {"device": "Metal", "processor": "M4", "system": "macOS\x1b"}
    async with start_player(record=record, describe_machine=lambda: described) as p:
        stats = p.screen.query_one(Stats)
        assert not stats.display
        await p.press("o")
        await p.speak(3)
        await p.press("space")
        await p.pass_time(1)
        shown = "\n".join(strip.text.rstrip() for strip in stats.render_lines(stats.size.region))
        assert "■ vision 100 ms  ■ prefill 50 ms  ■ decode 100 ms" in shown
        assert "250 ms" in shown
        for line in ("3 commented on, 0 skipped", "mlx 0.32.4", "Metal", "M4, macOS\\x1b", "tokens/s", "cache"):
            assert line in shown
        await p.press("o")
        assert not stats.display
        await p.press("o", "ctrl+f", *"second", "enter", "escape")
        assert not stats.display
        assert "“second”" in p.notice
        await p.press("escape")
        assert "“second”" not in p.notice


async def test_before_the_first_second_the_record_says_what_it_can(start_player: StartPlayer) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_player(engine, record=replace(RECORD, machine={"processor": "A16"})) as p:
        await p.press("o")
        shown = str(p.screen.query_one(Stats).render())
        assert shown.startswith("no second was commented on yet")
        assert "A16" in shown


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
async def test_the_overlay_fits(start_player: StartPlayer, size: tuple[int, int]) -> None:
    async with start_player(size=size, seconds=Blank(5000.0)) as p:
        await p.press("o")
        await p.speak(2)
        await wait(p.pilot)
        stats = p.screen.query_one(Stats)
        assert stats.region in p.screen.region
        assert stats.render().cell_length > 0
        assert all(part in stats.render_line(0).text for part in PARTS[: 1 + (size[0] > 40)])


@pytest.mark.parametrize("size", [(40, 12), (60, 40), (80, 12), (80, 24), (109, 30), (110, 30), (149, 40), (200, 60)])
async def test_notes_cover_neither_the_stats_nor_the_line_that_is_typed(
    start_player: StartPlayer, size: tuple[int, int]
) -> None:
    async with start_player(size=size) as p:
        await p.speak(2)
        stats, toast, view = (p.screen.query_one(name) for name in ("#stats", "#toast", "#transcript"))
        for number in range(3):
            p.screen.note(f"remark {number} " + "which takes more than a line of a toast of sixty cells")
        await wait(p.pilot)
        place = toast.region
        await p.press("o")
        assert toast.region in p.screen.region
        assert toast.region
        assert not toast.region.overlaps(stats.region)
        if size[0] < 110:
            assert not toast.region.overlaps(view.region)
        assert "remark 2" in toast.render_line(0).text
        await p.press("t")
        assert not toast.region.overlaps(p.screen.query_one("#prompt").region)
        await p.press("escape", "o")
        assert toast.region == place
