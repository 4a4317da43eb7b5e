import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data import records as record_file
from streaming_vlm_mlx.data.json_fields import BadSampleError
from streaming_vlm_mlx.data.records import VERSION, NewerRecordError, RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.video_file import open_video


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


@pytest.mark.parametrize("name", ["/clips/a.mp4", "../a.mp4", "a/../../a.mp4", "/etc/passwd", "{tmp}2/a.mp4"])
def test_a_video_outside_of_the_folder_is_refused_unless_it_is_allowed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name.format(tmp=tmp_path)
    line = StreamingRecord(name, 0.0, 1.0, record(0).turns).to_line()
    records = RecordFile.open(write(tmp_path / "r.jsonl", [line]))
    monkeypatch.delenv("DATASET_PATH", raising=False)
    with pytest.raises(SvmError, match=r"r.jsonl:1 names .*, which is not below .*; to allow that, set DATASET_PATH"):
        records[0]
    video = os.path.normpath(tmp_path / name)
    # Who only compares the name may have any.
    assert os.path.normpath(RecordFile.open(records.path, opens_videos=False)[0].video) == video
    monkeypatch.setenv("DATASET_PATH", str(Path(video).parent))
    assert records[0].video == video


@pytest.mark.parametrize("name", ["a.mp4", "{tmp}/a.mp4", "{tmp}/b/../a.mp4", "b/../a.mp4", "..a.mp4"])
def test_a_video_below_the_folder_is_found(name: str, tmp_path: Path) -> None:
    name = name.format(tmp=tmp_path)
    line = StreamingRecord(name, 0.0, 1.0, record(0).turns).to_line()
    assert RecordFile.open(write(tmp_path / "r.jsonl", [line]))[0].video == os.path.normpath(tmp_path / name)


@pytest.mark.parametrize("name", ["lavfi:testsrc", "avfoundation:0", "http://127.0.0.1/leak", "a/../lavfi:movie=x"])
def test_a_record_names_files_and_neither_devices_nor_addresses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = StreamingRecord(name, 0.0, 1.0, record(0).turns).to_line()
    write(tmp_path / "r.jsonl", [line])
    monkeypatch.chdir(tmp_path)
    video = RecordFile.open(Path("r.jsonl"))[0].video
    assert video == os.path.normpath(tmp_path / name)
    with pytest.raises(SvmError, match="does not exist"):
        open_video(video)


def test_a_record_that_names_a_camera_is_refused(tmp_path: Path) -> None:
    line = StreamingRecord("/dev/video0", 0.0, 1.0, record(0).turns).to_line()
    records = RecordFile.open(write(tmp_path / "r.jsonl", [line]))
    with pytest.raises(SvmError, match=r"r.jsonl:1 names /dev/video0, a device; name devices on the command line."):
        records[0]


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
def test_a_broken_index_is_rebuilt(path: Path, content: bytes) -> None:
    index = path.with_name("r.jsonl.index.npz")
    index.write_bytes(content)
    assert len(RecordFile.open(path)) == 4
    with np.load(index) as saved:
        assert len(saved["offsets"]) == 4


def test_a_folder_that_cannot_be_written_costs_only_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, "MOST_UNREADABLE", 3)
    path = write(tmp_path / "r.jsonl", [b"{}\n"] * 3 + [record(0).to_line()])
    for _ in range(2):
        with pytest.raises(SvmError, match=r"has no valid record in its first 3 lines \(.*r.jsonl:1: not a record"):
            RecordFile.open(path)
    assert len(RecordFile.open(write(path, [b"{}\n"] * 2 + [record(0).to_line()] + [b"{}\n"] * 9))) == 1


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="cannot be read"):
        RecordFile.open(tmp_path / "absent.jsonl")


def test_a_file_that_changes_in_use(path: Path) -> None:
    records = RecordFile.open(path)
    write(path, [b"{}\n"])
    with pytest.raises(SvmError, match="changed while it was in use"):
        records[2]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
times = st.floats(0, 1e6)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    start = draw(times)
    end = start + draw(st.floats(0.5, 10))
    tokens = draw(st.none() | st.integers(0, 10_000))
    return Turn(start, end, draw(texts), draw(texts), draw(texts), draw(texts), tokens)


