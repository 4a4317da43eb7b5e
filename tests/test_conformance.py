"""The recorded cases of the published program, through the command that runs them; and that this can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.generate import Session
from tests.modules import load_module

SCRIPT = Path(__file__).with_name("conformance.py")
CASES = ["balanced", "text_longer", "vision_longer", "append", "full_attention", "recompute"]
LIVECC = ["livecc_plain", "livecc_question", "livecc_silence"]

Chunk = dict[str, Any]


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    """The command as a module; it makes the model of a seed once."""
    module = load_module(SCRIPT, "conformance_command")
    make_model, models = module.make_model, dict[int, VisionLanguageModel]()

    def make_once(folder: Path, recipe: ModuleType, case: dict[str, Any]) -> VisionLanguageModel:
        # No two cases of different models have one seed.
        seed = case["params"]["seed"]
        if seed not in models:
            models[seed] = make_model(folder, recipe, case)
        return models[seed]

    module.make_model = make_once  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    """The folder of the recorded cases."""
    return shared / "conformance"


@pytest.fixture
def short(cases: Path, tmp_path: Path) -> Callable[[Callable[[list[Chunk], dict[str, Any]], object]], list[str]]:
    """Return a way to alter the first three seconds of a case; it gives the command's arguments for them."""

    def alter(change: Callable[[list[Chunk], dict[str, Any]], object]) -> list[str]:
        for name in ("model.json", "recipe.py"):
            shutil.copyfile(cases / name, tmp_path / name)
        case = json.loads((cases / "recompute.json").read_text(encoding="utf-8"))
        case["chunks"] = case["chunks"][:3]
        change(case["chunks"], case["params"])
        (tmp_path / "altered.json").write_text(json.dumps(case), encoding="utf-8")
        return ["--dir", str(tmp_path), "altered"]

    return alter


def change_choice(chunks: list[Chunk]) -> None:
    """Record another word, as if the margin had been wide, in the last second, where nothing follows from it."""
    chunks[-1]["out"][0] += 1
    chunks[-1]["min_margin"] = 1.0


