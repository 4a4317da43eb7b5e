"""The sound device behind a fake of the package sounddevice."""

import builtins
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import Samples
from streaming_vlm_mlx.audio.output import LATENCY, find_device, open_output
from streaming_vlm_mlx.errors import SvmError


class PortAudioError(Exception):
    pass


class Stream:
    """A stream that is called by hand."""

    latency = 0.12

    def __init__(self, callback: Callable[..., None], latency: float, **settings: object) -> None:
        self.callback, self.wanted_latency, self.settings = callback, latency, settings
        self.running = False

    def start(self) -> None:
        self.running = True
        # As ALSA does of devices that are not there.
        os.write(2, b"ALSA lib: unknown PCM\n")

    def close(self, ignore_errors: bool) -> None:
        self.running = False

    def call(self, now: float, heard: float, count: int = 8) -> Samples:
        out = np.zeros((count, 2), np.float32)
        self.callback(out, count, SimpleNamespace(currentTime=now, outputBufferDacTime=heard), None)
        return out


def install(
    monkeypatch: pytest.MonkeyPatch, open_stream: Callable[..., Stream], devices: Sequence[str] = ("Speakers",)
) -> None:
    def query(kind: str) -> dict[str, str]:
        if kind != "output" or not devices:
            raise PortAudioError("Error querying device -1")
        os.write(2, b"ALSA lib: unknown PCM\n")
        return {"name": devices[0]}

    module: Any = ModuleType("sounddevice")
    module.query_devices = query
    module.PortAudioError, module.OutputStream = PortAudioError, open_stream
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def nothing(out: Samples, delay: float) -> None:
    """Play silence."""


def test_the_device_is_told_what_to_play_and_when_it_is_heard(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    streams: list[Stream] = []

    def open_stream(**settings: Any) -> Stream:
        streams.append(Stream(**settings))
        return streams[0]

    def fill(out: Samples, delay: float) -> None:
        delays.append(delay)
        out[:] = 0.5

    delays: list[float] = []
    install(monkeypatch, open_stream)
    output = open_output(fill)
    stream = streams[0]
    assert (stream.running, stream.wanted_latency, stream.settings["channels"]) == (True, LATENCY, 2)
    assert (stream.call(5.0, 5.08) == 0.5).all()
    # Some hosts give no times, or absurd ones.
    stream.call(0.0, 0.0)
    stream.call(7.0, 0.0)
    stream.call(0.0, 1e6)
    assert delays == [pytest.approx(0.08), 0.12, 0.12, 0.12]
    output.close()
    assert not stream.running
    assert capfd.readouterr().err == ""


def test_without_a_device_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "Error querying device -1"

    def refuse(**settings: object) -> Stream:
        raise PortAudioError(problem)

    install(monkeypatch, refuse)
    with pytest.raises(SvmError, match=r"^there is no sound device; connect one and start again\.$"):
        open_output(nothing)
    problem = "Device unavailable"
    with pytest.raises(SvmError, match=r"the sound device cannot be opened \(Device unavailable\); connect another"):
        open_output(nothing)


def test_the_default_device_is_named_without_opening_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Stream)
    assert find_device() == "Speakers"
    assert capfd.readouterr().err == ""
    install(monkeypatch, Stream, devices=())
    with pytest.raises(SvmError, match="there is no sound device; connect one"):
        find_device()


def test_without_the_extra_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SvmError, match=r"sounddevice is missing; install svm-tui with the extra \[sound\]"):
        open_output(nothing)


def test_without_portaudio_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    regular = builtins.__import__

    def refuse(name: str, *args: Any) -> ModuleType:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return regular(name, *args)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SvmError, match="apt install libportaudio2"):
        open_output(nothing)
