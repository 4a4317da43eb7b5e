import json
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.metrics import (
    MetricsFile,
    Note,
    Sampled,
    SampledSecond,
    StepDone,
    Validated,
    plot_losses,
    read_metrics,
)


def step(number: int, **losses: float) -> StepDone:
    return StepDone(number, losses, 0.1, 1.0, 8, 100, 0, 1.0, 2.0, 5)


def open_files(folder: Path, step: int = 0) -> MetricsFile:
    return MetricsFile(folder / "m.jsonl", folder / "samples.jsonl", step)


def test_lines_hold_the_figures(tmp_path: Path) -> None:
    file = open_files(tmp_path)
    for event in (step(1, text=2.0, ball=0.5), Note("unheard"), Validated(1, {"text": 3.0}, True)):
        file.add(event)
    first, second = (json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines())
    assert first == {
        "step": 1,
        "losses": {"text": 2.0, "ball": 0.5},
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "video_seconds": 8,
        "tokens": 100,
        "epoch": 0,
        "started_at": 1.0,
        "ended_at": 2.0,
        "memory": 5,
    }
    assert second == {"step": 1, "validation": {"text": 3.0}, "is_best": True}


def test_going_on_drops_what_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    file = open_files(tmp_path)
    for number in range(1, 6):
        file.add(step(number, text=1.0))
    with path.open("a") as torn:
        torn.write('{"step": 6, "lo')
    open_files(tmp_path, 3).add(step(4, text=9.0))
    assert [(line["step"], line["losses"]["text"]) for line in read_metrics(path)] == [(1, 1), (2, 1), (3, 1), (4, 9)]
    open_files(tmp_path)
    assert path.read_text() == ""


def test_samples_have_a_file_of_their_own(tmp_path: Path) -> None:
    file = open_files(tmp_path)
    for number in (1, 2):
        file.add(Sampled(number, "a.mp4", (SampledSecond(3.0, 4.0, "Él marca", "Gol"),)))
    open_files(tmp_path, 1)
    (line,) = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert "Él marca" in line
    assert json.loads(line) == {
        "step": 1,
        "video": "a.mp4",
        "seconds": [{"start": 3.0, "end": 4.0, "generated": "Él marca", "reference": "Gol"}],
    }
    assert (tmp_path / "m.jsonl").read_text() == ""


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = open_files(tmp_path)
    plot_losses(tmp_path / "m.jsonl", tmp_path / "empty.png")
    for number in range(1, 9):
        file.add(step(number, text=8.0 / number, ball=1.0 / number))
    file.add(Validated(8, {"text": 3.0}, True))
    plot_losses(tmp_path / "m.jsonl", tmp_path / "full.png")
    empty, full = ((tmp_path / name).read_bytes() for name in ("empty.png", "full.png"))
    assert empty.startswith(b"\x89PNG")
    assert len(full) > len(empty)


def test_without_matplotlib_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: Any = None
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", hidden)
    with pytest.raises(SvmError, match=r"pip install 'svm-tui\[plot\]'"):
        plot_losses(tmp_path / "m.jsonl", tmp_path / "a.png")


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = open_files(tmp_path / "run")
    (tmp_path / "run" / "m.jsonl").unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(SvmError, match=r"m\.jsonl cannot be written"):
        file.add(step(1, text=1.0))
