"""A journal reads back as its session, up to the line under way."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.sessions.journal import Journal, load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped, Timings
from tests.sessions.disks import full_disk

BEGUN = SessionRecord(created="2026-01-02T03:04:05+00:00", clip="a.mp4", model="m", settings={"window": 4})


def second(index: int, text: str = "he scores") -> GenerationResult:
    timings, memory = Timings(1.0, 2.0, 3.0, 1.5, 6.0), Memory(1, 2, 3, 4, 5)
    return GenerationResult(index, float(index), index + 1.0, text, 3, 9, 40, 50, "why?", timings, memory, "a pause.")


def written(path: Path) -> SessionRecord:
    """Write a journal in which second 1 has two takes, and return its session."""
    record = BEGUN
    with Journal(path, record) as journal:
        for spoken in (second(0), second(1, "first"), second(1, "last")):
            journal.append_second(spoken)
            record = record.add(spoken)
        journal.append_skipped(Skipped(2, 2.0, 3.0))
        record = record.skip(Skipped(2, 2.0, 3.0))
        journal.append_settings({"window": 8})
    return replace(record, settings={"window": 8})


def test_a_journal_reads_back_as_its_session(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "game.jsonl"
    record = written(path)
    assert load_session(path) == record
    assert [s.text for s in record.takes] == ["first"]


def test_every_cut_of_a_journal_loses_one_second_at_most(tmp_path: Path) -> None:
    path, cut = tmp_path / "game.jsonl", tmp_path / "cut.jsonl"
    written(path)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for end in range(header, len(content) + 1):
        cut.write_bytes(content[:end])
        kept = load_session(cut)
        whole = content[header:end].count(b"\n")
        assert len(kept.seconds) + len(kept.takes) == min(whole, 3)


@given(text=st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("journal") / "game.jsonl"
    with Journal(path, BEGUN) as journal:
        journal.append_second(second(0, text))
    assert load_session(path).seconds[0].text == text


def test_a_path_with_broken_bytes_survives(tmp_path: Path) -> None:
    path = tmp_path / "game.jsonl"
    with Journal(path, replace(BEGUN, clip="caf\udce9.mp4")):
        pass
    assert load_session(path).clip == "caf\udce9.mp4"


def test_a_journal_is_never_begun_over_another(tmp_path: Path) -> None:
    path = tmp_path / "game.jsonl"
    path.write_text("mine")
    with pytest.raises(SvmError, match="cannot be written: File exists"):
        Journal(path, BEGUN)
    assert path.read_text() == "mine"


def test_a_journal_can_be_discarded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "game.jsonl", BEGUN)
    journal.discard()
    assert not journal.path.exists()


@pytest.mark.parametrize(
    "content", ["no json\n", "[]\n", '{"version": 99}\n', '{"version": 1}\n{"spoken": {"index": 1}}\n']
)
def test_a_file_that_is_not_a_journal_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "game.jsonl"
    path.write_text(content)
    with pytest.raises(SvmError, match=r"game\.jsonl: .*choose the journal"):
        load_session(path)


def test_an_empty_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "game.jsonl"
    path.touch()
    with pytest.raises(SvmError, match=r"game\.jsonl is empty: its session ended before the first second"):
        load_session(path)


def test_the_ending_tells_a_journal_from_a_session(tmp_path: Path) -> None:
    path = tmp_path / "game.json"
    path.write_text(BEGUN.add(second(0)).to_json())
    assert load_session(path).seconds == (second(0),)
    with pytest.raises(SvmError, match="cannot be read"):
        load_session(tmp_path / "absent.jsonl")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "game.jsonl"
    with Journal(path, BEGUN) as journal:
        journal.append_second(second(0))
        with full_disk(path), pytest.raises(SvmError, match=r"game\.jsonl cannot be written: File too large"):
            journal.append_second(second(1))
