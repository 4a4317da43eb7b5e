"""Adapters that cannot be used are named in one line, before a weight of the base is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.adapters import adapter_notes
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.small import small_config, small_model, small_vocabulary

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = "base_model.model.model.language_model.layers.{}.self_attn.q_proj"
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    model, vocabulary = small_model(small_config(400)), small_vocabulary(tokenizer, 400)
    save_checkpoint(folder, Checkpoint(model, tokenizer, vocabulary, StreamConfig()))
    return folder


def arrays(rank: int = 4, width: int = 32) -> Arrays:
    """Return an adapter of the queries of both layers of the small model."""
    made: Arrays = {}
    for number in range(2):
        made[LAYER.format(number) + ".lora_A.weight"] = np.ones((rank, width), np.float32)
        made[LAYER.format(number) + ".lora_B.weight"] = np.ones((width, rank), np.float32)
    return made


def write(folder: Path, tensors: Arrays | None = None, **settings: Any) -> Path:
    folder.mkdir()
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **settings}
    (folder / CONFIG).write_text(json.dumps(values))
    save_file(arrays() if tensors is None else tensors, folder / WEIGHTS)
    return folder


def refused(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> str:
    def read(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Tokenizer, "load", lambda _=None: tokenizer)
    monkeypatch.setattr("streaming_vlm_mlx.models.loading.ShardReader.take", read)
    with pytest.raises(SvmError) as caught:
        bundle_loader(base, mx.float32, StreamConfig(), adapter)(lambda _: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


Refused = Callable[[Path], str]


@pytest.fixture
def why(base: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> Refused:
    """Return a function that gives the reason why an adapter is refused."""
    return lambda adapter: refused(base, adapter, monkeypatch, tokenizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "is an adapter of the kind 'LOHA' of PEFT; svm-tui takes LORA: LoRA, rsLoRA and DoRA."),
        ({"peft_type": "PROMPT_TUNING"}, "the kind 'PROMPT_TUNING'"),
        ({"peft_type": None}, "the kind None"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices, a variant of LoRA"),
        ({"alora_invocation_tokens": [1]}, "sets alora_invocation_tokens"),
        ({"megatron_config": {"a": 1}}, "sets megatron_config"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "is 'pissa_niter_4', which changes the base's weights"),
        ({"r": "4"}, "r is '4'; it must be a whole number"),
        ({"r": 0}, "r is 0; it must be 1 or more"),
        ({"lora_alpha": -1}, "lora_alpha is -1; it must be a number above 0"),
        ({"lora_alpha": float("inf")}, "is not JSON: Infinity is no number of JSON"),
        ({"target_modules": {"a": 1}}, "it must be a list of names, or an expression"),
        ({"target_modules": "*q_proj"}, "the expression '*q_proj' for names of modules cannot be used"),
        ({"target_modules": ".*q_proj", "modules_to_save": ["("]}, "for names of modules cannot be used"),
        ({"target_modules": r"(?:(\w|\w\w|.)+)+\d\d\1"}, "for names of modules cannot be used"),
        ({"r": 8}, "gives model.layers.0.self_attn.q_proj rank 8, adapter_model.safetensors has rank 4"),
        ({"target_modules": ["k_proj"]}, "which target_modules in adapter_config.json does not name"),
        (
            {"target_modules": ["q_proj", "v_proj"]},
            "is incomplete: adapter_config.json calls for an adapter of model.l",
        ),
        ({"target_modules": "all-linear"}, "is incomplete"),
        ({"layers_to_transform": [0]}, "which target_modules in adapter_config.json does not name"),
        ({"use_dora": True}, "lacks m of model.layers.0.self_attn.q_proj"),
        ({"modules_to_save": ["norm"]}, "modules_to_save names 'norm', which adapter_model.safetensors does not hold"),
    ],
)
def test_a_config_that_cannot_be_used(why: Refused, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    assert message in why(write(tmp_path / "a", **settings))


def named(number: int, array: Any, part: str = "lora_A.weight") -> Arrays:
    return {f"{LAYER.format(number)}.{part}": array}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            arrays(width=48),
            "lora_a of model.layers.0.self_attn.q_proj is [48, 4] in the adapter, the model calls for [32",
        ),
        (
            arrays() | named(1, np.ones((5, 4), np.float32), "lora_B.weight"),
            "lora_b of model.layers.1.self_attn.q_proj",
        ),
        (
            arrays() | {k.replace(".1.", ".7."): v for k, v in arrays().items()},
            "it adapts model.layers.7.self_attn.q_pr",
        ),
        (
            {k: v for k, v in arrays().items() if ".1." not in k},
            "calls for an adapter of model.layers.1.self_attn.q_proj",
        ),
        ({k: v for k, v in arrays().items() if "B" not in k}, "lacks lora_b of model.layers.0.self_attn.q_proj"),
        (arrays() | named(0, np.ones(32, np.float32), "lora_magnitude_vector"), "has m of model.layers.0.self_attn.q"),
        (arrays() | named(0, np.ones((4, 32), np.float32), "lora_A.other.weight"), "twice, under different names"),
        (
            arrays() | named(0, np.ones(32, np.float32), "lora_B.bias"),
            "lora_B.bias, which adapter_config.json does not",
        ),
        (arrays() | {"model.norm.weight": np.ones(32, np.float32)}, "model.norm.weight, which adapter_config.json"),
        (
            arrays() | {"model.embed_tokens.weight": np.ones((410, 32), np.float32)},
            "model.embed_tokens.weight is [410, ",
        ),
        (arrays() | named(0, np.ones((), np.float32)), "rank 4, adapter_model.safetensors has rank 0"),
        ({}, "adapter_model.safetensors holds no adapter."),
    ],
)
def test_arrays_that_do_not_fit(why: Refused, tmp_path: Path, tensors: Arrays, message: str) -> None:
    found = why(write(tmp_path / "a", tensors))
    assert message in found


def test_saved_modules_within_one_another(why: Refused, tmp_path: Path) -> None:
    """PEFT's file holds one copy of the inner module, and PEFT itself cannot open it again."""
    inner = {"base_model.model.model.visual.merger.ln_q.weight": np.ones(16, np.float32)}
    found = why(write(tmp_path / "a", arrays() | inner, modules_to_save=["ln_q", "merger"]))
    assert "modules_to_save names model.visual.merger and model.visual.merger.ln_q in it" in found


