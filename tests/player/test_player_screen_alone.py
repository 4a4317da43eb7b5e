"""The picture alone, with the commentary as subtitles on it."""

from typing import cast

import numpy as np
import pytest

from streaming_vlm_mlx.video.reconnect import FeedStatus
from tests.player.fakes import Feed, Link, Player, Scripted, StartPlayer, until, wait
from tui.player.clip import Frame, FrameGrabber
from tui.player.graphics.display import Display, PictureMode
from tui.player.graphics.half_blocks import BLOCK
from tui.player.widgets.picture import Picture

LINES = {0: "she serves wide", 1: "and follows it in."}


class Grey:
    """A grabber of grey frames."""

    def find(self, time: float) -> None:
        pass

    def at(self, time: float, size: tuple[int, int]) -> Frame:
        return Frame(time, np.full((size[1], size[0], 3), 128, np.uint8))

    def close(self) -> None:
        pass


def grey() -> FrameGrabber:
    return cast(FrameGrabber, Grey())


def shown(p: Player) -> list[str]:
    """Return the rows of the picture as text."""
    picture = p.screen.query_one(Picture)
    return [strip.text for strip in picture.render_lines(picture.size.region)]


def visible(p: Player) -> set[str]:
    return {widget.id or "" for widget in p.screen.query("*") if widget.display and widget.size.height}


async def test_f_shows_the_picture_alone_with_subtitles_and_f_or_escape_all_again(start_player: StartPlayer) -> None:
    async with start_player(Scripted(LINES), open_grabber=grey, per_second=False) as p:
        await p.speak(2)
        for key in ("f", "escape"):
            await p.press("f")
            await until(lambda: any(BLOCK in row for row in shown(p)))
            assert visible(p) >= {"picture"}
            assert not visible(p) & {"title", "gauges", "transcript", "timeline", "cache", "keys"}
            assert p.screen.query_one(Picture).size == p.screen.size
            *rows, last = shown(p)
            assert "she serves wide and follows it in." in rows[-1]
            assert "she" not in "".join(rows[:-1]) + last
            await p.press(key)
            assert visible(p) >= {"title", "picture", "gauges", "transcript", "timeline", "cache", "keys"}
            assert "she" not in "".join(shown(p))


async def test_a_subtitle_goes_some_seconds_after_it_was_said(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "out.", **dict.fromkeys(range(1, 9), "")}), open_grabber=grey) as p:
        await p.speak(1)
        await p.press("f")
        assert "out." in "".join(shown(p))
        for number in range(1, 6):
            await p.pass_time(1)
            await p.engine.until_spoken(number)
        await p.pass_time(0.5)
        assert "out." not in "".join(shown(p))


async def test_a_long_sentence_shows_its_end(start_player: StartPlayer) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    async with start_player(Scripted({0: words}), open_grabber=grey) as p:
        await p.speak(1)
        await p.press("f")
        text = "\n".join(row for row in shown(p) if "word" in row)
        assert "word59" in text
        assert "word1 " not in text
        assert text.count("\n") == 1


async def test_a_failure_is_told_on_the_picture(start_player: StartPlayer) -> None:
    async with start_player(Scripted(failure="the model is cut short."), open_grabber=grey) as p:
        await until(lambda: "cut short" in p.notice)
        await p.press("f")
        assert "the model is cut short." in "".join(shown(p))


async def test_a_lost_signal_is_told_on_the_picture(start_player: StartPlayer) -> None:
    feed, link = Feed(), Link()
    async with start_player(Scripted(LINES), seconds=feed, feed=link) as p:
        feed.coming.put(0)
        await p.engine.until_spoken(0)
        await p.press("f")
        link.status = FeedStatus("silent", 7.4)
        await p.pass_time(0.5)
        assert "◌ no signal 7 s" in "".join(shown(p))
        link.status = FeedStatus("live", 0.2)
        await p.pass_time(0.5)
        assert "no signal" not in "".join(shown(p))
        feed.coming.put(None)


async def test_without_a_picture_f_says_so_and_hiding_it_shows_all_again(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.press("f")
        assert "there is no picture to show." in p.notice
        assert "title" in visible(p)
    async with start_player(open_grabber=grey, with_picture=False) as p:
        await p.press("f")
        assert "picture" in visible(p)
        await p.press("p")
        assert visible(p) >= {"title", "transcript"}
        assert "picture" not in visible(p)


@pytest.mark.parametrize("mode", ["sixel", "iterm2"])
async def test_a_subtitle_is_below_an_image_that_covers_text(start_player: StartPlayer, mode: PictureMode) -> None:
    async with start_player(Scripted(LINES), open_grabber=grey, per_second=False, display=Display(mode, (10, 20))) as p:
        await p.speak(2)
        picture = p.screen.query_one(Picture)
        await p.press("f")
        await wait(p.pilot)
        _, height = picture.pixels_for((64, 4000))
        assert mode == "iterm2" or height == 20 * (picture.size.height - 2)
        assert "she serves wide" in shown(p)[-2]
