"""Speech: a program turns a phrase into sound.

The text comes from a model. It goes to the program's stdin, so that it is never an option and no shell reads it, and
without the brackets that programs read as markup.
"""

import contextlib
import io
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import av
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.audio.clip_track import RATE, Samples
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.plain_text import harmless, visible

# Seconds that a program has for a phrase, and the most seconds and characters of one.
TIMEOUT, LONGEST_SPEECH, LONGEST_PHRASE = 5.0, 60.0, 1000
# Stands for the WAV file that a program shall write, where it does not write to stdout.
OUTPUT = "{output}"
SAY = ("say", "-f", "-", "-o", OUTPUT, "--file-format=WAVE", "--data-format=LEI16@22050")
ESPEAK = ("espeak-ng", "-b", "1", "--stdin", "--stdout")

# say and espeak-ng read commands and phonemes in [[ ]], other programs tags of SSML.
_MARKUP = str.maketrans(dict.fromkeys("[]<>{}|\\", " "))
# Samples of a window in which loudness is measured, and how many windows a pause may be from where it is expected.
_WINDOW, _NEAR = RATE // 100, 8
# What is silence, as a share of the loudest window.
_SILENCE = 0.01
# Letters that a digit sounds like, and those of the gap between two words.
_DIGIT, _GAP = 4, 1


@dataclass(frozen=True, slots=True)
class Utterance:
    """A spoken phrase.

    Attributes:
        samples: float32 [n, 2] at 48 kHz, without silence at both ends.
        word_ends: samples from the start to the end of each word, in order; the last is n.
    """

    samples: Samples
    word_ends: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return len(self.samples) / RATE

    def word_end_after(self, sample: int) -> int:
        """Return the end of the word that is spoken at `sample`."""
        return next((end for end in self.word_ends if end >= sample), len(self.samples))

    def word_end_before(self, sample: int) -> int:
        """Return the end of the last word that ends by `sample`; 0 if the first one does not."""
        return max((end for end in self.word_ends if end <= sample), default=0)


SILENT = Utterance(np.zeros((0, 2), np.float32))


def find_voice(command: str | None = None, platform: str = sys.platform) -> tuple[str, ...]:
    """Return the words of the user's `command`, or of the program that speaks on `platform`.

    Raises:
        SvmError: `command` is no command line, or the program is not installed.
    """
    if command is None:
        words: tuple[str, ...] = SAY if platform == "darwin" else ESPEAK
        way_out = "install it (apt install espeak-ng), or name a program with --voice-command"
    else:
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise SvmError(f"--voice-command {command!r} is no command line: {error}.") from error
        way_out = "install it, or give its path"
    if not words:
        raise SvmError("--voice-command is empty; give a program that reads text and writes a WAV.")
    if shutil.which(words[0]) is None:
        raise SvmError(f"{words[0]}, which speaks the commentary, is not installed; {way_out}.")
    return words


