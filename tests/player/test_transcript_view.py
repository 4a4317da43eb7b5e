"""The list of commentary: it grows without laying out the screen, and lets old rows go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Size
from textual.pilot import Pilot

from tests.player.fakes import wait
from tui.player.transcript import TranscriptRow
from tui.player.widgets import transcript_view
from tui.player.widgets.transcript_view import TranscriptView


class Shown(App[None]):
    """The list alone."""

    # As the player's own style sheet has it: the scrollbar takes no room from the text when it comes.
    CSS = "TranscriptView { height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; }"

    def compose(self) -> ComposeResult:
        yield TranscriptView()


@asynccontextmanager
async def shown() -> AsyncIterator[tuple[TranscriptView, Pilot[None]]]:
    app = Shown()
    async with app.run_test(size=(40, 10)) as pilot:
        yield app.query_one(TranscriptView), pilot


def row(number: int) -> TranscriptRow:
    return TranscriptRow(number, ("second", str(number)))


def lines(view: TranscriptView) -> list[str]:
    return [strip.text.strip() for strip in view.render_lines(view.size.region)]


async def test_rows_lay_out_the_screen_only_when_a_scrollbar_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    laid: list[Size] = []
    monkeypatch.setattr(TranscriptView, "watch_virtual_size", lambda self, size: laid.append(size), raising=False)
    async with shown() as (view, pilot):
        await wait(pilot)
        laid.clear()
        for number in range(40):
            view.put(row(number))
            await wait(pilot)
        assert [size.height for size in laid] == [11]
        assert view.virtual_size.height == 40
        assert view.vertical_scrollbar.window_virtual_size == 40
        assert lines(view)[-1] == "00:39  second 39"


async def test_old_rows_go_one_by_one_and_the_newest_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_view, "MAX_ROWS", 30)
    async with shown() as (view, pilot):
        for number in range(50):
            view.put(row(number))
        await wait(pilot)
        assert [r.number for r in view.rows] == list(range(20, 50))
        assert lines(view) == [f"00:{number}  second {number}" for number in range(40, 50)]


async def test_what_a_viewer_scrolled_back_to_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_view, "MAX_ROWS", 30)
    async with shown() as (view, pilot):
        for number in range(30):
            view.put(row(number))
        await wait(pilot)
        view.scroll_to(y=10, animate=False)
        await wait(pilot)
        before = lines(view)
        for number in range(30, 35):
            view.put(row(number))
        await wait(pilot)
        assert before[0] == "00:10  second 10"
        assert lines(view) == before


async def test_a_click_on_a_line_names_its_second() -> None:
    class Clicked(Shown):
        seconds: list[float] = []  # noqa: RUF012 - of this test alone

        def on_transcript_view_clicked(self, event: TranscriptView.Clicked) -> None:
            self.seconds.append(event.position)

    app = Clicked()
    async with app.run_test(size=(40, 10)) as pilot:
        view = app.query_one(TranscriptView)
        for number in (3, 8, 20):
            view.put(TranscriptRow(number, ("words",) * 9))
        await wait(pilot)
        # Each row takes two lines.
        for line in (0, 3, 4, 9):
            await pilot.click(TranscriptView, offset=(2, line))
        await wait(pilot)
        assert app.seconds == [3, 8, 20]
