"""Sessions on their way to disk: places, names, and what cannot be written."""

from pathlib import Path

import pytest
import srt
import webvtt

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.shipped import SAMPLE
from streaming_vlm_mlx.stream.events import Skipped
from tests.player.fakes import RECORD, second_done
from tui.player.session_log import SessionLog, free_names
from tui.session_paths import base_paths


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
    session.add(second_done(0, "first"))
    paths = session.save()
    session.add(second_done(1, "second"))
    assert session.save() == paths
    assert [cue.content for cue in srt.parse(paths[0].read_text())] == ["first", "second"]


def test_where_nothing_was_said_nothing_is_written(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.skip(Skipped(0, 0.0, 1.0))
    assert session.save() == ()


def test_a_place_that_can_not_be_written_gives_way_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = log(tmp_path / "file" / "game", tmp_path / "refuge" / "game")
    session.add(second_done(0))
    assert session.save() == (tmp_path / "refuge" / "game.vtt", tmp_path / "refuge" / "game.json")


def test_with_no_place_at_all_the_session_stays_in_memory_and_that_is_told_once(tmp_path: Path) -> None:
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


def test_a_second_with_a_take_is_not_passed_over(tmp_path: Path) -> None:
    session = log(tmp_path / "game")
    session.add(second_done(3))
    session.skip(Skipped(3, 3.0, 4.0))
    session.skip(Skipped(4, 4.0, 5.0))
    session.skip(Skipped(4, 4.0, 5.0))
    assert [s.index for s in session.record.skipped] == [4]


def test_free_names_share_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.b.json").write_text("")
    assert free_names(tmp_path / "a.b", [".vtt", ".json"]) == (tmp_path / "a.b-2.vtt", tmp_path / "a.b-2.json")


def test_sessions_lie_beside_their_clip_or_where_they_are_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    clip, created = tmp_path / "my.clip.mp4", "2026-01-02T03:04:05+00:00"
    clip.write_text("")
    fallback_path = tmp_path / "state" / "svm-tui" / "sessions"
    assert base_paths(None, str(clip), created) == (
        tmp_path / "my.clip.20260102-030405",
        fallback_path / "my.clip.20260102-030405",
    )
    assert base_paths(tmp_path / "x.srt", str(clip), created)[0] == tmp_path / "x"
    for sample in (SAMPLE, SAMPLE.parent / ".." / "sample" / SAMPLE.name):
        assert base_paths(None, str(sample), created) == (fallback_path / "match.20260102-030405",)
    assert base_paths(None, "rtsp://camera/1", created) == (fallback_path / "1.20260102-030405",)
    assert base_paths(None, "lavfi:testsrc=rate=30", created) == (
        fallback_path / "lavfi-testsrc-rate-30.20260102-030405",
    )
