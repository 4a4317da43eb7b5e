"""Loads folders as they are on the hub: names, shards, layouts, quantization, and damaged ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from streaming_vlm_mlx.config import ModelConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import (
    Checkpoint,
    arrange_for_decode,
    hub_values,
    load_checkpoint,
    open_checkpoint,
    save_checkpoint,
)
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.small import small_vocabulary

ROWS = 448
TEXT = TextConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=ROWS,
    mrope_section=(2, 3, 3),
)
# As in Qwen2.5-VL, the inputs of `down_proj` do not divide into groups.
VISION = VisionConfig(depth=2, hidden_size=32, intermediate_size=44, num_heads=2, out_hidden_size=64)
UNEVEN = {f"visual.blocks.{n}.mlp.down_proj": False for n in range(2)}
INDEX = "model.safetensors.index.json"

Arrays = dict[str, mx.array]


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> CompactVocabulary:
    return small_vocabulary(tokenizer, ROWS)


@pytest.fixture
def lay(
    tmp_path: Path, tokenizer: Tokenizer, vocabulary: CompactVocabulary, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return a way to lay arrays and a ``config.json`` into a folder, in two shards beside an index."""
    monkeypatch.setattr(Tokenizer, "load", lambda _: tokenizer)

    def write(arrays: Arrays, values: dict[str, Any]) -> Path:
        folder = tmp_path / "hub"
        folder.mkdir()
        names = sorted(arrays)
        where = {name: f"model-{1 + n % 2:05}-of-00002.safetensors" for n, name in enumerate(names)}
        for file in sorted(set(where.values())):
            mx.save_safetensors(str(folder / file), {n: arrays[n] for n in names if where[n] == file})
        vocabulary.save(folder / "vocabulary.json")
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({**values, "vocabulary": "vocabulary.json"}), encoding="utf-8")
        return folder

    return write


def make(tied: bool = False, quantization: QuantizationConfig | None = None) -> VisionLanguageModel:
    """Return a seeded model; the quantized one has the values of the plain one, rounded."""
    config = ModelConfig(replace(TEXT, tie_word_embeddings=tied), VISION, vocabulary="vocabulary.json")
    model = VisionLanguageModel(config)
    seed_weights(model, 5)
    if quantization is not None:
        model.quantize(quantization)
    mx.eval(model.parameters())
    return model


def newer(name: str) -> str:
    """The names of transformers 4.52 and later."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def mlx_vlms(name: str) -> str:
    """The names of mlx-vlm."""
    return name.replace("visual.", "vision_tower.", 1) if name.startswith("visual.") else f"language_model.{name}"


def assert_same(loaded: VisionLanguageModel, model: VisionLanguageModel) -> None:
    ours, theirs = dict(loaded.named_arrays()), dict(model.named_arrays())
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert mx.array_equal(array, theirs[name]), name


def flat(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` of the first folders, the decoder's settings at the root."""
    values = hub_values(config, "bfloat16")
    return {**values, **values.pop("text_config")}


@pytest.mark.parametrize("rename", [lambda n: n, newer, mlx_vlms], ids=["first names", "newer names", "mlx's names"])
@pytest.mark.parametrize("nested", [True, False], ids=["text_config", "flat"])
def test_names_and_settings(lay: Callable[..., Path], rename: Callable[[str], str], nested: bool) -> None:
    model = make()
    values = hub_values(model.config, "float32") if nested else flat(model.config)
    folder = lay({rename(n): a for n, a in model.named_arrays()}, values)
    assert_same(load_checkpoint(folder, mx.float32).model, model)


def test_a_head_in_a_tied_folder_is_ignored(lay: Callable[..., Path]) -> None:
    model = make(tied=True)
    head = {"lm_head.weight": model.model.embed_tokens.weight}
    loaded = load_checkpoint(lay(dict(model.named_arrays()) | head, hub_values(model.config, "float32")), mx.float32)
    assert_same(loaded.model, model)


