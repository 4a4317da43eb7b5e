"""``svm-tui train``: its output, its errors, and how it stops and resumes."""

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from streaming_vlm_mlx.train.checkpointing import Progress
from streaming_vlm_mlx.train.metrics import read_metrics
from tests.train.running import BASE, write_records
from tui.cli import main
from tui.commands.train import resume_hint


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


def write_config(folder: Path, **over: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(BASE.merged(over).to_dict()), encoding="utf-8")
    return path


def test_it_says_how_to_hear_what_was_trained(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(write_config(tmp_path)), "--records", str(records), "--out", str(tmp_path / "a")]
    assert main(["train", *options, "--steps", "3", "--validation", str(records)]) == 0
    out, err = capsys.readouterr()
    assert out == (
        f"{tmp_path / 'a'} is trained for 3 steps; try it with: svm-tui infer CLIP --ckpt {tmp_path / 'a'}\n"
    )
    assert re.search(r"58,\d+ parameters; 6 windows; steps 1 to 3\n", err)
    assert re.search(r"step 3: validation loss \d\.\d{4} \(best so far\)\n", err)
    assert re.search(r"loading the model …\n(.*\n)*preparing the first batch …\nstep 1/3 · loss \d\.\d{3} · lr ", err)
    assert re.search(r"step 3/3 · loss .* tok/s · \d+\.\d GB · 0:00:00 left\n", err)
    assert "step 3: sample of" in err
    assert json.loads((tmp_path / "a" / "samples.jsonl").read_text(encoding="utf-8"))["step"] == 3
    assert main(["train", "--out", str(tmp_path / "a"), "--resume", "--steps", "4"]) == 0
    assert "steps 4 to 4" in capsys.readouterr().err
    lines = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3, 4]
    assert main(["train", *options]) == 2
    assert "holds a run at step 4" in capsys.readouterr().err


REFUSED = {
    "": "name the run's folder with --out",
    "--out a": "name the settings with --config",
    "--out a --resume": "train.yaml cannot be read",
    "--out a --config absent.yaml": "absent.yaml cannot be read",
    "--out a --config wrong.yaml": "wrong.yaml:1: there is no setting 'optimizer.lr'",
    "--out a --config empty.yaml": "there are no training records: name a file",
    "--out a --config empty.yaml --steps 0": "schedule.steps is 0",
    "--out a --config empty.yaml --records absent.jsonl": "absent.jsonl",
    "--out a --config empty.yaml --records empty.yaml": "empty.yaml has no valid record",
    "--out empty.yaml --config empty.yaml": "empty.yaml is a file",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_line(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").write_text("", encoding="utf-8")
    Path("wrong.yaml").write_text("optimizer: {lr: 1}", encoding="utf-8")
    assert main(["train", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert REFUSED[options] in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(
    records: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    config = write_config(tmp_path, schedule={"steps": 100_000}, checkpointing={"every": 100_000})
    options = ["--config", str(config), "--records", str(records), "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tui.cli", "train", *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step 1/"):
            process.send_signal(number)
            break
    out, rest = process.communicate()
    said = re.search(r"stopped and saved at step (\d+); resume with: svm-tui (train .*)\n", rest)
    assert said, [*lines, rest]
    assert process.returncode == status
    assert out == ""
    assert [path.name for path in (tmp_path / "a" / "steps").iterdir()] == [f"{int(said[1]):08d}"]
    assert "Traceback" not in rest
    assert main([*said[2].split(), "--steps", str(int(said[1]) + 1)]) == 0


@pytest.mark.parametrize(("step", "said"), [(0, "before the first step"), (7, "and saved at step 7")])
def test_a_stopped_run_claims_no_checkpoint_that_is_not_there(step: int, said: str) -> None:
    assert resume_hint(Path("my run"), Progress(step=step)) == (
        f"svm-tui: stopped {said}; resume with: svm-tui train --out 'my run' --resume"
    )


class InterruptedStderr(io.RawIOBase):
    """A stderr that Ctrl-C reaches while the first step's line is written."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        line = bytes(data)
        if line.startswith(b"step 1/") and b"step 1/" not in self.written:
            signal.raise_signal(signal.SIGINT)
        self.written += line
        return len(line)


def test_ctrl_c_while_a_line_is_written_stops_the_run(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stderr = InterruptedStderr()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(stderr), line_buffering=True))
    config = write_config(tmp_path, schedule={"steps": 100}, checkpointing={"every": 100})
    options = ["--config", str(config), "--records", str(records), "--out", str(tmp_path / "a")]
    assert main(["train", *options]) == 130
    assert b"stopped and saved at step" in stderr.written
    assert "stopping after this step" in capfd.readouterr().err


def test_a_folder_in_use_is_refused_and_a_lock_of_a_killed_run_is_not(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, schedule={"steps": 100_000}, checkpointing={"every": 2, "keep": 1})
    out = tmp_path / "a"
    options = ["train", "--records", str(records), "--out", str(out), "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tui.cli", *options, "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("step 1/"):
                break
        for more in (["--config", str(config)], ["--resume"]):
            assert main([*options, *more]) == 2
            assert f"{out} is in use by another training run, process {process.pid}; " in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()
    assert (out / "train.lock").read_text() == f"{process.pid}\n"
    (out / "train.yaml").unlink()
    step = max((int(path.name) for path in (out / "steps").glob("[0-9]*")), default=0)
    more = ["--resume"] if step else []
    assert main([*options, "--config", str(config), *more, "--steps", str(step + 1)]) == 0
    assert not (out / "train.lock").exists()


def test_a_run_of_an_earlier_version_is_refused_as_such(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    options = ["--config", str(write_config(tmp_path)), "--records", str(records), "--out", str(out), "--steps", "1"]
    assert main(["train", *options]) == 0
    state = out / "steps" / "00000001" / "training" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "version": 1}))
    (out / "train.yaml").write_text("start: {vocabulary: 400}\nsaving: {every: 5}\n")
    capsys.readouterr()
    assert main(["train", "--out", str(out), "--resume"]) == 2
    err = capsys.readouterr().err
    assert (
        "was written by svm-tui 0.1, whose runs cannot be resumed; start a new run from its checkpoint: --ckpt" in err
    )
    assert len(err.splitlines()) == 1


def test_a_kill_ends_the_workers_and_the_run_resumes(records: Path, tmp_path: Path) -> None:
    over: dict[str, Any] = {"data": {"batches": {"workers": 1}}, "checkpointing": {"every": 4}}
    config = write_config(tmp_path, schedule={"steps": 100_000}, validation={"records": [str(records)]}, **over)
    options = ["--config", str(config), "--records", str(records), "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tui.cli", "train", *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 12: validation"):
            process.kill()
            break
    process.communicate(timeout=120)  # This returns once no worker holds the other end of stderr.
    steps = sorted(int(path.name) for path in (tmp_path / "a" / "steps").iterdir() if path.name.isdigit())
    assert steps[-1] >= 8
    assert main(["train", "--out", str(tmp_path / "a"), "--resume", "--steps", str(steps[-1] + 1)]) == 0


def test_the_benchmark_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--benchmark", "--config", str(write_config(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"\d+\.\d s of video a second \(best \d+\.\d\): 2 windows of 3 s a step, .*\n", out)
