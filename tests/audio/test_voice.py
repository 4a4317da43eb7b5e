"""Text to speech with programs: those of the system, the user's own, and ones that fail."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.voice import ESPEAK, SAY, Voice, find_voice, speakable, trimmed, word_ends
from streaming_vlm_mlx.errors import SvmError
from tests.audio.voices import BEEP_SECONDS, WORD_SECONDS, voice_command

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
# Seconds in which a program that only starts Python is done, on a machine with other work.
PATIENCE = 60.0


def beeps(*lengths: float, gap: float = 0.1) -> np.ndarray:
    """Return tones of `lengths` seconds with silence between them, float32 [n, 2]."""
    parts = []
    for length in lengths:
        parts += [0.5 * np.sin(np.arange(round(length * RATE)) / 7), np.zeros(round(gap * RATE))]
    return np.repeat(np.concatenate(parts[:-1])[:, None], 2, axis=1).astype(np.float32)


def test_a_phrase_becomes_samples_with_the_ends_of_its_words(tmp_path: Path) -> None:
    with Voice(find_voice(voice_command(tmp_path)), PATIENCE) as voice:
        speech = voice.speak("wide left again")
    assert speech.samples.dtype == np.float32
    assert speech.samples.shape[1] == 2
    assert speech.seconds == pytest.approx(2 * WORD_SECONDS + BEEP_SECONDS, abs=0.03)
    # Words of 4, 4 and 5 letters, said in equal times: each end is in the gap behind its beep.
    for number, end in enumerate(speech.word_ends[:2]):
        assert WORD_SECONDS * number + BEEP_SECONDS - 0.02 <= end / RATE <= WORD_SECONDS * (number + 1) + 0.02
    assert speech.word_ends[2] == len(speech.samples)


def test_a_wav_may_come_in_a_file(tmp_path: Path) -> None:
    with Voice(find_voice(voice_command(tmp_path, out="{output}")), PATIENCE) as voice:
        assert voice.speak("one two").seconds == pytest.approx(WORD_SECONDS + BEEP_SECONDS, abs=0.03)


def test_text_is_neither_option_nor_markup_nor_shell(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    with Voice(find_voice(voice_command(tmp_path, heard=heard)), PATIENCE) as voice:
        voice.speak("--help $(touch x) [[slnc 5000]] <break time='9s'/> {output}\n\x1b[2Jnext")
    assert heard.read_text() == "--help $(touch x) slnc 5000 break time='9s'/ output 2Jnext\n"


def test_what_has_no_words_starts_nothing(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with Voice(find_voice(voice_command(tmp_path, started=started)), PATIENCE) as voice:
        assert not len(voice.speak(" ... — !").samples)
    assert not started.exists()


def test_a_long_text_is_cut_between_words() -> None:
    text = speakable("word " * 1000)
    assert len(text) <= 1000
    assert text.endswith("word")


def test_a_program_that_hangs_is_replaced(tmp_path: Path) -> None:
    with Voice(find_voice(voice_command(tmp_path, fail="hang")), 0.2) as voice:
        for _ in range(2):
            with pytest.raises(SvmError, match=r"has not spoken a phrase within 0\.2 s"):
                voice.speak("word")


def test_a_program_that_dies_is_replaced(tmp_path: Path) -> None:
    command = voice_command(tmp_path, fail="once", flag=tmp_path / "flag")
    with Voice(find_voice(command), PATIENCE) as voice:
        with pytest.raises(SvmError, match=r"cannot speak: out of memory\. Try the command"):
            voice.speak("word")
        assert voice.speak("word").seconds > 0


def test_a_program_that_died_while_it_waited_is_an_error_of_one_line(tmp_path: Path) -> None:
    with Voice(find_voice(voice_command(tmp_path, fail="at once")), PATIENCE) as voice:
        with pytest.raises(SvmError, match="no model") as found:
            voice.speak("word")
        assert "\n" not in str(found.value)


def test_what_is_no_wav_is_refused(tmp_path: Path) -> None:
    command = find_voice(voice_command(tmp_path, fail="noise"))
    with Voice(command, PATIENCE) as voice, pytest.raises(SvmError, match="wrote no WAV"):
        voice.speak("word")


def test_the_next_phrase_finds_its_program_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with Voice(find_voice(voice_command(tmp_path, started=started)), PATIENCE) as voice:
        voice.speak("word")
        voice.speak("word")
    # One for each phrase, and the one that waits, which may have been killed before it wrote its line.
    assert len(started.read_text().splitlines()) in (2, 3)


def test_closing_ends_a_phrase_under_way(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    voice = Voice(find_voice(voice_command(tmp_path, heard=heard, fail="hang")), PATIENCE)
    failures: list[SvmError] = []

    def speak() -> None:
        try:
            voice.speak("word")
        except SvmError as error:
            failures.append(error)

    thread = threading.Thread(target=speak)
    thread.start()
    while not heard.exists():
        thread.join(0.01)
    voice.close()
    thread.join(PATIENCE)
    assert failures
    assert not len(voice.speak("word").samples)


@needs_espeak
def test_espeak_speaks() -> None:
    with Voice(find_voice(platform="linux"), PATIENCE) as voice:
        speech = voice.speak("Red to serve, fifteen love.")
    assert 0.8 < speech.seconds < 4
    assert len(speech.word_ends) == 5
    assert np.abs(speech.samples).max() > 0.1


def test_the_program_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert find_voice(platform="darwin") == SAY
    assert find_voice(platform="linux") == ESPEAK
    assert find_voice("piper --model 'my voice.onnx'") == ("piper", "--model", "my voice.onnx")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (None, r"espeak-ng.*is not installed; install it \(apt install espeak-ng\)"),
        ("piper -m x", "piper.*is not installed"),
        ("", "empty"),
        ("say 'half", "no command line"),
    ],
)
def test_a_missing_program_says_what_to_do(command: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SvmError, match=message):
        find_voice(command, "linux")


def test_silence_around_speech_is_cut_off() -> None:
    quiet = np.zeros((RATE // 2, 2), np.float32)
    assert len(trimmed(np.concatenate([quiet, beeps(0.5), quiet]))) == pytest.approx(RATE // 2, abs=RATE // 50)
    assert not len(trimmed(quiet))


def test_ends_of_words_lie_in_pauses_nearby() -> None:
    samples = beeps(0.4, 0.3, 0.5)
    first, second, last = word_ends(samples, "served well, wide!")
    assert 0.4 <= first / RATE <= 0.5
    assert 0.8 <= second / RATE <= 0.9
    assert last == len(samples)
    assert word_ends(samples[:0], "word") == ()
    ends = word_ends(samples[: RATE // 20], "many more words than samples have windows")
    assert list(ends) == sorted(set(ends))
