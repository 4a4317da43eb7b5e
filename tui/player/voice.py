"""The spoken commentary of the player: a thread that turns phrases into speech, and hands it to the mixer."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.commentary import hurried
from streaming_vlm_mlx.audio.motion import Motion
from streaming_vlm_mlx.audio.voice import Utterance, Voice, find_voice
from streaming_vlm_mlx.errors import SvmError
from tui.player.phrases import Phrase

if TYPE_CHECKING:
    from streaming_vlm_mlx.audio.mixer import Mixer

# Seconds of clip behind the end of its second after which a phrase is too old to be begun.
OLDEST = 2.0
# Seconds of speech that is not worth a cut, and that pass until the device takes a cut.
NEARLY_DONE, CUT_TIME = 0.4, 0.05
# Seconds that a phrase takes where the seconds before and after have words, too.
DENSE = 1.1
# Seconds between two looks at whether an answer is done.
REST = 0.02


class Speaker(Protocol):
    """What turns text into speech."""

    def prepare(self) -> None:
        """Get ready for the next phrase.

        Raises:
            SvmError: that is not possible.
        """

    def speak(self, text: str) -> Utterance:
        """Return `text` as speech.

        Raises:
            SvmError: that failed; the next phrase may not.
        """

    def close(self) -> None:
        """End at once, from any thread."""


@dataclass(frozen=True)
class VoiceSpec:
    """How the commentary is spoken.

    Attributes:
        on: whether it is spoken from the start.
        command: the user's program; None for that of the system.
        open_speaker: opens the program `command`; may raise SvmError.
    """

    on: bool = False
    command: str | None = None
    open_speaker: Callable[[str | None], Speaker] = lambda command: Voice(find_voice(command))


class PlayerVoice:
    """Speaks phrases as they come: the newest one cuts an older one behind a word.

    `say`, `follow`, `answered` and `silence` are for the event loop, and return at once.
    """

    def __init__(
        self,
        speaker: Speaker,
        mixer: "Mixer",
        clock: Callable[[], float],
        tell: Callable[[str], None],
        begun: Callable[[Phrase, float], None] = lambda *_: None,
    ) -> None:
        """Start the thread.

        Args:
            speaker: turns text into speech, on the thread.
            mixer: plays it.
            clock: returns seconds; that of the playhead.
            tell: gets what the viewer has to know, once; called from the thread.
            begun: gets each phrase that is handed to the mixer, and the seconds until the mixer begins it; called from
                the thread.
        """
        self._speaker, self._mixer, self._clock, self._tell, self._begun = speaker, mixer, clock, tell, begun
        self._motion = Motion(clock(), 0.0)
        self._phrases: queue.SimpleQueue[tuple[int, Phrase] | None] = queue.SimpleQueue()
        # The mixer is for one thread at a time.
        self._lock, self._closed = threading.Lock(), threading.Event()
        # How often there was silence: what was said before the last one is not spoken any more.
        self._silences = 0
        self._answered: set[int] = set()
        # What is spoken, and the number of its first sample.
        self._current: tuple[Phrase, Utterance, int] | None = None
        self._last_second = -2
        self._has_told = False
        threading.Thread(target=self._run, name="svm-voice", daemon=True).start()

    def follow(self, motion: Motion) -> None:
        """Take `motion` for the playhead's."""
        self._motion = motion

    def say(self, phrase: Phrase) -> None:
        """Speak `phrase`, unless it is too old by then."""
        self._phrases.put((self._silences, phrase))

    def answered(self, second: int) -> None:
        """Take the first line of `second` for an answer, which later seconds do not cut."""
        self._answered.add(second)

    def silence(self) -> None:
        """Be silent at once, and forget what was to be said."""
        with self._lock:
            self._silences += 1
            self._current = None
            self._mixer.cut_speech()

    def close(self) -> None:
        """End the thread and the speaker, without waiting for the thread."""
        self._closed.set()
        self._phrases.put(None)
        self.silence()
        self._speaker.close()

    def _run(self) -> None:
        self._attempt(self._speaker.prepare)
        for silences, phrase in iter(self._phrases.get, None):
            if self._is_wanted(silences, phrase):
                self._attempt(lambda: self._speak(silences, phrase))  # noqa: B023 - called at once

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do `work`, and tell the viewer of the first failure."""
        try:
            work()
        except SvmError as error:
            if not self._has_told and not self._closed.is_set():
                self._has_told = True
                self._tell(f"no voice: {error}")

    def _is_wanted(self, silences: int, phrase: Phrase) -> bool:
        position = self._motion.reached(self._clock())
        return not self._closed.is_set() and silences == self._silences and position - phrase.end <= OLDEST

    def _speak(self, silences: int, phrase: Phrase) -> None:
        utterance = self._speaker.speak(phrase.text)
        if phrase.second - self._last_second <= 1:
            utterance = hurried(utterance, DENSE)
        self._last_second = phrase.second
        while self._must_wait(phrase) and self._is_wanted(silences, phrase):
            self._closed.wait(REST)
        with self._lock:
            if not self._is_wanted(silences, phrase) or not len(utterance.samples):
                return
            self._cut_for(phrase)
            first = self._mixer.play_speech(utterance.samples)
            self._current = phrase, utterance, first
            wait = max(first - self._mixer.spoken, 0) / RATE
        self._begun(phrase, wait)

    def _must_wait(self, phrase: Phrase) -> bool:
        """Return whether an answer is spoken that `phrase` may not cut."""
        with self._lock:
            if self._current is None or not self._mixer.speaking:
                return False
            spoken = self._current[0]
            is_answer = spoken.line == 0 and spoken.second in self._answered
            return is_answer and (phrase.second, phrase.line) != (spoken.second, spoken.line) and self._left() > 0

    def _left(self) -> float:
        """Return the seconds of speech that are left beyond what is not worth a cut."""
        assert self._current is not None
        _, utterance, first = self._current
        return (first + len(utterance.samples) - self._mixer.spoken) / RATE - NEARLY_DONE

    def _cut_for(self, phrase: Phrase) -> None:
        """End an older phrase behind its word, unless it is nearly done or of the same second."""
        if self._current is None or not self._mixer.speaking:
            return
        spoken, utterance, first = self._current
        if spoken.second != phrase.second and self._left() > 0:
            sample = self._mixer.spoken + round(CUT_TIME * RATE) - first
            # What was not begun yet is left out.
            self._mixer.cut_speech(first + utterance.word_end_after(sample) if sample > 0 else first)