@pytest.mark.parametrize("name", [*CASES, *LIVECC])
def test_recorded_cases(conformance: ModuleType, cases: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.main(["--dir", str(cases), name]) == 0
    line = capsys.readouterr().out
    assert line.startswith(name)
    assert "0 ids, 0 positions, 0 cache lengths, 0 choices" in line


@pytest.mark.parametrize("name", LIVECC)
def test_free_choices_are_livecc_s_as_long_as_margins_are_clear(
    conformance: ModuleType, cases: Path, name: str
) -> None:
    case = conformance.read_json(cases / f"{name}.json")
    recipe = conformance.load_recipe(cases)
    session = conformance.make_session(conformance.make_model(cases, recipe, case), case)
    sampler = conformance.TokenSampler(session.config.sampling, conformance.SILENCE)
    turns = list(conformance.list_turns(case))
    clear = list(takewhile(lambda turn: turn[0]["min_margin"] > conformance.CLEAR_MARGIN, turns))
    assert clear or turns[0][0]["min_margin"] < conformance.CLEAR_MARGIN
    for recorded, seconds, question in clear:
        said: list[int] = []

        class Free:
            def sample(self, logits: Any, seen: Any, step: int, said: list[int] = said) -> int:
                said.append(conformance.read_row(sampler.sample(logits, seen, step)))
                return said[-1]

        for second in seconds:
            request = conformance.make_second(recipe, case["params"], session.config, second, question)
            assert sum(1 for _ in session.generate(request, Free())) >= 2
        assert said == recorded["out"]


def test_full_mode_is_full_attention(
    conformance: ModuleType, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_session = conformance.make_session
    modes = []

    def make_full(*args: Any) -> Session:
        session: Session = make_session(*args)
        session.configure(replace(session.config, mode="full", window=1, text_round=1))
        modes.append(session.config.mode)
        return session

    monkeypatch.setattr(conformance, "make_session", make_full)
    assert conformance.main(["--dir", str(cases), "full_attention"]) == 0
    assert "8 chunks" in capsys.readouterr().out
    assert modes == ["full"]


def test_a_rounded_cache_is_reported(conformance: ModuleType, cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.main(["--dir", str(cases), "--kv-bits", "8", "recompute"]) == 0
    found = re.search(r"0 cache lengths.* within ([\d.e-]+), (\d+) of (\d+) tokens as", capsys.readouterr().out)
    assert found
    assert conformance.LOGIT_LIMIT < float(found[1]) < 0.1
    assert int(found[2]) >= 0.95 * int(found[3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chunks, _: None, "0 ids, 0 positions, 0 cache lengths, 0 choices"),
        (lambda chunks, _: chunks[1]["ids"].__setitem__(20, 7), "1 ids, 0 positions, 0 cache lengths, 0 choices"),
        (lambda chunks, _: chunks[1]["pos"][2].__setitem__(31, 0), "0 ids, 1 positions, 0 cache lengths, 0 choices"),
        (lambda chunks, _: chunks[2].update(cache_after=9), "0 ids, 0 positions, 1 cache lengths, 0 choices"),
        (lambda chunks, _: chunks[2].update(cached=9), "0 ids, 0 positions, 1 cache lengths, 0 choices"),
        (lambda chunks, _: change_choice(chunks), "0 ids, 0 positions, 0 cache lengths, 1 choices"),
        (lambda chunks, _: chunks[0]["top_logits"].__setitem__(3, 1.0), "0 ids, 0 positions, 0 cache lengths"),
        (lambda chunks, _: chunks[0].update(logits_dot=0.0), "0 ids, 0 positions, 0 cache lengths"),
        (lambda chunks, _: chunks[0].update(logits_norm=0.0), "0 ids, 0 positions, 0 cache lengths"),
        (lambda _, params: params.update(seed=1), "0 ids, 0 positions, 0 cache lengths"),
    ],
    ids=["nothing", "ids", "pos", "cache_after", "cached", "out", "top_logits", "logits_dot", "logits_norm", "weights"],
)
def test_an_altered_case_fails(
    conformance: ModuleType,
    short: Callable[..., list[str]],
    change: Callable[[list[Chunk], dict[str, Any]], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    altered = "nothing" not in request.node.callspec.id
    assert conformance.main(short(change)) == altered
    line = capsys.readouterr().out
    assert message in line
    assert line.endswith("FAILED\n" if altered else "ok\n")


@pytest.mark.parametrize("args", [["--dir", "/no/such/folder", "balanced"], ["no_such_case"]], ids=["folder", "case"])
def test_what_is_not_there_is_named(
    conformance: ModuleType, cases: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance.main(args if "--dir" in args else ["--dir", str(cases), *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("conformance: ")
    assert said.err.count("\n") == 1


def test_the_command_exits_with_what_main_returns() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, SCRIPT, "--dir", "/no/such/folder", "balanced"]
    assert subprocess.run(command, capture_output=True, env=environment, check=False).returncode == 2


def test_video_counts_up_like_text_on_one_axis(conformance: ModuleType, cases: Path) -> None:
    """No case was recorded with `all_text`; its positions are those of a text of that length."""
    recipe = conformance.load_recipe(cases)
    params = {"seed": 1, "h": 84, "w": 112, "window": 2, "text_round": 2, "sink": 4, "slide": 4, "all_text": True}
    case = {"params": params}
    session = conformance.make_session(conformance.make_model(cases, recipe, case), case)
    for number in range(4):
        second = conformance.make_second(recipe, params, session.config, number)
        forced = conformance.Forced(session, [374, 2503, 151645], conformance.TokenSampler(session.config.sampling, 0))
        assert sum(1 for _ in session.generate(second, forced)) > 1
        assert (forced.ids == 151656).sum() == 12 * min(number + 1, 2)
        assert np.array_equal(forced.positions, [np.arange(len(forced.ids))] * 3)
