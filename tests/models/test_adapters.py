"""Tests adapters from training to playing, with a base checkpoint that never changes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, MLX_WEIGHTS
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.adapters import fingerprint, read_adapter
from streaming_vlm_mlx.models.loading import load_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.train.metrics import Started, StepDone
from streaming_vlm_mlx.train.trainer import Trainer, TrainState
from tests.train.running import Heard, run, write_records
from tui.cli import main

LORA = {"rank": 2, "scale": 4.0}


@pytest.fixture(scope="module", autouse=True)
def _tokenizer_taken_as_read(tokenizer: Tokenizer) -> Iterator[None]:
    """Read the tokenizer, which takes longer than these models learn, but once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "load", lambda _=None: tokenizer)
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"), clips=1)


@pytest.fixture(scope="module")
def base(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after one update."""
    folder = tmp_path_factory.mktemp("bases") / "base"
    run(records, folder, schedule={"steps": 1, "warmup_steps": 0})
    return folder


@pytest.fixture(scope="module")
def packed(base: Path) -> Path:
    """The same in 8 bits, but for layers whose inputs do not divide into groups."""
    checkpoint = load_checkpoint(base, mx.float32)
    plain = {f"model.layers.{n}.mlp.down_proj": False for n in range(2)}
    plain |= {name: False for name, _ in checkpoint.model.named_modules() if name.startswith("visual.")}
    checkpoint.model.quantize(QuantizationConfig(group_size=32, bits=8, layers=plain))
    save_checkpoint(base.with_name("packed"), checkpoint)
    return base.with_name("packed")


def adapt(records: Path, base: Path, out: Path, *, lora: dict[str, Any] | None = None, **over: Any) -> Heard:
    return run(records, out, model={"checkpoint": str(base)}, lora=LORA | (lora or {}), **over)[0]


@pytest.fixture(scope="module")
def adapted(records: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heard]:
    """A run of six updates on `base`."""
    folder = tmp_path_factory.mktemp("runs") / "run1"
    return folder, adapt(records, base, folder)


def arrays(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return {name: np.array(a) for name, a in load_checkpoint(folder, mx.float32).model.named_arrays()}


def logits(model: VisionLanguageModel) -> npt.NDArray[np.float32]:
    rows = np.arange(7, dtype=np.int32)
    angles = model.model.rope(np.arange(7)[None].repeat(3, axis=0))
    return np.array(model.head(model.model(model.embed(rows, None, np.zeros(7, np.bool_)), angles)))


def best_step(base: Path, adapter: Path | None = None) -> npt.NDArray[np.float32]:
    _, bundle = bundle_loader(base, mx.float32, load_checkpoint(base, mx.float32).stream, adapter)(lambda _: None)
    return logits(bundle.model)


def test_only_the_adapter_is_saved(adapted: tuple[Path, Heard]) -> None:
    folder, _ = adapted
    saved = mx.load(str(folder / MLX_WEIGHTS))
    assert isinstance(saved, dict)
    assert all(re.fullmatch(r"language_model\.model\.layers\.\d\..*_proj\.lora_[ab]", name) for name in saved)
    assert not list(folder.glob("**/model*.safetensors"))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("which", ["base", "packed"])
def test_no_weight_of_the_base_changes(
    request: pytest.FixtureRequest, records: Path, tmp_path: Path, kind: str, which: str
) -> None:
    folder: Path = request.getfixturevalue(which)
    before, files = arrays(folder), fingerprint(folder)
    heard = adapt(records, folder, tmp_path / "run1", lora={"kind": kind})
    assert heard.losses[-1] < heard.losses[0] - 0.05
    assert fingerprint(folder) == files
    after = arrays(folder)
    assert all(np.array_equal(before[name], after[name]) for name in before | after)
    assert read_adapter(tmp_path / "run1").lora.kind == kind


def test_an_adapter_of_the_shipped_model_learns_a_real_clip(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_PATH", str(shared / "clips"))
    subtitles, clip_records = tmp_path / "clip.srt", tmp_path / "clip.jsonl"
    subtitles.write_text("1\n00:00:00,200 --> 00:00:05,900\nHe drives left, stops, and up it goes: off the rim\n")
    assert main(["convert", str(shared / "clips" / "basketball.mp4"), str(subtitles), "--out", str(clip_records)]) == 0
    before, state = arrays(CHECKPOINT), []

    class Kept(Trainer):
        def __init__(self, config: Any, folder: Any, started_at: TrainState, *more: Any) -> None:
            state.append(started_at.checkpoint.model)
            super().__init__(config, folder, started_at, *more)

    monkeypatch.setattr("streaming_vlm_mlx.train.setup.Trainer", Kept)
    heard = adapt(
        clip_records,
        CHECKPOINT,
        tmp_path / "run1",
        schedule={"steps": 8},
        data={"seconds": 6, "stride": 6, "pixels": {"max_pixels": 56 * 84}},
    )
    assert heard.losses[-1] < heard.losses[0] - 0.5
    after = {name.replace("_proj.linear.", "_proj."): np.array(a) for name, a in state[0].named_arrays()}
    adapters = {name for name in after if name.endswith(("lora_a", "lora_b"))}
    assert after.keys() == before.keys() | adapters
    assert len(adapters) == 2 * 7 * 4
    for name, array in before.items():
        assert np.array_equal(after[name], array), name


def test_trainable_parameters_are_counted_and_reported(adapted: tuple[Path, Heard]) -> None:
    folder, heard = adapted
    layers = 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 48))
    (started,) = heard.of(Started)
    assert started.parameters[0] == 2 * layers
    assert read_adapter(folder).trained_parameters == 2 * layers


def test_a_resumed_run_equals_an_uninterrupted_one(
    adapted: tuple[Path, Heard], records: Path, base: Path, tmp_path: Path
) -> None:
    adapt(records, base, tmp_path / "run1", stop=3)
    again = adapt(records, base, tmp_path / "run1", resume=True)
    assert [event.step for event in again.of(StepDone)] == [4, 5, 6]
    assert again.losses == pytest.approx(adapted[1].losses[3:], abs=1e-6)
    both = [mx.load(str(folder / MLX_WEIGHTS)) for folder in (adapted[0], tmp_path / "run1")]
    assert all(np.allclose(both[0][name], both[1][name], atol=1e-6) for name in both[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora": {"rank": 3}}, "adapter_config.json says 1,856 trained parameters, .* have 2,784"),
        ({"lora": {"scale": 1.0}}, "continue with the same settings"),
    ],
)
def test_other_adapters_cannot_be_resumed(
    adapted: tuple[Path, Heard], records: Path, base: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    shutil.copytree(adapted[0], tmp_path / "run1")
    with pytest.raises(SvmError, match=message):
        adapt(records, base, tmp_path / "run1", resume=True, **changed)


def test_an_adapter_changes_the_commentary_and_fusing_does_not(
    adapted: tuple[Path, Heard], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_adapter = best_step(base, adapted[0])
    assert np.abs(with_adapter - best_step(base)).max() > 0.05
    command = ["fuse", "--ckpt", str(base), "--adapter", str(adapted[0]), "--out", str(tmp_path / "fused")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'fused'}\n"
    assert np.allclose(best_step(tmp_path / "fused"), with_adapter, atol=1e-4)
    assert main(command) == 2
    assert "already holds a checkpoint" in capsys.readouterr().err


def test_an_adapter_of_an_earlier_version_is_read(adapted: tuple[Path, Heard], base: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted[0], tmp_path / "run1")
    values = json.loads((adapted[0] / ADAPTER_CONFIG).read_text())
    early = {name: values[name] for name in ("lora", "base", "fingerprint", "trained_parameters")}
    early["lora"] = {name: early["lora"][name] for name in ("kind", "rank", "scale", "targets")}
    (tmp_path / "run1" / ADAPTER_CONFIG).write_text(json.dumps(early))
    saved = mx.load(str(adapted[0] / MLX_WEIGHTS))
    assert isinstance(saved, dict)
    named = {name.removeprefix("language_"): array for name, array in saved.items()}
    mx.save_safetensors(
        str(tmp_path / "run1" / MLX_WEIGHTS), {n.replace("model.model.", "model."): a for n, a in named.items()}
    )
    assert all(name.startswith("model.layers.") for name in mx.load(str(tmp_path / "run1" / MLX_WEIGHTS)))
    assert np.array_equal(best_step(base, tmp_path / "run1"), best_step(base, adapted[0]))


def test_an_adapter_of_another_base_is_refused_before_a_weight_is_read(
    adapted: tuple[Path, Heard], base: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fuse", "--ckpt", str(packed), "--adapter", str(adapted[0]), "--out", str(tmp_path / "fused")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error == f"svm-tui: {adapted[0]} is an adapter of {base}, whose weights are not those of {packed}.\n"
    with pytest.raises(SvmError, match="is an adapter of"):
        best_step(packed, adapted[0])


def test_a_fingerprint_depends_on_the_weights_only(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "copy")
    (tmp_path / "copy" / "stream.yaml").write_text("window: 3\n")
    assert fingerprint(tmp_path / "copy") == fingerprint(base)
    checkpoint = load_checkpoint(base, mx.float32)
    norm = checkpoint.model.model.norm
    norm.weight = norm.weight * (1 + 1e-6)
    save_checkpoint(tmp_path / "copy", checkpoint)
    assert fingerprint(tmp_path / "copy") != fingerprint(base)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (ADAPTER_CONFIG, b"{", "is not JSON"),
        (
            ADAPTER_CONFIG,
            json.dumps({"fine_tune_type": "lora", "num_layers": 4}).encode(),
            "describes no adapter that svm-tui takes",
        ),
        (MLX_WEIGHTS, b"short", "is truncated or not a safetensors file"),
        (MLX_WEIGHTS, None, "run1 lacks adapters.safetensors"),
    ],
)
def test_damage_is_reported_in_one_line(
    adapted: tuple[Path, Heard], base: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    shutil.copytree(adapted[0], tmp_path / "run1")
    (tmp_path / "run1" / file).unlink()
    if content is not None:
        (tmp_path / "run1" / file).write_bytes(content)
    with pytest.raises(SvmError, match=message) as refused:
        best_step(base, tmp_path / "run1")
    assert "\n" not in str(refused.value)


def test_lora_without_a_checkpoint_is_refused(records: Path, tmp_path: Path) -> None:
    with pytest.raises(SvmError, match=r"lora needs a checkpoint to adapt; .* --ckpt"):
        run(records, tmp_path / "run1", lora={"rank": LoraConfig().rank})
    assert not (tmp_path / "run1").exists()