class Voice:
    """Speaks phrases with a program, which is started ahead of each: what it loads delays no phrase.

    One thread speaks; another may close.
    """

    def __init__(self, words: Sequence[str], timeout: float = TIMEOUT) -> None:
        """Take the `words` of the command, as `find_voice` returns them, and the seconds that a phrase may take."""
        self._words, self._timeout = tuple(words), timeout
        self._lock = threading.Lock()
        self._processes: set[_Process] = set()
        self._next: _Process | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start the program for the next phrase, unless it waits already.

        Raises:
            SvmError: it cannot be started.
        """
        with self._lock:
            if not self._closed and (self._next is None or self._next.has_ended()):
                self._next = self._start()

    def speak(self, text: str) -> Utterance:
        """Return `text` as speech; text without a letter or a digit is silence.

        Raises:
            SvmError: the program cannot be started, takes too long, fails, or writes no WAV. The next phrase gets a new
                one.
        """
        text = speakable(text)
        if not any(map(str.isalnum, text)):
            return SILENT
        self.prepare()
        with self._lock:
            process, self._next = self._next, None
        if process is None:
            return SILENT
        try:
            sound = process.convert(text, self._timeout)
        finally:
            self._remove(process)
            with contextlib.suppress(SvmError):
                self.prepare()
        samples = trimmed(_read_wav(sound, self._words[0]))
        return Utterance(samples, word_ends(samples, text))

    def close(self) -> None:
        """Kill the program; a phrase under way fails."""
        with self._lock:
            self._closed, processes = True, tuple(self._processes)
        for process in processes:
            self._remove(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> "_Process":
        if self._next is not None:
            self._next.kill()
            self._processes.discard(self._next)
        process = _Process(self._words)
        self._processes.add(process)
        return process

    def _remove(self, process: "_Process") -> None:
        process.kill()
        with self._lock:
            self._processes.discard(process)


class _Process:
    """A run of the program, for one phrase."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._name, self._converting = words[0], False
        self._folder = tempfile.mkdtemp(prefix="svm-voice-") if any(OUTPUT in word for word in words) else ""
        self._output = str(Path(self._folder, "speech.wav"))
        words = tuple(word.replace(OUTPUT, self._output) for word in words)
        try:
            # A group of its own: Ctrl-C does not reach it, and what it starts is killed with it.
            self._popen = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._remove_folder()
            raise SvmError(f"{self._name} cannot be started: {error.strerror or error}. {_WAY_OUT}") from error

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def convert(self, text: str, timeout: float) -> bytes:
        """Return the WAV that the program makes of `text`.

        Raises:
            SvmError: it takes longer than `timeout` seconds, or fails.
        """
        self._converting = True
        try:
            sound, errors = self._popen.communicate(text.encode("utf-8") + b"\n", timeout)
        except subprocess.TimeoutExpired as error:
            raise SvmError(f"{self._name} has not spoken a phrase within {timeout:g} s. {_WAY_OUT}") from error
        except OSError as error:
            raise SvmError(f"{self._name} cannot be given a phrase: {error}. {_WAY_OUT}") from error
        finally:
            self._converting = False
        if self._popen.returncode:
            lines = errors.decode("utf-8", "replace").strip().splitlines()
            reason = visible(lines[-1][:200]) if lines else f"status {self._popen.returncode}"
            raise SvmError(f"{self._name} cannot speak: {reason}. {_WAY_OUT}")
        try:
            return Path(self._output).read_bytes() if self._folder else sound
        except OSError as error:
            raise SvmError(f"{self._name} wrote no WAV: {error.strerror or error}. {_WAY_OUT}") from error

    def kill(self) -> None:
        """End the program and what it started; another thread may be in `convert`, which then fails."""
        # Until the program's status is read, no other process has its number.
        if self._popen.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(1.0)
        if not self._converting:
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


_WAY_OUT = "Try the command with a line of text on its stdin, or name another with --voice-command."


def speakable(text: str) -> str:
    """Return `text` as one line without markup, cut between words where it is too long."""
    line = " ".join(harmless(text).translate(_MARKUP).split())
    return line if len(line) <= LONGEST_PHRASE else line[:LONGEST_PHRASE].rpartition(" ")[0]


def _read_wav(sound: bytes, name: str) -> Samples:
    """Return a WAV as float32 [n, 2] at 48 kHz.

    Raises:
        SvmError: it is none.
    """
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
    try:
        with av.open(io.BytesIO(sound), format="wav") as container:
            rate = container.streams.audio[0].rate
            frames = itertools.takewhile(lambda frame: frame.pts < LONGEST_SPEECH * rate, container.decode(audio=0))
            blocks = [part.to_ndarray().T for frame in (*frames, None) for part in resampler.resample(frame)]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise SvmError(f"{name} wrote no WAV. {_WAY_OUT}") from error
    return np.concatenate(blocks) if blocks else SILENT.samples


def trimmed(samples: Samples) -> Samples:
    """Return `samples`, float32 [n, 2], without silence at both ends, in steps of 10 ms."""
    loud = np.flatnonzero(_loudness(samples) > _SILENCE * _loudness(samples).max(initial=0.0))
    return samples[loud[0] * _WINDOW : (loud[-1] + 1) * _WINDOW] if len(loud) else SILENT.samples


def word_ends(samples: Samples, text: str) -> tuple[int, ...]:
    """Return where the words of `text` end in `samples`, float32 [n, 2], in order; the last end is n.

    A word's share of the time is estimated from its letters, and moved to the quietest 10 ms nearby.
    """
    lengths = [sum(_DIGIT if char.isdigit() else 1 for char in word) + _GAP for word in text.split()]
    if not lengths or not len(samples):
        return ()
    loudness = _loudness(samples)
    ends: list[int] = []
    for share in np.cumsum(lengths)[:-1] / sum(lengths):
        first = max(round(share * len(loudness)) - _NEAR, ends[-1] // _WINDOW + 1 if ends else 1)
        near = loudness[first : round(share * len(loudness)) + _NEAR + 1]
        if len(near):
            ends.append((first + int(near.argmin())) * _WINDOW + _WINDOW // 2)
    return (*(end for end in ends if end < len(samples)), len(samples))


def _loudness(samples: Samples) -> npt.NDArray[np.float32]:
    """Return the root mean square of each 10 ms; the last window may be shorter."""
    starts = np.arange(0, len(samples), _WINDOW)
    if not len(starts):
        return np.zeros(0, np.float32)
    power = np.add.reduceat(np.square(samples).mean(axis=1), starts) / np.diff(np.append(starts, len(samples)))
    return np.sqrt(power)