def test_channels_last(lay: Callable[..., Path]) -> None:
    model = make()
    arrays = {mlx_vlms(n): a for n, a in model.named_arrays()}
    patches = "vision_tower.patch_embed.proj.weight"
    assert arrays[patches].shape == (32, 3, 2, 14, 14)
    arrays[patches] = mx.contiguous(arrays[patches].transpose(0, 2, 3, 4, 1))
    assert_same(load_checkpoint(lay(arrays, flat(model.config)), mx.float32).model, model)


def community(model: VisionLanguageModel, block: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of `model` and ``config.json`` as mlx-community's folders have them."""
    arrays = {mlx_vlms(n): a for n, a in model.named_arrays()}
    values = {k: v for k, v in flat(model.config).items() if k != "quantization"}
    return arrays, values | {"quantization": block, "quantization_config": block}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_plain_layers_are_found_from_the_tensors(lay: Callable[..., Path], tied: bool) -> None:
    plain = {n: False for n, m in make().named_modules() if n.startswith("visual.") and isinstance(m, nn.Linear)}
    model = make(tied, QuantizationConfig(32, 4, layers=plain))
    folder = lay(*community(model, {"group_size": 32, "bits": 4}))
    loaded = load_checkpoint(folder, mx.float32).model
    assert_same(loaded, model)
    assert isinstance(loaded.model.embed_tokens, nn.QuantizedEmbedding)
    assert type(loaded.visual.blocks[0].mlp.up_proj) is nn.Linear
    assert loaded.parameter_count() == make(tied).parameter_count()
    assert {type(layer) for layer in loaded.linears()} == {nn.Linear}


def test_settings_of_single_layers(lay: Callable[..., Path]) -> None:
    own = {"model.layers.1.mlp.down_proj": {"group_size": 64, "bits": 8}, "lm_head": False}
    model = make(quantization=QuantizationConfig(32, 4, layers=own | UNEVEN))
    block = {"group_size": 32, "bits": 4, "mode": "affine", **{mlx_vlms(k): v for k, v in (own | UNEVEN).items()}}
    loaded = load_checkpoint(lay(*community(model, block)), mx.float32).model
    assert_same(loaded, model)
    down = [layer.mlp.down_proj for layer in loaded.model.layers]
    assert [(d.bits, d.group_size) for d in down] == [(4, 32), (8, 64)]
    assert type(loaded.lm_head) is nn.Linear


def test_packed_weights_stay_packed_and_all_else_is_cast(lay: Callable[..., Path]) -> None:
    model = make(quantization=QuantizationConfig(32, 8, layers=UNEVEN))
    loaded = load_checkpoint(lay(*community(model, {"group_size": 32, "bits": 8})), mx.bfloat16).model
    arrange_for_decode(loaded)
    assert {array.dtype for _, array in loaded.named_arrays()} == {mx.uint32, mx.bfloat16}
    assert loaded.dtype == mx.bfloat16


def logits(model: VisionLanguageModel) -> mx.array:
    rows = np.arange(5, dtype=np.int32)
    pixels = mx.random.normal((16, 3 * 2 * 14 * 14), key=mx.random.key(1))
    features = model.visual(pixels, (1, 4, 4))
    x = model.embed(np.append(rows, [9] * 4), features, np.arange(9) > 4)
    return model.head(model.model(x, model.model.rope(np.tile(np.arange(9), (3, 1)))))


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.02), (4, 0.3)])
def test_quantized_logits_are_close(bits: int, limit: float) -> None:
    exact, near = make(), make(quantization=QuantizationConfig(32, bits, layers=UNEVEN))
    arrange_for_decode(near)
    error = logits(near) - logits(exact)
    assert 0 < mx.abs(error).mean() < limit
    assert mx.abs(logits(exact)).mean() > 0.5


def test_a_quantized_model_loads_as_it_was_saved(
    tmp_path: Path, tokenizer: Tokenizer, vocabulary: CompactVocabulary
) -> None:
    model = make(quantization=QuantizationConfig(32, 4, layers=UNEVEN))
    save_checkpoint(tmp_path / "run1", Checkpoint(model, tokenizer, vocabulary, StreamConfig()))
    loaded = load_checkpoint(tmp_path / "run1", mx.float32).model
    assert_same(loaded, model)
    assert loaded.config == model.config


