"""`bench --peers`: real programs on one small checkpoint, and how the command behaves when they fail."""

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

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.bench import (
    STANDARD,
    BenchConfig,
    Conversation,
    SecondCost,
    forced_tokens,
    read_bench_config,
)
from streaming_vlm_mlx.eval.peers import figures, run
from streaming_vlm_mlx.eval.peers.worker import ROWS, WorkerSpec
from tests.commands.test_bench import SMALL
from tui import cli

TOKENS = 4
SETTINGS = {**SMALL, "stream": {**SMALL["stream"], "sampling": {"max_new_tokens": TOKENS + 1}}}
FIRST_ROWS = {"svm-tui", "transformers window", "mlx-vlm window"}
OTHERS = {"torch": "transformers", "mlx_vlm": "mlx-vlm"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "small.yaml"
    path.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return path


class SharedProcess(run.WorkerProcess):
    """One process for the rows of a program, which is what takes long to import."""

    started: dict[str, "SharedProcess"]

    def __new__(cls, log: Path) -> "SharedProcess":
        return cls.started.setdefault(log.stem.split()[0], super().__new__(cls))

    def __init__(self, log: Path) -> None:
        if not vars(self):
            super().__init__(log)


@pytest.fixture(scope="module")
def report(config: Path) -> dict[str, Any]:
    """The JSON of three seconds of all programs that are installed."""
    if not any(map(importlib.util.find_spec, OTHERS)):
        pytest.skip("neither torch nor mlx-vlm is installed: pip install 'svm-tui[bench]'")
    out = config.with_name("peers.json")
    SharedProcess.started = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "WorkerProcess", SharedProcess)
        patch.setattr(run, "PAUSE_S", 0.0)
        # More threads than a small model needs only wait for each other.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MKL_NUM_THREADS", "1")
        assert cli.main(["bench", "--peers", "--config", str(config), "--seconds", "3", "--json", str(out)]) == 0
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return report


def test_every_installed_program_has_a_row(report: dict[str, Any]) -> None:
    missing = {program for package, program in OTHERS.items() if not importlib.util.find_spec(package)}
    wanted = [who for who in ROWS if who.split()[0] not in missing]
    assert [(row["who"], row["seconds"]) for row in report["rows"]] == [(who, 3) for who in wanted]
    assert report["partial"] is False
    for row in report["rows"]:
        assert 0 < row["first_token_s"] < row["median_s"] <= row["p95_s"] < 600
        assert row["last_tenth_s"] > 0 < row["decode_tokens_per_s"]
        assert 50 < row["peak_rss_mb"] < 20_000
    assert [ratio["who"] for ratio in report["ratios"]] == wanted[1:]
    assert all(0 < ratio["p10"] <= ratio["median"] <= ratio["p90"] for ratio in report["ratios"])
    prefills = report["prefill"]["rows"]
    assert [row["who"] for row in prefills] == [who for who in wanted if who in FIRST_ROWS]
    assert all(row["ratio"] == row["median_s"] / prefills[0]["median_s"] > 0 for row in prefills)
    assert {"processor", "cores", "threads", "device"} <= set(report["machine"])
    assert {"python", "mlx", "transformers"} <= set(report["versions"])


def test_all_programs_compute_the_same(report: dict[str, Any]) -> None:
    """The first and the last token of two seconds agree, so frames, turns, positions and forced tokens do."""
    differences = report["logits"]["differences"]
    assert len(differences) == len(report["rows"])
    assert max(differences.values()) < 1e-4


def test_forced_tokens_are_words_and_come_from_the_seed(config: Path) -> None:
    small = read_bench_config(config)
    first = forced_tokens(small, 0)
    assert len(first) == TOKENS
    assert first == forced_tokens(small, 0) != forced_tokens(small, 1)
    assert len(forced_tokens(STANDARD, 0)) == 19
    assert max(forced_tokens(STANDARD, 7)) < 151_643


