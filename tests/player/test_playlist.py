"""Several clips, one after the other."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import load_session
from tests.player.fakes import Blank, Player, Scripted, StartPlayer, spec, until, wait
from tests.player.ipc.client import connected
from tests.player.voices import FakeDevice, FakeSpeaker
from tui.commands.playlist import OneModel, Playlist
from tui.player.sound import SoundSpec
from tui.player.spec import PlayerSpec
from tui.player.voice import VoiceSpec


class Reused(Scripted):
    """A scripted commentator that can begin anew."""

    def __init__(self) -> None:
        super().__init__()
        self.resets: list[StreamConfig] = []

    @property
    def ready(self) -> bool:
        return self._ready

    async def reset(self) -> None:
        self.cancel()
        self.resets.append(self.config)


class Clips:
    """A playlist on one commentator; `damaged` clips cannot be opened."""

    def __init__(self, folder: Path, damaged: str = "") -> None:
        self.folder, self.damaged = folder, damaged
        self.engine = Reused()
        # What was opened, and what an opening waits for.
        self.opened: list[str] = []
        self.free = threading.Event()
        self.free.set()
        # What the clips' sound and voice are.
        self.heard: dict[str, Any] = {}
        self.model = OneModel(lambda note: self.engine, "run1", StreamConfig())
        self.playlist = Playlist(["a.mp4", "b.mp4", "c.mp4"], self.open)

    def open(self, clip: str, number: int) -> PlayerSpec:
        self.opened.append(clip)
        self.free.wait()
        if clip == self.damaged:
            raise SvmError(f"{clip} holds no video; choose another.")
        made = spec(self.model.make, self.folder, Blank(3.0), clip=clip, base_paths=(self.folder / clip,))
        self.model.release()
        made = replace(made, **self.heard)
        return replace(made, record=replace(made.record, clip=clip))


class Kept:
    """What keeps a feed."""

    def __init__(self, path: Path) -> None:
        self.path, self.closed = path, 0

    def listen(self, note: Callable[[str], None]) -> None:
        """Nothing is told."""

    def close(self) -> list[Path]:
        self.closed += 1
        return [self.path]


def settings(made: PlayerSpec) -> dict[str, object]:
    names = "make clip other beside base_paths seconds record recording sound voice"
    return {name: getattr(made, name) for name in names.split()}


async def shown(p: Player, clip: str) -> None:
    """Wait until `clip` is played."""

    def there() -> bool:
        if hasattr(p.screen, "presenter"):
            p.screen.tick()
            return p.screen.spec.clip == clip
        return False

    await until(there)
    await wait(p.pilot)
    p.screen.presenter.tick()


@asynccontextmanager
async def opening(clips: Clips) -> AsyncIterator[None]:
    """Let clips wait to be opened in the block; `clips.opened` holds those of the block and later."""
    await clips.engine.until_spoken(0)
    clips.opened.clear()
    clips.free.clear()
    try:
        yield
    finally:
        clips.free.set()


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path)


async def test_keys_play_the_clips_beside_and_each_has_its_session(
    start_player: StartPlayer, clips: Clips, tmp_path: Path
) -> None:
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        await clips.engine.until_spoken(0)
        assert "a.mp4 (1/3)" in p.title
        await p.press("<")
        await until(lambda: "this is the first clip." in p.notice)
        await p.press(">")
        await shown(p, "b.mp4 (2/3)")
        await clips.engine.until_spoken(0, times=2)
        assert "b.mp4 (2/3)" in p.title
        assert [row.number for row in p.rows] == [0]
        assert len(clips.engine.resets) == 1
        assert load_session(tmp_path / "a.mp4.json").clip == "a.mp4"
        assert p.app.saved == (tmp_path / "a.mp4.vtt", tmp_path / "a.mp4.json")
        assert p.app.session.record.clip == "b.mp4"
        await p.press("<")
        await shown(p, "a.mp4 (1/3)")
        await clips.engine.until_spoken(0, times=3)
    assert not list(tmp_path.glob("b.mp4.jsonl"))


async def test_at_the_end_of_a_clip_the_next_one_follows(start_player: StartPlayer, clips: Clips) -> None:
    async with start_player(clips.engine, **settings(clips.playlist.open(1))) as p:
        await p.speak(3)
        await p.pass_time(1)
        await shown(p, "c.mp4 (3/3)")
        for number in range(3):
            await clips.engine.until_spoken(number, times=2)
            await p.pass_time(1)
        await until(lambda: p.screen.controller.ended)
        p.screen.tick()
        await wait(p.pilot)
        assert p.screen.spec.clip == "c.mp4 (3/3)"
        assert "last clip" not in p.notice
        await p.press("space")
        assert p.position == 0


@pytest.mark.parametrize(
    ("keys", "opened"),
    [
        ((">", ">"), ["b.mp4", "c.mp4"]),
        ((">", "<"), ["b.mp4", "a.mp4"]),
        ((">", ">", "<"), ["b.mp4"]),
        ((">", ">", ">"), ["b.mp4", "c.mp4"]),
    ],
)
async def test_keys_count_while_a_clip_is_being_opened(
    start_player: StartPlayer, clips: Clips, keys: tuple[str, ...], opened: list[str]
) -> None:
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        async with opening(clips):
            await p.press(*keys)
            assert ("this is the last clip." in p.notice) == (len(keys) > len(opened) and "<" not in keys)
        await until(lambda: clips.opened == opened)
        await shown(p, f"{opened[-1]} ({'abc'.index(opened[-1][0]) + 1}/3)")
        assert clips.opened == opened


async def test_a_key_at_the_end_of_a_clip_goes_where_it_goes_by_itself(start_player: StartPlayer, clips: Clips) -> None:
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        await p.speak(3)
        clips.opened.clear()
        clips.free.clear()
        try:
            await p.pass_time(1)
            await until(lambda: p.screen.tick() or clips.opened)
            await p.press(">")
        finally:
            clips.free.set()
        await shown(p, "b.mp4 (2/3)")
        assert clips.opened == ["b.mp4"]


def test_a_playlist_that_loops_goes_on_with_its_first_clip(clips: Clips) -> None:
    playlist = Playlist(["a.mp4", "b.mp4", "c.mp4"], lambda clip, n: replace(clips.open(clip, n), loop=True), loop=True)
    last, first = playlist.open(2), playlist.open(0)
    assert not last.loop
    assert last.beside == first.beside == (2, 2)
    assert last.other
    assert first.other
    for found, name in (
        (last.other(1), "a.mp4 (1/3)"),
        (first.other(-1), "c.mp4 (3/3)"),
        (last.other(2), "b.mp4 (2/3)"),
    ):
        assert found
        assert found.clip == name
    # Where no other clip can be played, it is tried once.
    assert first.other(4) is first.other(-4) is None
    alone = Playlist(["a.mp4"], lambda clip, n: replace(clips.open(clip, n), loop=True), loop=True).open(0)
    assert alone.loop


async def test_a_device_that_is_missing_is_told_of_once(start_player: StartPlayer, clips: Clips) -> None:
    class Found:
        silent = False

        def step(self) -> bool:
            return False

        def close(self) -> None:
            pass

    def refuse(_: object) -> FakeDevice:
        raise SvmError("there is no sound device; connect one.")

    clips.heard = {"sound": SoundSpec(lambda *_: Found(), open_device=refuse)}
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        await until(lambda: "no sound: there is no sound device" in p.notice)
        await p.press("m")
        assert p.notice.count("there is no sound device") == 1
        await p.press("m", ">")
        await shown(p, "b.mp4 (2/3)")
        await until(lambda: p.screen.sound and p.screen.sound.problem)
        await wait(p.pilot)
        assert "no sound" not in p.notice
        await p.press("m")
        assert "no sound: there is no sound device" in p.notice


async def test_settings_of_one_clip_do_not_reach_the_next(start_player: StartPlayer, clips: Clips) -> None:
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        await clips.engine.until_spoken(0)
        await p.press("i", *"rhyme", "enter")
        assert clips.engine.config.query != StreamConfig().query
        await p.press(">")
        await shown(p, "b.mp4 (2/3)")
        await clips.engine.until_spoken(0, times=2)
        assert clips.engine.resets == [StreamConfig()]


@pytest.mark.parametrize("keys", [(">",), (">", ">")])
async def test_a_clip_that_cannot_be_opened_is_skipped_and_told(
    start_player: StartPlayer, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    clips = Clips(tmp_path, damaged="b.mp4")
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        async with opening(clips):
            await p.press(*keys)
        await shown(p, "c.mp4 (3/3)")
        assert p.notice == "b.mp4 holds no video; choose another."
        # Nobody wants to go anywhere else.
        await clips.engine.until_spoken(0)
        await wait(p.pilot)
        assert clips.opened == ["b.mp4", "c.mp4"]


async def test_where_all_others_are_damaged_this_clip_plays_on(start_player: StartPlayer, tmp_path: Path) -> None:
    clips = Clips(tmp_path, damaged="c.mp4")
    async with start_player(clips.engine, **settings(clips.playlist.open(1))) as p:
        await clips.engine.until_spoken(0)
        await p.press(">")
        await until(lambda: "c.mp4 holds no video; choose another." in p.notice)
        await p.pass_time(1)
        await clips.engine.until_spoken(1)
        assert p.screen.spec.clip == "b.mp4 (2/3)"


async def test_volume_mute_and_voice_stay_as_the_viewer_has_them(start_player: StartPlayer, clips: Clips) -> None:
    device = FakeDevice()
    clips.heard = {
        "sound": SoundSpec(lambda *_: None, open_device=device.open),
        "voice": VoiceSpec(open_speaker=lambda _: FakeSpeaker()),
    }
    async with start_player(clips.engine, **settings(clips.playlist.open(0))) as p:
        await clips.engine.until_spoken(0)
        await p.press("-", "m", "v", ">")
        await shown(p, "b.mp4 (2/3)")
        assert p.screen.sound
        assert (p.screen.sound.volume, p.screen.sound.muted) == (90, True)
        assert p.screen.voice
        await p.press("v", "m", ">")
        await shown(p, "c.mp4 (3/3)")
        assert p.screen.sound
        assert not p.screen.sound.muted
        assert p.screen.voice is None


async def test_what_keeps_a_feed_is_closed_with_its_clip(start_player: StartPlayer, clips: Clips) -> None:
    kept = Kept(clips.folder / "kept.ts")
    first = replace(clips.playlist.open(0), recording=kept)
    async with start_player(clips.engine, **settings(first)) as p:
        await clips.engine.until_spoken(0)
        assert not kept.closed
        await p.press(">")
        await shown(p, "b.mp4 (2/3)")
        await until(lambda: p.app.saved)
        assert kept.closed == 1
        assert kept.path in p.app.saved
        p.app.finish()
        assert kept.closed == 1


async def test_a_client_of_the_socket_stays_and_follows_the_next_clip(
    start_player: StartPlayer, clips: Clips, socket_path: Path
) -> None:
    async with (
        start_player(clips.engine, ipc=socket_path, **settings(clips.playlist.open(0))) as p,
        connected(socket_path) as client,
    ):
        await clips.engine.until_spoken(0)
        await client.command("observe", "clip", "events")
        await client.command("playlist-next")
        await shown(p, "b.mp4 (2/3)")
        await clips.engine.until_spoken(0, times=2)
        assert p.app.server
        p.app.server.tick()
        assert await client.command("get", "clip") == "b.mp4 (2/3)"
        assert {"event": "property-change", "name": "clip", "data": "b.mp4 (2/3)"} in client.seen
        before = len(client.seen)
        await client.command("seek", 2, "absolute")
        assert p.position == 2.0
        assert [event["event"] for event in client.seen[before:]].count("seek") == 1
        await client.command("playlist-prev")
        await shown(p, "a.mp4 (1/3)")


async def test_at_the_ends_of_the_playlist_a_client_is_refused(
    start_player: StartPlayer, clips: Clips, socket_path: Path
) -> None:
    for number, command, refusal in ((0, "playlist-prev", "the first clip"), (2, "playlist-next", "the last clip")):
        async with (
            start_player(clips.engine, ipc=socket_path, **settings(clips.playlist.open(number))) as p,
            connected(socket_path) as client,
        ):
            await until(lambda: p.screen.controller.state.name == "GENERATING")
            with pytest.raises(ValueError, match=f"^this is {refusal}\\.$"):
                await client.command(command)
            assert p.notice == ""


async def test_with_one_clip_the_key_and_the_client_are_told_how_to_name_more(
    start_player: StartPlayer, socket_path: Path
) -> None:
    one = "there is one clip: name several to play one after the other."
    async with start_player(ipc=socket_path) as p, connected(socket_path) as client:
        for command in ("playlist-next", "playlist-prev"):
            with pytest.raises(ValueError, match=f"^{one}$"):
                await client.command(command)
        assert p.notice == ""
        await p.press(">")
        assert p.notice == one
