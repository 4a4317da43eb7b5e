"""The list of checkpoints on a machine, and what the published sizes need."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.hub_cache import HubCache, HubName, link
from streaming_vlm_mlx.memory import mac_gpu_memory
from streaming_vlm_mlx.models.catalog import (
    BITS,
    LINES,
    MACS,
    CheckpointSummary,
    Computing,
    choices,
    list_checkpoints,
    published_needs,
)
from streaming_vlm_mlx.models.convert_checkpoint import Conversion, convert, make_plan, quantization_for
from streaming_vlm_mlx.models.memory_budget import GIB, budget_of, estimate
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.processor_config import DEFAULTS
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.stream_settings import read_stream_config

COMMIT = "0123456789" * 4
HERE = Computing(mx.float32, False, 1 << 30)


def keep(cache: HubCache, name: HubName, source: Path, *leave_out: str) -> Path:
    """Put the files of `source` into the cache as a snapshot."""
    folder = cache.snapshot_path(name.repo_id, COMMIT)
    for path in (path for path in source.iterdir() if path.name not in leave_out):
        blob = cache.blob(name.repo_id, path.name)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link(blob, folder / path.name)
    cache.write_ref(name, COMMIT)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def listed(tmp_path: Path, cache: HubCache, machine: Computing = HERE) -> dict[str, CheckpointSummary]:
    return {one.name: one for one in list_checkpoints(tmp_path / "checkpoints", cache, machine)}


def test_the_checkpoint_of_the_package_comes_first_and_needs_what_the_budget_says(
    tmp_path: Path, cache: HubCache
) -> None:
    first, *others = list_checkpoints(tmp_path / "checkpoints", cache, HERE)
    assert not others
    _, budget = budget_of(CHECKPOINT, read_stream_config(CHECKPOINT), mx.float32, gpu=False)
    assert (first.place, first.family, first.bits, first.peak) == ("package", "Qwen2.5-VL", 16, budget.peak)
    assert first.size == sum(path.stat().st_size for path in CHECKPOINT.iterdir())
    assert first.fits
    (small,) = list_checkpoints(tmp_path, cache, replace(HERE, limit=budget.peak - 1))
    assert small.fits is False


def test_what_is_broken_is_listed_with_the_reason(tmp_path: Path, cache: HubCache) -> None:
    root = tmp_path / "checkpoints"
    for name in ("no weights", "no json", "cut", "lora"):
        shutil.copytree(CHECKPOINT, root / name)
    (root / "empty").mkdir()
    (root / "a file").touch()
    (root / "no weights" / "model.safetensors").unlink()
    (root / "no json" / "config.json").write_text("{")
    (root / "cut" / "model.safetensors").write_bytes(b"cut")
    (root / "lora" / "adapter_config.json").write_text("{}")
    found = listed(tmp_path, cache)
    reasons = {one.name: one.problem for one in found.values() if one.place == "checkpoints/"}
    assert list(reasons) == ["cut", "empty", "lora", "no json", "no weights"]
    assert reasons["empty"] == "incomplete: it lacks config.json"
    assert reasons["no weights"] == "incomplete: it lacks model.safetensors"
    assert reasons["lora"] == "an adapter; name it with --adapter"
    assert reasons["no json"].startswith("config.json is not JSON")
    assert reasons["cut"].startswith("model.safetensors is truncated or not a safetensors file")
    assert not any("\n" in reason for reason in reasons.values())
    assert all(one.peak is None for one in found.values() if one.problem)


def test_quantized_folders_are_listed_with_their_bits(tmp_path: Path, cache: HubCache) -> None:
    root = tmp_path / "checkpoints"
    root.mkdir()
    job = Conversion(CHECKPOINT, root / "small", 4)
    convert(job, make_plan(job))
    found = listed(tmp_path, cache)["small"]
    _, budget = budget_of(root / "small", read_stream_config(root / "small"), mx.float32, gpu=False)
    assert (found.bits, found.peak) == (4, budget.peak)


def test_snapshots_are_listed_with_their_revision(tmp_path: Path, cache: HubCache) -> None:
    keep(cache, HubName("owner/main"), CHECKPOINT)
    keep(cache, HubName("owner/tagged", "v1"), CHECKPOINT)
    keep(cache, HubName("owner/commit", COMMIT), CHECKPOINT)
    keep(cache, HubName("owner/half"), CHECKPOINT, "model.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    keep(cache, HubName("owner/other"), other)
    found = listed(tmp_path, cache)
    shown = {name: (one.revision, one.commit) for name, one in found.items() if one.place == "hub cache"}
    assert shown == {
        "owner/main": ("main", COMMIT),
        "owner/tagged@v1": ("v1", COMMIT),
        f"owner/commit@{COMMIT}": (None, COMMIT),
        "owner/half": ("main", COMMIT),
        "owner/other": ("main", COMMIT),
    }
    # Links are followed.
    assert found["owner/main"].size == sum(path.stat().st_size for path in CHECKPOINT.iterdir())
    assert found["owner/main"].fits
    assert found["owner/half"].problem.startswith("incomplete: it lacks model.safetensors; name it in a command while")
    assert (found["owner/other"].problem, found["owner/other"].is_foreign) == ("a model of type 'llama'", True)


@pytest.fixture(scope="module")
def needs() -> Iterator[dict[tuple[str, int], int]]:
    return {(need.model, need.bits): need.peak for need in published_needs()}


@pytest.mark.parametrize("name", ["Qwen3-VL 2B", "Qwen2.5-VL 3B", "Qwen2-VL 2B"])
@pytest.mark.parametrize("bits", BITS)
def test_needs_are_those_of_the_quantized_model(needs: dict[tuple[str, int], int], name: str, bits: int) -> None:
    config = PUBLISHED[name]
    if bits != 16:
        config = replace(config, quantization=quantization_for(VisionLanguageModel(config), bits))
    stream = StreamConfig(pixels=DEFAULTS[config.model_type])
    assert needs[name, bits] == estimate(VisionLanguageModel(config), stream, mx.bfloat16, gpu=True).peak


def test_what_to_take_fits_and_nothing_larger_does(needs: dict[tuple[str, int], int]) -> None:
    found = choices(published_needs())
    assert [choice.memory // GIB for choice in found] == list(MACS)
    for choice in found:
        for line, models in LINES.items():
            fits = [(m, b) for m in models for b in BITS if needs[m, b] <= 0.75 * choice.usable]
            taken = choice.take.get(line)
            assert ([(taken.model, taken.bits)] if taken else []) == fits[:1]


def test_macs_lend_a_part_of_their_memory() -> None:
    """As Metal's recommendedMaxWorkingSetSize is on Macs of these sizes."""
    assert [round(mac_gpu_memory(gib << 30) / GIB, 2) for gib in (8, 16, 24, 32, 36, 64, 128)] == [
        5.33, 10.67, 16.0, 21.33, 27.0, 48.0, 96.0,
    ]  # fmt: skip


def test_a_folder_with_an_empty_tensor_does_not_stop_the_list(tmp_path: Path, cache: HubCache) -> None:
    folder = tmp_path / "checkpoints" / "odd"
    shutil.copytree(CHECKPOINT, folder)
    header = json.dumps({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "odd" in listed(tmp_path, cache)
