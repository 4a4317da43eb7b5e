"""The command ``infer``: its lines and files, its errors, and the session that a killed run leaves."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import srt
import webvtt

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.stream.events import GenerationResult, Timings
from streaming_vlm_mlx.video.video_file import VideoFile
from tests.commands.blocked_camera import BLOCKED
from tests.video.clips import make_clip
from tui import cli
from tui.commands import infer

ROOT = Path(__file__).parents[2]
RECORD = SessionRecord(created="2026-01-01T00:00:00+00:00", clip="match.mp4")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", count=75, rate=30)


@pytest.fixture(autouse=True)
def state(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder; the model is one that comments on every second."""
    monkeypatch.setattr("tui.commands.options.CHECKPOINT", untrained)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run the command, which must fail with one line, and return that line."""
    assert cli.main(["infer", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.rstrip()


def test_files_and_lines_agree(clip, tmp_path, capsys):
    for suffix in ("vtt", "srt", "json"):
        assert (
            cli.main(["infer", str(clip), "--out", str(tmp_path / f"game.{suffix}"), "--seed", "3", "--per-second"])
            == 0
        )
    lines = capsys.readouterr().out.splitlines()
    spoken = [line.split("  ", 1)[1] for line in lines]
    record = SessionRecord.load(tmp_path / "game.json")
    assert [s.start for s in record.seconds] == [0.0, 1.0, 2.0]
    cues = list(webvtt.read(str(tmp_path / "game.vtt")))
    subtitles = list(srt.parse((tmp_path / "game.srt").read_text()))
    assert len(cues) == len(subtitles) == len(spoken) // 3 == 3
    assert cues[1].start == "00:00:01.000"
    assert subtitles[2].end.total_seconds() == 2.5
    assert record.settings["sampling"]["seed"] == 3


def test_a_model_that_was_not_trained_to_stream_is_announced(untrained, clip, tmp_path, capsys):
    folder, out = tmp_path / "Tiny-Instruct", tmp_path / "game.json"
    shutil.copytree(untrained, folder)
    (folder / "stream.yaml").write_text("style: instruct\nwindow: 3\n")
    assert cli.main(["infer", str(clip), "--ckpt", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err.count("Tiny-Instruct was not trained to stream: it sees the last 6 frames") == 1
    record = SessionRecord.load(out)
    assert (record.settings["style"], record.settings["mode"]) == ("instruct", "recompute")
    assert len(record.seconds) == 3
    assert cli.main(["infer", str(clip), "--ckpt", str(untrained)]) == 0
    assert "not trained" not in capsys.readouterr().err


def test_still_video_is_left_out_and_counted(clip, capsys):
    assert cli.main(["infer", str(clip), "--json", "--drop-still", "255"]) == 0
    said = capsys.readouterr()
    first, *others = [GenerationResult.from_dict(json.loads(line)) for line in said.out.splitlines()]
    assert first.video_tokens > 0
    assert [second.video_tokens for second in others] == [0] * len(others)
    still = sum(second.still_tokens for second in (first, *others))
    share = still / (still + first.video_tokens)
    assert f"{still} video tokens were left out because they did not change: {share:.0%}" in said.err


def test_json_lines_are_whole_seconds(clip, capsys):
    assert cli.main(["infer", str(clip), "--json", "--start", "1", "--duration", "1", "--fps", "4"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    second = json.loads(line)
    assert (second["start"], second["end"]) == (1.0, 2.0)
    assert second["video_tokens"] == 2 * (2 * second["video_tokens"] // 4)
    assert second["timings"]["total_ms"] > 0


def test_a_record_brings_its_own_range_and_previous_text(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATASET_PATH", str(clip.parent))
    turns = (Turn(1.0, 2.0, "Time=1.0-2.0s", "\n ..."),)
    line = StreamingRecord(str(clip), 1.0, 2.0, turns, previous="They lead.").to_line()
    (tmp_path / "r.jsonl").write_bytes(line)
    out = tmp_path / "r.json"
    assert cli.main(["infer", str(tmp_path / "r.jsonl"), "--out", str(out)]) == 0
    record = SessionRecord.load(out)
    assert [s.start for s in record.seconds] == [1.0]
    assert record.settings["previous"] == "They lead."
    capsys.readouterr()
    assert "holds records 0 to 0; there is no record 4" in refusal(capsys, tmp_path / "r.jsonl", "--record", 4)


def test_a_record_does_not_open_the_network(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turns = (Turn(0.0, 1.0, "Time=0.0-1.0s", "\n ..."),)
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []
        hang_up = threading.Thread(target=lambda: asked.append(server.accept()[0].close()), daemon=True)
        hang_up.start()
        address = rf"127.0.0.1\\:{server.getsockname()[1]}/leak"
        for video in (rf"lavfi:movie=http\\://{address}", f"http://127.0.0.1:{server.getsockname()[1]}/leak"):
            Path("r.jsonl").write_bytes(StreamingRecord(video, 0.0, 1.0, turns).to_line())
            assert "does not exist" in refusal(capsys, "r.jsonl")
    assert asked == []


def test_a_query_is_warned_of_only_where_the_user_gave_it(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATASET_PATH", str(clip.parent))
    (tmp_path / "training.yaml").write_text("style: training\n")
    turns = (Turn(0.0, 1.0, "Time=0.0-1.0s", "\n ..."),)
    (tmp_path / "r.jsonl").write_bytes(StreamingRecord(str(clip), 0.0, 1.0, turns, query="in rhyme").to_line())
    command = ["infer", str(tmp_path / "r.jsonl"), "--config", str(tmp_path / "training.yaml")]
    assert cli.main(command) == 0
    assert "has no effect" not in capsys.readouterr().err
    assert cli.main([*command, "--query", "in prose"]) == 0
    assert "--query has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/none.mp4"], "none.mp4 does not exist"),
        (["{tmp}"], "is a folder"),
        (["{tmp}/empty.mp4"], "is empty"),
        (["{tmp}/half.mp4"], "is incomplete"),
        ([""], "the name of the clip is empty"),
        (["{clip}", "--start", "50"], "50 s is outside"),
        (["{clip}", "--fps", "1000000000"], "it must be"),
        (["{clip}", "--duration", "0"], "choose a duration above 0"),
        (["{clip}", "--ckpt", "nobody"], "looked for nobody, checkpoints/nobody"),
        (["{clip}", "--out", "{tmp}/a.mp3"], "no known format"),
        (["{clip}", "--out", "{tmp}/empty.mp4/a.vtt"], "cannot be written"),
        (["{clip}", "--config", "{tmp}/none.yaml"], "none.yaml cannot be read"),
        (["{clip}", "--fps", "0"], "fps is 0"),
    ],
)
def test_bad_input_is_one_line_that_names_it(words, message, clip, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    filled = [word.format(tmp=tmp_path, clip=clip) for word in words]
    assert message in refusal(capsys, *filled)


def done(start: float) -> GenerationResult:
    return GenerationResult(
        index=int(start),
        start=start,
        end=start + 1,
        text="shot",
        tokens=2,
        video_tokens=4,
        cache_tokens=9,
        cache_bytes=90,
        query="",
        timings=Timings(1, 1, 1, 1, 3),
        memory=Memory(1, 1, 1, 1, 1),
    )


def comment_until_it_breaks(log: SessionLog, seconds: Iterable[GenerationResult]) -> None:
    for second in seconds:
        log.add(second)
    raise SvmError("the feed broke off.")


def test_the_seconds_before_a_failure_are_written(tmp_path, state):
    with pytest.raises(SvmError, match="feed broke"), infer.saved(infer.make_log(tmp_path / "a.json", RECORD)) as log:
        comment_until_it_breaks(log, [done(0.0)])
    record = SessionRecord.load(tmp_path / "a.json")
    assert [s.text for s in record.seconds] == ["shot"]
    assert record.failure == "the feed broke off."
    assert list(state.rglob("*.jsonl")) == []


def test_a_failure_before_the_first_word_leaves_an_old_file_alone(tmp_path, state):
    (tmp_path / "a.vtt").write_text("old")
    with pytest.raises(SvmError), infer.saved(infer.make_log(tmp_path / "a.vtt", RECORD)) as log:
        comment_until_it_breaks(log, [])
    assert (tmp_path / "a.vtt").read_text() == "old"
    assert not state.exists()


def test_a_session_that_cannot_be_written_stays_in_its_journal(tmp_path, state, monkeypatch):
    real = Path.replace

    def full(part: Path, target: Path) -> Path:
        if target == tmp_path / "a.vtt":
            raise OSError(28, os.strerror(28))
        return real(part, target)

    monkeypatch.setattr(Path, "replace", full)
    with (
        pytest.raises(SvmError, match="No space left on device") as caught,
        infer.saved(infer.make_log(tmp_path / "a.vtt", RECORD)) as log,
    ):
        log.add(done(4.0))
    (journal,) = state.rglob("*.jsonl")
    assert f"The session is in {journal}." in str(caught.value)
    assert load_session(journal).seconds == (done(4.0),)
    assert not list(tmp_path.glob("*.vtt"))


def test_a_written_session_leaves_no_journal(clip, tmp_path, state):
    assert cli.main(["infer", str(clip), "--out", str(tmp_path / "a.srt")]) == 0
    assert list(state.rglob("*.jsonl")) == []


@contextlib.contextmanager
def commenting(checkpoint: Path, out: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command in its own process until its camera blocks; yield the process and its lines so far."""
    script = ["-m", "tests.commands.blocked_camera", "infer", "camera"]
    words = [*script, "--ckpt", str(checkpoint), "--json", "--out", str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            assert f"{BLOCKED}\n" in iter(process.stderr.readline, "")
            yield process, lines
        finally:
            process.kill()


def test_a_killed_run_leaves_every_finished_second_in_its_journal(untrained, tmp_path, state):
    with commenting(untrained, tmp_path / "a.vtt") as (process, lines):
        process.kill()
        assert process.wait() == -signal.SIGKILL
    (journal,) = state.rglob("*.jsonl")
    assert [s.to_dict() for s in load_session(journal).seconds] == [json.loads(line) for line in lines]
    assert not (tmp_path / "a.vtt").exists()


def test_a_run_on_a_camera_that_has_stopped_can_be_interrupted(untrained, tmp_path, state):
    with commenting(untrained, tmp_path / "a.json") as (process, lines):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    record = SessionRecord.load(tmp_path / "a.json")
    assert [s.to_dict() for s in record.seconds] == [json.loads(line) for line in lines]
    assert list(state.rglob("*.jsonl")) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_waits_for_a_server_can_be_stopped(number, status):
    """The server takes the connection and never answers."""
    script = "import signal; from tui import cli; signal.signal(2, signal.default_int_handler); cli.program()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = ["infer", f"http://127.0.0.1:{server.getsockname()[1]}/live.ts"]
        command = [sys.executable, "-c", script, *words]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            connection.recv(1)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        connection.close()
    assert (process.returncode, said) == (status, "svm-tui: stopped.\n")


def test_a_broken_packet_is_counted(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(VideoFile, "skipped", property(lambda _: 3))
    assert cli.main(["infer", str(clip), "--duration", "1"]) == 0
    assert "3 corrupt packets were skipped" in capsys.readouterr().err
