import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.data import clip_metadata as clips_module
from streaming_vlm_mlx.data.clip_metadata import ClipCache, measure
from streaming_vlm_mlx.data.jsonl import BadSampleError
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.pyav_reader import FrameReader
from tests.data.making import write_clip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "below" / "clips.sqlite"


def test_a_clip_at_a_glance(database: Path, clips: Path) -> None:
    with ClipCache(database) as cache:
        clip = cache.get(clips / "short.mp4")
    assert (clip.width, clip.height) == (64, 48)
    assert clip.duration == pytest.approx(3.2)
    assert clip.fps == pytest.approx(25)
    assert clip.times == pytest.approx(np.arange(80) / 25)


@pytest.mark.parametrize("name", ["basketball.mp4", "baseball.mp4"])
def test_frames_that_are_never_shown_are_not_counted(shared: Path, name: str) -> None:
    with closing(FrameReader(str(shared / "clips" / name))) as reader:
        shown = [frame.time for frame in reader.frames_from(0)]
    assert measure(shared / "clips" / name).clip().times.tolist() == pytest.approx(shown, abs=1e-9)


def test_a_second_run_reads_no_video(database: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClipCache(database) as cache:
        first = cache.get(clips / "short.mp4")
    monkeypatch.setattr(clips_module, "measure", None)
    with ClipCache(database) as cache:
        again = cache.get(clips / "short.mp4")
    assert again.times.tolist() == first.times.tolist()
    assert (again.duration, again.fps, again.width, again.height) == (
        first.duration,
        first.fps,
        first.width,
        first.height,
    )


def test_a_clip_that_changed_is_measured_again(database: Path, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "a.mp4", range(20))
    with ClipCache(database) as cache:
        assert len(cache.get(video).times) == 20
    write_clip(video, range(30))
    with ClipCache(database) as cache:
        assert len(cache.get(video).times) == 30


def test_clips_that_are_not_kept_in_memory_come_from_the_database(database: Path, tmp_path: Path) -> None:
    videos = [write_clip(tmp_path / f"{n}.mp4", range(n + 2)) for n in range(3)]
    with ClipCache(database) as cache, pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "_RECENT", 1)
        for _ in range(2):
            assert [len(cache.get(video).times) for video in videos] == [2, 3, 4]
        patch.setattr(clips_module, "measure", None)
        assert [len(cache.get(video).times) for video in videos] == [2, 3, 4]


class TestBadClips:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [("a.mp4", None, "absent video"), ("a.mp4", b"", "empty video"), ("a.mp4", b"text", "unreadable video")],
    )
    def test_each_is_named_every_time(
        self, database: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
    ) -> None:
        video = tmp_path / name
        if content is not None:
            video.write_bytes(content)
        for _ in range(2):
            with ClipCache(database) as cache:
                for _ in range(2):
                    with pytest.raises(BadSampleError, match=f"^{reason}: .*a.mp4") as error:
                        cache.get(video)
                    assert error.value.reason == reason

    def test_a_folder_and_a_path_that_no_system_knows(self, database: Path, tmp_path: Path) -> None:
        with ClipCache(database) as cache:
            with pytest.raises(BadSampleError, match="unreadable video"):
                cache.get(tmp_path)
            with pytest.raises(BadSampleError, match="absent video"):
                cache.get(tmp_path / "a\0b.mp4")

    def test_a_clip_cut_short(self, database: Path, clips: Path, tmp_path: Path) -> None:
        video = tmp_path / "cut.mp4"
        video.write_bytes((clips / "long.mp4").read_bytes()[:2000])
        with ClipCache(database) as cache, pytest.raises(BadSampleError, match="unreadable video"):
            cache.get(video)


class TestABadDatabase:
    def test_that_is_something_else(self, database: Path) -> None:
        database.parent.mkdir()
        database.write_text("no database" * 100)
        with pytest.raises(SvmError, match=r"clips.sqlite cannot be used.*Remove it"):
            ClipCache(database)

    def test_with_broken_rows(self, database: Path, clips: Path) -> None:
        with ClipCache(database) as cache:
            cache.get(clips / "short.mp4")
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE clips SET ticks = x'00'")
        with ClipCache(database) as cache, pytest.raises(SvmError, match="is broken"):
            cache.get(clips / "short.mp4")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_in_a_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(SvmError, match="cannot be used"):
            ClipCache(tmp_path / "below" / "clips.sqlite")