def test_files_that_are_missing_or_damaged(why: Refused, tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-40])
    assert "is truncated or not a safetensors file" in why(folder)
    (folder / WEIGHTS).unlink()
    assert why(folder) == f"{folder} lacks {WEIGHTS}; download the adapter again."
    (folder / "adapter_model.bin").write_bytes(b"")
    assert "adapter_model.bin is a pickle, which can run code; save the adapter as" in why(folder)
    (folder / CONFIG).unlink()
    assert "cannot be read: No such file" in why(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fine_tune_type": "full"}, "describes no adapter that svm-tui takes"),
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 4}}, "describes no adapter"),
        ({"rank": "3", "alpha": 6}, "describes no adapter"),
        ({"rank": 4, "scale": 2.0}, "lora_a of model.layers.0.self_attn.q_proj is [32, 3]"),
        ({"fine_tune_type": "dora", "lora_parameters": {"rank": 3, "scale": 2.0}}, "lacks m of model.layers.0"),
    ],
)
def test_an_adapter_of_mlx_that_does_not_fit(why: Refused, tmp_path: Path, values: Any, message: str) -> None:
    layer = "language_model.model.layers.0.self_attn.q_proj"
    tensors = {f"{layer}.lora_a": np.ones((32, 3), np.float32), f"{layer}.lora_b": np.ones((3, 32), np.float32)}
    (tmp_path / CONFIG).write_text(json.dumps(values))
    save_file(tensors, tmp_path / "adapters.safetensors")
    assert message in why(tmp_path)


def test_a_base_of_another_name_is_remarked_on(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", base_model_name_or_path="Qwen/Qwen2.5-VL-7B-Instruct")
    (note,) = adapter_notes(folder, base)
    assert note == f"{folder} names Qwen/Qwen2.5-VL-7B-Instruct as its base; its layers are looked for in {base}."
    assert not adapter_notes(folder, tmp_path / "models--Qwen--Qwen2.5-VL-7B-Instruct" / "snapshots")
    assert load_file(folder / WEIGHTS).keys() == arrays().keys()
