import errno
import json
from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import FORMATS, find_format, write
from streaming_vlm_mlx.stream.events import GenerationResult

RECORD = SessionRecord(clip="match.mp4", seconds=(GenerationResult(0, 0.0, 1.0, "The crowd"),))


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("a.vtt", "WEBVTT\n"), ("a.srt", "1\n00:00:00,000"), ("a.JSON", "{"), ("b c.txt", "00:00:00  The crowd")],
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
    assert find_format(Path("later/a.srt"))(RECORD).startswith("1\n")


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
