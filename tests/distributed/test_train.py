"""Training on two machines, which here are two processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.train.checkpointing import RunFolder
from streaming_vlm_mlx.train.metrics import Validated
from tests.distributed.launching import REPORT_WITHIN, Ended
from tests.distributed.launching import run as run_ranks
from tests.train.running import run, write_records

RANK = str(Path(__file__).with_name("train_rank.py"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"), clips=4, seconds=5)


def settings(records: Path, rows: int) -> dict[str, Any]:
    """Return a run's settings: eight windows, two pools, `rows` a batch; it saves and looks after three updates."""
    return {
        "data": {"records": [str(records)], "batches": {"batch_size": rows, "workers": 0, "pool": 4}},
        "validation": {"records": [str(records)]},
        "schedule": {"steps": 5},
    }


def two(folder: Path, asked: dict[str, Any], *own: dict[str, Any], **more: Any) -> list[Ended]:
    """Run two ranks under the settings `asked`, each with what is its `own`."""
    both = {"settings": asked, "out": str(folder / "run"), "resume": False, **more}
    return run_ranks(folder, 2, [RANK, *(json.dumps({**both, **each}) for each in own or ({}, {}))])


@pytest.fixture(scope="module")
def unbroken(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """A run of two ranks with one row a batch, from its beginning to its end."""
    folder = tmp_path_factory.mktemp("two")
    return folder, two(folder, settings(records, 1))


def test_two_with_a_row_each_are_one_with_two_rows(
    unbroken: tuple[Path, list[Ended]], records: Path, tmp_path: Path
) -> None:
    heard, progress = run(records, tmp_path / "one", **settings(records, 2))
    for ended_at in unbroken[1]:
        assert ended_at.status == 0, ended_at.err
        assert ended_at.result["losses"] == pytest.approx(heard.losses, abs=1e-4)
        assert ended_at.result["norms"] == pytest.approx([step.grad_norm for step in heard.steps], rel=1e-3)
        assert ended_at.result["validated"] == [pytest.approx(e.losses, abs=1e-4) for e in heard.of(Validated)]
        assert ended_at.result["step"] == progress.step == 5
        assert ended_at.result["best"] == pytest.approx(progress.best_loss, abs=1e-4)
    assert max(heard.losses) - min(heard.losses) > 1e-2


def test_one_writes(unbroken: tuple[Path, list[Ended]]) -> None:
    folder, ended_at = unbroken
    assert [each.result["kinds"].count("CheckpointSaved") for each in ended_at] == [2, 0]
    assert [path.name for path in RunFolder(folder / "run").checkpoints()] == ["00000003", "00000005"]
    assert len((folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 7


@pytest.mark.parametrize("dying", [0, 1])
def test_one_that_dies_ends_the_other_and_both_go_on(
    unbroken: tuple[Path, list[Ended]], records: Path, tmp_path: Path, dying: int
) -> None:
    asked = settings(records, 1)
    ended_at = two(tmp_path, asked, *({"dies": 4 if rank == dying else None} for rank in range(2)))
    left = ended_at[1 - dying]
    assert ended_at[dying].status == 9
    assert left.status == 2
    assert f"rank {1 - dying} of 2 lost the connection to another rank" in left.err.splitlines()[-1]
    assert left.at - ended_at[dying].at < REPORT_WITHIN
    assert "Traceback" not in left.err
    for rank, again in enumerate(two(tmp_path, asked, resume=True)):
        assert again.status == 0, again.err
        assert again.result["losses"] == pytest.approx(unbroken[1][rank].result["losses"][3:], abs=1e-5)


def test_a_stop_on_one_machine_stops_both(records: Path, tmp_path: Path) -> None:
    asked = settings(records, 1)
    ended_at = two(tmp_path, asked, {"stop": 2}, {})
    assert [each.result["step"] for each in ended_at] == [2, 2]


def test_machines_with_other_records_are_refused(records: Path, tmp_path: Path) -> None:
    fewer = write_records(tmp_path, "fewer", clips=2, seconds=5)
    for each in two(tmp_path, settings(records, 1), {}, {"settings": settings(fewer, 1)}):
        assert each.status == 2
        assert "start with different windows: rank 0 has 8, rank 1 has 4" in each.err
