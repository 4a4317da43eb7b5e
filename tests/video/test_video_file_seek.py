"""Seeking gives the chunks that playing gives; closing releases all files and threads."""

import contextlib
import gc
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.pyav_reader import probe
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import make_clip, number_of

OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:keyint=24:min-keyint=24:scenecut=0"}
# No key pictures but the first, a column of each picture is renewed instead.
SLOW_REFRESH = {"x264-params": "intra-refresh=1:keyint=24:bframes=0"}

CLIPS: dict[str, Callable[[Path], Path]] = {
    "mp4": lambda folder: make_clip(folder / "clip.mp4", count=240, gop=50),
    "open groups": lambda folder: make_clip(folder / "clip.mkv", count=240, paint=drifting, options=OPEN_GOP),
    "open groups, ts": lambda folder: make_clip(folder / "clip.ts", count=240, paint=drifting, options=OPEN_GOP),
    "one key picture": lambda folder: make_clip(folder / "clip.mp4", count=240, gop=1000),
    "no index": lambda folder: make_clip(folder / "clip.ts", "mpeg4", count=240),
    "hevc": lambda folder: make_clip(folder / "clip.mp4", "libx265", count=240),
    "raw": lambda folder: make_clip(folder / "clip.h264", count=240),
    "raw, made up times": lambda folder: make_clip(folder / "clip.m4v", "mpeg4", count=240),
    "raw pictures": lambda folder: make_clip(folder / "clip.mjpeg", "mjpeg", count=240, pix_fmt="yuvj420p"),
    "slow refresh": lambda folder: make_clip(folder / "clip.mkv", count=240, paint=drifting, options=SLOW_REFRESH),
    "b frames in avi": lambda folder: make_clip(folder / "clip.avi", count=240),
    "vp9": lambda folder: make_clip(folder / "clip.webm", "libvpx-vp9", count=240),
    "gif": lambda folder: make_clip(folder / "clip.gif", "gif", count=240, rate=25, pix_fmt="rgb8"),
    "slow": lambda folder: make_clip(folder / "clip.mp4", count=8, rate=1),
}


def drifting(number: int, size: tuple[int, int]) -> np.ndarray:
    """Something that moves, so that pictures lean on one another."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    wave = 127 + 100 * np.sin((x + 3 * number) / 5) * np.cos((y - 2 * number) / 7)
    return np.repeat(wave.astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLIPS[request.param](tmp_path_factory.mktemp("clip"))


def same(a: Chunk, b: Chunk) -> bool:
    return (a.start, a.end, a.times) == (b.start, b.end, b.times) and np.array_equal(a.frames, b.frames)


@settings(max_examples=12, deadline=None)
@given(first=st.integers(0, 29), seconds=st.integers(0, 6))
def test_seeking_to_a_second_gives_the_chunk_that_playing_reaches(clip: Path, first: int, seconds: int) -> None:
    with open_video(clip) as source:
        played = next(itertools.islice(source.chunks(first / 30), seconds, None))
    with open_video(clip) as source:
        source.seek(played.start)
        assert same(next(source.chunks()), played)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", count=250)


@pytest.mark.parametrize("name", ["mp4", "open groups", "vp9", "hevc", "no index"])
def test_seeking_does_not_read_the_clip_from_its_beginning(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = CLIPS[name](tmp_path)
    monkeypatch.delattr("streaming_vlm_mlx.video.pyav_reader.Decoder.rewind")
    with open_video(clip) as source:
        assert next(source.chunks(5.3)).start == 5.3


def test_the_next_chunk_of_an_iteration_starts_at_the_seek_target(path: Path) -> None:
    with open_video(path) as source:
        chunks = source.chunks()
        assert next(chunks).start == 0
        source.seek(6.0)
        later = next(chunks)
        source.seek(2.0)
        earlier = next(chunks)
    assert [(c.index, c.start) for c in (later, earlier)] == [(1, 6.0), (2, 2.0)]
    assert [number_of(c.frames[0]) for c in (later, earlier)] == [180 % 40, 60 % 40]


def test_a_new_iteration_continues_at_the_current_position_and_ends_the_old_one(path: Path) -> None:
    with open_video(path) as source:
        old = source.chunks(duration=3.0)
        assert next(old).start == 0
        new = source.chunks()
        assert next(new).start == 1
        assert list(old) == []
        assert [c.start for c in source.chunks(duration=1.0)] == [2]
        assert [c.start for c in source.chunks()] == [3, 4, 5, 6, 7]
        with pytest.raises(SvmError, match=r"no frame from 8\.33333 s on"):
            next(source.chunks())


def test_an_iteration_of_a_closed_source_ends(path: Path) -> None:
    source = open_video(path)
    chunks = source.chunks()
    next(chunks)
    source.close()
    source.close()
    assert list(chunks) == []
    assert list(source.chunks(0.0)) == []


def test_closing_waits_for_the_current_chunk(path: Path) -> None:
    for _ in range(10):
        source = open_video(path)
        chunks = source.chunks()
        reader = threading.Thread(target=lambda chunks=chunks: [*chunks])
        reader.start()
        source.close()
        reader.join()
        assert list(chunks) == []


def held(*paths: Path) -> tuple[int, list[str]]:
    """Threads of this process, and which of the files at `paths` it has open."""
    files = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        # The one of this list is closed by now, and other tests' threads may close theirs.
        with contextlib.suppress(OSError):
            files.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return len(os.listdir("/proc/self/task")), [file for file in files if Path(file) in paths]  # noqa: PTH208


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="counts threads and files through /proc, which Linux has"
)
@pytest.mark.parametrize("leave", ["closed", "abandoned", "failed", "probed", "raw"])
def test_all_files_and_threads_are_released(tmp_path: Path, path: Path, leave: str) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes().replace(b"mdat", b"mdxt"))
    raw = make_clip(tmp_path / "raw.h264", count=60)
    gc.collect()
    gc.disable()
    try:
        used = {"raw": raw, "failed": broken}.get(leave, path)
        before, _ = held(used)
        left = [use(leave, used) for _ in range(3)]
        threads, files = held(used)
        assert files == []
        # A thread of another test may end meanwhile.
        assert threads <= before
        assert len(left) == 3
    finally:
        gc.enable()


def use(leave: str, path: Path) -> object:
    """Use `path` and leave it in one of the ways that a program can; return what the program may still hold."""
    if leave == "probed":
        probe(path)
    elif leave == "abandoned":
        for chunk in open_video(path).chunks(2.0):
            assert chunk.start == 2.0
            break
    elif leave == "failed":
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(SvmError):
            open_video(path)
    else:
        with open_video(path) as source:
            chunks = source.chunks()
            next(chunks)
            source.seek(1.0)
            next(chunks)
        return source, chunks
    return None


LIVE = "lavfi:testsrc=size=64x48:rate=30"


def test_a_live_source_has_no_end_and_no_way_back() -> None:
    with open_video(LIVE) as source:
        assert source.duration is None
        first = list(itertools.islice(source.chunks(start=0.0), 3))
        assert [c.times for c in first] == [(0, 0.5), (1, 1.5), (2, 2.5)]
        with pytest.raises(SvmError, match="is live and cannot seek"):
            source.seek(1.0)
        later = list(source.chunks(duration=2.0))
        assert [c.start for c in later] == [3, 4]
        assert later[0].times == pytest.approx((3.0, 3.5), abs=0.04)
