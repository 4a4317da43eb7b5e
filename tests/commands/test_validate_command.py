"""`validate` reports how good a checkpoint is in a table and a file, however the run ends."""

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.matches.tennis.questions import DESCRIPTION, descriptions, questions
from streaming_vlm_mlx.stream.events import Event, Failed, Ready
from streaming_vlm_mlx.video.chunk import Chunk
from tests.player.fakes import second_done
from tests.video.clips import make_clip
from tui import cli
from tui.commands import validate

SEED = 900_000
TEXT_FIGURES = ("wer", "rouge_l", "words_per_second", "silence")
TENNIS_FIGURES = ("team_accuracy", "event_recall", "event_precision", "event_precision_shuffled", "score_accuracy")
FIGURES = (*TEXT_FIGURES, *TENNIS_FIGURES)
# Ten seconds, within which a point ends and its score is called.
SECONDS = 10.0
SHORT = ("--seconds", str(SECONDS), "--fps", "4")


class Knowing:
    """Says the true words of matches from `SEED` on, one after another; nothing where it sees one colour alone.

    It answers every question with what there is to be seen, before its commentary.

    Attributes:
        plays: how many were begun.
        interrupt_at: the play in which Ctrl-C is pressed.
        closed: whether it was closed.
    """

    def __init__(self) -> None:
        self.plays, self.interrupt_at, self.closed = 0, -1, False
        self.config = StreamConfig()
        self.failure = self.question = ""

    def configure(self, config: StreamConfig) -> None:
        self.config = config

    async def reset(self) -> None:
        pass

    def ask(self, question: str) -> None:
        self.question = question

    async def play(
        self, chunks: Iterable[Chunk], due: Callable[[float, float], Awaitable[bool]], skips: bool
    ) -> AsyncGenerator[Event]:
        assert not skips
        if self.failure:
            yield Failed(self.failure)
            return
        yield Ready("knowing", 1)
        number = (self.plays - 1) // 2
        self.plays += 1
        truth = TennisMatch(SEED + number, SECONDS, 4).truth("m.mp4") if number >= 0 else None
        for chunk in chunks:
            if self.plays - 1 == self.interrupt_at:
                raise KeyboardInterrupt
            assert truth is not None
            assert await due(chunk.start, chunk.end)
            words = " ".join(w.text for w in truth.words if chunk.start <= w.start < chunk.end)
            question, self.question = self.question, ""
            if question:
                words = f"{descriptions(truth)[chunk.index][3]}\n{words}"
            yield second_done(chunk.index, words if np.ptp(chunk.frames) > 9 else "", question)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> Knowing:
    engine = Knowing()
    monkeypatch.setattr(validate, "make_engine", lambda *_: (engine, "knowing"))
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matches")


