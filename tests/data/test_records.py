from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.data import records as record_file
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError


def record(number: int, seconds: int = 1) -> StreamingRecord:
    turns = tuple(Turn(float(s), s + 1.0, "", f"\n w{number} ...") for s in range(seconds))
    return StreamingRecord(f"{number}.mp4", 0.0, float(seconds), turns)


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "r.jsonl", [record(n, n + 1).to_line() for n in range(4)])


def test_records_by_number(path: Path) -> None:
    records = RecordFile.open(path)
    assert len(records) == 4
    assert [records[n].video for n in (3, 0, 2)] == [str(path.parent / f"{n}.mp4") for n in (3, 0, 2)]
    assert records.turns.tolist() == [1, 2, 3, 4]


def test_a_record_knows_its_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [record(0).to_line(), b"\n", b"{\n", record(1).to_line()])
    for records in (RecordFile.open(path), RecordFile.open(path)):
        assert [r.source for r in records] == [f"{path}:1", f"{path}:4"]


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    line = StreamingRecord("/clips/a.mp4", 0.0, 1.0, record(0).turns).to_line()
    assert RecordFile.open(write(tmp_path / "r.jsonl", [line]))[0].video == "/clips/a.mp4"


def test_the_index_saves_the_second_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RecordFile.open(path)
    monkeypatch.setattr(record_file, "line_starts", None)
    again = RecordFile.open(path)
    assert again.offsets.tolist() == first.offsets.tolist()
    assert again[2] == first[2]


def test_an_index_of_another_state_is_not_used(path: Path) -> None:
    RecordFile.open(path)
    write(path, [record(9).to_line()])
    assert [r.video for r in RecordFile.open(path)] == [str(path.parent / "9.mp4")]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no index"])
def test_a_broken_index_is_made_anew(path: Path, content: bytes) -> None:
    index = path.with_name("r.jsonl.index.npz")
    index.write_bytes(content)
    assert len(RecordFile.open(path)) == 4
    with np.load(index) as saved:
        assert len(saved["offsets"]) == 4


def test_a_folder_that_can_not_be_written_costs_only_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise SvmError("read-only")

    monkeypatch.setattr(record_file, "replacing", refuse)
    assert len(RecordFile.open(path)) == 4
    assert not path.with_name("r.jsonl.index.npz").exists()


def test_bad_lines_are_named_once_and_for_all(tmp_path: Path) -> None:
    lines = [record(0).to_line(), b"\n", b"{\n", record(1).to_line(), b"[]"]
    path = write(tmp_path / "r.jsonl", lines)
    for records in (RecordFile.open(path), RecordFile.open(path)):
        assert [r.video for r in records] == [str(tmp_path / "0.mp4"), str(tmp_path / "1.mp4")]
        assert records.skipped_count == 2
        assert records.skipped[0].startswith(f"{path}:3: not JSON")
        assert records.skipped[1].startswith(f"{path}:5: not a record")


def test_many_bad_lines_are_counted_not_kept(tmp_path: Path) -> None:
    records = RecordFile.open(write(tmp_path / "r.jsonl", [record(0).to_line(), *[b"{}\n"] * 300]))
    assert (records.skipped_count, len(records.skipped)) == (300, 100)


def test_a_newer_record_refuses_the_file(tmp_path: Path) -> None:
    newer = record(1).to_line().replace(b'"version":1', b'"version":9')
    path = write(tmp_path / "r.jsonl", [record(0).to_line(), newer])
    with pytest.raises(SvmError, match=rf"{path}:2: the record has version 9"):
        RecordFile.open(path)


@pytest.mark.parametrize("content", [b"", b"{}\n"])
def test_a_file_without_records(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SvmError, match=r"has no valid record.*svm-tui convert"):
        RecordFile.open(write(tmp_path / "r.jsonl", [content]))


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="cannot be read"):
        RecordFile.open(tmp_path / "absent.jsonl")


def test_a_file_that_changes_in_use(path: Path) -> None:
    records = RecordFile.open(path)
    write(path, [b"{}\n"])
    with pytest.raises(SvmError, match="changed while it was in use"):
        records[2]
