"""Compares adapters with mlx-vlm's and mlx-lm's: each opens what the other wrote, with the same logits."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from mlx.utils import tree_flatten

from streaming_vlm_mlx.config import QuantizationConfig, StreamConfig
from streaming_vlm_mlx.models.adapter_info import load_adapter
from streaming_vlm_mlx.models.adapters import Adapter, check_base, fingerprint, open_adapter, save_adapter
from streaming_vlm_mlx.models.loading import Checkpoint, load_weights, open_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig, attach, trained_arrays
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.small import small_config, small_model, small_vocabulary

mlx_vlm = pytest.importorskip("mlx_vlm.utils", reason="mlx-vlm opens and writes adapters")
trainer = pytest.importorskip("mlx_vlm.trainer.peft", reason="mlx-vlm opens and writes adapters")
mlx_lm = pytest.importorskip("mlx_lm.utils", reason="mlx-lm opens adapters")

LIMIT = 1e-4
Logits = npt.NDArray[np.float32]
PATCHES = np.random.default_rng(5).standard_normal((24, 3 * 2 * 14 * 14), dtype=np.float32)
KINDS = {
    "lora": LoraConfig(rank=3, scale=1.5),
    "dora": LoraConfig("dora", 2, 4.0),
    "vision": LoraConfig("dora", 4, 0.5, ("model.layers.1.*_proj", "visual.blocks.*", "visual.merger.*")),
}


@pytest.fixture(autouse=True)
def _tokenizer_is_read_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "load", lambda _=None: tokenizer)


@pytest.fixture(scope="module", params=["plain", "packed"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A folder that mlx-vlm opens as well: with the decoder's settings at the root."""
    folder: Path = tmp_path_factory.mktemp("bases") / request.param
    model = small_model(small_config(400))
    if request.param == "packed":
        stays = [name for name, m in model.named_modules() if "weight" in m and m.weight.shape[-1] % 32]
        model.quantize(QuantizationConfig(32, 8, layers=dict.fromkeys(stays, False)))
    save_checkpoint(folder, Checkpoint(model, tokenizer, small_vocabulary(tokenizer, 400), StreamConfig()))
    values = json.loads((folder / "config.json").read_text())
    # What mlx-vlm and mlx-lm look for.
    values |= values["text_config"]
    values["text_config"]["model_type"] = "qwen2"
    values["vision_config"].pop("model_type", None)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def ours(model: VisionLanguageModel, patches: Logits = PATCHES) -> tuple[Logits, Logits]:
    """Return logits of a text, and features of a video."""
    rows = np.arange(7, dtype=np.int32)
    angles = model.model.rope(np.arange(7)[None].repeat(3, axis=0))
    logits = model.head(model.model(model.embed(rows, None, np.zeros(7, np.bool_)), angles))[0]
    return np.array(logits), np.array(model.visual(mx.array(patches), (1, 4, 6)))


def theirs(model: Any) -> tuple[Logits, Logits]:
    places = mx.array(np.arange(7)[None, None].repeat(3, axis=0))
    logits = model.language_model(mx.array(np.arange(7)[None]), position_ids=places).logits[0]
    return np.array(logits), np.array(model.vision_tower(mx.array(PATCHES), mx.array([[1, 4, 6]])))


def close(found: tuple[Logits, Logits], expected: tuple[Logits, Logits]) -> bool:
    return all(np.abs(a - b).max() < LIMIT for a, b in zip(found, expected, strict=True))


def move(arrays: dict[str, mx.array]) -> list[tuple[str, mx.array]]:
    """Return arrays that a training might have left."""
    random = np.random.default_rng(3)

    def moved(name: str, array: mx.array) -> mx.array:
        noise = mx.array(random.standard_normal(array.shape, np.float32))
        return array * (1 + 0.2 * noise) if name.endswith(".m") else 0.2 * noise

    return [(name, moved(name, array)) for name, array in sorted(arrays.items())]


