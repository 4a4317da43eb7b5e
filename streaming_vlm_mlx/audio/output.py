"""The sound device, through PortAudio."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from streaming_vlm_mlx.audio.clip_track import CHANNELS, RATE
from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.audio.clip_track import Samples

# Seconds that the device plays ahead: what a pause takes to be heard, and what the interpreter may be busy for.
LATENCY = 0.1
# Samples that the device asks for at once: each call needs the interpreter, and so slows the model.
BLOCK = 1024
# What PortAudio says where there is no default device.
NO_DEVICE = "Error querying device"
# The longest delay in seconds that a device is believed.
MOST_DELAY = 3.0
# Calls of the device over which its delay is taken.
CALLS = 5

# ALSA's handler of errors: file, line, function, error, format; the values of the format are left alone.
_AlsaHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
_ignore_error = _AlsaHandler(lambda *_: None)

# Fills what it is given, float32 [n, 2] at `RATE`, of which the first sample is heard after so many seconds.
Fill = Callable[["Samples", float], None]


class Output(Protocol):
    """A sound device that plays."""

    def close(self) -> None:
        """Stop at once."""


class DacClock:
    """Tells when samples are heard, from what the device says at each call, which jitters."""

    def __init__(self) -> None:
        """Begin with the first call."""
        self._offsets: deque[float] = deque(maxlen=CALLS)
        self._frames = 0

    def heard_at(self, now: float, delay: float, count: int) -> float:
        """Return when the first of the next `count` samples is heard: `delay` seconds after `now`, as the device says.

        The result does not jitter, and follows a device that had to wait for sound.
        """
        played = self._frames / RATE
        self._offsets.append(now + delay - played)
        self._frames += count
        return median(self._offsets) + played


def open_output(fill: Fill) -> Output:
    """Play what `fill` gives on the default device; it is called from a thread of the device.

    Raises:
        SvmError: the package, the library or the device is missing.
    """
    sounddevice = _load()
    try:
        with _silent_stderr():
            return _PortAudio(sounddevice, fill)
    except (sounddevice.PortAudioError, ValueError) as error:
        if NO_DEVICE in str(error):
            raise SvmError("there is no sound device; connect one and start again.") from error
        raise SvmError(f"the sound device cannot be opened ({error}); connect another one and start again.") from error


def find_device() -> str:
    """Return the name of the default device, without opening it.

    Raises:
        SvmError: the package, the library or the device is missing.
    """
    sounddevice = _load()
    try:
        with _silent_stderr():
            return str(sounddevice.query_devices(kind="output")["name"])
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SvmError("there is no sound device; connect one.") from error


def _load() -> Any:
    """Return the module sounddevice, whose import looks for devices."""
    try:
        _silence_alsa()
        with _silent_stderr():
            import sounddevice
    except ImportError as error:
        raise SvmError("the package sounddevice is missing; install svm-tui with the extra [sound].") from error
    except OSError as error:
        raise SvmError("the library PortAudio is missing; install it, as with apt install libportaudio2.") from error
    return sounddevice


class _PortAudio:
    def __init__(self, sounddevice: Any, fill: Fill) -> None:
        def call(out: "Samples", count: int, time: Any, status: Any) -> None:  # noqa: ARG001 - PortAudio's arguments
            delay = time.outputBufferDacTime - time.currentTime
            # Some hosts give no times.
            fill(out, delay if 0 < delay < MOST_DELAY else self._stream.latency)

        self._stream = sounddevice.OutputStream(
            samplerate=RATE, channels=CHANNELS, dtype="float32", latency=LATENCY, blocksize=BLOCK, callback=call
        )
        self._stream.start()

    def close(self) -> None:
        with _silent_stderr():
            self._stream.close(ignore_errors=True)


def _silence_alsa() -> None:
    """Keep ALSA from printing on the terminal, as it does whenever the device had to wait for sound."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_ignore_error)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what libraries print on the terminal, as ALSA does of each device that is not there."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
