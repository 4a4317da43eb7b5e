"""``svm-tui train``: what it says, what it refuses, how it is stopped, how it looks."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from streaming_vlm_mlx.train.metrics import Event, Note, Saved, Started, StepDone, Validated, read_metrics
from tests.train.running import BASE, write_records
from tui import train_progress as training
from tui.cli import main
from tui.train_progress import RunMetrics, thin


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
        f"{tmp_path / 'a'} is trained for 3 steps; hear it with: svm-tui infer CLIP --ckpt {tmp_path / 'a'}\n"
    )
    assert re.search(r"58,\d+ parameters; 6 windows; steps 1 to 3\n", err)
    assert "step 3: not learnt from: text" in err
    assert main(["train", "--out", str(tmp_path / "a"), "--resume", "--steps", "4"]) == 0
    assert "steps 4 to 4" in capsys.readouterr().err
    lines = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3, 4]
    assert main(["train", *options]) == 2
    assert "holds a run at step 4" in capsys.readouterr().err


REFUSED = {
    "": "say where the run shall go: --out",
    "--out a": "say how to train with --config",
    "--out a --resume": "train.yaml cannot be read",
    "--out a --config absent.yaml": "absent.yaml cannot be read",
    "--out a --config wrong.yaml": "wrong.yaml:1: there is no setting 'optimizer.lr'",
    "--out a --config empty.yaml": "there is nothing to learn from: name a file of records",
    "--out a --config empty.yaml --steps 0": "schedule.steps is 0",
    "--out a --config empty.yaml --records absent.jsonl": "absent.jsonl",
    "--out a --config empty.yaml --records empty.yaml": "empty.yaml has no valid record",
    "--out empty.yaml --config empty.yaml": "empty.yaml is a file",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_can_not_be_used_is_refused_in_a_line(
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
    heard = []
    for line in process.stderr:
        heard.append(line)
        if line.startswith("step 10:"):
            process.send_signal(number)
            break
    out, rest = process.communicate()
    said = re.search(r"stopped and saved at step (\d+); go on with: svm-tui (train .*)\n", rest)
    assert said, [*heard, rest]
    assert process.returncode == status
    assert out == ""
    assert [path.name for path in (tmp_path / "a" / "steps").iterdir()] == [f"{int(said[1]):08d}"]
    assert "Traceback" not in rest
    assert main([*said[2].split(), "--steps", str(int(said[1]) + 1)]) == 0


def test_a_kill_takes_the_helpers_along_and_the_run_goes_on(records: Path, tmp_path: Path) -> None:
    over: dict[str, Any] = {"data": {"batches": {"workers": 1}}, "checkpointing": {"every": 4}}
    config = write_config(tmp_path, schedule={"steps": 100_000}, **over)
    options = ["--config", str(config), "--records", str(records), "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tui.cli", "train", *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 10:"):
            process.kill()
            break
    process.communicate(timeout=120)  # which waits until nobody holds the other end of stderr
    steps = sorted(int(path.name) for path in (tmp_path / "a" / "steps").iterdir() if path.name.isdigit())
    assert steps[-1] >= 8
    assert main(["train", "--out", str(tmp_path / "a"), "--resume", "--steps", str(steps[-1] + 1)]) == 0


def test_the_benchmark_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--benchmark", "--config", str(write_config(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"\d+\.\d s of video a second \(best \d+\.\d\): 2 windows of 3 s an update, .*\n", out)


def step(number: int, loss: float, **over: Any) -> StepDone:
    values: dict[str, Any] = {
        "losses": {"text": loss},
        "learning_rate": 1e-3,
        "grad_norm": 2.0,
        "video_seconds": 16,
        "tokens": 800,
        "epoch": 0,
        "started_at": 2.0 * number - 1.5,
        "ended_at": 2.0 * number,
    }
    return StepDone(number, **(values | over))


def metrics(*events: Event) -> RunMetrics:
    made = RunMetrics()
    for event in (Started(0, 100, 7, (5, 10)), *events):
        made.add(event)
    return made


def test_speed_counts_the_waits() -> None:
    made = metrics(step(1, 4.0), step(2, 3.0), step(3, 2.0))
    assert made.seconds_a_step == pytest.approx(2.0)
    assert made.speed == pytest.approx(8.0)
    assert made.waiting == pytest.approx(0.25)
    assert made.remaining == pytest.approx(2.0 * 97)
    assert made.loss == pytest.approx(3.0)


def test_a_run_without_a_step_has_figures() -> None:
    made = metrics()
    assert (made.speed, made.waiting, made.remaining, made.course) == (0.0, 0.0, 0.0, [])


def test_the_course_is_thinned_to_means() -> None:
    assert thin([1.0, 2.0, 3.0, 4.0, 5.0], 2) == [1.5, 4.0]
    assert thin([1.0, 2.0], 5) == [1.0, 2.0]
    assert thin([], 5) == []
    made = metrics(*(step(number, float(number)) for number in range(1, 1001)))
    assert len(made.course) == training.WIDTH
    assert sum(made.course) / training.WIDTH == pytest.approx(500.5, rel=0.01)


def test_the_table_shows_what_matters() -> None:
    made = metrics(
        step(1, 4.0),
        step(2, 3.0, losses={"text": 3.0, "ball": 0.5}),
        Validated(2, {"text": 3.25}, True),
        Saved(2, Path("runs/a/steps/2")),
    )
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(training._picture(made))
    shown = console.export_text()
    for part in ("2 of 100", "0:03:16 to go", "3.0000", "ball", "3.2500 at step 2", "8.0 s of video", "steps/2", "█"):
        assert part in shown


def test_lines_of_their_own() -> None:
    told = [*training._lines_for(Note("careful")), *training._lines_for(Started(3, 9, 7, (5, 10)))]
    told += training._lines_for(Validated(4, {"text": 1.5}, False))
    assert told == [
        "careful",
        "10 parameters, of which 5 move; 7 windows; steps 4 to 9",
        "step 4: not learnt from: text 1.5000",
    ]
