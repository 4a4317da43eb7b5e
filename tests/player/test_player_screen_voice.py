"""The key of the voice, and what the player speaks."""

import math

import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from tests.player.fakes import Feed, Player, Scripted, StartPlayer, until, wait
from tests.player.voices import Audible, FakeDevice, FakeSpeaker, missing_device, words
from tui.player.presenter import NOTE_SECONDS
from tui.player.sound import SoundSpec
from tui.player.voice import VoiceSpec


class Setting:
    """A voice and a device for a player, on a clip without sound."""

    def __init__(self) -> None:
        self.device, self.speakers = FakeDevice(), list[FakeSpeaker]()
        self.commands: list[str | None] = []

    def open_speaker(self, command: str | None) -> FakeSpeaker:
        self.commands.append(command)
        self.speakers.append(FakeSpeaker())
        return self.speakers[-1]

    def spec(self, on: bool = True) -> dict[str, object]:
        return {
            "voice": VoiceSpec(on, "speaks --well", self.open_speaker),
            "sound": SoundSpec(lambda *_: None, open_device=self.device.open),
        }

    @property
    def texts(self) -> list[str]:
        return [text for speaker in self.speakers for text in speaker.texts]

    async def heard(self, p: Player, count: int) -> None:
        """Wait until `count` phrases are spoken and in the mixer."""
        await until(lambda: len(self.texts) == count)
        assert p.screen.sound
        mixer = p.screen.sound.mixer
        await until(lambda: mixer.speaking)


async def play_to(p: Player, number: int) -> None:
    """Play on to second `number`, until it is spoken and handled."""
    while (second := math.floor(p.position)) < number:
        await p.engine.until_spoken(second)
        await p.pass_time(1)
    await p.engine.until_spoken(number)
    await wait(p.pilot)


async def noted(p: Player, text: str) -> None:
    """Wait until `text` is told, which a thread brings about."""
    await until(lambda: p.screen.tick() or text in p.notice)


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_commentary_is_spoken_second_by_second(start_player: StartPlayer, setting: Setting) -> None:
    engine = Scripted({0: "Red to serve", 1: "", 2: "He scores! What a goal"})
    async with start_player(engine, **setting.spec()) as p:
        await play_to(p, 0)
        await setting.heard(p, 1)
        await until(lambda: setting.device.is_open)
        assert words(setting.device.play(3.0)) == [1, 2, 3]
        await play_to(p, 2)
        await setting.heard(p, 3)
    assert setting.texts == ["Red to serve", "He scores!", "What a goal"]
    assert setting.commands == ["speaks --well"]


async def test_v_turns_the_voice_on_and_off(start_player: StartPlayer, setting: Setting) -> None:
    async with start_player(**setting.spec(on=False)) as p:
        await play_to(p, 1)
        assert not setting.speakers
        assert not setting.device.is_open
        await p.press("v")
        await noted(p, "voice on")
        await play_to(p, 2)
        await setting.heard(p, 1)
        await p.press("v")
        assert "voice off" in p.notice
        assert setting.speakers[0].is_closed
        await play_to(p, 3)
        await p.press("v")
        await play_to(p, 4)
        await setting.heard(p, 2)
    assert setting.texts == ["second 2", "second 4"]
    assert all(speaker.is_closed for speaker in setting.speakers)


@pytest.mark.parametrize("key", ["space", "left", "home"])
async def test_pause_and_seek_silence_it(start_player: StartPlayer, setting: Setting, key: str) -> None:
    engine = Scripted({0: "one two three four"})
    async with start_player(engine, **setting.spec()) as p:
        await play_to(p, 0)
        await setting.heard(p, 1)
        await until(lambda: setting.device.is_open)
        setting.device.play(0.2)
        # Whatever is generated after a seek is not spoken yet.
        engine.free.clear()
        await p.press(key)
        assert np.abs(setting.device.play(1.0)[1000:]).max() == 0
        engine.free.set()


async def test_an_answer_is_spoken_to_its_end(start_player: StartPlayer, setting: Setting) -> None:
    engine = Scripted({1: "it is one set all\nRed serves", 2: "He scores"})
    async with start_player(engine, **setting.spec()) as p:
        await play_to(p, 0)
        await setting.heard(p, 1)
        await until(lambda: setting.device.is_open)
        setting.device.play(1.0)
        engine.ask("what is the score?")
        await play_to(p, 1)
        await setting.heard(p, 3)
        assert words(setting.device.play(1.5))[:3] == [1, 2, 3]
    assert setting.texts[1:] == ["it is one set all", "Red serves"]


async def test_a_program_that_is_not_there_is_told(start_player: StartPlayer) -> None:
    def missing(command: str | None) -> FakeSpeaker:
        raise SvmError("espeak-ng is not installed; install it.")

    async with start_player(voice=VoiceSpec(False, None, missing)) as p:
        await p.press("v")
        assert "no voice: espeak-ng is not installed; install it." in p.notice
        assert p.screen.voice is None


@pytest.mark.parametrize("source", [None, Audible()])
@pytest.mark.parametrize("on", [True, False])
async def test_without_a_device_the_voice_stays_off_and_that_is_told_once(
    start_player: StartPlayer, setting: Setting, source: Audible | None, on: bool
) -> None:
    sound = SoundSpec(lambda *_: source, open_device=missing_device)
    async with start_player(voice=VoiceSpec(on, None, setting.open_speaker), sound=sound) as p:
        if not on:
            if source:
                await until(lambda: "no sound: no sound device" in p.notice)
                await p.pass_time(NOTE_SECONDS)
                assert not p.notice
            await p.press("v")
        for _ in range(2):
            await noted(p, "no voice: ")
            assert p.notice == "no voice: no sound device can be opened; connect one."
            assert p.screen.voice is None
            await play_to(p, math.floor(p.position) + 1)
            await p.press("v")
        assert setting.texts == []
        assert all(speaker.is_closed for speaker in setting.speakers)


async def test_a_feed_is_spoken_to(start_player: StartPlayer, setting: Setting) -> None:
    feed = Feed()
    async with start_player(Scripted({3: "He scores"}), seconds=feed, **setting.spec()) as p:
        feed.coming.put(3)
        await until(lambda: setting.texts == ["He scores"])
        assert p.screen.voice
        feed.coming.put(None)
