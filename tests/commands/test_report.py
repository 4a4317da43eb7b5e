"""The command ``report``: what it takes, what it writes, and what it refuses."""

import json
import os
import re
from pathlib import Path

import pytest

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.sessions.journal import Journal
from tests.report.made import session
from tests.video.clips import make_clip
from tui import cli
from tui.commands import validate
from tui.player.truth import find_truth

SRT = "1\n00:00:00,000 --> 00:00:02,000\nhe serves and scores\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "game.mp4", count=75, rate=30)


@pytest.fixture(autouse=True)
def state(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder; the model is one that comments on every second."""
    monkeypatch.setattr("tui.commands.options.CHECKPOINT", untrained)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.srt"
    path.write_text(SRT)
    return path


def make(out: Path, *words: object) -> tuple[str, dict]:
    """Run the command; return the page and the JSON."""
    assert cli.main(["report", *map(str, words), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8"), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run the command, which must fail with one line, and return that line."""
    assert cli.main(["report", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.rstrip()


def test_a_clip_gives_a_page_and_its_json(clip, truth, tmp_path, capsys):
    page, values = make(tmp_path / "r.html", clip, "--truth", truth, "--seed", "3")
    said = capsys.readouterr()
    assert said.out == ""
    assert "r.html written" in said.err
    (stretch,) = values["stretches"]
    assert stretch["end"] == 2.5
    assert [word for _, _, word in stretch["reference"]] == ["he", "serves", "and", "scores"]
    (heard,) = stretch["sessions"]
    assert len(heard["seconds"]) == 3
    assert heard["seconds"][0]["text"]
    assert heard["machine"]["device"]
    assert heard["settings"]["sampling"]["seed"] == 3
    (figures,) = values["figures"].values()
    assert figures["wer"] > 0
    assert figures["latency_ms"]["total"]["p95"] > 0
    assert figures["memory"]["process"] > 0
    assert values["command"].startswith("svm-tui report ")
    assert page.count("<img ") == 1
    for part in ("Word error rate", "serves", "Work a second", "sampling.seed", "game.mp4"):
        assert part in page
    # The session is in the report, and no journal is left.
    assert not list(tmp_path.glob("state/**/*.jsonl"))


def test_without_a_reference_there_are_no_scores(clip, tmp_path, monkeypatch):
    page, values = make(tmp_path / "r.html", clip, "--duration", "1", "--at", "0.5")
    assert "name one with --truth" in page
    (figures,) = values["figures"].values()
    assert figures["wer"] is None
    assert values["stretches"][0]["pictures"] == [0.5]


def test_the_checkpoint_of_the_package_is_said_to_know_matches_only(clip, tmp_path, untrained, monkeypatch, capsys):
    monkeypatch.setattr("streaming_vlm_mlx.shipped.CHECKPOINT", untrained)
    page, _ = make(tmp_path / "r.html", clip, "--duration", "1")
    assert len([line for line in capsys.readouterr().err.splitlines() if "knows simulated matches only" in line]) == 1
    assert "knows simulated matches only" in page


def test_sessions_and_reports_of_a_clip_stand_beside_each_other(clip, truth, tmp_path):
    make(tmp_path / "a.html", clip, "--truth", truth)
    saved = tmp_path / "b.json"
    saved.write_text(session("he serves", "and misses", clip=str(clip)).to_json())
    with Journal(tmp_path / "c.jsonl", session(clip=str(clip))) as journal:
        journal.append_second(session("he jumps").seconds[0])
    page, values = make(tmp_path / "all.html", tmp_path / "a.json", saved, tmp_path / "c.jsonl")
    assert list(values["figures"]) == ["a", "b", "c"]
    # The reference is that of the report; the pictures are those of the sessions' clip.
    assert values["figures"]["b"]["wer"] == pytest.approx(1 / 4)
    assert '<mark class="added">misses</mark>' in page
    assert "<img " in page


def test_a_session_whose_clip_is_gone_has_no_pictures(tmp_path, capsys):
    saved = tmp_path / "b.json"
    saved.write_text(session("he serves", clip="/gone/away.mp4").to_json())
    page, _ = make(tmp_path / "r.html", saved)
    assert "<img " not in page
    assert "away.mp4 is not there" in page
    assert "away.mp4 is not there" in capsys.readouterr().err


def test_records_give_a_table_of_stretches_and_a_broken_one_is_named(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_PATH", os.path.commonpath([clip, tmp_path]))
    turns = (Turn(0.0, 1.0, "Time=0.0-1.0s", "\n he serves ..."), Turn(1.0, 2.0, "Time=1.0-2.0s", "\n ..."))
    found = StreamingRecord(str(clip), 0.0, 2.0, turns)
    gone = StreamingRecord(str(tmp_path / "gone.mp4"), 0.0, 2.0, turns)
    path = tmp_path / "r.jsonl"
    path.write_bytes(found.to_line() + gone.to_line() + found.to_line())
    page, values = make(tmp_path / "r.html", path)
    assert [stretch["name"] for stretch in values["stretches"]] == ["r.jsonl:0", "r.jsonl:2"]
    assert "Stretch by stretch" in page
    assert "r.jsonl:1 is left out" in page
    assert "team accuracy" not in page.lower()
    assert cli.main(["report", str(path), "--out", str(tmp_path / "s.html"), "--truth", str(path)]) == 2


def test_matches_are_measured_against_what_happened(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_matches = validate.open_matches
    monkeypatch.setattr(validate, "open_matches", lambda seeds: open_matches(seeds, 10.0, 4))
    page, values = make(tmp_path / "r.html", "--matches", "1")
    assert "Team accuracy" in page
    assert values["stretches"][0]["name"] == f"match_{validate.FIRST}"


def test_ctrl_c_keeps_the_seconds_so_far(clip, tmp_path, monkeypatch, capsys):
    from streaming_vlm_mlx.sessions.session_log import SessionLog

    add = SessionLog.add

    def stop(self, second):
        add(self, second)
        if second.index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(SessionLog, "add", stop)
    out = tmp_path / "r.html"
    assert cli.main(["report", str(clip), "--out", str(out)]) == 130
    values = json.loads(out.with_suffix(".json").read_text())
    assert len(values["stretches"][0]["sessions"][0]["seconds"]) == 2
    assert "A session ended early" in out.read_text()


def test_a_report_beside_a_clip_is_not_taken_for_its_transcript(tmp_path):
    clip = make_clip(tmp_path / "game.mp4", count=30, rate=30)
    make(tmp_path / "game.html", clip)
    assert find_truth(str(clip)) is None
    make(tmp_path / "game.html", clip)


def test_other_files_are_not_replaced(clip, truth, tmp_path, capsys):
    (tmp_path / "truth.json").write_text('{"words": []}')
    assert "truth.json exists and is not an earlier report" in refusal(capsys, clip, "--out", tmp_path / "truth.html")
    saved = tmp_path / "b.json"
    saved.write_text(session("a", clip=str(clip)).to_json())
    line = refusal(capsys, saved, "--out", tmp_path / "b.html", "--force")
    assert "b.json is an input of this run" in line
    assert json.loads(saved.read_text())["clip"] == str(clip)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{clip}", "--out", "{tmp}/r.txt"], r"end it with \.html"),
        (["{clip}", "{clip}"], "a report is on one clip"),
        (["{tmp}/none.mp4"], r"none\.mp4 does not exist"),
        (["{tmp}/none.json"], r"none\.json cannot be read"),
        (["{tmp}/none.jsonl"], r"none\.jsonl"),
        (["{clip}", "--matches", "1"], "leave out"),
        (["--matches", "0"], "--matches must be at least 1"),
        (["{clip}", "--clip", "{clip}"], "--clip has no effect"),
        (["{clip}", "--duration", "1", "--at", "7"], "--at is 7"),
        (["{tmp}/b.json", "--ckpt", "x"], "--ckpt has no effect"),
        (["{tmp}/b.json", "{tmp}/other.json"], "is on game.mp4, .*other.json on other.mp4"),
        (["{tmp}/b.json", "--at", "7"], "--at is 7"),
        (["{tmp}/empty.json"], "has no commentary"),
        (["{tmp}/b.json", "--clip", "{tmp}/none.mp4"], r"none\.mp4 does not exist"),
    ],
)
def test_bad_input_is_one_line_that_names_it(words, message, clip, tmp_path, capsys):
    (tmp_path / "b.json").write_text(session("a", clip=str(clip)).to_json())
    (tmp_path / "other.json").write_text(session("a", clip="other.mp4").to_json())
    (tmp_path / "empty.json").write_text(session(clip=str(clip)).to_json())
    words = [word.format(tmp=tmp_path, clip=clip) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "r.html")]
    line = refusal(capsys, *words, *out)
    assert re.search(message, line), line
    assert not (tmp_path / "r.html").exists()
