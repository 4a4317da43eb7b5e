"""A few cases of each kind in each run of the tests, and tests of the suite itself."""

import tempfile
from pathlib import Path

import pytest

from tests.fuzz import __main__ as program
from tests.fuzz.driver import Outcome, Worker, run_cases
from tests.fuzz.worker import KINDS

# The long runs take hundreds of cases.
CASES, SEED = 12, 1


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_input_ends_in_a_result_or_a_named_error(kind: str) -> None:
    outcomes: list[Outcome] = []
    run_cases([(kind, number) for number in range(CASES)], SEED, 1, outcomes.append)
    assert len(outcomes) == CASES
    assert not [outcome for outcome in outcomes if outcome.failure]
    assert any(outcome.refused for outcome in outcomes)


@pytest.mark.parametrize(
    ("number", "seconds", "says"),
    [
        (0, 9, "ZeroDivisionError"),
        (1, 0.5, "took more than 0.5 s of processor time"),
        (2, 99, "MB"),
        (3, 9, "ended the process with SIGABRT"),
        (4, 9, "an error of 0 characters"),
        (6, 9, ""),
        (7, 9, ""),
    ],
)
def test_a_broken_promise_is_seen_and_the_next_case_runs(number: int, seconds: float, says: str) -> None:
    with Worker(SEED, seconds=seconds) as worker:
        outcome = worker.run("broken", number)
        assert says in outcome.failure
        assert bool(says) == bool(outcome.failure)
        assert not worker.run("broken", 7).failure


def test_memory_that_earlier_cases_left_is_not_counted() -> None:
    with Worker(SEED) as worker:
        assert [worker.run("broken", 8).failure for _ in range(2)] == ["", ""]


def test_a_case_that_waits_for_ever_is_ended() -> None:
    with Worker(SEED, patience=0.1) as worker:
        assert worker.run("broken", 5).failure.startswith("hangs")


def test_a_process_that_dies_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Worker(SEED) as worker:
        assert "SIGABRT" in worker.run("broken", 3).failure
    assert not list(tmp_path.iterdir())


def test_a_case_can_be_repeated() -> None:
    with Worker(SEED) as one, Worker(SEED) as other, Worker(SEED + 1) as third:
        said = [worker.run("broken", 6).refused for worker in (one, other, third)]
    assert said[0] == said[1] != said[2]


def test_the_program_tells_how_to_repeat_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "KINDS", ("broken",))
    assert program.main(["--kind", "broken", "--seed", "3", "--case", "0", "--jobs", "1"]) == 1
    printed = capsys.readouterr()
    assert "python -m tests.fuzz --kind broken --seed 3 --case 0" in printed.err
    assert "broken" in printed.out
    assert program.main(["--kind", "broken", "--case", "7", "--jobs", "1"]) == 0


def test_the_folder_that_keeps_the_files_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(program, "KINDS", ("broken",))
    folder = tmp_path / "kept" / "case"
    assert program.main(["--kind", "broken", "--case", "7", "--jobs", "1", "--keep", str(folder)]) == 0
    assert [path.name.startswith("broken-7-") for path in folder.iterdir()] == [True]
