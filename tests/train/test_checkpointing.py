"""What a run's folder holds when the run is killed at any moment."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.checkpointing import RunFolder, read_progress
from streaming_vlm_mlx.train.metrics import Note, Started
from tests.train.running import run, write_records

CHANGES = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")
WEIGHED = ("model.safetensors", "training/optimizer.safetensors", "training/state.json")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Copies of the folder ``run``, each as it was before one change of a name below it."""
    found = list[Path]()
    busy = False

    def patched(change: Any) -> Any:
        def first_copy(*args: Any, **rest: Any) -> Any:
            nonlocal busy
            if not busy and (tmp_path / "run").is_dir():
                busy = True
                found.append(tmp_path / f"moment{len(found)}")
                shutil.copytree(tmp_path / "run", found[-1], copy_function=os.link)
                busy = False
            return change(*args, **rest)

        return first_copy

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, patched(getattr(os, name)))
        yield found


def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(records: Path, tmp_path: Path, moments: list[Path]) -> None:
    often: dict[str, Any] = {"schedule": {"steps": 3, "warmup_steps": 0}}
    run(records, tmp_path / "run", checkpointing={"every": 1, "keep": 1}, **often)
    killed = list(moments)
    run(records, tmp_path / "kept", checkpointing={"every": 1, "keep": 3}, **often)
    whole = {int(folder.name): folder for folder in RunFolder(tmp_path / "kept").checkpoints()}
    seen = set()
    for folder in (RunFolder(path) for path in killed):
        if not folder.settings.is_file() or (step_folder := folder.newest()) is None:
            seen.add(0)
            continue
        step = int(step_folder.name)
        seen.add(step)
        assert all((step_folder / name).read_bytes() == (whole[step] / name).read_bytes() for name in WEIGHED)
        folder.recover(read_progress(step_folder))
        assert not [path for path in folder.path.rglob("*") if path.name.startswith(".")]
        promoted, saved = (folder.path / "model.safetensors", step_folder / "model.safetensors")
        assert promoted.read_bytes() == saved.read_bytes()
    assert seen == {0, 1, 2, 3}
    assert len(killed) > 40


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(records: Path, tmp_path: Path) -> None:
    whole, _ = run(records, tmp_path / "a", schedule={"steps": 3})
    shutil.rmtree(tmp_path / "a" / "steps")
    with pytest.raises(SvmError, match="holds no run to resume"):
        run(records, tmp_path / "a", resume=True)
    (tmp_path / "a" / "config.json").unlink()
    again, _ = run(records, tmp_path / "a", resume=True, schedule={"steps": 3})
    assert again.of(Started)[0].step == 0
    assert again.losses == pytest.approx(whole.losses, abs=1e-5)
    assert "starts from step 1" in again.of(Note)[0].text


@pytest.mark.parametrize("exists", [False, True])
def test_a_run_that_leaves_nothing_leaves_the_folder_as_it_was(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with RunFolder(folder).lock():
        assert folder.is_dir()
    assert folder.exists() is exists
