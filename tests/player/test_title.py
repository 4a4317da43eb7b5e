"""The top line."""

import pytest

from tests.player.fakes import StartPlayer
from tui.player.widgets.title import TitleInfo

Rgb = tuple[int, int, int]


def test_the_top_line_says_how_it_stands() -> None:
    standing = TitleInfo("a.mp4", "run1", "00:07 / 00:40", "playing", 1.5, "live", 0.24, 2)
    assert [text for _, text in standing.parts] == ["00:07 / 00:40", "1.5×", "▶", "real time", "0.2 s late · 2 skipped"]
    muted = TitleInfo("a.mp4", "run1", "00:07", "playing", 1.0, "live", 0.0, 0, muted=True)
    assert [text for _, text in muted.parts] == ["00:07", "muted", "1×", "▶", "real time"]
    waiting = TitleInfo("a", "b", "00:00", "waiting", 1.0, "every", 0.0, 0)
    assert dict(waiting.parts)["state"] == "◌ waiting"
    assert waiting.parts[-1] == ("pace", "wait for model")


@pytest.mark.parametrize(
    ("length", "left", "has_time"),
    [(25, " · run1", True), (31, " · run1", True), (32, " ", True), (38, " ", True), (39, " · run1", False)],
)
async def test_the_model_makes_room_for_the_time_and_the_time_for_the_clip(
    start_player: StartPlayer, length: int, left: str, has_time: bool
) -> None:
    clip = "c" * length
    async with start_player(clip=clip, size=(80, 24)) as p:
        await p.engine.until_spoken(0)
        await p.press("space")
        p.screen.presenter.tick()
        assert "‖ paused  real time" in p.title
        assert p.title.startswith(clip + left)
        assert ("00:00 / 01:00" in p.title) == has_time