def test_a_prompt_shows_its_window_and_goes_on_behind_a_cache(config: Path) -> None:
    small = read_bench_config(config)
    growing, window = Conversation(small, None), Conversation(small, 2)
    sizes = []
    for index in range(4):
        whole, shown = growing.prompt(), window.prompt()
        sizes.append(len(shown.ids))
        assert len(whole.grids) == index + 1
        assert len(shown.grids) == min(index + 1, 2)
        assert whole.positions.shape == (3, len(whole.ids))
        for conversation in (growing, window):
            conversation.answer(forced_tokens(small, index))
        if index < 2:
            assert np.array_equal(whole.ids, shown.ids)
            assert np.array_equal(whole.pixel_values, shown.pixel_values)
    assert sizes[3] == sizes[2] > sizes[0]


def test_a_prompt_behind_a_cache_is_the_end_of_the_whole_one(config: Path) -> None:
    small = read_bench_config(config)
    one, other = Conversation(small, None), Conversation(small, None)
    cached = len(one.prompt().ids)
    assert len(other.prompt().ids) == cached
    for conversation in (one, other):
        conversation.answer(forced_tokens(small, 0))
    whole, rest = one.prompt(), other.prompt(cached + TOKENS - 1)
    assert rest.ids[0] == forced_tokens(small, 0)[-1]
    assert np.array_equal(rest.ids, whole.ids[cached + TOKENS - 1 :])
    assert np.array_equal(rest.positions, whole.positions[:, cached + TOKENS - 1 :])
    assert np.array_equal(rest.pixel_values, whole.pixel_values[len(whole.pixel_values) // 2 :])
    assert rest.next_position == whole.next_position


def test_the_worker_of_pytorch_imports_no_mlx() -> None:
    code = (
        "import sys, streaming_vlm_mlx.eval.peers.worker\n"
        "sys.exit(any(name.split('.')[0] in ('mlx', 'torch') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_default_is_the_shipped_configuration(pytestconfig: pytest.Config) -> None:
    assert read_bench_config(pytestconfig.rootpath / "configs" / "bench" / "stream.yaml") == STANDARD


def costs(*seconds: float) -> list[SecondCost]:
    return [SecondCost(s, s / 4, s, 4, int(1e6 * (n + 1))) for n, s in enumerate(seconds)]


def test_figures_of_a_row() -> None:
    row = figures.make_row("transformers cache", costs(*[1.0] * 18, 2.0, 4.0))
    assert (row.seconds, row.median_s, row.last_tenth_s, row.first_token_s) == (20, 1.0, 3.0, 0.25)
    assert row.p95_s == pytest.approx(2.1)
    assert row.decode_tokens_per_s == pytest.approx(4.0)
    assert row.peak_rss_mb == pytest.approx(20.0)
    assert figures.make_row("svm-tui", [SecondCost(1.0, 1.0, 1.0, 1, 1)]).decode_tokens_per_s is None


def test_ratios_are_of_the_same_second() -> None:
    ratio = figures.make_ratio("mlx-vlm window", costs(2.0, 4.0, 9.0), costs(1.0, 2.0, 3.0))
    assert (ratio.median, ratio.peak_rss) == (2.0, 1.0)
    assert 2.0 <= ratio.p10 < ratio.p90 == pytest.approx(2.8)


@pytest.mark.parametrize(
    ("asked", "measured", "shown"),
    [(300, 300, [10, 60, 300]), (300, 37, [10, 37]), (3, 3, [3]), (60, 0, []), (400, 400, [10, 60, 300, 400])],
)
def test_lengths(asked: int, measured: int, shown: list[int]) -> None:
    assert figures.lengths(asked, measured) == shown


@dataclass
class Fake:
    """A worker that computes nothing; `acts` says what happens at which row and second."""

    who: str
    acts: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    shift: float = 0.0
    spec: WorkerSpec = field(default_factory=WorkerSpec)
    request: dict[str, Any] = field(default_factory=dict)
    heard: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    closed: bool = False

    def send(self, request: dict[str, Any]) -> None:
        self.request = json.loads(json.dumps(request))

    def receive(self) -> dict[str, Any]:
        assert self.request["who"] == self.who
        if self.request["do"] == "load":
            self.spec = WorkerSpec.from_dict(self.request["spec"])
            if (self.who, -1) in self.acts:
                raise self.acts[self.who, -1]
            return {}
        if self.request["do"] == "warm-up":
            # The second second differs twice as much.
            np.save(self.spec.scores, np.full((2, 2, 5), -3.0, np.float32) + self.shift * np.arange(2)[:, None, None])
            return {}
        if self.request["do"] == "prefill":
            assert len(self.request["tokens"]) == run.PREFILL_TOKENS
            return {"seconds": 3.0 if self.who == "mlx-vlm window" else 1.5}
        index = self.request["index"]
        if (self.who, index) in self.acts:
            raise self.acts[self.who, index]
        self.heard.append((index, tuple(self.request["tokens"])))
        slow = 2.0 if self.who != "svm-tui" else 1.0
        return {"seconds": slow, "first_token_s": 0.5, "last_token_s": slow, "tokens": TOKENS, "peak_rss": 10**9}

    def close(self) -> None:
        self.closed = True


@dataclass
class Stage:
    """The fakes of a run, and how they behave."""

    acts: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    shifts: dict[str, float] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    fakes: dict[str, Fake] = field(default_factory=dict)

    def start(self, log: Path) -> Fake:
        fake = Fake(log.stem, self.acts, self.shifts.get(log.stem, 0.0))
        return self.fakes.setdefault(fake.who, fake)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage, find = Stage(), importlib.util.find_spec
    monkeypatch.setattr(run, "WorkerProcess", stage.start)
    monkeypatch.setattr(run, "PAUSE_S", 0.0)
    monkeypatch.setattr(run, "save_seeded_checkpoint", lambda folder, _: folder.mkdir() or "float32")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (None if name in stage.absent else sys) if name in OTHERS else find(name, *rest),
    )
    return stage


def bench(config: Path, out: Path, seconds: int = 12) -> tuple[int, dict[str, Any]]:
    status = cli.main(["bench", "--peers", "--config", str(config), "--seconds", str(seconds), "--json", str(out)])
    return status, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


def test_rows_take_turns_and_hear_the_same(
    stage: Stage, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = bench(config, tmp_path / "p.json")
    assert status == 0
    assert {(row["who"], row["seconds"]) for row in report["rows"]} == {(who, n) for who in ROWS for n in (10, 12)}
    assert {ratio["median"] for ratio in report["ratios"]} == {2.0}
    small = read_bench_config(config)
    said = [(index, tuple(forced_tokens(small, index))) for index in range(12)]
    assert all(fake.heard == said and fake.closed for fake in stage.fakes.values())
    assert BenchConfig.from_dict(report["settings"]) == small
    shown = capsys.readouterr().out
    assert "over 10 s" in shown
    assert "2.00 (2.00–2.00)" in shown
    assert (
        "Prefill of 1,000 tokens: svm-tui 1.500 s (1.00), transformers 1.500 s (1.00), mlx-vlm 3.000 s (2.00)" in shown
    )


def test_ctrl_c_keeps_what_was_measured(
    stage: Stage, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.acts["transformers window", 7] = KeyboardInterrupt()
    status, report = bench(config, tmp_path / "p.json")
    assert status == 130
    assert report["partial"] is True
    # The second block begins with another row; all have at least the first.
    assert {row["seconds"] for row in report["rows"]} == {5}
    assert len(report["rows"]) == len(ROWS)
    assert all(fake.closed for fake in stage.fakes.values())
    assert "with the seconds so far" in capsys.readouterr().err


def test_a_missing_program_is_a_remark(
    stage: Stage, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.absent = ("mlx_vlm",)
    status, report = bench(config, tmp_path / "p.json", 2)
    assert status == 0
    assert {row["who"].split()[0] for row in report["rows"]} == {"svm-tui", "transformers"}
    assert "pip install 'svm-tui[bench]'" in report["remarks"][0]
    assert "mlx-vlm is left out" in capsys.readouterr().err


def test_no_other_program_is_an_error_of_one_line(
    stage: Stage, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.absent = tuple(OTHERS)
    assert bench(config, tmp_path / "p.json") == (2, {})
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'svm-tui[bench]'" in error


def test_a_program_that_computes_something_else_is_not_measured(stage: Stage, config: Path, tmp_path: Path) -> None:
    stage.shifts = {"mlx-vlm cache": 0.5, "transformers window": 0.5}
    status, report = bench(config, tmp_path / "p.json", 2)
    assert status == 0
    assert {row["who"] for row in report["rows"]} == set(ROWS) - set(stage.shifts)
    window, cache = report["remarks"]
    assert "computes something else" in window
    assert "does not go on from a cache with new video" in cache
    assert report["logits"]["differences"]["mlx-vlm cache"] == 0.5


def test_a_program_that_fails_leaves_the_others(stage: Stage, config: Path, tmp_path: Path) -> None:
    stage.acts["mlx-vlm window", -1] = run.PeerError("ModuleNotFoundError: No module named 'requests'")
    stage.acts["transformers cache", 11] = run.PeerError("it exited with status -9: perhaps out of memory")
    status, report = bench(config, tmp_path / "p.json")
    assert status == 0
    assert "mlx-vlm window" not in {row["who"] for row in report["rows"]}
    assert {row["seconds"] for row in report["rows"] if row["who"] == "transformers cache"} == {10}
    assert "requests'. pip install" in report["remarks"][0]
    assert "status -9" in report["remarks"][1]


def test_a_failure_of_this_program_is_an_error(
    stage: Stage, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.acts["svm-tui", -1] = run.PeerError("SvmError: too little memory.")
    assert bench(config, tmp_path / "p.json")[0] == 2
    assert "svm-tui failed: SvmError: too little memory." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--peers", "--seconds", "0"], "--seconds is 0; it must be 1 or more"),
        (["--peers", "--mode", "full"], "--peers goes with"),
        ([], "needs --config"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stream": {"style": "livecc"}}, "style inference or training"),
        ({"model": {"vision_config": None}}, "needs a model with a vision_config"),
        ({"model": {"text_config": {**SMALL["model"]["text_config"], "vocab_size": 4096}}}, "vocab_size is 4096"),
    ],
)
def test_a_checkpoint_that_cannot_be_compared_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings = {**SETTINGS, **{part: {**SETTINGS[part], **values} for part, values in changed.items()}}
    with pytest.raises(SvmError, match=said):
        run.save_seeded_checkpoint(tmp_path / "checkpoint", BenchConfig.from_dict(settings))


def test_a_worker_answers_with_what_went_wrong(tmp_path: Path) -> None:
    worker = run.WorkerProcess(tmp_path / "w.log")
    try:
        worker.send({"who": "svm-tui", "do": "load", "spec": {"folder": str(tmp_path / "none")}})
        with pytest.raises(run.PeerError, match=r"SvmError: .*none"):
            worker.receive()
        worker.send({"do": "nothing"})
        with pytest.raises(run.PeerError, match="KeyError"):
            worker.receive()
    finally:
        worker.close()
    worker.close()


def test_a_worker_that_exits_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'cannot start' >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    worker = run.WorkerProcess(tmp_path / "w.log")
    worker.send({"do": "nothing"})
    with pytest.raises(run.PeerError, match="it exited with status 3: cannot start"):
        worker.receive()
    worker.close()
