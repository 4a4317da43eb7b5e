"""The sound of the player: a thread that opens and decodes it, and what the viewer sets."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.audio.mixer import MOST_VOLUME, Mixer
from streaming_vlm_mlx.audio.motion import Motion
from streaming_vlm_mlx.audio.output import DacClock, Output, open_output
from streaming_vlm_mlx.errors import SvmError, log_limit

if TYPE_CHECKING:
    from streaming_vlm_mlx.audio.clip_track import ClipTrack, Samples
    from streaming_vlm_mlx.audio.output import Fill

# Seconds between two looks of a thread that has nothing to do, and between two attempts after a failure.
REST, RETRY = 0.02, 5.0
# Seconds between two looks at whether a feed without sound has one by now.
LOOK = 0.5
# Looks without a call of the device after which it is taken to be gone.
MOST_SILENT_LOOKS = 150
# Why nothing is heard of a clip or a feed without sound.
NO_SOUND = "this clip or feed has none."
# Seconds by which the playhead has to jump for the thread to look at once.
JUMPED = 0.05


class SoundSource(Protocol):
    """What decodes the clip's sound, bit by bit."""

    @property
    def silent(self) -> bool:
        """Whether there is no sound so far; another connection of a feed may bring it."""

    def step(self) -> bool:
        """Decode a little, if it is needed, and return whether it was.

        Raises:
            SvmError: the clip cannot be read.
        """

    def close(self) -> None:
        """Close the clip."""


# Opens what fills a track whose motions have a clock; None where there is no sound. May raise SvmError.
OpenSource = Callable[["ClipTrack", Callable[[], float]], SoundSource | None]


@dataclass(frozen=True)
class SoundSpec:
    """A clip's sound, and how it is played.

    Attributes:
        open_source: opens the clip's sound, on a thread.
        volume: in percent.
        open_device: opens the device, on that thread; may raise SvmError.
        muted: whether nothing is heard at first.
        told: the problem that the viewer knows of already, from another clip.
    """

    open_source: OpenSource
    volume: float = MOST_VOLUME
    open_device: "Callable[[Fill], Output]" = open_output
    muted: bool = False
    told: str = ""


class _Silence:
    """The sound of a clip that has none."""

    silent = True

    def step(self) -> bool:
        return False

    def close(self) -> None:
        pass


class PlayerSound:
    """Plays the clip's sound at the playhead's place, on threads of its own; without a device, the player is silent.

    `follow` and the settings are for the event loop, and return at once.

    Attributes:
        mixer: what is played; speech goes there.
        problem: why nothing is heard; empty if nothing is wrong.
        is_open: whether the device was opened.
        no_device: why it could not be; empty if it was, or is not needed yet. This is told only where nothing is to be
            spoken.
    """

    def __init__(self, spec: SoundSpec, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            spec: what is played.
            clock: returns seconds; that of the playhead.
            tell: gets what the viewer has to know, each thing once; called from the thread.
        """
        self.mixer, self.problem = Mixer(spec.volume, spec.muted), ""
        self.is_open, self.no_device = False, ""
        self._open_source, self._open_device = spec.open_source, spec.open_device
        self._clock, self._tell, self._told = clock, log_limit(tell), spec.told
        self._dac = DacClock()
        self._source: SoundSource | None = None
        self._output: Output | None = None
        # Calls of the device, those that were seen, and how often nothing had come.
        self._calls = self._seen = self._silent_looks = 0
        self._closed, self._moved, self._has_speech = threading.Event(), threading.Event(), threading.Event()

    @property
    def volume(self) -> float:
        """The volume in percent; what is set is brought within 0 to `MOST_VOLUME`."""
        return self.mixer.volume

    @volume.setter
    def volume(self, percent: float) -> None:
        self.mixer.volume = min(max(percent, 0), MOST_VOLUME)

    @property
    def muted(self) -> bool:
        """Whether the viewer wants to hear nothing."""
        return self.mixer.muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self.mixer.muted = muted

    def start(self) -> None:
        """Open the clip and the device on a thread."""
        threading.Thread(target=self._run, name="svm-sound", daemon=True).start()

    def follow(self, motion: Motion) -> None:
        """Play where `motion` is and goes."""
        known, self.mixer.clip.motion = self.mixer.clip.motion, motion
        if motion.speed != known.speed or abs(motion.position - known.reached(motion.at)) > JUMPED:
            self._moved.set()

    def open_for_speech(self) -> None:
        """Open the device also where nothing can be heard of the clip; without a device, `problem` says so."""
        if self.no_device:
            self.problem = self.no_device
        elif self._source is None or self._source.silent:
            self.problem = ""
        self._has_speech.set()

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._closed.set()
        self._moved.set()
        self._has_speech.set()

    def _run(self) -> None:
        try:
            source = self._source = self._open()
            while source is None or source.silent:
                if self._has_speech.wait(LOOK if source else None):
                    break
            if self._closed.is_set():
                return
            self._source, self.problem = source or _Silence(), ""
            self._output = self._open_device(self._fill)
            self.is_open = True
            while not self._closed.is_set():
                self._step(self._source)
        except SvmError as error:
            self._fail(error, told=self._has_speech.is_set())
            self.no_device = str(error)
        finally:
            self._close_output()
            if self._source:
                self._source.close()

    def _open(self) -> SoundSource | None:
        """Open the clip; where nothing can be heard of it, the voice still can."""
        try:
            source = self._open_source(self.mixer.clip, self._clock)
        except SvmError as error:
            self._fail(error)
            return None
        if source is None or source.silent:
            self.problem = NO_SOUND
        return source

    def _step(self, source: SoundSource) -> None:
        """Decode what is needed next, and rest when nothing is."""
        try:
            if source.step():
                return
            self._check_device()
        except SvmError as error:
            self._fail(error)
            self._closed.wait(RETRY)
            return
        self.problem = ""
        self._moved.wait(REST)
        self._moved.clear()

    def _check_device(self) -> None:
        """Open the device again when it is gone.

        Raises:
            SvmError: it is gone.
        """
        self._silent_looks = 0 if self._calls != self._seen else self._silent_looks + 1
        self._seen = self._calls
        if self._output is None:
            self._dac, self._silent_looks = DacClock(), 0
            self._output = self._open_device(self._fill)
        elif self._silent_looks > MOST_SILENT_LOOKS:
            self._close_output()
            raise SvmError("the sound device is gone; connect one, and it is used.")

    def _close_output(self) -> None:
        output, self._output = self._output, None
        if output:
            output.close()

    def _fill(self, out: "Samples", delay: float) -> None:
        """Fill what the device asks for, on a thread of the device."""
        self.mixer.fill(out, self._dac.heard_at(self._clock(), delay, len(out)))
        self._calls += 1

    def _fail(self, error: SvmError, told: bool = False) -> None:
        self.problem = str(error)
        if not told and self.problem != self._told:
            self._tell(f"no sound: {error}")
