"""The picture as an image: under what lies on it, behind another screen, in a screenshot, and in another size."""

import io
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from tests.player.fakes import Player, StartPlayer, until, wait
from tests.player.graphics.protocols import ITERM2, SIXEL, read_kitty
from tui.player.clip import Frame, FrameGrabber
from tui.player.graphics.display import Display, PictureMode
from tui.player.graphics.half_blocks import BLOCK
from tui.player.graphics.kitty import PLACEHOLDER
from tui.player.widgets.picture import Picture

CONSOLE = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False)
OVER: list[PictureMode] = ["sixel", "iterm2"]
IMAGES: list[PictureMode] = ["kitty", *OVER]


class Slope:
    """A grabber of frames that get lighter to the right."""

    def find(self, time: float) -> None:
        pass

    def at(self, time: float, size: tuple[int, int]) -> Frame:
        row = np.linspace(0, 255, size[0]).astype(np.uint8)
        return Frame(time, np.broadcast_to(row[None, :, None], (size[1], size[0], 3)).copy())

    def close(self) -> None:
        pass


def slope() -> FrameGrabber:
    return cast(FrameGrabber, Slope())


def written(p: Player) -> str:
    """Return what the terminal would get, were the picture drawn anew."""
    picture = p.screen.query_one(Picture)
    return "".join(strip.render(CONSOLE) for strip in picture.render_lines(picture.size.region))


def has_image(p: Player) -> bool:
    text = written(p)
    assert BLOCK not in text or not any(image in text for image in ("\x1b_G", "\x1bP", "\x1b]1337"))
    return bool(SIXEL.search(text) or ITERM2.search(text) or "\x1b_Ga=T" in text)


@pytest.mark.parametrize("mode", OVER)
@pytest.mark.parametrize("key", ["o", "question_mark", "ctrl+p"])
async def test_what_lies_on_an_image_that_covers_text_turns_it_to_blocks(
    start_player: StartPlayer, mode: PictureMode, key: str
) -> None:
    async with start_player(open_grabber=slope, display=Display(mode)) as p:
        await p.engine.until_spoken(0)
        await until(lambda: has_image(p))
        await p.press(key)
        assert not has_image(p)
        await wait(p.pilot)
        assert BLOCK in written(p)
        await p.press("o" if key == "o" else "escape")
        await wait(p.pilot)
        await until(lambda: has_image(p))


async def test_kittys_image_stays_under_the_stats(start_player: StartPlayer) -> None:
    async with start_player(open_grabber=slope, display=Display("kitty")) as p:
        await p.engine.until_spoken(0)
        await until(lambda: has_image(p))
        await p.press("o")
        assert has_image(p)
        await p.press("question_mark")
        await wait(p.pilot)
        assert BLOCK in written(p)


async def test_part_of_kittys_image_is_drawn_without_sending_it_again(start_player: StartPlayer) -> None:
    async with start_player(open_grabber=slope, display=Display("kitty")) as p:
        await p.engine.until_spoken(0)
        await until(lambda: has_image(p))
        picture = p.screen.query_one(Picture)
        top = next(y for y in range(picture.size.height) if PLACEHOLDER in picture.render_line(y).render(CONSOLE))
        row = picture.render_line(top + 1)
        left, middle, right = row.divide([20, 30, picture.size.width])
        texts = [part.render(CONSOLE) for part in (left, middle, right)]
        assert not any(read_kitty(text) for text in texts)
        assert sum(text.count(PLACEHOLDER) for text in texts) == row.render(CONSOLE).count(PLACEHOLDER)
        assert middle.cell_length == 10


@pytest.mark.parametrize("mode", IMAGES)
async def test_a_screenshot_has_the_picture_in_characters(start_player: StartPlayer, mode: PictureMode) -> None:
    async with start_player(open_grabber=slope, display=Display(mode)) as p:
        await p.engine.until_spoken(0)
        await until(lambda: has_image(p))
        screenshot = p.app.export_screenshot()
        assert BLOCK in screenshot
        assert PLACEHOLDER not in screenshot
        assert has_image(p)


@pytest.mark.parametrize("mode", IMAGES)
async def test_an_image_of_another_size_is_not_drawn(start_player: StartPlayer, mode: PictureMode) -> None:
    async with start_player(open_grabber=slope, display=Display(mode)) as p:
        await p.engine.until_spoken(0)
        await until(lambda: has_image(p))
        picture = p.screen.query_one(Picture)
        before = picture.pixels_for((640, 360))
        await p.pilot.resize_terminal(80, 24)
        assert picture.pixels_for((640, 360)) != before
        await until(lambda: has_image(p))
        assert max(strip.cell_length for strip in picture.render_lines(picture.size.region)) == picture.size.width
