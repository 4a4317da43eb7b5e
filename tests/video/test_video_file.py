"""Which frames a chunk takes, in every container."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.pyav_reader import FrameReader, probe
from streaming_vlm_mlx.video.source import Source
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import make_clip, number_of, numbers, read, times

MILLISECOND = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("sample", "clip", "start", "end"), [(0, "basketball", 0, 7), (1, "baseball", 1, 5), (2, "basketball", 2, 6)]
)
def test_real_clips_give_the_reference_frames(shared: Path, sample: int, clip: str, start: int, end: int) -> None:
    expected = json.loads((shared / "lmm" / "expected.json").read_text())["plain"][sample]["frame_times"]
    chunks = read(shared / "clips" / f"{clip}.mp4", start=start, duration=end - start)
    assert times(chunks) == pytest.approx(expected)
    assert [(c.index, c.start, c.end) for c in chunks] == [(i, start + i, start + i + 1) for i in range(end - start)]
    assert {c.frames.shape for c in chunks} == {(2, 360, 640, 3)}
    assert sum(c.skipped for c in chunks) == 0


def test_a_stub_at_the_end_is_dropped_and_half_a_second_kept(shared: Path) -> None:
    whole = read(shared / "clips" / "basketball.mp4")
    assert whole[-1].end == 7.0  # of 7.14
    half = read(shared / "clips" / "baseball.mp4")
    assert half[-1].start == 5.0
    assert half[-1].end == pytest.approx(5.5388666 + 1001 / 30000)


def test_many_frames_of_large_pictures_are_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "large.mkv", "mpeg4", count=3, rate=2, size=(1280, 720))
    converted: list[object] = []
    rgb = FrameReader.rgb
    monkeypatch.setattr(FrameReader, "rgb", lambda reader, frame: converted.append(frame) or rgb(reader, frame))
    (chunk, _) = read(path, fps=600)
    assert chunk.frames.shape == (600, 180, 320, 3)
    # Two pictures of the clip, each shown 300 times; numbers come from the last of each.
    assert len(converted) <= 4
    assert {number_of(frame) for frame in chunk.frames[::100]} == {0, 1, 2}


CONTAINERS = [
    ("clip.mp4", "libx264"),
    ("clip.mkv", "libx264"),
    ("clip.ts", "libx264"),
    ("clip.mov", "libx265"),
    ("clip.webm", "libvpx-vp9"),
    ("clip.avi", "mpeg4"),
    ("clip.mpg", "mpeg2video"),
    ("clip.ivf", "libsvtav1"),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str) -> None:
    chunks = read(make_clip(tmp_path / name, codec))
    assert numbers(chunks) == [0, 15, 30, 45 % 40, 60 % 40, 75 % 40]
    assert times(chunks) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.001)
    assert chunks[-1].end == pytest.approx(3.0, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "rate"),
    [
        # Raw streams: the coded rate counts where there is one, else FFmpeg's 25.
        ("clip.h264", "libx264", "yuv420p", 30),
        ("clip.hevc", "libx265", "yuv420p", 30),
        ("clip.m4v", "mpeg4", "yuv420p", 30),
        ("clip.m1v", "mpeg1video", "yuv420p", 30),
        ("clip.mjpeg", "mjpeg", "yuvj420p", 25),
    ],
)
def test_missing_timestamps_are_counted_by_the_rate(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, rate: int
) -> None:
    path = make_clip(tmp_path / name, codec, pix_fmt=pix_fmt)
    chunks = read(path)
    expected = [-(-n * rate // 2) for n in range(len(chunks) * 2)]
    assert len(chunks) == -(-90 // rate)
    assert numbers(chunks) == [n % 40 for n in expected]
    assert times(chunks) == pytest.approx([n / rate for n in expected])
    assert probe(path).duration == pytest.approx(90 / rate)


@pytest.mark.parametrize(("rate", "count"), [(1, 4), (5, 20), (60, 180), (120, 240)])
def test_frame_rates(tmp_path: Path, rate: int, count: int) -> None:
    chunks = read(make_clip(tmp_path / "clip.mp4", rate=rate, count=count))
    # The first frame at or after each half second, the last where none is left.
    expected = [min(-(-k * rate // 2), count - 1) for k in range(2 * len(chunks))]
    assert numbers(chunks) == [n % 40 for n in expected]
    assert times(chunks) == pytest.approx([n / rate for n in expected])
    assert len(chunks) == round(count / rate)


@pytest.mark.parametrize("fps", [1, 4, 8])
def test_frames_a_second(tmp_path: Path, fps: int) -> None:
    chunks = read(make_clip(tmp_path / "clip.mp4"), fps)
    assert [len(c.frames) for c in chunks] == [fps] * 3
    assert times(chunks) == pytest.approx([-(-k * 30 // fps) / 30 for k in range(3 * fps)])


@pytest.mark.parametrize(
    ("rate", "first"), [(2, [0, 0, 1, 2, 3, 4]), (25, [0, 12, 24, 37, 49, 62]), (1, [0, 0, 0, 1, 1, 2])]
)
@pytest.mark.parametrize("gop", [1, 12])
def test_a_sampling_time_can_take_the_frame_that_ends_then(
    tmp_path: Path, rate: int, first: list[int], gop: int
) -> None:
    """The first one that ends at or after it, also where the clip is entered at a key frame."""
    path = make_clip(tmp_path / "clip.mp4", rate=rate, count=5 * rate, gop=gop)
    expected = [max(-(-k * rate // 2) - 1, 0) for k in range(10)]
    assert expected[:6] == first
    assert numbers(read(path, by_end=True)) == [n % 40 for n in expected]
    assert numbers(read(path, by_end=True, start=3.0)) == [n % 40 for n in expected[6:]]


def test_a_variable_rate(tmp_path: Path) -> None:
    ticks = [0, 90, 410, 499, 500, 620, 1730, 1731, 2100, 2980, 3010]
    chunks = read(make_clip(tmp_path / "clip.mkv", ticks=ticks, tick=MILLISECOND))
    chosen = [next(n for n, ms in enumerate(ticks) if ms >= t) for t in range(0, 3000, 500)]
    assert numbers(chunks) == chosen
    assert times(chunks) == pytest.approx([ticks[n] / 1000 for n in chosen])


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.mp4", "clip.flv"])
def test_a_clip_that_starts_late_starts_at_zero(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, ticks=[1400 + 40 * n for n in range(50)], tick=MILLISECOND)
    chunks = read(path)
    assert times(chunks) == pytest.approx([0, 0.52, 1, 1.52], abs=0.002)
    assert numbers(chunks) == [0, 13, 25, 38]


@pytest.mark.parametrize(
    ("count", "ends"),
    [
        (4, [0.4]),  # the only one, however short
        (10, [1.0]),
        (14, [1.0]),  # 0.4 s are dropped
        (15, [1.0, 1.5]),
        (19, [1.0, 1.9]),
    ],
)
def test_the_last_second(tmp_path: Path, count: int, ends: list[float]) -> None:
    chunks = read(make_clip(tmp_path / "clip.mp4", rate=10, count=count))
    assert [c.end for c in chunks] == pytest.approx(ends)
    assert numbers(chunks)[-1] == min(5 + 10 * (len(ends) - 1), count - 1)
    assert all(len(c.frames) == 2 for c in chunks)


def test_a_range_takes_nothing_after_its_end(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", rate=10, count=38)
    chunks = read(path, start=1.2, duration=1.5)
    assert [(c.start, c.end) for c in chunks] == [(1.2, 2.2), (2.2, pytest.approx(2.7))]
    assert numbers(chunks) == [12, 17, 22, 26]
    assert numbers(read(path, start=1.2, duration=0.3)) == [12, 14]
    assert len(read(path, start=1.2, duration=1.4)) == 1


def test_probe_tells_what_there_is(tmp_path: Path, shared: Path) -> None:
    info = probe(shared / "clips" / "basketball.mp4")
    assert (info.width, info.height, info.codec) == (640, 360, "h264")
    assert info.duration == pytest.approx(7.14, abs=0.01)
    assert info.frame_rate == pytest.approx(29.97, abs=0.01)  # its average rate says 26.3


def test_a_url_is_read_as_a_file_is(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv")
    with open_video(f"file://{path}") as source:
        assert source.duration == pytest.approx(3.0)
        assert numbers(list(source.chunks(1.0))) == numbers(read(path, start=1.0))


def test_a_recording_without_a_duration_is_measured(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.webm", "libvpx-vp9", container_options={"live": "1"})
    with open_video(path) as source:
        assert source.duration == pytest.approx(3.0, abs=0.01)
        assert len(list(source.chunks(start=2.0))) == 1


@pytest.mark.parametrize(
    ("span", "says"),
    [
        ({"start": 3.0}, "runs from 0 to 3.0 s; 3 s is outside"),
        ({"start": -1.0}, "-1 s is outside"),
        ({"start": 1.0, "duration": 0.0}, "choose a duration above 0"),
    ],
)
def test_ranges_outside_are_named(tmp_path: Path, span: dict[str, float], says: str) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    with open_video(path) as source, pytest.raises(SvmError, match=says) as caught:
        source.chunks(**span)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("fps", [0, -2, 1.5, float("nan"), float("inf")])
def test_a_second_takes_whole_frames(tmp_path: Path, fps: float) -> None:
    with pytest.raises(SvmError, match="whole number of frames"):
        open_video(make_clip(tmp_path / "clip.mp4"), fps)


def test_the_file_is_a_source(tmp_path: Path) -> None:
    source: Source = open_video(make_clip(tmp_path / "clip.mp4"))
    assert (source.duration, source.size, source.frame_rate) == (pytest.approx(3.0), (64, 48), pytest.approx(30.0))
    source.close()
