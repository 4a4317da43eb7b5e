"""The player's sound on a fake device: threads, failures, and the keys."""

import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE, ClipTrack, Run
from streaming_vlm_mlx.audio.motion import Motion
from streaming_vlm_mlx.audio.output import CALLS, DacClock, Fill
from streaming_vlm_mlx.errors import SvmError
from tests.player.fakes import TIMEOUT, StartPlayer, until
from tui.commands.play import sound_settings
from tui.player import sound as player_sound
from tui.player.playhead import Playhead
from tui.player.sound import OpenSource, PlayerSound, SoundSpec


class Source:
    """Sound that is the same everywhere, or that fails as often as it is told to."""

    def __init__(self, track: ClipTrack, failures: int = 0) -> None:
        self.track, self.failures, self.steps, self.silent = track, failures, 0, False
        self.closed = threading.Event()

    def step(self) -> bool:
        self.steps += 1
        if self.failures:
            self.failures -= 1
            raise SvmError("the clip is gone; look for it.")
        motion = self.track.motion
        self.track.run = Run(self.steps, motion.speed).add(motion.position - 1.0, np.ones((4 * RATE, 2), np.float32))
        return False

    def close(self) -> None:
        self.closed.set()


class Devices:
    """Devices that are called by hand; the first `missing` of them cannot be opened."""

    def __init__(self, missing: int = 0) -> None:
        self.missing, self.open, self.opened = missing, 0, threading.Event()
        self.fill: Fill | None = None
        self.released = threading.Event()

    def __call__(self, fill: Fill) -> "Devices":
        if self.missing:
            self.missing -= 1
            raise SvmError("no sound device can be opened; connect one.")
        self.fill, self.open = fill, self.open + 1
        self.opened.set()
        return self

    def close(self) -> None:
        self.fill = None
        self.released.set()

    def play(self, count: int = 4800) -> float:
        """Return the loudest of the next samples."""
        assert self.fill is not None
        out = np.zeros((count, 2), np.float32)
        self.fill(out, 0.0)
        return float(out.max())


class Opened:
    """A running sound, and what it told."""

    def __init__(self, devices: Devices, failures: int = 0, silent: bool = False) -> None:
        self.told: list[str] = []
        self.news = threading.Condition()
        self.devices, self.source = devices, Source(ClipTrack(), failures)

        def open_source(track: ClipTrack, clock: Callable[[], float]) -> Source | None:
            self.source.track = track
            return None if silent else self.source

        self.now = 100.0
        self.sound = PlayerSound(SoundSpec(open_source, 100, devices), lambda: self.now, self._tell)

    def _tell(self, text: str) -> None:
        with self.news:
            self.told.append(text)
            self.news.notify_all()

    def wait_for_news(self) -> str:
        with self.news:
            assert self.news.wait_for(lambda: self.told, TIMEOUT)
        return self.told[-1]


