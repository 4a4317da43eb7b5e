"""Clips that are broken somewhere are played for what they hold."""

import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.container import InputVideo
from streaming_vlm_mlx.video.pyav_reader import Decoder, clip_pace
from streaming_vlm_mlx.video.source import open_video
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP
from tests.video.clips import damage, make_clip, numbers, read, times

MILLISECOND = Fraction(1, 1000)

# The index before the pictures, so that a file cut in two can be opened.
FASTSTART = {"container_options": {"movflags": "faststart"}}


def test_a_last_frame_of_damaged_length_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr("streaming_vlm_mlx.video.timestamps.Pace.length", lambda pace, ticks: 1e9)
    with open_video(path) as source:
        *_, last = itertools.islice(source.chunks(), 100)
    assert last.end == pytest.approx(89 / 30 + LONGEST_STEP + 3.0)


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
    pace = clip_pace("camera", InputVideo(reader.opened.container, stream), next(reader.frames()))
    assert pace.frame_rate == rate
    assert pace.counted


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.webm", "clip.avi"])
@pytest.mark.parametrize("start", [0.3, 0.6])
def test_damage_in_the_middle_is_passed_over(tmp_path: Path, name: str, start: float) -> None:
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


def test_joined_recordings_go_on(tmp_path: Path) -> None:
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
    with open_video(path) as source, pytest.raises(SvmError, match="no picture from 5 s on"):
        next(source.chunks(start=5.0))
