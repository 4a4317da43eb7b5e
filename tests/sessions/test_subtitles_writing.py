import errno
import json
from pathlib import Path

import av
import pytest
import srt
import webvtt
from av.subtitles.subtitle import AssSubtitle

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.mp4 import write_mp4
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import FORMATS, check_replaceable, exported_clip, find_format, write
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.video.clips import make_clip

RECORD = SessionRecord(clip="match.mp4", seconds=(GenerationResult(0, 0.0, 1.0, "The crowd"),))


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("a.vtt", "WEBVTT\n"),
        ("a.srt", "1\n00:00:00,000"),
        ("a.JSON", "{"),
        ("b c.txt", "# svm-tui: commentary on match.mp4\n00:00:00  The crowd"),
    ],
)
def test_the_name_chooses_the_format(tmp_path, name, beginning):
    write(tmp_path / name, RECORD)
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(beginning)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_json_is_the_record(tmp_path):
    write(tmp_path / "a.json", RECORD)
    assert SessionRecord.load(tmp_path / "a.json") == RECORD


@pytest.mark.parametrize("name", ["a.ass", "a", "a.vtt.gz", ".vtt"])
def test_an_unknown_format_names_the_known_ones(tmp_path, name):
    with pytest.raises(SvmError, match=r"has no known format; .* \.vtt, \.srt, \.json, \.txt\.$"):
        write(tmp_path / name, RECORD)
    assert list(tmp_path.iterdir()) == []


def test_the_format_can_be_asked_before_a_long_run():
    assert find_format(Path("later/a.srt"))(RECORD, False).startswith("1\n")


@pytest.mark.parametrize("ending", FORMATS)
def test_broken_bytes_in_names_and_texts_do_not_lose_a_session(tmp_path, ending):
    second = GenerationResult(0, 0.0, 1.0, "go\udcffal", query="wh\ud800o")
    write(tmp_path / f"a{ending}", SessionRecord(clip="\udcfe.mp4", seconds=(second,)))
    text = (tmp_path / f"a{ending}").read_text(encoding="utf-8")
    assert "go\ufffdal" in text or json.loads(text)["clip"] == "\udcfe.mp4"


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.vtt"
    path.write_text("the old one")
    whole = Path.write_text

    def half(self, text, **options):
        whole(self, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(SvmError, match=r"a\.vtt cannot be written: No space left on device"):
        write(path, RECORD)
    assert path.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.vtt"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a.vtt").mkdir()
    with pytest.raises(SvmError, match="is not a regular file"):
        write(tmp_path / "a.vtt", RECORD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.vtt"]
    assert list((tmp_path / "a.vtt").iterdir()) == []


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SvmError, match=r"out/a\.vtt cannot be written"):
        write(tmp_path / "out" / "a.vtt", RECORD)
    assert (tmp_path / "out").read_text() == "a file"


def test_missing_folders_are_made(tmp_path):
    write(tmp_path / "new" / "folder" / "a.txt", RECORD)
    assert (tmp_path / "new" / "folder" / "a.txt").is_file()


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("/films/match.mp4", "match.mp4"),
        ("a --> b\n.mp4", "a → b .mp4"),
        ("https://example.com/live.m3u8?key=secret", "live.m3u8"),
        ("https://user:secret@[", "https"),
        ("rtsp://admin:secret@camera.local:554/", "camera.local"),
        ("/dev/video0", "video0"),
    ],
)
def test_an_export_names_its_clip(tmp_path, ending, clip, name):
    path = tmp_path / f"a{ending}"
    write(path, SessionRecord(clip=clip, seconds=RECORD.seconds))
    assert exported_clip(path) == name


def test_other_programs_do_not_see_the_mark(tmp_path):
    for ending in (".vtt", ".srt"):
        write(tmp_path / f"a{ending}", RECORD)
    subtitles = list(srt.parse((tmp_path / "a.srt").read_text()))
    assert [(s.index, s.end.total_seconds(), s.content) for s in subtitles] == [(1, 1.0, "The crowd")]
    for captions in (webvtt.read(tmp_path / "a.vtt"), webvtt.from_srt(tmp_path / "a.srt")):
        assert [(c.end, c.text) for c in captions] == [("00:00:01.000", "The crowd")]
    for ending in (".vtt", ".srt"):
        with av.open(tmp_path / f"a{ending}") as container:
            (cue,) = (part for packet in container.demux(subtitles=0) for part in packet.decode())
        assert isinstance(cue, AssSubtitle)
        assert cue.dialogue == b"The crowd"


def test_a_clip_with_subtitles_is_an_export_too(tmp_path):
    clip = make_clip(tmp_path / "match.mp4", count=10, rate=10)
    assert exported_clip(clip) is None
    write_mp4(tmp_path / "a.mp4", str(clip), RECORD.seconds)
    assert exported_clip(tmp_path / "a.mp4") == "match.mp4"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.vtt", "WEBVTT\n\nNOTE by hand\n\n00:00.000 --> 00:01.000\nThe crowd\n"),
        ("a.srt", "1\n00:00:00,000 --> 00:00:01,000\nThe crowd\n"),
        ("a.txt", "00:00:00  The crowd\n"),
        ("a.json", '{"segments": []}'),
        ("a.json", "not JSON"),
        ("a.mp4", "not a film"),
    ],
)
def test_only_an_earlier_export_of_the_clip_is_replaced(tmp_path, name, content):
    path = tmp_path / name
    check_replaceable(path, "match.mp4")
    path.touch()
    check_replaceable(path, "match.mp4")
    path.write_text(content)
    with pytest.raises(SvmError, match=r"exists and is not an earlier export of match\.mp4; .* with --force"):
        check_replaceable(path, "match.mp4")
    check_replaceable(path, "match.mp4", force=True)
    if path.suffix in FORMATS:
        write(path, RECORD)
        check_replaceable(path, "/elsewhere/match.mp4")
        with pytest.raises(SvmError, match="not an earlier export of other"):
            check_replaceable(path, "other.mp4")
