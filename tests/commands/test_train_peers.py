"""`train --benchmark --peers`: a small step in both programs, and how the command behaves when one fails."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streaming_vlm_mlx.eval.peers.run import PeerError
from streaming_vlm_mlx.train import peers
from tests.train.running import BASE
from tui import cli

needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="pip install 'svm-tui[bench]'")


def write_config(folder: Path, **over: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(BASE.merged(over).to_dict()), encoding="utf-8")
    return path


def measure(config: Path, *more: str) -> tuple[int, dict[str, Any]]:
    out = config.with_suffix(".json")
    status = cli.main(["train", "--benchmark", "--peers", "--config", str(config), "--json", str(out), *more])
    return status, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


@needs_torch
def test_both_programs_learn_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights, batch, loss, clipping and AdamW are the same, also with a part that is not trained."""
    monkeypatch.setattr(peers, "PAUSE_S", 0.0)
    config = write_config(tmp_path, freeze=["visual.patch_embed.*"], grad_checkpoint=True)
    status, report = measure(config, "--steps", "4")
    shown = capsys.readouterr().out
    assert status == 0
    assert report["partial"] is False
    assert [row["who"] for row in report["rows"]] == ["svm-tui", "PyTorch"]
    assert {row["steps"] for row in report["rows"]} == {4}
    for row in report["rows"]:
        assert 0 < row["median_s"] < 600
        assert 0 < row["cpu_s"] < 600
        assert 50 < row["peak_rss_mb"] < 20_000
        assert row["last_loss"] < row["first_loss"] - 0.5
        assert f"{row['last_loss']:.5f}" in shown
    losses = [[cost["loss"] for cost in report["steps"][who]] for who in peers.ROWS]
    assert np.allclose(*losses, rtol=1e-3)
    assert report["loss_difference"] < 1e-3
    assert {"torch", "transformers", "mlx"} <= set(report["versions"])
    assert {"processor", "cores", "microbatches"} <= set(report["machine"])


def test_the_process_of_pytorch_imports_no_mlx() -> None:
    code = (
        "import sys, streaming_vlm_mlx.train.peers\n"
        "sys.exit(any(name.split('.')[0] in ('mlx', 'torch') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class Fake:
    """A program that trains nothing: its losses are given, and an exception in their place is raised."""

    seconds: float
    losses: list[float | BaseException]
    heard: list[str] = field(default_factory=list)
    closed: bool = False

    def send(self, request: dict[str, Any]) -> None:
        self.heard.append(request["do"])

    def receive(self) -> dict[str, Any]:
        if self.heard[-1] == "load":
            return {}
        loss = self.losses.pop(0)
        if isinstance(loss, BaseException):
            raise loss
        return {"seconds": self.seconds, "cpu_seconds": 2 * self.seconds, "loss": loss, "peak_rss": 10**9}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    fakes = {"svm-tui": Fake(1.0, [5.0, 4.0, 3.0]), "PyTorch": Fake(2.0, [5.0, 4.0, 3.0])}
    monkeypatch.setattr(peers, "start_worker", lambda log, who, cores: fakes[who])
    monkeypatch.setattr(peers, "save_start", lambda *_: None)
    monkeypatch.setattr(peers, "PACKAGES", ())
    monkeypatch.setattr(peers, "PAUSE_S", 0.0)
    return fakes


def test_figures_are_medians_and_their_ratios(
    fakes: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = measure(write_config(tmp_path), "--steps", "2")
    assert status == 0
    assert report["ratios"] == {"seconds": 0.5, "cpu_seconds": 0.5, "peak_rss": 1.0}
    assert [(row["first_loss"], row["last_loss"]) for row in report["rows"]] == [(5.0, 3.0)] * 2
    assert all(fake.heard == ["load", *["step"] * 3] and fake.closed for fake in fakes.values())
    assert "2 windows of 3 s, medians of 2" in capsys.readouterr().out


def test_ctrl_c_keeps_the_steps_of_both(fakes: dict[str, Fake], tmp_path: Path) -> None:
    fakes["svm-tui"].losses[2] = KeyboardInterrupt()
    status, report = measure(write_config(tmp_path), "--steps", "2")
    assert status == 130
    assert report["partial"] is True
    assert {row["steps"] for row in report["rows"]} == {1}
    assert all(fake.closed for fake in fakes.values())


WRONG = {
    "before a step": ([5.01], "compute something else: their losses differ by 0.002"),
    "later": ([5.0, 4.2], "compute something else: their losses differ by 0.048"),
    "no number": ([5.0, float("nan")], "compute something else"),
    "an error": ([PeerError("RuntimeError: too large.")], "PyTorch failed: RuntimeError: too large."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_program_that_does_not_train_the_same_is_an_error(
    name: str, fakes: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses, said = WRONG[name]
    fakes["PyTorch"].losses[: len(losses)] = losses
    assert measure(write_config(tmp_path), "--steps", "1")[0] == 2
    assert said in capsys.readouterr().err


REFUSED = {
    "--peers --out a": ({}, "--peers goes with --benchmark"),
    "--benchmark --json a.json": ({}, "--json with both"),
    "--benchmark --peers": ({"keep_features": True, "freeze": ["visual.*"]}, "remove keep_features"),
    "--benchmark --peers --steps 1": ({"model": {"config": {"vision_config": None}}}, "needs a model with a vision"),
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_compared_is_refused(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PACKAGES", ())
    changed, said = REFUSED[options]
    assert cli.main(["train", "--config", str(write_config(tmp_path, **changed)), *options.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_program_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PACKAGES", ("no_such_package",))
    assert measure(write_config(tmp_path)) == (2, {})
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs no_such_package: pip install 'svm-tui[bench]'" in error