@pytest.fixture
def ask(folder: Path, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Validate on matches of ten seconds; return the status and what was written."""

    def run(count: int, *words: str) -> tuple[int, dict[str, Any]]:
        out = tmp_path / "v.json"
        where = ["--matches", str(count), "--folder", str(folder), *SHORT, "--json", str(out), *words]
        status = cli.main(["validate", *where])
        return status, json.loads(out.read_text()) if out.is_file() else {}

    return run


def test_the_truth_scores_full_marks_and_nothing_without_pictures(knowing, ask, capsys):
    status, values = ask(2)
    assert status == 0
    assert set(FIGURES) <= set(values)
    assert set(FIGURES) <= set(values["grey"])
    assert (values["team_accuracy"], values["score_accuracy"], values["wer"], values["rouge_l"]) == (1, 1, 0, 1)
    assert (values["grey"]["team_accuracy"], values["grey"]["wer"], values["grey"]["silence"]) == (0, 1, 1)
    assert values["seeds"] == [SEED, SEED + 1]
    assert [row["name"] for row in values["cases"]] == [f"match_{SEED}", f"match_{SEED + 1}"]
    assert values["settings"]["stream"]["style"] == "training"
    assert values["versions"]["mlx"]
    assert values["complete"] is True
    assert values["seconds_per_second"] == 0.25
    said = capsys.readouterr()
    assert "knowing: 2 measured" in said.out
    row = next(line for line in said.out.splitlines() if "team accuracy" in line)
    assert "1.000" in row
    assert "0.000" in row
    assert "knows simulated matches only" not in said.err
    assert values["latency_ms"]["total"] == {"p50": 250, "p95": 250, "max": 250}
    assert values["memory"]["process"] > values["memory"]["cache_bytes"] > 0
    assert re.search(r"all work +\S+ 250 ", said.out)
    assert "Memory, at most" in said.out
    assert "v.json written" in said.err
    assert knowing.closed


def test_a_viewer_is_answered_and_the_commentary_measured_without_the_answers(knowing, ask, capsys):
    status, values = ask(2, "--ask", "1")
    assert status == 0
    asked = [q for n in (SEED, SEED + 1) for q in questions(TennisMatch(n, SECONDS, 4).truth("m.mp4"), 1)]
    assert sum(kind["asked"] for kind in values["answers"].values()) == len(asked) == 20
    assert values["answers"]["description"] == {"asked": sum(q[2] == DESCRIPTION for q in asked), "right": 1}
    assert {kind["right"] for name, kind in values["answers"].items() if name != "description"} == {0}
    assert {kind["right"] for kind in values["grey"]["answers"].values()} == {0}
    assert (values["wer"], values["team_accuracy"]) == (0, 1)
    assert len(values["cases"][0]["answered"]) == 10
    assert "answers to the viewer" in capsys.readouterr().out


def test_matches_are_filmed_once(knowing, ask, folder):
    ask(1)
    before = (folder / f"match_{SEED}.mp4").stat().st_mtime_ns
    knowing.plays = 0
    assert ask(1)[0] == 0
    assert (folder / f"match_{SEED}.mp4").stat().st_mtime_ns == before


def test_ctrl_c_keeps_what_was_measured(knowing, ask, capsys):
    knowing.interrupt_at = 3
    status, values = ask(2)
    assert status == 130
    assert [row["name"] for row in values["cases"]] == [f"match_{SEED}"]
    assert values["complete"] is False
    assert "1 measured" in capsys.readouterr().out
    assert knowing.closed


def test_ctrl_c_before_the_first_match_leaves_an_old_file_alone(knowing, ask, tmp_path):
    (tmp_path / "v.json").write_text('{"old": 1}')
    knowing.interrupt_at = 1
    assert ask(1) == (130, {"old": 1})


def test_a_broken_clip_is_named_and_counted_and_the_rest_measured(knowing, tmp_path, ask, capsys):
    assert ask(2, "--folder", str(tmp_path))[0] == 0
    (tmp_path / f"match_{SEED}.mp4").write_bytes(b"no clip")
    knowing.plays = 2
    capsys.readouterr()
    # Two plays short of the first match: one is the loading, the other stands for the match that cannot be played.
    status, values = ask(2, "--folder", str(tmp_path))
    assert status == 0
    assert [f["name"] for f in values["failed"]] == [f"match_{SEED}"]
    assert [row["name"] for row in values["cases"]] == [f"match_{SEED + 1}"]
    said = capsys.readouterr()
    assert f"match_{SEED} is left out: " in said.err
    assert "1 measured, 1 left out" in said.out


def test_records_without_a_sidecar_have_figures_of_words_alone(knowing, tmp_path, capsys):
    clip = make_clip(tmp_path / "clip.mp4", count=60, rate=30)
    turns = (Turn(0.0, 1.0, "Time=0.0-1.0s", "\n he serves ..."), Turn(1.0, 2.0, "Time=1.0-2.0s", "\n ..."))
    (tmp_path / "r.jsonl").write_bytes(StreamingRecord(str(clip), 0.0, 2.0, turns).to_line())
    out = tmp_path / "v.json"
    assert cli.main(["validate", "--records", str(tmp_path / "r.jsonl"), "--json", str(out)]) == 0
    values = json.loads(out.read_text())
    assert all(isinstance(values[name], float) for name in TEXT_FIGURES)
    assert not {*TENNIS_FIGURES, "endings", "notes", "answers"} & {*values, *values["grey"], *values["cases"][0]}
    assert (values["seeds"], values["settings"]["records"]) == ([], [str(tmp_path / "r.jsonl")])
    said = capsys.readouterr()
    shown = said.out
    assert "rouge l" in shown
    assert len([line for line in said.err.splitlines() if "knows simulated matches only" in line]) == 1
    assert not any(name.replace("_", " ") in shown for name in (*TENNIS_FIGURES, "endings"))


def test_a_broken_sidecar_is_named_and_nothing_measured_is_an_error(knowing, tmp_path, capsys):
    clip = make_clip(tmp_path / "clip.mp4", count=60, rate=30)
    clip.with_suffix(".truth.json").write_text("{}")
    record = StreamingRecord(str(clip), 0.0, 2.0, (Turn(0.0, 1.0, "Time=0.0-1.0s", "\n ..."),))
    (tmp_path / "r.jsonl").write_bytes(record.to_line())
    out = tmp_path / "v.json"
    assert cli.main(["validate", "--records", str(tmp_path / "r.jsonl"), "--json", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("clip.truth.json is no truth of a simulated match") == 2
    assert "none of 1 cases could be measured" in said.err.splitlines()[-1]
    assert not out.exists()


def test_a_checkpoint_that_cannot_be_read_ends_it_before_a_match_is_filmed(knowing, tmp_path, capsys):
    knowing.failure = "run1 holds no config.json."
    assert cli.main(["validate", "--matches", "1", "--folder", str(tmp_path / "none"), *SHORT]) == 2
    assert "run1 holds no config.json" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--matches", "1", "--seed", "5"], "matches below 900000 are for training"),
        (["--records", "{tmp}/r.jsonl", "--json", "{tmp}/r.jsonl"], "r.jsonl is an input of this run"),
        (["--matches", "0"], "--matches must be at least 1"),
        (["--matches", "1", "--seconds", "0.5"], "--seconds is 0.5"),
        (["--matches", "1", "--workers", "0"], "--workers is 0"),
        (["--matches", "1", "--fps", "0"], "--fps is 0"),
        (["--matches", "1", "--ckpt", "nobody"], "looked for nobody"),
        (["--matches", "1", "--json", "{tmp}"], "is a folder"),
        (["--records", "{tmp}/none.jsonl"], "none.jsonl"),
        (["--records", "{tmp}/none.jsonl", "--ask", "5"], "--ask needs --matches"),
        (["--matches", "1", "--ask", "0.5"], "--ask is 0.5"),
        ([], "one of the arguments --matches --records is required"),
    ],
)
def test_bad_input_is_one_line_that_names_it(words, message, knowing, tmp_path, capsys):
    (tmp_path / "r.jsonl").touch()
    assert cli.main(["validate", *(word.format(tmp=tmp_path) for word in words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[-1]
    assert knowing.plays == 0


def test_random_weights_are_measured_too(ask, untrained):
    status, values = ask(1, "--ckpt", str(untrained))
    assert status == 0
    assert values["checkpoint"] == str(untrained)
    assert values["team_accuracy"] < 1
    assert values["wer"] > 0.5