@st.composite
def records(draw: st.DrawFn) -> StreamingRecord:
    start = draw(times)
    return StreamingRecord(
        video=draw(texts),
        video_start=start,
        video_end=start + draw(st.floats(0.5, 1e4)),
        turns=tuple(draw(st.lists(turns(), min_size=1, max_size=4))),
        previous=draw(texts),
        query=draw(texts),
        fps=float(draw(st.integers(1, 60))),
        width=draw(st.integers(0, 8192)),
        height=draw(st.integers(0, 8192)),
    )


@given(records())
def test_a_record_comes_back_from_its_line(record: StreamingRecord) -> None:
    line = record.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert StreamingRecord.from_line(line) == record


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn(0, 1, "", "\n ..."), ""),
        (Turn(0, 1, "", "\n The crowd ..."), "The crowd"),
        (Turn(0, 1, "", "It is.\n the pitch ...", "Is it?", "It is."), "the pitch"),
        (Turn(0, 1, "", "It is.\n ...", "Is it?", "It is."), ""),
        (Turn(0, 1, "", "\n wait ... what ..."), "wait ... what"),
    ],
)
def test_the_commentary_is_what_is_said_beside_the_answer(turn: Turn, said: str) -> None:
    assert turn.commentary == said


def line(**changes: Any) -> bytes:
    turn = {"start": 0.0, "end": 1.0, "user_text": "Time=0.0-1.0s", "assistant_text": "\n ..."}
    values = {"version": VERSION, "video": "a.mp4", "video_start": 0.0, "video_end": 1.0, "turns": [turn]}
    values |= changes
    return json.dumps({key: value for key, value in values.items() if value is not ...}).encode()


def test_keys_that_may_be_missing_and_keys_that_nobody_knows() -> None:
    record = StreamingRecord.from_line(line(rating=5))
    assert (record.previous, record.query, record.fps, record.width) == ("", "", 2.0, 0)


TURN = {"start": 0.0, "end": 1.0, "user_text": "", "assistant_text": ""}


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a record: a list"),
        (b"{}", "version is None"),
        (line(version=True), "version is True"),
        (line(version=0), "version is 0"),
        (line(video=...), "missing key: video"),
        (line(video=7), "video is 7"),
        (line(video_start="0"), "video_start is '0'"),
        (line(video_start=float("nan")), "video_start is nan"),
        (line(video_end=10**400), "video_end is 1000"),
        (line(video_end=-1), "video_end is -1"),
        (line(video_end=True), "video_end is True"),
        (line(video_start=1.0), "reversed times: 1.0 to 1.0"),
        (line(turns=[]), "no turns"),
        (line(turns="no"), "no turns"),
        (line(turns=[5]), "malformed turn: 5"),
        (line(turns=[{**TURN, "assistant_text": None}]), "missing key: assistant_text"),
        (line(turns=[{**TURN, "end": 0.0}]), "reversed times: 0.0 to 0.0"),
        (line(turns=[{**TURN, "vision_tokens": -3}]), "vision_tokens is -3"),
        (line(fps=0.5), "fps is 0.5"),
        (line(fps=2.5), "fps is 2.5"),
        (line(width=-1), "width is -1"),
        (line(width=1.5), "width is 1.5"),
        (line(query="\U0001f3c0" * 1_000_100), "text too long: it has more than 1,000,000 characters"),
        (line(turns=[{**TURN, "user_text": "a " * 600_000}]), "text too long"),
        (line(previous="a" * 500_000, turns=[{**TURN, "assistant_text": "a" * 600_000}]), "text too long"),
        (line(query="\ud800"), "half a surrogate pair"),
    ],
)
def test_what_is_no_record_is_named(broken: bytes, problem: str) -> None:
    with pytest.raises(BadSampleError, match=r"^[^\n]*$") as error:
        StreamingRecord.from_line(broken)
    assert problem in str(error.value)


def test_a_day_of_commentary_can_be_a_record() -> None:
    turns = [{**TURN, "user_text": "Time=86399.0-86400.0s", "assistant_text": "\n he scores ..."}] * 86_400
    assert len(StreamingRecord.from_line(line(turns=turns)).turns) == 86_400


def test_a_newer_record_is_refused() -> None:
    with pytest.raises(NewerRecordError, match=f"version {VERSION + 1}, newer than {VERSION}; update svm-tui"):
        StreamingRecord.from_line(line(version=VERSION + 1, turns="of another kind"))


def test_half_a_surrogate_pair_is_not_written() -> None:
    with pytest.raises(BadSampleError, match="half a surrogate pair"):
        StreamingRecord("a.mp4", 0.0, 1.0, (Turn(0.0, 1.0, "", "\udc80"),)).to_line()
