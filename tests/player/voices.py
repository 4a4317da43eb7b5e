"""A fake voice, and a fake sound device that plays as the test says."""

import queue
import threading

import numpy as np

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.output import Fill
from streaming_vlm_mlx.audio.voice import Utterance
from streaming_vlm_mlx.errors import SvmError

# Seconds of a word.
WORD = 0.5


class FakeSpeaker:
    """Speaks words of half a second, each as a constant level that its number in the phrase gives.

    Attributes:
        taken: what was to be spoken.
        texts: what was spoken.
        failure: what each phrase fails with while it is set.
        free: while it is not set, a phrase is not done.
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.texts: list[str] = []
        self.failure = ""
        self.free, self.is_closed = threading.Event(), False
        self.free.set()

    def prepare(self) -> None:
        pass

    def speak(self, text: str) -> Utterance:
        self.taken.append(text)
        self.free.wait()
        self.texts.append(text)
        if self.failure:
            raise SvmError(self.failure)
        counts = range(1, len(text.split()) + 1)
        size = round(WORD * RATE)
        samples = np.concatenate([np.full((size, 2), 0.01 * count, np.float32) for count in counts])
        return Utterance(samples, tuple(size * count for count in counts))

    def close(self) -> None:
        self.is_closed = True
        self.free.set()


class FakeDevice:
    """A sound device of which the test takes the samples."""

    def __init__(self) -> None:
        self.fills: queue.SimpleQueue[Fill] = queue.SimpleQueue()
        self._fill: Fill | None = None
        self.is_closed = False

    def open(self, fill: Fill) -> "FakeDevice":
        self.fills.put(fill)
        return self

    @property
    def is_open(self) -> bool:
        return not self.fills.empty() or self._fill is not None

    def play(self, seconds: float) -> np.ndarray:
        """Return the first channel of the next samples."""
        if self._fill is None:
            self._fill = self.fills.get()
        out = np.zeros((round(seconds * RATE), 2), np.float32)
        self._fill(out, 0.0)
        return out[:, 0]

    def close(self) -> None:
        self.is_closed = True


def words(samples: np.ndarray) -> list[int]:
    """Return the numbers of the words in `samples`, of each that is heard for 20 ms or more."""
    levels = np.round(samples / 0.01).astype(int)
    begins = np.flatnonzero(np.diff(levels, prepend=levels[0] - 1))
    lengths = np.diff(np.append(begins, len(levels)))
    return [
        int(levels[begin])
        for begin, length in zip(begins, lengths, strict=True)
        if length >= 0.02 * RATE and levels[begin]
    ]


def missing_device(fill: Fill) -> FakeDevice:
    """Open a sound device that is not there."""
    raise SvmError("no sound device can be opened; connect one.")


class Audible:
    """The sound of a clip, of which there is no more to decode."""

    silent = False

    def step(self) -> bool:
        return False

    def close(self) -> None:
        pass
