"""Full disks, read-only folders and a stdout that cannot be written: one line, and nothing half-written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.assets import Assets
from tests.crash.export_kind import Export
from tests.crash.interrupting import Command, Outcome, run
from tests.crash.kinds import Convert, ConvertCheckpoint, Fetch, Infer, Kind, Train, files_in, read_tensors
from tests.crash.launcher import Launcher

WRITERS = (Infer, Export, Convert, ConvertCheckpoint, Train, Fetch)


def lay_out(kind: Kind, folder: Path) -> tuple[Command, dict[str, bytes]]:
    """Return the command and the files that are there before it."""
    folder.mkdir()
    command = kind.lay_out(folder, kind.variants[0])
    return command, files_in(folder)


def refusal(outcome: Outcome, status: int = 2) -> list[str]:
    """Return what a run that failed said, without the lines about its progress."""
    said = outcome.err.decode()
    assert outcome.ended.status == status, said
    assert "Traceback" not in said
    assert "internal error" not in said
    return [line for line in said.splitlines() if line.startswith("svm-tui: ")]


@pytest.mark.parametrize("kind", WRITERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [0, 700, 40_000])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    kind: type[Kind], size: int, launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    command, before = lay_out(kind(assets), tmp_path / "run")
    outcome = run(launcher, replace(command, file_size=size))
    found = files_in(command.folder)
    if outcome.ended.status == 0:
        # What it writes is smaller.
        assert not [name for name in found if Path(name).name.startswith(".game")]
        return
    assert refusal(outcome)[-1].endswith(".")
    assert {name: found[name] for name in before} == before
    # Downloads go on where they were, and so do conversions; the index of records serves the next run.
    kept = {name for name in found if name not in before and not name.startswith("hub/")} - {"train.jsonl.index.npz"}
    assert all(Path(name).name.startswith(".out.jsonl.") or name.startswith("run/") for name in kept)
    for path in (command.folder / "run").rglob("*.safetensors"):
        read_tensors(path)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("kind", WRITERS, ids=lambda kind: kind.name)
def test_a_read_only_folder_is_told_in_one_line(
    kind: type[Kind], launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    command, before = lay_out(kind(assets), tmp_path / "run")
    with read_only(command.folder):
        outcome = run(launcher, replace(command, obey_modes=True))
    (line,) = refusal(outcome)
    assert "cannot be written" in line
    assert files_in(command.folder) == before
    assert outcome.out == b""


@pytest.mark.parametrize("kind", [Infer, Convert, ConvertCheckpoint, Train], ids=lambda kind: kind.name)
@pytest.mark.parametrize("how", ["closed", "full"])
def test_a_stdout_that_cannot_be_written_costs_no_file(
    kind: type[Kind], how: str, launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    command, before = lay_out(kind(assets), tmp_path / "run")
    if how == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    outcome = run(launcher, replace(command, out=writing))
    os.close(writing)
    said = refusal(outcome, 141 if how == "closed" else 2)
    if how == "full":
        assert said[-1] == "svm-tui: no space left on the disk; free some, or choose another path."
    # The work is done, or as far as it came.
    assert files_in(command.folder).keys() > before.keys() or kind is Infer