def wait(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, which another thread brings about."""
    event = threading.Event()
    for _ in range(round(TIMEOUT / 0.01)):
        if condition():
            return
        event.wait(0.01)
    pytest.fail("it did not come to be")


def test_it_plays_what_is_at_the_playhead_and_nothing_in_a_pause() -> None:
    opened = Opened(Devices())
    opened.sound.follow(Motion(opened.now, 5.0, moving=True))
    opened.sound.start()
    assert opened.devices.opened.wait(TIMEOUT)
    wait(lambda: opened.sound.mixer.clip.run)
    assert opened.devices.play() == 1.0
    opened.sound.follow(Motion(opened.now, 5.0, moving=False))
    opened.devices.play()
    assert opened.devices.play() == 0.0
    opened.sound.close()
    assert opened.source.closed.wait(TIMEOUT)
    assert opened.devices.released.is_set()
    assert opened.told == []


def test_without_a_device_there_is_one_remark() -> None:
    opened = Opened(Devices(missing=99))
    opened.sound.start()
    assert opened.wait_for_news() == "no sound: no sound device can be opened; connect one."
    assert opened.source.closed.wait(TIMEOUT)
    assert opened.sound.problem
    assert len(opened.told) == 1


def test_a_clip_without_sound_opens_no_device() -> None:
    opened = Opened(Devices(), silent=True)
    opened.sound.start()
    wait(lambda: opened.sound.problem)
    assert not opened.devices.opened.is_set()
    assert opened.told == []


def test_a_feed_opens_the_device_when_its_sound_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player_sound, "LOOK", 0.01)
    opened = Opened(Devices())
    opened.source.silent = True
    opened.sound.start()
    wait(lambda: opened.sound.problem)
    assert not opened.devices.opened.is_set()
    opened.source.silent = False
    assert opened.devices.opened.wait(TIMEOUT)
    wait(lambda: not opened.sound.problem)
    opened.sound.close()
    assert opened.source.closed.wait(TIMEOUT)
    assert opened.told == []


def test_a_clip_whose_sound_cannot_be_decoded_is_one_remark_and_the_voice_is_heard() -> None:
    def open_source(track: ClipTrack, clock: Callable[[], float]) -> Source:
        raise SvmError("match.mp4 has sound that this FFmpeg cannot decode; convert it to AAC.")

    devices, told = Devices(), list[str]()
    sound = PlayerSound(SoundSpec(open_source, 100, devices), lambda: 100.0, told.append)
    sound.start()
    wait(lambda: sound.problem)
    assert not devices.opened.is_set()
    sound.open_for_speech()
    assert devices.opened.wait(TIMEOUT)
    sound.mixer.play_speech(np.ones((RATE, 2), np.float32))
    assert devices.play() == 1.0
    assert not sound.problem
    sound.close()
    assert devices.released.wait(TIMEOUT)
    assert told == ["no sound: match.mp4 has sound that this FFmpeg cannot decode; convert it to AAC."]


def test_a_device_that_is_gone_is_noted_once_and_the_next_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player_sound, "RETRY", 0.0)
    monkeypatch.setattr(player_sound, "MOST_SILENT_LOOKS", 2)
    opened = Opened(Devices())
    opened.sound.start()
    assert "the sound device is gone" in opened.wait_for_news()
    wait(lambda: opened.devices.open >= 3)
    opened.sound.close()
    assert opened.source.closed.wait(TIMEOUT)
    assert len(opened.told) == 1


def test_a_clip_that_fails_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player_sound, "RETRY", 0.0)
    opened = Opened(Devices(), failures=3)
    opened.sound.start()
    assert opened.wait_for_news() == "no sound: the clip is gone; look for it."
    wait(lambda: opened.sound.mixer.clip.run and not opened.sound.problem)
    opened.sound.close()
    assert len(opened.told) == 1


def test_the_clock_of_the_device_neither_jitters_nor_lags() -> None:
    dac = DacClock()
    heard = [dac.heard_at(0.02 * call + (0.05 if call % 3 == 1 else 0.0), 0.1, 960) for call in range(200)]
    np.testing.assert_allclose(heard[CALLS:], 0.02 * np.arange(CALLS, 200) + 0.1)
    late = [dac.heard_at(0.02 * call + 0.2, 0.1, 960) for call in range(200, 200 + CALLS)]
    assert late[-1] == pytest.approx(0.02 * (199 + CALLS) + 0.3)


def test_the_motion_of_a_playhead_says_where_it_goes_and_ends() -> None:
    now = 10.0
    head = Playhead(lambda: now, 20.5, 3.25)
    assert head.motion == Motion(10.0, 3.25, 1.0, moving=True, end=20.5)
    head.limit = 4.0
    assert head.motion.end == 4.0
    head.step()
    head.change_speed(1)
    now = 10.1
    head.tick()
    assert head.motion == Motion(10.1, pytest.approx(3.375), 1.25, moving=True, end=4.0)  # type: ignore[arg-type]
    now = 11.0
    head.tick()
    assert not head.motion.moving
    assert head.motion.reached(99.0) == 4.0


@pytest.fixture
def devices() -> Devices:
    return Devices()


def sound_spec(devices: Devices, silent: bool = False) -> SoundSpec:
    return SoundSpec(lambda track, clock: None if silent else Source(track), 50, devices)


async def test_keys_mute_and_change_the_volume(start_player: StartPlayer, devices: Devices) -> None:
    async with start_player(sound=sound_spec(devices)) as p:
        sound = p.screen.sound
        assert sound
        await p.press("m")
        assert sound.muted
        assert "muted" in p.notice
        await p.pass_time(0.25)
        assert "muted" in p.title
        await p.press("equals_sign", "equals_sign", "minus")
        assert (sound.volume, sound.muted) == (60, False)
        assert "volume 60 %" in p.notice
        assert "volume 70 %" not in p.notice
        assert "muted" not in p.notice
        await p.press(*["minus"] * 8)
        assert sound.volume == 0
        await p.pass_time(2.5)
        assert "volume" not in p.notice


async def test_sound_follows_pauses_seeks_and_speed(start_player: StartPlayer, devices: Devices) -> None:
    async with start_player(sound=sound_spec(devices)) as p:
        await p.engine.until_spoken(0)
        await p.pass_time(1)
        sound = p.screen.sound
        assert sound
        assert sound.mixer.clip.motion.position == pytest.approx(p.position)
        assert sound.mixer.clip.motion.moving
        await p.press(" ")
        assert not sound.mixer.clip.motion.moving
        await p.press("right", "right_square_bracket")
        assert sound.mixer.clip.motion.position == p.position >= 5
        assert sound.mixer.clip.motion.speed == 1.25


async def test_quitting_does_not_wait_for_a_device_that_hangs(start_player: StartPlayer) -> None:
    hanging, reached = threading.Event(), threading.Event()

    def open_device(fill: Fill) -> Devices:
        reached.set()
        hanging.wait()
        return Devices()

    async with start_player(sound=SoundSpec(lambda track, clock: Source(track), 100, open_device)) as p:
        await until(reached.is_set)
        await p.press("q")
    assert not hanging.is_set()
    hanging.set()


async def test_a_player_without_sound_says_so(start_player: StartPlayer, devices: Devices) -> None:
    async with start_player() as p:
        await p.press("m")
        assert "no sound" in p.notice
    async with start_player(sound=sound_spec(devices, silent=True)) as p:
        assert p.screen.sound
        await until(lambda: p.screen.sound and p.screen.sound.problem)
        await p.press("minus")
        assert "no sound: this clip or feed has none." in p.notice


async def test_no_device_is_one_remark_and_the_clip_plays_on(start_player: StartPlayer, tmp_path: Path) -> None:
    async with start_player(sound=sound_spec(Devices(missing=9))) as p:
        await until(lambda: "no sound: no sound device" in p.notice)
        await p.engine.until_spoken(0)
        await p.pass_time(1)
        assert p.position == 1.0
        assert p.notice.count("no sound:") == 1


def test_options_choose_the_sound() -> None:
    def open_nothing(track: ClipTrack, clock: Callable[[], float]) -> None:
        return None

    def chosen(sound: bool, volume: float, open_source: OpenSource | None = open_nothing) -> SoundSpec | None:
        args = Namespace(sound=sound, volume=volume, voice=False, voice_command=None)
        found: SoundSpec | None = sound_settings(args, open_source)["sound"]
        return found

    heard = chosen(True, 30.0)
    assert heard
    assert heard.volume == 30.0
    assert chosen(False, 100.0) is None
    assert chosen(True, 100.0, None) is None
    with pytest.raises(SvmError, match="--volume is 101; it is a number from 0 to 100"):
        chosen(True, 101.0)
