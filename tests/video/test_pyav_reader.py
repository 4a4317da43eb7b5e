"""Damaged files, cameras without a new frame, lost connections."""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video import pyav_reader as decoder
from streaming_vlm_mlx.video.pyav_reader import MAX_FAILURES, Decoder, stream_clock
from streaming_vlm_mlx.video.source import InputVideo
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import damage, make_clip, numbers, read, times

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
    container = Flaky(opened.container, failure, times)
    monkeypatch.setattr(Decoder, "opened", InputVideo(container, opened.stream, opened.is_feed))
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
    with pytest.raises(SvmError, match=r"was interrupted: Connection timed out\. Open it again") as caught:
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


MILLISECOND = Fraction(1, 1000)

# The index before the pictures, so that a file cut in two can be opened.
FASTSTART = {"container_options": {"movflags": "faststart"}}


def test_a_last_frame_of_damaged_length_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr("streaming_vlm_mlx.video.timestamps.StreamClock.length", lambda clock, ticks: 1e9)
    with open_video(path) as source:
        *_, last = itertools.islice(source.chunks(), 100)
    assert last.end == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("guessed", "average", "rate"),
    [
        (Fraction(30), Fraction(29), 30),
        (None, Fraction(24), 24),
        (Fraction(1, 90_000), Fraction(24), 24),
        (None, None, 25),
    ],
)
def test_the_first_rate_that_can_be_true_counts(
    tmp_path: Path, guessed: Fraction | None, average: Fraction | None, rate: int
) -> None:
    reader = Decoder(str(make_clip(tmp_path / "clip.h264", count=2)))
    stream = SimpleNamespace(time_base=MILLISECOND, start_time=None, guessed_rate=guessed, average_rate=average)
    clock = stream_clock(InputVideo(reader.opened.container, stream, True), next(reader.frames()))
    assert clock.frame_rate == rate
    assert clock.counted


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.webm", "clip.avi"])
@pytest.mark.parametrize("start", [0.3, 0.6])
def test_damage_in_the_middle_is_skipped(tmp_path: Path, name: str, start: float) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(name[5:], "libx264")
    container = FASTSTART if name == "clip.mp4" else {}
    path = make_clip(tmp_path / name, codec, count=180, size=(160, 120), paint=speckle, **container)
    damage(path, start, 2000)
    with open_video(path) as source:
        chunks = list(source.chunks())
        assert source.skipped == sum(c.skipped for c in chunks)
    assert [c.start for c in chunks] == [0, 1, 2, 3, 4, 5]
    assert times(chunks) == sorted(times(chunks))
    # What lies before the damage is untouched.
    assert chunks[0].times == pytest.approx((0, 0.5), abs=0.05)


def speckle(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def test_damaged_packets_are_counted(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=180, gop=1, **FASTSTART)
    damage(path, 0.5, 500)
    with open_video(path) as source:
        skipped = [chunk.skipped for chunk in source.chunks()]
        assert source.skipped == sum(skipped) > 0
    assert skipped[0] == skipped[-1] == 0


def test_a_clip_with_a_damaged_head_keeps_its_clock(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=90, gop=1, **FASTSTART)
    data = path.read_bytes()
    damage(path, (data.index(b"mdat") + 4) / len(data), 700)
    chunks = read(path)
    assert chunks[0].times[0] > 0
    assert numbers(chunks) == [round(time * 30) % 40 for time in times(chunks)]


def test_a_file_that_breaks_off_ends_early(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=180, paint=speckle, **FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    chunks = read(path)
    assert 1 <= len(chunks) <= 4
    assert [c.start for c in chunks] == list(range(len(chunks)))


def test_joined_recordings_continue(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.ts", count=60).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part * 2)
    seen = read(path)
    # Frames are lost until the new clock is believed, 16 of them at most.
    assert 3 <= len(seen) <= 4
    assert times(seen) == sorted(times(seen))


def test_a_range_without_frames_is_named(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=180, paint=speckle, **FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_video(path) as source, pytest.raises(SvmError, match="no frame from 5 s on"):
        next(source.chunks(start=5.0))