def write(base: Path, out: Path, config: LoraConfig, patches: Logits = PATCHES) -> tuple[Logits, Logits]:
    """Save an adapter with values that are no first values, as training does; return what it computes."""
    checkpoint = load_weights(open_checkpoint(base), mx.float32)
    attach(checkpoint.model, config)
    checkpoint.model.load_weights(move(trained_arrays(checkpoint.model)), strict=False)
    save_adapter(out, Adapter(config, "base", fingerprint(base)), checkpoint)
    return ours(checkpoint.model, patches)


@pytest.mark.parametrize("kind", KINDS)
def test_mlx_vlm_opens_ours(base: Path, tmp_path: Path, kind: str) -> None:
    expected = write(base, tmp_path / "a", KINDS[kind])
    model = mlx_vlm.load_model(base)
    assert not close(theirs(model), expected)
    assert close(theirs(trainer.apply_lora_layers(model, tmp_path / "a")), expected)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("layers", [None, ["q_proj", "vision_tower.blocks.0.attn.qkv"]])
def test_what_mlx_vlm_wrote_is_opened(base: Path, tmp_path: Path, kind: str, layers: list[str] | None) -> None:
    model = mlx_vlm.load_model(base)
    how = {"rank": 3, "alpha": 6, "dropout": 0.1, "verbose": False, "use_dora": kind == "dora"}
    trainer.get_peft_model(model, layers, **how)
    model.load_weights(move(dict(tree_flatten(model.trainable_parameters()))), strict=False)
    model.eval()
    trainer.save_adapter(model, tmp_path / "adapters.safetensors")
    info, opened = open_checkpoint(base), open_adapter(tmp_path)
    check_base(opened, info)
    load_weights(info, mx.float32)
    load_adapter(opened, info, mx.float32)
    assert close(ours(info.model), theirs(model))
    assert opened.lora.kind == kind


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lm_opens_ours(base: Path, tmp_path: Path, kind: str) -> None:
    expected, _ = write(base, tmp_path / "a", KINDS[kind])
    model, _ = mlx_lm.load_model(base, strict=False)
    model = mlx_lm.load_adapters(model, str(tmp_path / "a"))
    assert np.abs(np.array(model(mx.array(np.arange(7)[None]))[0]) - expected).max() < LIMIT


def test_mlx_vlm_opens_an_adapter_of_qwen3_vl(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pytest.importorskip("torch", reason="transformers writes the base")
    hf = import_module("tests.models.hugging_face")
    reference = hf.make_torch(hf.QWEN3_SIZES["untied, two queries a key"], seed=5)
    save_checkpoint(tmp_path / "base", hf.load_saved(reference, tmp_path / "hub", tokenizer))
    patches = mx.array(np.random.default_rng(5).standard_normal((24, 3 * 2 * 16 * 16), dtype=np.float32))
    targets = ("model.layers.1.*_proj", "visual.blocks.*.attn.*", "visual.merger.*", "visual.deepstack*")
    expected, _ = write(tmp_path / "base", tmp_path / "a", LoraConfig("dora", 4, 0.5, targets), np.array(patches))
    info, opened = open_checkpoint(tmp_path / "base"), open_adapter(tmp_path / "a")
    load_weights(info, mx.float32)
    load_adapter(opened, info, mx.float32)
    model = trainer.apply_lora_layers(mlx_vlm.load_model(tmp_path / "base"), tmp_path / "a")
    places = mx.array(np.arange(7)[None, None].repeat(3, axis=0))
    logits = model.language_model(mx.array(np.arange(7)[None]), position_ids=places).logits[0]
    assert np.abs(np.array(logits) - expected).max() < LIMIT
    merged, deepstack = model.vision_tower(patches, mx.array([[1, 4, 6]]))
    features = np.concatenate([np.array(part) for part in (merged, *deepstack)], axis=1)
    assert np.abs(features - np.array(info.model.visual(patches, (1, 4, 6)))).max() < LIMIT
