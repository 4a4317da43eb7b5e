"""What the viewer takes out of the player: a line, a picture."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageFont

from streaming_vlm_mlx.sessions.drawing import PAPER, draw_still, wrap
from tests.player.fakes import Feed, Scripted, StartPlayer, until
from tui.player.clip import Frame, FrameGrabber


class Reds:
    """Pictures as red as their time in seconds; after ten there are none."""

    def at(self, time: float, size: tuple[int, int]) -> Frame | None:
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[..., 0] = min(round(10 * time), 255)
        return Frame(time, pixels) if time <= 10 else None

    def find(self, time: float) -> None:
        pass

    def close(self) -> None:
        pass


def reds() -> FrameGrabber:
    return cast(FrameGrabber, Reds())


async def test_y_copies_the_line_at_the_playhead(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "Red \x1b[1mserves", 1: "Out!", 2: ""})) as p:
        await p.speak(3)
        await p.press("y")
        assert p.app.clipboard == "Out!"
        assert p.notice.splitlines()[0] == "copied: Out!"
        await p.press("space", "0", "y")
        assert p.app.clipboard == "Red [1mserves"


async def test_without_commentary_nothing_is_copied(start_player: StartPlayer) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_player(engine) as p:
        p.app.copy_to_clipboard("before")
        await p.press("y")
        assert p.app.clipboard == "before"
        assert "there is no commentary to copy yet." in p.notice


async def test_s_saves_the_picture_of_the_clips_size_with_the_line_below(
    start_player: StartPlayer, tmp_path: Path
) -> None:
    async with start_player(open_grabber=reds) as p:
        await p.speak(4)
        await p.press("space", "s")
        path = tmp_path / "match.session.00-03.png"
        await until(lambda: "the picture is in" in p.notice)
        assert p.notice.splitlines()[0].endswith("/match.session.00-03.png")
        with Image.open(path) as image:
            assert image.format == "PNG"
            drawn = np.asarray(image)
        assert drawn.shape[1] == 640
        assert drawn.shape[0] > 360
        assert {tuple(pixel) for pixel in drawn[:360].reshape(-1, 3)} == {(30, 0, 0)}
        assert tuple(drawn[-1, 0]) == PAPER
        # Letters are brighter than the paper.
        assert drawn[360:].max() > 150
        await p.press("s")
        await until((tmp_path / "match.session.00-03-2.png").exists)
        left = {file.suffix for file in tmp_path.iterdir() if file.name != "match.session.jsonl"}
        assert left == {".png"}


async def test_s_saves_the_newest_picture_of_a_feed(start_player: StartPlayer, tmp_path: Path) -> None:
    feed = Feed()
    async with start_player(seconds=feed) as p:
        await p.press("s")
        assert "there is no picture to save." in p.notice
        feed.coming.put(0)
        await p.engine.until_spoken(0)
        await p.press("s")
        await until(lambda: "the picture is in" in p.notice)
        assert (tmp_path / "match.session.00-01.png").exists()
        feed.coming.put(None)


async def test_a_replay_saves_pictures_beside_its_session_and_nothing_else(
    start_player: StartPlayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with start_player(open_grabber=reds, config=None, endings=()) as p:
        await p.speak(4)
        await p.press("space", "s")
        await until(lambda: "the picture is in" in p.notice)
    assert [path.name for path in tmp_path.iterdir()] == ["match.session.00-03.png"]


@pytest.mark.parametrize("position", ["1", "9"])
async def test_a_picture_that_cannot_be_saved_is_told(start_player: StartPlayer, tmp_path: Path, position: str) -> None:
    (tmp_path / "file").touch()
    async with start_player(open_grabber=reds, base_paths=(tmp_path / "file" / "match",)) as p:
        await p.press("space", position, "s")
        told = "cannot be written" if position == "1" else "there is no picture at 00:54 to save."
        await until(lambda: told in p.notice)


def test_long_lines_are_wrapped_to_the_width_of_the_picture() -> None:
    font = ImageFont.load_default(20)
    lines = wrap("the ball goes wide of the line and the point is lost", font, 200)
    assert " ".join(lines) == "the ball goes wide of the line and the point is lost"
    assert len(lines) > 1
    assert all(font.getlength(line) <= 200 for line in lines)
    assert wrap("", font, 200) == []
    parts = wrap("an incomprehensibilities", font, 60)
    assert "".join(parts) == "anincomprehensibilities"
    assert len(parts) > 2
    assert all(font.getlength(part) <= 60 for part in parts)
    assert wrap("it", font, 1) == ["i", "t"]
    short, long = (draw_still(np.zeros((90, 160, 3), np.uint8), "word " * count, "x") for count in (1, 60))
    assert long.height > short.height > 90
