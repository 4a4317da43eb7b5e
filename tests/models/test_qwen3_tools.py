"""Converts, quantizes and adapts a Qwen3-VL that transformers saved."""

from importlib import import_module
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest

from streaming_vlm_mlx.models import verify_conversion as check
from streaming_vlm_mlx.models.loading import load_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig, adapted_layers, attach, fuse
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tui import cli

pytest.importorskip("torch")
hf = import_module("tests.models.hugging_face")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A folder of a model 64 wide, with heads of 32 and DeepStack in three layers."""
    sizes = hf.qwen3(64, 4, 2, (6, 5, 5), False, vision=(64, 4, 3), deepstack=(0, 1, 2), layers=3)
    folder = tmp_path_factory.mktemp("qwen3") / "hub"
    reference = hf.make_torch(sizes, seed=17)
    # The small vocabulary has the ids of pictures where the tokenizer has them.
    reference.config.video_token_id, reference.config.image_token_id = 151656, 151655
    hf.load_saved(reference, folder, tokenizer)
    return folder


@pytest.fixture(autouse=True)
def _tokenizer_taken_as_read(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "load", lambda _=None: tokenizer)


def packed(model: VisionLanguageModel) -> set[str]:
    return {n for n, m in model.named_modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)}


def test_it_opens_in_transformers_again(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert-ckpt", str(source), str(tmp_path / "hub"), "--check"]) == 0
    assert "check: logits within" in capsys.readouterr().out
    found = check.check_against_transformers(tmp_path / "hub", seed=3)
    assert found.same
    assert found.agreement == 1
    assert found.spread > 0.1
    ours, back = (dict(load_checkpoint(f, mx.float32).model.named_arrays()) for f in (source, tmp_path / "hub"))
    assert ours.keys() == back.keys()
    assert all(mx.array_equal(array, back[name]) for name, array in ours.items())


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.4), (4, 4.0)])
def test_it_is_packed(source: Path, tmp_path: Path, bits: int, limit: float) -> None:
    words = ["convert-ckpt", str(source), str(tmp_path / "small"), "--bits", str(bits), "--group-size", "32", "--check"]
    assert cli.main([*words, "--no-keep-sensitive"]) == 0
    found = check.check_against_source(source, tmp_path / "small")
    assert 0 < found.error < limit
    small, whole = (load_checkpoint(f, mx.float32).model for f in (tmp_path / "small", source))
    assert small.parameter_count() == whole.parameter_count()
    # Of the tower, what divides into groups; the learned positions stay plain.
    names = packed(small)
    assert {
        "visual.deepstack_merger_list.2.linear_fc2",
        "visual.merger.linear_fc1",
        "visual.blocks.0.attn.qkv",
    } <= names
    assert {"model.embed_tokens", "lm_head", "model.layers.2.self_attn.o_proj"} <= names
    assert "visual.pos_embed" not in names
    assert mx.array_equal(small.model.layers[0].self_attn.q_norm.weight, whole.model.layers[0].self_attn.q_norm.weight)


def test_eight_bits_keep_what_is_sensitive(source: Path, tmp_path: Path) -> None:
    assert cli.main(["convert-ckpt", str(source), str(tmp_path / "small"), "--bits", "8"]) == 0
    names = packed(load_checkpoint(tmp_path / "small", mx.float32).model)
    kept = ("model.embed_tokens", "lm_head", "model.layers.0.", "visual.blocks.0.", "visual.pos_embed")
    assert names
    assert not [name for name in names if name.startswith(kept)]


def logits(model: VisionLanguageModel, source: Path) -> npt.NDArray[np.float32]:
    checkpoint = load_checkpoint(source, mx.float32)
    prompt = check.make_prompt(checkpoint.model.config, checkpoint.vocabulary, seed=1)
    features = model.visual(mx.array(prompt.pixels), (2, 6, 8))
    x = model.embed(checkpoint.vocabulary.to_rows(prompt.ids), features, prompt.is_video)
    deepstack = model.deepstack(features, prompt.is_video)
    return np.array(model.head(model.model(x, model.model.rope(prompt.positions), deepstack=deepstack)))


def test_adapters_are_attached_and_fused(source: Path) -> None:
    model = load_checkpoint(source, mx.float32).model
    before = logits(model, source)
    count = attach(model, LoraConfig(rank=2))
    width, inner, heads, keys = 64, 128, 4 * 32, 2 * 32
    layer = 2 * (2 * (width + heads) + 2 * (width + keys) + 3 * (width + inner))
    assert count == 3 * layer
    assert np.array_equal(logits(model, source), before)
    for number, (_, adapted) in enumerate(adapted_layers(model)):
        adapted.lora_b = 0.1 * mx.random.normal(adapted.lora_b.shape, key=mx.random.key(number))
    moved = logits(model, source)
    assert np.abs(moved - before).max() > 0.1
    fuse(model)
    assert np.abs(logits(model, source) - moved).max() < 1e-3
