"""The picture on the player's screen: when it is asked for, how large, and how often."""

from typing import cast

import numpy as np
import pytest

from tests.player.fakes import Player, StartPlayer, until, wait
from tui.player.clip import Frame, FrameGrabber
from tui.player.frame_loader import RATE, RATE_BUSY
from tui.player.graphics.half_blocks import BLOCK
from tui.player.screens.player import QUIET_TIME
from tui.player.widgets.picture import Picture


class Canvas:
    """Stills of one colour; it notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, tuple[int, int]]] = []
        self.found: list[float] = []

    def find(self, time: float) -> None:
        self.found.append(time)

    def at(self, time: float, size: tuple[int, int]) -> Frame:
        self.asked.append((time, size))
        return Frame(time, np.full((size[1], size[0], 3), 128, np.uint8))

    def close(self) -> None:
        pass


@pytest.fixture
def canvas() -> Canvas:
    return Canvas()


def painted(p: Player) -> bool:
    picture = p.screen.query_one(Picture)
    return any(BLOCK in strip.text for strip in picture.render_lines(picture.size.region))


async def test_the_first_picture_is_there_before_the_model_and_before_a_tick(
    start_player: StartPlayer, canvas: Canvas
) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas), start=7.0) as p:
        await until(lambda: painted(p))
        # It was looked for while the screen was laid out.
        assert canvas.found == [7.0]
        # The screen may be laid out more than once.
        await until(lambda: (7.0, p.screen.query_one(Picture).pixels_for((640, 360))) in canvas.asked)
        assert {time for time, _ in canvas.asked} == {7.0}


async def test_a_picture_of_the_new_size_is_asked_for_though_time_stands_still(
    start_player: StartPlayer, canvas: Canvas
) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas)) as p:
        await p.engine.until_spoken(0)
        await p.press("space")
        await until(lambda: painted(p))
        before = canvas.asked[-1][1]
        await p.pilot.resize_terminal(200, 60)
        await until(lambda: canvas.asked[-1][1] != before)
        width, height = canvas.asked[-1][1]
        assert width / height == pytest.approx(16 / 9, rel=0.05)


async def test_p_hides_the_picture_and_asks_for_none_meanwhile(start_player: StartPlayer, canvas: Canvas) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas)) as p:
        await p.engine.until_spoken(0)
        await until(lambda: painted(p))
        await p.press("p")
        asked = len(canvas.asked)
        await p.pass_time(2)
        assert not p.screen.query_one(Picture).display
        assert len(canvas.asked) == asked
        await p.press("p")
        await p.pass_time(1)
        await until(lambda: len(canvas.asked) > asked)
        assert p.screen.query_one(Picture).display


async def count_requests(p: Player, canvas: Canvas, ticks: int) -> int:
    """Return how many pictures are requested in `ticks` of a fortieth of a second."""
    frame_loader = p.screen.frame_loader
    assert frame_loader is not None
    await until(lambda: not frame_loader.busy)
    before = len(canvas.asked)
    for _ in range(ticks):
        p.clock.now += 1 / 40
        p.screen.tick()
        await until(lambda: not frame_loader.busy)
    return len(canvas.asked) - before


async def test_pictures_come_less_often_while_the_model_speaks(start_player: StartPlayer, canvas: Canvas) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas)) as p:
        await p.engine.until_spoken(0)
        await wait(p.pilot)
        p.engine.free.clear()
        assert await count_requests(p, canvas, 39) == pytest.approx(RATE, abs=1)
        await p.pass_time(0.25)
        await p.engine.until_begun(1)
        assert await count_requests(p, canvas, 30) <= 0.75 * RATE_BUSY + 1


async def test_a_session_that_is_played_again_is_drawn_from_a_second_s_beginning(
    start_player: StartPlayer, canvas: Canvas
) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas), config=None) as p:
        await p.engine.until_spoken(0)
        await wait(p.pilot)
        p.engine.free.clear()
        await p.pass_time(0.75)
        p.clock.now += 0.25
        p.screen.controller.tick()
        await p.engine.until_begun(1)
        await wait(p.pilot)
        assert await count_requests(p, canvas, int(40 * QUIET_TIME) - 1) >= 1


async def test_nothing_is_drawn_while_a_second_begins_but_what_a_key_does(
    start_player: StartPlayer, canvas: Canvas
) -> None:
    async with start_player(open_grabber=lambda: cast(FrameGrabber, canvas)) as p:
        await p.engine.until_spoken(0)
        await wait(p.pilot)
        p.engine.free.clear()
        await p.pass_time(0.75)
        p.clock.now += 0.25
        p.screen.controller.tick()
        await p.engine.until_begun(1)
        await wait(p.pilot)
        calm = int(40 * QUIET_TIME) - 1
        before = p.title
        assert await count_requests(p, canvas, calm) == 0
        assert p.title == before
        await p.press("right_square_bracket")
        assert "1.25×" in p.title
        assert await count_requests(p, canvas, 10) >= 1
