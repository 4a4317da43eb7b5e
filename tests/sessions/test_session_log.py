"""Sessions on their way to disk: places, names, journals, and disks that cannot be written."""

from pathlib import Path

import pytest
import srt
import webvtt

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.session_log import SessionLog, free_names
from streaming_vlm_mlx.stream.events import Skipped
from tests.player.fakes import RECORD, second_done
from tests.sessions.disks import full_disk


def log(*places: Path, warned: list[str] | None = None, endings: tuple[str, ...] = (".vtt", ".json")) -> SessionLog:
    return SessionLog(RECORD, places, ([] if warned is None else warned).append, endings)


def test_a_session_is_saved_and_its_journal_goes(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.add(second_done(0, "he scores", "who?"))
    session.skip(Skipped(1, 1.0, 2.0))
    session.configure({"window": 3})
    assert load_session(tmp_path / "game.jsonl") == session.record
    assert session.save() == (tmp_path / "game.vtt", tmp_path / "game.json")
    session.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["game.json", "game.vtt"]
    assert load_session(tmp_path / "game.json") == session.record
    assert [cue.text for cue in webvtt.read(str(tmp_path / "game.vtt"))] == ["he scores"]


def test_an_older_session_is_never_written_over(tmp_path: Path) -> None:
    for name in ("game.vtt", "game-2.json"):
        (tmp_path / name).write_text("older")
    session = log(tmp_path / "game")
    session.add(second_done(0))
    assert session.save() == (tmp_path / "game-3.vtt", tmp_path / "game-3.json")
    assert (tmp_path / "game.vtt").read_text() == "older"


def test_saving_again_writes_the_same_files(tmp_path: Path) -> None:
    session = log(tmp_path / "game", endings=(".srt",))
    session.add(second_done(0, "first."))
    paths = session.save()
    session.add(second_done(1, "second"))
    assert session.save() == paths
    assert [cue.content for cue in srt.parse(paths[0].read_text())] == ["first.", "second"]


def test_a_session_without_results_leaves_no_file(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.skip(Skipped(0, 0.0, 1.0))
    session.configure({"window": 3})
    session.fail("the model stopped.")
    assert session.save() == ()
    session.close()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_holds_what_came_before_its_first_second_and_the_failure_after(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.skip(Skipped(0, 0.0, 1.0))
    session.configure({"window": 3})
    session.add(second_done(1))
    session.fail("the model stopped.")
    kept = load_session(tmp_path / "game.jsonl")
    assert kept == session.record
    assert (len(kept.skipped), kept.settings, kept.failure) == (1, {"window": 3}, "the model stopped.")


def test_a_journal_stays_for_what_came_after_the_last_save(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.add(second_done(0))
    session.save()
    session.add(second_done(1))
    session.close()
    assert load_session(tmp_path / "game.jsonl") == session.record


def test_files_are_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "game.srt").write_text("older")
    session = SessionLog(RECORD, [tmp_path / "game"], print, [".srt"], tmp_path / "state" / "game", overwrite=True)
    session.add(second_done(0, "he scores"))
    assert (tmp_path / "state" / "game.jsonl").exists()
    assert session.save() == (tmp_path / "game.srt",)
    assert [cue.content for cue in srt.parse((tmp_path / "game.srt").read_text())] == ["he scores"]


def test_the_next_place_is_tried_where_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = log(tmp_path / "file" / "game", tmp_path / "state" / "game")
    session.add(second_done(0))
    assert session.save() == (tmp_path / "state" / "game.vtt", tmp_path / "state" / "game.json")


def test_with_no_place_at_all_the_session_stays_in_memory_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    warned: list[str] = []
    session = log(tmp_path / "file" / "game", warned=warned)
    session.add(second_done(0))
    session.add(second_done(1))
    assert len(warned) == 1
    assert warned[0].startswith("the journal ")
    with pytest.raises(SvmError, match="cannot be written"):
        session.save()
    assert len(session.record.seconds) == 2


def test_a_journal_goes_beside_the_session_where_its_own_place_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = SessionLog(RECORD, [tmp_path / "game"], print, [".srt"], tmp_path / "file" / "game", overwrite=True)
    session.add(second_done(0))
    assert load_session(tmp_path / "game.jsonl") == session.record


def test_a_disk_that_fills_up_ends_the_journal_with_one_warning(tmp_path: Path) -> None:
    warned: list[str] = []
    session = log(tmp_path / "game", warned=warned)
    session.add(second_done(0))
    with full_disk(tmp_path / "game.jsonl"):
        session.add(second_done(1))
        session.add(second_done(2))
    assert len(warned) == 1
    assert "game.jsonl cannot be written: File too large" in warned[0]
    assert len(session.record.seconds) == 3
    session.save()
    session.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["game.json", "game.vtt"]


def test_where_neither_journal_nor_files_can_be_finished_the_first_part_stays(tmp_path: Path) -> None:
    session = log(tmp_path / "game", endings=(".nonsense",))
    session.add(second_done(0))
    with full_disk(tmp_path / "game.jsonl"):
        session.add(second_done(1))
    with pytest.raises(SvmError, match=r"The first part of the session is in .*game\.jsonl"):
        session.save()
    session.close()
    assert [s.index for s in load_session(tmp_path / "game.jsonl").seconds] == [0]


def test_a_journal_that_cannot_begin_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    warned: list[str] = []
    session = log(tmp_path / "game", warned=warned)
    with full_disk(tmp_path / "other"):
        session.add(second_done(0))
        session.add(second_done(1))
    assert len(warned) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_journal_stays_when_the_session_could_not_be_saved(tmp_path: Path) -> None:
    session = log(tmp_path / "game", endings=(".nonsense",))
    session.add(second_done(0))
    with pytest.raises(SvmError, match=r"The session is in .*game\.jsonl"):
        session.save()
    session.close()
    assert len(load_session(tmp_path / "game.jsonl").seconds) == 1


def test_a_session_that_is_not_kept_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = log()
    session.add(second_done(0))
    assert session.save() == ()
    assert list(tmp_path.iterdir()) == []


def test_a_second_with_a_result_is_not_skipped(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.add(second_done(3))
    session.skip(Skipped(3, 3.0, 4.0))
    session.skip(Skipped(4, 4.0, 5.0))
    session.skip(Skipped(4, 4.0, 5.0))
    assert [s.index for s in session.record.skipped] == [4]


def test_free_names_share_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.b.json").write_text("")
    assert free_names(tmp_path / "a.b", [".vtt", ".json"]) == (tmp_path / "a.b-2.vtt", tmp_path / "a.b-2.json")
