"""``svm-tui models`` through the command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import mlx.core as mx
import pytest
from huggingface_hub import constants

from streaming_vlm_mlx import backend
from streaming_vlm_mlx.backend import Backend
from streaming_vlm_mlx.models import memory_budget
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
    *_, megabytes, needs, gigabytes, fits, preset = rows["run1"].split()
    assert (megabytes, gigabytes, fits, preset) == ("MB", "GiB", "yes", "streamingvlm")
    assert 0 < float(needs) < 0.2
    assert rows["run2"].rstrip().endswith("incomplete: it lacks model.safetensors")
    assert f"not listed, of kinds that do not run here: owner/other@{'a' * 40} ('llama')" in shown
    assert "Qwen3-VL 8B " in shown
    presets = {line[:28].strip(): line.rpartition("GiB")[2].strip() for line in shown.splitlines() if "GiB" in line}
    assert presets["Qwen2-VL 7B, LiveCC"] == "instruct, livecc"
    assert presets["Qwen2.5-VL 7B, StreamingVLM"] == "instruct, streamingvlm"
    assert presets["Qwen3-VL 8B"] == "instruct"


class Devices:
    """What the backend says of another machine, and what a model may use there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch.setattr

    def become(self, kind: Literal["Metal", "CUDA", "CPU"], limit: int) -> None:
        found = Backend("cpu" if kind == "CPU" else "gpu", kind, mx.float32 if kind == "CPU" else mx.bfloat16)
        self._set(backend, "prepare", lambda: found)
        self._set(memory_budget, "memory_limit", lambda: limit)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    return Devices(monkeypatch)


def shown_choices(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what the command prints of what to take."""
    assert cli.main(["models"]) == 0
    shown = capsys.readouterr().out
    return shown[shown.index("what to take") :].splitlines()


def test_a_mac_is_shown_macs(devices: Devices, capsys: pytest.CaptureFixture[str]) -> None:
    devices.become("Metal", 12 * GIB)
    title, _, *rows, last = shown_choices(capsys)
    assert title.strip() == "what to take on a Mac"
    assert [row.replace("→", "").split()[0] for row in rows] == ["8", "16", "32", "64"]
    assert last == "→ is this machine's row. docs/models.md says how to get each."


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("CUDA", "docs/models.md says how to get each."),
        (
            "CPU",
            "On a CPU none of them keeps up with a live clip; use --pace every, or infer. "
            "docs/models.md says how to get each.",
        ),
    ],
)
def test_another_machine_is_shown_itself(
    devices: Devices, capsys: pytest.CaptureFixture[str], kind: Literal["CUDA", "CPU"], last: str
) -> None:
    devices.become(kind, 16 * GIB)
    title, head, row, said = shown_choices(capsys)
    assert title.strip() == "what to take on this machine"
    assert head.startswith("for a model")
    assert row.split()[:2] == ["16.0", "GiB"]
    bits = {"CUDA": "8 bits: 11.0 GiB", "CPU": "4 bits: 7.7 GiB"}[kind]
    assert bits in row
    assert said == last


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
    presets = {one["name"]: one["preset"] for one in found["checkpoints"]}
    assert (presets["run1"], presets["run2"]) == ("streamingvlm", None)
    assert found["kind"] in ("Metal", "CUDA", "CPU")
    assert len(found["choices"]) == (4 if found["kind"] == "Metal" else 1)
    assert {need["bits"] for need in found["needs"]} == {16, 8, 4}


def test_the_row_of_this_machine_is_the_largest_that_it_has() -> None:
    found = Catalog(0, 0, "Metal", "Metal, bfloat16", (), (), choices(published_needs()))
    machines = {4: None, 7.7: 8, 8: 8, 12: 8, 15.5: 16, 24: 16, 32: 32, 48: 32, 62.5: 64, 512: 64}
    mine = {gib: replace(found, memory=int(gib * GIB)).mine for gib in machines}
    assert {gib: choice and choice.memory // GIB for gib, choice in mine.items()} == machines
