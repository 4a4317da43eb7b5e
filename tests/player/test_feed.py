"""A live feed in the player: its pace, what the title says of it, and the keys that it has."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.reconnect import FeedStatus
from streaming_vlm_mlx.video.video_file import VideoFile, open_video
from tests.player.fakes import Blank, Feed, Link, Player, Scripted, StartPlayer, until
from tests.video.clips import make_clip
from tui.player.controller import Controller
from tui.player.feed import FeedSeconds, Turns


def test_a_second_is_shown_a_second_after_the_one_before_it() -> None:
    turns = Turns()
    assert [turns.wait(now) for now in (50.0, 50.0, 50.0, 51.5)] == [0.0, 1.0, 2.0, 1.5]
    assert turns.wait(60.0) == 0.0
    assert turns.wait(60.25) == 0.75


@pytest.fixture
def source(tmp_path: Path) -> Iterator[VideoFile]:
    clip = make_clip(tmp_path / "clip.mp4")
    with open_video(f"lavfi:movie={clip}") as opened:
        yield opened


def test_the_seconds_of_a_feed_come_in_their_turns_and_end(source: VideoFile) -> None:
    waits: list[float] = []
    seconds = FeedSeconds(source, lambda: 50.0, waits.append)
    assert seconds.duration is None
    numbers = [chunk.index if (chunk := seconds.read(0)) else None for _ in range(4)]
    assert numbers == [0, 1, 2, None]
    assert waits == [0.0, 1.0, 2.0]


async def come(p: Player, feed: Feed, number: int) -> None:
    """Let second `number` come, and be spoken."""
    feed.coming.put(number)
    await until(lambda: p.position == number + 1)
    await p.engine.until_spoken(number)


async def test_the_title_says_how_the_feed_is(start_player: StartPlayer) -> None:
    feed, link = Feed(), Link()
    async with start_player(seconds=feed, feed=link, size=(80, 24)) as p:
        await come(p, feed, 0)
        await p.pass_time(0.5)
        assert "▶  real time" in p.title
        for status, sign in (
            (FeedStatus("silent", 7.4), "◌ no signal 7 s"),
            (FeedStatus("reconnecting", 11.0, 2), "◌ reconnecting (2)"),
            (FeedStatus("ended", 300.0, 0, "Connection refused"), "■ feed ended"),
        ):
            link.status = status
            await p.pass_time(0.5)
            assert p.title.endswith(sign)
            assert "real time" not in p.title
        link.status = FeedStatus("live", 0.2)
        await p.pass_time(0.5)
        assert "▶" in p.title
        feed.coming.put(None)


async def test_the_end_is_told_and_a_key_brings_the_feed_back(start_player: StartPlayer) -> None:
    feed, link = Feed(), Link()
    async with start_player(seconds=feed, feed=link) as p:
        await come(p, feed, 0)
        link.status = FeedStatus("ended", 4.0, 0, "Connection refused")
        feed.coming.put(None)
        await until(lambda: p.notice)
        assert p.notice == "the feed has ended: Connection refused. Press r to connect again."
        await p.press("r")
        assert link.reconnects == 1
        assert "◌ reconnecting (1)" in p.title
        link.status = FeedStatus("live")
        await come(p, feed, 1)
        link.status = FeedStatus("ended")
        feed.coming.put(None)
        await until(lambda: "the feed has ended. Press" in p.notice)


@pytest.mark.parametrize(
    ("key", "verb"),
    [
        ("left", "go back"),
        ("shift+left", "go back"),
        ("right", "go forward"),
        ("home", "go back or forward"),
        ("5", "go back or forward"),
        ("space", "be paused"),
        ("full_stop", "be paused"),
        ("right_square_bracket", "change its speed"),
        ("l", "wait for the model"),
    ],
)
async def test_a_feed_says_what_it_cannot(key: str, verb: str, start_player: StartPlayer) -> None:
    feed = Feed()
    async with start_player(seconds=feed, feed=Link()) as p:
        await come(p, feed, 0)
        await p.press(key)
        assert p.notice == f"a live feed cannot {verb}: it goes on as it comes."
        head = p.screen.controller.playhead
        assert (head.position, head.speed, head.state) == (1.0, 1.0, "playing")
        assert p.screen.controller.pace == "live"
        feed.coming.put(None)


async def test_a_clip_is_not_connected_again(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("r")
        assert p.notice == "this is a clip: r connects again to a live feed."


async def test_a_clip_that_could_not_be_read_goes_on(start_player: StartPlayer) -> None:
    clip = Blank(vanishes=1)
    async with start_player(seconds=clip) as p:
        await p.engine.until_spoken(0)
        await p.pass_time(1)
        await until(lambda: "✗" in p.notice)
        clip.vanishes = float("inf")
        await p.press("r")
        await p.engine.until_spoken(1)
        assert not p.notice


class Stalled(Feed):
    """A feed that brings nothing until the test is over."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def read(self, number: int) -> Chunk | None:
        self.over.wait()
        return None


async def test_quitting_does_not_wait_for_a_stalled_feed(start_player: StartPlayer) -> None:
    feed, link = Stalled(), Link()
    async with start_player(Scripted(), seconds=feed, feed=link) as p:
        await p.pass_time(1)
        assert isinstance(p.screen.controller, Controller)
        await p.press("q")
    assert link.stops == 1
    assert not feed.over.is_set()
    feed.over.set()