def test_a_dtype_of_its_own_for_the_config(tmp_path: Path, tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    model = make()
    model.set_dtype(mx.bfloat16)
    save_checkpoint(tmp_path / "run1", Checkpoint(model, tokenizer, vocabulary, StreamConfig()))
    values = json.loads((tmp_path / "run1" / "config.json").read_text(encoding="utf-8"))
    assert values["torch_dtype"] == "bfloat16"
    assert values["text_config"]["rope_scaling"]["mrope_section"] == [2, 3, 3]


def refused(folder: Path) -> str:
    with pytest.raises(SvmError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_index_that_names_what_its_shard_lacks(lay: Callable[..., Path]) -> None:
    folder = lay(dict(make().named_arrays()), hub_values(make().config, "float32"))
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert f"{INDEX} names model.layers.9.mlp.up_proj.weight, which model-00001-of-00002" in refused(folder)


def test_an_index_that_names_a_file_outside_the_folder(lay: Callable[..., Path]) -> None:
    folder = lay(dict(make().named_arrays()), hub_values(make().config, "float32"))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": "../x.safetensors"}}), encoding="utf-8")
    assert "has no 'weight_map' of files" in refused(folder)


def test_a_tensor_under_two_names(lay: Callable[..., Path]) -> None:
    arrays = dict(make().named_arrays())
    folder = lay(arrays | {"model.language_model.norm.weight": mx.ones(64)}, hub_values(make().config, "float32"))
    assert "holds the tensor model.norm.weight twice" in refused(folder)


def test_packed_tensors_without_a_block(lay: Callable[..., Path]) -> None:
    arrays, values = community(make(quantization=QuantizationConfig(32, 4, layers=UNEVEN)), {})
    del values["quantization"], values["quantization_config"]
    arrays = {n: a for n, a in arrays.items() if not n.endswith((".scales", ".biases"))}
    assert "is packed, and the 'quantization' in its config.json says otherwise" in refused(lay(arrays, values))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"group_size": 32, "bits": 7}, "quantization: bits is 7; it must be one of 2, 3, 4, 5, 6, 8"),
        ({"group_size": 48, "bits": 4}, "quantization: group_size is 48; it must be 32, 64 or 128"),
        ({"group_size": 32, "bits": 4, "mode": "mxfp6"}, "QuantizationConfig.mode is 'mxfp6'"),
        (
            {"group_size": 32, "bits": 4, "mode": "nvfp4"},
            "quantization: group_size is 32; it must be 16 with mode 'nvfp4'",
        ),
        ({"group_size": 32, "bits": 4, "mode": "mxfp8"}, "quantization: bits is 4; it must be 8 with mode 'mxfp8'"),
        ({"group_size": 32, "bits": 4, "mode": "mxfp4"}, "lm_head.biases, which its config.json has no place for"),
        ({"group_size": 32, "bits": 4, "lm_head": {"mode": ["mxfp4"]}}, "quantization of lm_head: mode is ['mxfp4']"),
        ({"group_size": 32, "bits": 4, "lm_head": {"mode": "mxfp8", "group_size": 64}}, "lm_head: group_size is 64"),
        ({"group_size": 32, "bits": 4, "lm_head": {"bits": 1}}, "quantization of lm_head: bits is 1"),
        ({"group_size": 128, "bits": 4}, "the 64 inputs of"),
    ],
    ids=str,
)
def test_bits_that_do_not_fit(lay: Callable[..., Path], block: dict[str, Any], said: str) -> None:
    arrays, values = community(make(quantization=QuantizationConfig(32, 4, layers=UNEVEN)), block)
    assert said in refused(lay(arrays, values))


def test_a_folder_that_another_program_quantized(lay: Callable[..., Path]) -> None:
    values = hub_values(make().config, "float32") | {"quantization_config": {"quant_method": "awq"}}
    assert "is quantized by 'awq', which MLX cannot read" in refused(lay(dict(make().named_arrays()), values))
