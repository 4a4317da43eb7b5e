import multiprocessing
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from streaming_vlm_mlx.data.clip_metadata import ClipCache, probe_clip
from streaming_vlm_mlx.data.json_fields import BadSampleError
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video import pyav_reader
from streaming_vlm_mlx.video.pyav_reader import FrameReader
from tests.data.making import write_clip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "below" / "clips.sqlite"


def test_the_metadata_of_a_clip(database: Path, clips: Path) -> None:
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
    assert probe_clip(shared / "clips" / name).times.tolist() == pytest.approx(shown, abs=1e-9)


def test_timestamps_beyond_64_bits_are_left_out(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pyav_reader.scan_packets(str(clips / "short.mp4"))
    late = pyav_reader.PacketTimes(whole.clock.origin + (1 << 63), 1, False)
    damaged = replace(whole, packets=[*whole.packets, late])
    monkeypatch.setattr(pyav_reader, "scan_packets", lambda _: damaged)
    assert len(probe_clip(clips / "short.mp4").ticks) == len(whole.packets)


def test_a_second_run_reads_no_video(database: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClipCache(database) as cache:
        first = cache.get(clips / "short.mp4")
    monkeypatch.setattr(av, "open", None)
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


def test_clips_that_are_not_kept_in_memory_come_from_the_database(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [write_clip(tmp_path / f"{n}.mp4", range(n + 2)) for n in range(3)]
    with ClipCache(database, recent=1) as cache:
        assert [len(cache.get(video).times) for video in videos] == [2, 3, 4]
        monkeypatch.setattr(av, "open", None)
        assert [len(cache.get(video).times) for video in videos] == [2, 3, 4]


def fill(database: Path, videos: list[Path]) -> None:
    with ClipCache(database) as cache:
        for video in videos:
            cache.get(video)


def test_several_processes_share_a_database(database: Path, tmp_path: Path) -> None:
    videos = [write_clip(tmp_path / f"{n}.mp4", range(n + 2)) for n in range(8)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(database, videos[n::2] + videos[:4])) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM clips").fetchone() == (8,)


def test_a_database_that_stays_locked_costs_only_time(database: Path, clips: Path) -> None:
    with ClipCache(database, timeout=0) as cache, closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(cache.get(clips / "short.mp4").times) == 80
        other.execute("ROLLBACK")
        assert other.execute("SELECT count(*) FROM clips").fetchone() == (0,)


def test_without_a_database_clips_are_kept_in_memory(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClipCache() as cache:
        first = cache.get(clips / "short.mp4")
        monkeypatch.setattr(av, "open", None)
        assert cache.get(clips / "short.mp4") is first


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

    def test_one_that_becomes_readable_is_read_by_the_next_run(
        self, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Permissions change without a trace in size and modification time."""

        def refuse(*args: object, **options: object) -> None:
            raise av.error.PermissionError(13, "Permission denied", "a.mp4")

        video = write_clip(tmp_path / "a.mp4", range(20))
        with monkeypatch.context() as patch, ClipCache(database) as cache:
            patch.setattr(av, "open", refuse)
            with pytest.raises(BadSampleError, match="Permission denied"):
                cache.get(video)
        with ClipCache(database) as cache:
            assert len(cache.get(video).times) == 20

    def test_a_clip_cut_short(self, database: Path, clips: Path, tmp_path: Path) -> None:
        video = tmp_path / "cut.mp4"
        video.write_bytes((clips / "long.mp4").read_bytes()[:2000])
        with ClipCache(database) as cache, pytest.raises(BadSampleError, match="unreadable video"):
            cache.get(video)


class TestABadDatabase:
    def test_that_is_something_else(self, database: Path) -> None:
        database.parent.mkdir()
        database.write_text("no database" * 100)
        with pytest.raises(SvmError, match=r"clips.sqlite is not a cache of clips.*remove it"):
            ClipCache(database)

    def test_with_broken_rows(self, database: Path, clips: Path) -> None:
        with ClipCache(database) as cache:
            cache.get(clips / "short.mp4")
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE clips SET ticks = x'00'")
        with ClipCache(database) as cache, pytest.raises(SvmError, match="is damaged"):
            cache.get(clips / "short.mp4")

    def test_whose_rows_are_lost(self, database: Path, tmp_path: Path) -> None:
        videos = [write_clip(tmp_path / f"{n}.mp4", range(n + 2)) for n in range(2)]
        fill(database, videos[:1])
        with closing(sqlite3.connect(database)) as connection:
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'clips'").fetchone()
        with database.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
        with ClipCache(database) as cache, pytest.raises(SvmError, match=r"clips.sqlite is damaged.*remove it"):
            cache.get(videos[1])

    def test_in_a_folder_that_cannot_be_written(self, tmp_path: Path, clips: Path) -> None:
        (tmp_path / "file").touch()
        reported = list[str]()
        with ClipCache(tmp_path / "file" / "clips.sqlite", report=reported.append) as cache:
            assert len(cache.get(clips / "short.mp4").times) == 80
        (line,) = reported
        assert "clips.sqlite cannot be written" in line
