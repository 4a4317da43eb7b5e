"""Tests training that goes on from an adapter: of this program, and of PEFT's form."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.adapters import fuse_checkpoint, open_adapter, read_adapter
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.train.running import Heard, run, write_records
from tui.cli import main

STEP = {"schedule": {"steps": 1, "warmup_steps": 0}}
LORA: dict[str, Any] = {
    "kind": "dora",
    "rank": 2,
    "targets": ["model.layers.*_proj", "visual.merger.*"],
    "ranks": {"model.layers.0.mlp.up_proj": 3},
    "full": ["model.norm.weight", "lm_head.weight"],
}


@pytest.fixture(scope="module", autouse=True)
def _tokenizer_is_read_once(tokenizer: Tokenizer) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "load", lambda _=None: tokenizer)
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"), clips=1)


@pytest.fixture(scope="module")
def base(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    run(records, folder, **STEP)
    return folder


@pytest.fixture(scope="module")
def adapter(records: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    run(records, folder, model={"checkpoint": str(base)}, lora=LORA, schedule={"steps": 3, "warmup_steps": 0})
    return folder


def go_on(records: Path, base: Path, adapter: Path, out: Path, **over: Any) -> Heard:
    return run(records, out, model={"checkpoint": str(base), "adapter": str(adapter)}, **(STEP | over))[0]


def changed(before: Path, after: Path) -> list[str]:
    old, new = (mx.load(str(folder / "adapters.safetensors")) for folder in (before, after))
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert old.keys() == new.keys()
    return [name for name in old if not np.array_equal(old[name], new[name])]


def test_the_first_loss_is_the_adapters_and_a_step_changes_it(
    records: Path, base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuse_checkpoint(base, adapter, tmp_path / "fused")
    (expected,) = run(records, tmp_path / "from_fused", model={"checkpoint": str(tmp_path / "fused")}, **STEP)[0].losses
    (plain,) = run(records, tmp_path / "from_base", model={"checkpoint": str(base)}, **STEP)[0].losses
    assert abs(expected - plain) > 0.05
    (found,) = go_on(records, base, adapter, tmp_path / "second").losses
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(changed(adapter, tmp_path / "second")) == len(open_adapter(adapter).layers) * 3 + 2
    assert read_adapter(tmp_path / "second").lora == read_adapter(adapter).lora
    # By way of PEFT's form.
    assert main(["convert-ckpt", "--adapter", str(adapter), "--peft", str(tmp_path / "peft")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'peft'}\n"
    (found,) = go_on(records, base, tmp_path / "peft", tmp_path / "third").losses
    assert found == pytest.approx(expected, abs=1e-4)
    assert open_adapter(tmp_path / "third").lora.of("model.layers.0.mlp.up_proj")[0] == 3


def test_it_is_resumed_without_the_adapter_that_it_began_with(
    records: Path, base: Path, adapter: Path, tmp_path: Path
) -> None:
    shutil.copytree(adapter, tmp_path / "a")
    longer = {"schedule": {"steps": 3, "warmup_steps": 0}, "checkpointing": {"every": 1}}
    whole = go_on(records, base, adapter, tmp_path / "whole", **longer).losses
    model = {"checkpoint": str(base), "adapter": str(tmp_path / "a")}
    run(records, tmp_path / "parts", model=model, stop=2, **longer)
    shutil.rmtree(tmp_path / "a")
    lora = read_adapter(adapter).lora.to_dict()
    again, _ = run(records, tmp_path / "parts", model=model, lora=lora, resume=True, **longer)
    assert again.losses == pytest.approx(whole[2:], abs=1e-5)


def test_what_cannot_go_on_is_refused(records: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="first has settings of its own for lora; leave lora out, and --lora"):
        go_on(records, base, adapter, tmp_path / "b", lora={"rank": 4})
    with pytest.raises(SvmError, match="lora needs a checkpoint to adapt"):
        run(records, tmp_path / "b", model={"adapter": str(adapter)})
    other = tmp_path / "other"
    run(records, other, model={"seed": 3}, **STEP)
    with pytest.raises(SvmError, match=r"is an adapter of .*, whose weights are not those of"):
        go_on(records, other, adapter, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], tmp_path: Path, adapter: Path) -> None:
    for words in (
        ["--adapter", str(adapter)],
        ["--peft", str(tmp_path)],
        ["a", "--adapter", "b", "--peft", "c"],
        ["a"],
    ):
        assert main(["convert-ckpt", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["convert-ckpt", "--adapter", str(adapter), "--peft", str(adapter)]) == 2
    assert "exists and is not replaced" in capsys.readouterr().err
