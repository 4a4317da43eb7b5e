"""``svm-tui models`` through the command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from streaming_vlm_mlx.models.catalog import choices, published_needs
from streaming_vlm_mlx.shipped import CHECKPOINT
from tui import cli
from tui.commands.models import Catalog

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with one whole checkpoint and one half, and a cache with a model of another kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copytree(CHECKPOINT, "checkpoints/run1")
    shutil.copytree(CHECKPOINT, "checkpoints/run2", ignore=shutil.ignore_patterns("*.safetensors"))
    other = tmp_path / "hub" / "models--owner--other" / "snapshots" / ("a" * 40)
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "llama"}')


def test_tables_list_what_is_here_and_what_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    *_, megabytes, needs, gigabytes, fits = rows["run1"].split()
    assert (megabytes, gigabytes, fits) == ("MB", "GiB", "yes")
    assert 0 < float(needs) < 0.2
    assert rows["run2"].rstrip().endswith("incomplete: it lacks model.safetensors")
    assert f"not listed, of kinds that do not run here: owner/other@{'a' * 40} ('llama')" in shown
    assert "Qwen3-VL 8B " in shown
    assert [line.split()[0] for line in shown.splitlines() if " GB " in line and "GiB" in line][-1] in ("64", "→")


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    places = {one["name"]: one["place"] for one in found["checkpoints"]}
    assert places == {
        "(no --ckpt)": "package",
        "run1": "checkpoints/",
        "run2": "checkpoints/",
        f"owner/other@{'a' * 40}": "hub cache",
    }
    assert [choice["memory"] // GIB for choice in found["choices"]] == [8, 16, 32, 64]
    assert {need["bits"] for need in found["needs"]} == {16, 8, 4}


def test_the_row_of_this_machine_is_the_largest_that_it_has() -> None:
    found = Catalog(0, 0, "CPU, float32", (), (), choices(published_needs()))
    machines = {4: None, 7.7: 8, 8: 8, 12: 8, 15.5: 16, 24: 16, 32: 32, 48: 32, 62.5: 64, 512: 64}
    mine = {gib: replace(found, memory=int(gib * GIB)).mine for gib in machines}
    assert {gib: choice and choice.memory // GIB for gib, choice in mine.items()} == machines
