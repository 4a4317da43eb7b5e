"""What a container may do on the way: damage, a camera that has nothing yet, a connection that is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video import pyav_reader as decoder
from streaming_vlm_mlx.video.container import InputVideo
from streaming_vlm_mlx.video.pyav_reader import MAX_FAILURES, Decoder
from tests.video.clips import make_clip

FAILURES: dict[str, Callable[[], Exception]] = {
    "damage": lambda: av.error.InvalidDataError(1094995529, "Invalid data found"),
    "nothing yet": lambda: av.error.BlockingIOError(11, "Resource temporarily unavailable"),
    "lost": lambda: av.error.TimeoutError(110, "Connection timed out"),
}


class Flaky:
    """A container whose reads fail a number of times, after ten packets each, before they go well."""

    def __init__(self, container: Any, failure: str, times: float) -> None:
        self.container = container
        self.failure = failure
        self.times = times

    def demux(self, stream: Any) -> Iterator[Any]:
        for number, packet in enumerate(self.container.demux(stream)):
            if number == 10 and self.times > 0:
                self.times -= 1
                raise FAILURES[self.failure]()
            yield packet


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mkv", "ffv1", count=90, pix_fmt="gray")


def flaky(path: str, failure: str, times: float, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    reader = Decoder(path)
    opened = reader.opened
    monkeypatch.setattr(Decoder, "opened", InputVideo(Flaky(opened.container, failure, times), opened.stream))
    return reader


def test_reads_that_fail_are_counted_and_gone_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = flaky(str(path), "damage", 3, monkeypatch)
    # A read that fails costs the packet that it would have given.
    assert len(list(reader.frames())) == 90 - 3
    assert reader.skipped == 3


def test_a_file_that_only_fails_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Flaky, stream: Any) -> Iterator[Any]:
        raise FAILURES["damage"]()
        yield

    monkeypatch.setattr(Flaky, "demux", fail)
    reader = flaky(str(path), "damage", 1, monkeypatch)
    assert list(reader.frames()) == []
    assert reader.skipped == MAX_FAILURES


def test_a_camera_without_a_new_frame_is_asked_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(decoder.time, "sleep", pauses.append)
    reader = flaky(f"file://{path}", "nothing yet", 2, monkeypatch)
    assert len(list(reader.frames())) == 90 - 2
    assert len(pauses) == 2
    assert reader.skipped == 0


def test_a_connection_that_is_lost_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{path}"
    reader = flaky(url, "lost", 1, monkeypatch)
    with pytest.raises(SvmError, match=r"broke off: Connection timed out\. Open it again") as caught:
        list(reader.frames())
    assert str(caught.value).startswith(url)


def test_a_disc_that_fails_ends_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = flaky(str(path), "lost", 1, monkeypatch)
    assert len(list(reader.frames())) == 10


def test_empty_packets_and_late_streams_are_no_obstacle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def demux(self: Flaky, stream: Any) -> Iterator[Any]:
        for number, packet in enumerate(self.container.demux(stream)):
            if number == 10:
                empty = av.Packet()
                empty.dts = packet.dts
                yield empty
            yield packet
        raise IndexError("list index out of range")

    monkeypatch.setattr(Flaky, "demux", demux)
    reader = flaky(str(path), "damage", 0, monkeypatch)
    assert len(list(reader.frames())) == 90
    assert reader.skipped == 0


def test_a_closed_decoder_has_no_container(path: Path) -> None:
    reader = Decoder(str(path))
    reader.close()
    with pytest.raises(ValueError, match="is closed"):
        reader.opened  # noqa: B018
