"""Bad input, each a line that names the file and the way out."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.pyav_reader import probe
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import make_clip, make_sound


def problem(name: str | Path) -> str:
    with pytest.raises(SvmError) as caught:
        open_video(name)
    return str(caught.value)


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def cut_short(path: Path) -> None:
    data = make_clip(path).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("missing.mp4", lambda path: None, "does not exist; check the path"),
        ("folder.mp4", Path.mkdir, "is a folder; give a video file"),
        ("empty.mp4", lambda path: path.touch(), r"is empty \(0 bytes\)"),
        ("pipe.mp4", os.mkfifo, "is not a regular file; give a video file"),
        ("zeros.mp4", lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        ("cut.mp4", cut_short, "is incomplete: its index"),
        ("noise.mp4", write(bytes(range(256)) * 40), "is not a video that FFmpeg can read"),
        ("page.mp4", write(b"<html><body>404</body></html>" * 99), "is not a video that FFmpeg can read"),
        ("notes.txt", write(b"first half, kick off\n" * 99), "is not a video; give a video file"),
        ("truth.srt", write(b"1\n00:00:00,000 --> 00:00:01,000\nGo\n\n"), "is not a video; give a video file"),
        ("song.m4a", make_sound, "has audio but no video"),
        ("album.mp3", lambda path: make_sound(path, "libmp3lame", cover=True), "has audio but no video"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / name
    make(path)
    line = problem(path)
    assert line.startswith(str(path))
    assert "\n" not in line
    with pytest.raises(SvmError, match=says):
        probe(path)


def test_a_file_without_one_good_picture_is_named(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=5)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(data.index(b"moov") - 4 - start) + data[data.index(b"moov") - 4 :])
    assert "has no frame that can be decoded" in problem(path)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/clip.mp4", "nonsense://camera", "/dev/video99", "lavfi:nonsense", "v4l2:/dev/video99"]
)
def test_what_cannot_be_reached_is_named(name: str) -> None:
    line = problem(name)
    assert line.startswith(f"{name} cannot be opened: ")
    assert "\n" not in line


def test_a_device_of_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_vlm_mlx.video.source.DEVICES", ("betamax",))
    assert "this FFmpeg has no betamax devices" in problem("betamax:0")


@pytest.mark.parametrize("name", ["half: one.mp4", "100%20 #1?.mp4", "-.mp4", "spiel über.mp4", "lavfi:testsrc"])
def test_odd_names_are_names_all_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "clip.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe(name).duration == pytest.approx(3.0)


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:3.0,\n"


def test_a_playlist_without_an_end_is_a_feed(tmp_path: Path) -> None:
    make_clip(tmp_path / "part.ts")
    (tmp_path / "live.m3u8").write_text(f"{PLAYLIST}part.ts\n")
    (tmp_path / "done.m3u8").write_text(f"{PLAYLIST}part.ts\n#EXT-X-ENDLIST\n")
    with open_video(tmp_path / "live.m3u8") as source:
        assert source.duration is None
        assert [chunk.start for chunk in itertools.islice(source.chunks(), 2)] == [0.0, 1.0]
    with open_video(tmp_path / "done.m3u8") as source:
        assert source.duration == pytest.approx(3.0)


def test_a_playlist_does_not_reach_the_network(tmp_path: Path) -> None:
    (tmp_path / "far.m3u8").write_text(f"{PLAYLIST}http://127.0.0.1:9/part.ts\n#EXT-X-ENDLIST\n")
    assert "is not a video that FFmpeg can read" in problem(tmp_path / "far.m3u8")


def test_a_title_in_an_old_encoding_is_no_obstacle(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.avi", "mpeg4")
    data = path.read_bytes()
    info = b"INFOISFT"
    at = data.index(info) + len(info) + 4
    path.write_bytes(data[:at] + b"\xfc\xe9" + data[at + 2 :])
    assert probe(path).codec == "mpeg4"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    def refuse(*args: object, **options: object) -> None:
        raise av.error.PermissionError(13, "Permission denied", "clip.mp4")

    path = make_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(av, "open", refuse)
    assert "Permission denied" in problem(path)
