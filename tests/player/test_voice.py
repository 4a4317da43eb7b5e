"""Speech as it comes: what is cut, dropped, and waited for."""

from collections.abc import Iterator

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.commentary import FASTEST
from streaming_vlm_mlx.audio.mixer import Mixer
from streaming_vlm_mlx.audio.motion import Motion
from tests.player.fakes import Clock, until
from tests.player.voices import WORD, FakeSpeaker, words
from tui.player.phrases import Phrase
from tui.player.voice import OLDEST, PlayerVoice

LONG = "one two three four five six"


class Voice:
    """A voice under test, with its mixer and its playhead."""

    def __init__(self) -> None:
        self.speaker, self.mixer, self.clock = FakeSpeaker(), Mixer(), Clock()
        self.told: list[str] = []
        self.begun: list[str] = []
        self.voice = PlayerVoice(
            self.speaker, self.mixer, self.clock, self.told.append, lambda phrase, _: self.begun.append(phrase.text)
        )
        self.at(0.0)

    def at(self, position: float) -> None:
        """Put the playhead to `position`, in seconds."""
        self.voice.follow(Motion(self.clock(), position, moving=True))

    def say(self, second: int, text: str, line: int = 0) -> None:
        self.voice.say(Phrase(second, second + 1.0, line, text))

    async def speak(self, second: int, text: str, line: int = 0) -> None:
        """Say `text`, and wait until it is in the mixer."""
        count = len(self.begun)
        self.say(second, text, line)
        await until(lambda: len(self.begun) > count)

    async def settle(self) -> None:
        """Wait until everything that was said is spoken or dropped."""
        await self.speak(100, "settled")

    def play(self, seconds: float) -> np.ndarray:
        out = np.zeros((round(seconds * RATE), 2), np.float32)
        self.mixer.fill(out, self.clock())
        return out[:, 0]


@pytest.fixture
def voice() -> Iterator[Voice]:
    made = Voice()
    yield made
    made.voice.close()


async def test_a_phrase_is_spoken_whole(voice: Voice) -> None:
    await voice.speak(0, "one two three")
    assert words(voice.play(2.0)) == [1, 2, 3]
    assert not voice.mixer.speaking


async def test_a_newer_phrase_cuts_an_older_one_behind_a_word(voice: Voice) -> None:
    await voice.speak(0, LONG)
    assert words(voice.play(0.7)) == [1, 2]
    await voice.speak(2, "one")
    heard = voice.play(2.0)
    # The second word is finished, and the new phrase follows at once.
    assert words(heard) == [2, 1]
    assert np.count_nonzero(heard > 0.015) / RATE == pytest.approx(2 * WORD - 0.7, abs=0.01)
    assert not voice.mixer.speaking


async def test_what_is_nearly_done_is_not_cut(voice: Voice) -> None:
    await voice.speak(0, "one two")
    voice.play(0.7)
    await voice.speak(2, "one")
    assert words(voice.play(2.0)) == [2, 1]


async def test_phrases_of_one_second_follow_each_other(voice: Voice) -> None:
    await voice.speak(0, "one two three")
    await voice.speak(0, "one")
    assert words(voice.play(3.0)) == [1, 2, 3, 1]


async def test_a_phrase_that_was_not_begun_is_left_out(voice: Voice) -> None:
    await voice.speak(0, "one two")
    voice.play(0.7)
    await voice.speak(2, "one two three four")
    await voice.speak(4, "one")
    # The one in the middle begins behind what is nearly done; the last one takes its place.
    assert words(voice.play(3.0)) == [2, 1]


async def test_what_is_older_than_two_seconds_is_dropped(voice: Voice) -> None:
    voice.at(1.0 + OLDEST + 0.1)
    voice.say(0, "too old")
    await voice.speak(1, "new")
    assert voice.begun == ["new"]
    # Nothing is spoken in vain.
    assert voice.speaker.texts == ["new"]


async def test_what_becomes_too_old_while_it_is_made_is_dropped(voice: Voice) -> None:
    voice.speaker.free.clear()
    voice.say(0, "slow")
    await until(lambda: voice.speaker.taken)
    voice.at(1.0 + OLDEST + 0.1)
    voice.speaker.free.set()
    await until(lambda: voice.speaker.texts == ["slow"])
    await voice.settle()
    assert voice.begun == ["settled"]


@pytest.mark.parametrize("is_playing", [False, True])
async def test_silence_ends_all_that_was_said_before(voice: Voice, is_playing: bool) -> None:
    if is_playing:
        await voice.speak(0, LONG)
        voice.play(0.2)
    else:
        voice.speaker.free.clear()
        voice.say(0, LONG)
    voice.voice.silence()
    assert not voice.mixer.speaking or np.abs(voice.play(0.5)[RATE // 50 :]).max() == 0
    voice.speaker.free.set()
    await voice.speak(1, "one")
    assert words(voice.play(2.0)) == [1]


async def test_an_answer_is_not_cut_by_later_seconds(voice: Voice) -> None:
    await voice.speak(0, LONG)
    voice.voice.answered(0)
    voice.play(0.2)
    voice.say(2, "one")
    await until(lambda: "one" in voice.speaker.texts)
    assert words(voice.play(2.3)) == [1, 2, 3, 4, 5]
    assert voice.begun == [LONG]
    # Near its end, what comes next is let in.
    voice.play(0.2)
    await until(lambda: voice.begun == [LONG, "one"])
    assert words(voice.play(2.0)) == [6, 1]


async def test_what_waits_for_an_answer_too_long_is_dropped(voice: Voice) -> None:
    await voice.speak(0, LONG)
    voice.voice.answered(0)
    voice.say(2, "one")
    await until(lambda: "one" in voice.speaker.texts)
    voice.at(3.0 + OLDEST + 0.1)
    voice.play(3.0)
    await voice.settle()
    assert voice.begun == [LONG, "settled"]


@pytest.mark.parametrize(("gap", "tempo"), [(1, FASTEST), (2, 1.0)])
async def test_where_every_second_has_words_they_are_spoken_faster(voice: Voice, gap: int, tempo: float) -> None:
    await voice.speak(0, "one")
    assert len(words(voice.play(1.0))) == 1
    await voice.speak(gap, "one two three four")
    heard = voice.play(3.0)
    assert np.count_nonzero(heard > 0.005) / RATE == pytest.approx(4 * WORD / tempo, abs=0.05)


async def test_failures_are_told_once_and_the_next_phrase_is_tried(voice: Voice) -> None:
    voice.speaker.failure = "espeak-ng has not spoken a phrase within 5 s. Wait."
    for second in (0, 1):
        voice.say(second, f"word {second}")
    await until(lambda: len(voice.speaker.texts) == 2)
    voice.speaker.failure = "another"
    voice.say(2, "word 2")
    await until(lambda: len(voice.speaker.texts) == 3)
    voice.speaker.failure = ""
    await voice.speak(4, "fine")
    assert voice.told == ["no voice: espeak-ng has not spoken a phrase within 5 s. Wait."]


async def test_closing_waits_for_nothing(voice: Voice) -> None:
    voice.speaker.free.clear()
    voice.say(0, LONG)
    voice.voice.close()
    assert voice.speaker.is_closed
    assert not voice.mixer.speaking
