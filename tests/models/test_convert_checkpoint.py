"""Tests that converted checkpoints load here and in transformers, and give the same logits."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from streaming_vlm_mlx.config import ModelConfig, StreamConfig
from streaming_vlm_mlx.models import convert_checkpoint as convert
from streaming_vlm_mlx.models import verify_conversion as check
from streaming_vlm_mlx.models.convert_checkpoint import Conversion, make_plan
from streaming_vlm_mlx.models.loading import Checkpoint, load_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream_settings import read_stream_config
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.small import small_config, small_model, small_vocabulary
from tui import cli

ROWS = 400
STREAM = StreamConfig(window=3)
INDEX = "model.safetensors.index.json"

Arrays = dict[str, mx.array]
Save = Callable[..., Path]


def sizes(family: str = "qwen2_5_vl", tied: bool = True, vision: bool = True) -> ModelConfig:
    """Sizes whose layers divide into groups of 32, save one in the vision tower."""
    config = small_config(ROWS, vision=vision, tied=tied)
    text = replace(config.text_config, hidden_size=64, intermediate_size=96, head_dim=16, mrope_section=(2, 3, 3))
    tower = config.vision_config
    if tower is not None:
        tower = replace(tower, hidden_size=32, intermediate_size=48, out_hidden_size=64)
    if tower is not None and family == "qwen2_vl":
        tower = replace(
            tower,
            hidden_act="quick_gelu",
            tokens_per_second=None,
            fullatt_block_indexes=(),
            window_size=None,
            intermediate_size=64,
        )
    return replace(config, text_config=text, vision_config=tower, model_type=family)  # type: ignore[arg-type]


@pytest.fixture
def save(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Return a way to save a seeded model of the sizes given; its tokenizer is taken as read."""
    monkeypatch.setattr(Tokenizer, "load", lambda _: tokenizer)
    vocabulary = small_vocabulary(tokenizer, ROWS)

    def write(config: ModelConfig | None = None) -> Path:
        model = small_model(config or sizes())
        save_checkpoint(tmp_path / "run1", Checkpoint(model, tokenizer, vocabulary, STREAM))
        return tmp_path / "run1"

    return write


def run(source: Path, out: Path, **how: Any) -> Path:
    job = Conversion(source, out, **how)
    convert.convert(job, make_plan(job))
    return out


def read(folder: Path) -> Arrays:
    arrays: Arrays = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded = mx.load(str(path))
        assert isinstance(loaded, dict)
        arrays |= loaded
    return arrays


def model_of(folder: Path) -> VisionLanguageModel:
    return load_checkpoint(folder, mx.float32).model


def assert_same(one: VisionLanguageModel, other: VisionLanguageModel) -> None:
    ours, theirs = dict(one.named_arrays()), dict(other.named_arrays())
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert mx.array_equal(array, theirs[name]), name


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_model_trained_here_opens_in_transformers(
    save: Save, tmp_path: Path, family: str, tied: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    source = save(sizes(family, tied))
    assert cli.main(["convert-ckpt", str(source), str(tmp_path / "hub"), "--check"]) == 0
    said = capsys.readouterr()
    assert "check: logits within" in said.out
    assert "has rows for 400 of 151665 ids" in said.err
    found = check.check_against_transformers(tmp_path / "hub", seed=3)
    assert found.same
    assert found.agreement == 1
    assert found.spread > 0.1


def test_transformers_saves_the_same_weights(save: Save, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    hub = run(save(), tmp_path / "hub")
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(hub, dtype=torch.float32)
    config = theirs.config
    assert config.tie_word_embeddings
    assert config.text_config.rope_parameters["mrope_section"] == [2, 3, 3]
    assert (config.text_config.rope_parameters["rope_theta"], config.video_token_id) == (1e6, 151656)
    assert len(theirs.generation_config.suppress_tokens) == config.text_config.vocab_size - ROWS
    theirs.save_pretrained(tmp_path / "again")
    ours, again = read(hub), read(tmp_path / "again")
    assert ours.keys() == again.keys()
    for name, array in ours.items():
        assert mx.array_equal(array, again[name]), name


def test_transformers_generates_only_ids_with_a_row(save: Save, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    hub = run(save(sizes(tied=False)), tmp_path / "hub")
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(hub, dtype=torch.float32)
    known = set(load_checkpoint(hub, mx.float32).vocabulary.to_ids(range(ROWS)).tolist())
    ids = torch.tensor([sorted(known)[:9]])
    said = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, 9:].tolist()
    assert len(said) > 1
    assert set(said) <= known


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
def test_round_trip_through_hugging_faces_layout(save: Save, tmp_path: Path, family: str) -> None:
    source = save(sizes(family, tied=False))
    hub = run(source, tmp_path / "hub", shard_bytes=100_000)
    assert read(hub)["lm_head.weight"].shape == (151_680, 64)
    back = load_checkpoint(hub, mx.float32)
    assert_same(back.model, model_of(source))
    assert back.model.config == load_checkpoint(source, mx.float32).model.config
    assert back.stream == STREAM
    again = run(hub, tmp_path / "again")
    assert_same(model_of(again), back.model)


@pytest.mark.parametrize(
    ("family", "name", "style"), [("qwen2_5_vl", "StreamingVLM", "inference"), ("qwen2_vl", "LiveCC-7B", "livecc")]
)
@pytest.mark.parametrize("bits", [None, 8])
def test_the_settings_that_a_name_tells_are_kept_under_another_name(
    save: Save, tmp_path: Path, family: str, name: str, style: str, bits: int | None
) -> None:
    source = save(sizes(family, tied=False)).rename(tmp_path / name)
    (source / "stream.yaml").unlink()
    out = run(source, tmp_path / "small", bits=bits)
    assert read_stream_config(out) == read_stream_config(source)
    assert read_stream_config(out).style == style


def test_shards_are_no_larger_than_asked_and_named_in_the_index(save: Save, tmp_path: Path) -> None:
    source = save()
    hub = run(source, tmp_path / "hub", bits=8, group_size=32, shard_bytes=30_000)
    index = json.loads((hub / INDEX).read_text(encoding="utf-8"))
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 3
    for file in files:
        loaded = mx.load(str(hub / file))
        assert isinstance(loaded, dict)
        assert sorted(loaded) == sorted(name for name, where in index["weight_map"].items() if where == file)
        assert len(loaded) == 1 or sum(a.nbytes for a in loaded.values()) <= 30_000
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in read(hub).values())
    assert sorted(p.name for p in hub.glob("*.safetensors")) == files
    whole = run(source, tmp_path / "whole", bits=8, group_size=32)
    assert [p.name for p in whole.glob("model*")] == ["model.safetensors"]
    assert_same(model_of(hub), model_of(whole))


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.01), (4, 0.2)])
def test_quantizing(save: Save, tmp_path: Path, bits: int, limit: float, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = save(), tmp_path / "small"
    words = ["convert-ckpt", str(source), str(out), "--bits", str(bits), "--group-size", "32"]
    assert cli.main([*words, "--no-keep-sensitive", "--check"]) == 0
    said = capsys.readouterr()
    assert "2 layers of the vision tower stay plain: 48 inputs do not divide into groups of 32." in said.err
    assert "check: the most likely token is the source's at" in said.out
    found = check.check_against_source(source, out)
    assert 0 < found.error < limit * 20
    small, whole = model_of(out), model_of(source)
    assert isinstance(small.model.embed_tokens, nn.QuantizedEmbedding)
    assert type(small.visual.blocks[0].mlp.down_proj) is nn.Linear
    assert small.visual.blocks[1].mlp.up_proj.bits == bits
    assert small.parameter_count() == whole.parameter_count()
    assert mx.array_equal(small.model.norm.weight, whole.model.norm.weight)
    layer, exact = small.model.layers[0].mlp.up_proj, whole.model.layers[0].mlp.up_proj.weight
    near = mx.dequantize(layer.weight, layer.scales, layer.biases, 32, bits)
    # MLX puts zero on a step of its own, so that the ends of a group can be off by nearly one.
    assert mx.abs(near - exact).max() <= (exact.max() - exact.min()) / (2**bits - 1)
    assert mx.abs(near - exact).mean() > 0


def test_the_vision_tower_can_stay_plain(save: Save, tmp_path: Path) -> None:
    model = model_of(run(save(), tmp_path / "small", bits=4, group_size=32, keep_vision=True))
    packed = {n for n, m in model.named_modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)}
    assert packed
    assert all(name.startswith("model.") for name in packed)


@pytest.mark.parametrize(
    ("bits", "keep", "plain"), [(8, None, True), (4, None, False), (8, False, False), (4, True, True)]
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_sensitive_layers_stay_plain_with_8_bits_or_on_request(
    save: Save, tmp_path: Path, bits: int, keep: bool | None, plain: bool, tied: bool
) -> None:
    source = save(sizes(tied=tied))
    model = model_of(run(source, tmp_path / "small", bits=bits, group_size=32, keep_sensitive=keep))
    sensitive = {"model.embed_tokens"} | (set() if tied else {"lm_head"})
    sensitive |= {f"model.layers.0.self_attn.{n}_proj" for n in "qkvo"}
    sensitive |= {f"model.layers.0.mlp.{n}_proj" for n in ("gate", "up", "down")}
    sensitive |= {f"visual.blocks.0.{n}" for n in ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj")}
    packed = {n for n, m in model.named_modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)}
    assert packed & sensitive == (set() if plain else sensitive)
    assert {"model.layers.1.self_attn.o_proj", "visual.blocks.1.attn.qkv"} <= packed
    if plain:
        assert mx.array_equal(model.model.embed_tokens.weight, model_of(source).model.embed_tokens.weight)


def test_packed_weights_are_unpacked_on_the_way_to_hugging_face(save: Save, tmp_path: Path) -> None:
    source = save()
    small = run(source, tmp_path / "small", bits=8, group_size=32)
    hub = run(small, tmp_path / "hub")
    assert "quantization" not in json.loads((hub / "config.json").read_text(encoding="utf-8"))
    assert check.check_against_source(small, hub).same
    for (name, array), (_, exact) in zip(model_of(hub).named_arrays(), model_of(source).named_arrays(), strict=True):
        assert mx.abs(array - exact).max() < 0.01, name


@pytest.mark.parametrize("bits", [None, 8])
def test_a_dtype_is_that_of_all_that_is_not_packed(save: Save, tmp_path: Path, bits: int | None) -> None:
    out = run(save(), tmp_path / "half", bits=bits, group_size=32, dtype="bfloat16")
    kinds = {mx.bfloat16} | ({mx.uint32} if bits else set())
    assert {array.dtype for array in read(out).values()} == kinds
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["torch_dtype"] == "bfloat16"


FLAT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nested": lambda values: values,
    "flat": lambda values: {**{k: v for k, v in values.items() if k != "text_config"}, **values["text_config"]},
}


@pytest.mark.parametrize("shape", FLAT.values(), ids=FLAT.keys())
def test_settings_of_the_folder_that_mean_nothing_here_stay(
    save: Save, tmp_path: Path, shape: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    source = save()
    values = shape(json.loads((source / "config.json").read_text(encoding="utf-8"))) | {"bos_token_id": 7}
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (source / "merges.txt").write_text("#", encoding="utf-8")
    out = run(source, tmp_path / "small", bits=8, group_size=32)
    read_back = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert read_back["bos_token_id"] == 7
    assert read_back["quantization"]["bits"] == 8
    assert (out / "merges.txt").read_text(encoding="utf-8") == "#"
    assert model_of(out).config.text_config == model_of(source).config.text_config


def test_one_shard_is_held_in_memory(save: Save, tmp_path: Path) -> None:
    text = replace(sizes().text_config, intermediate_size=4096, num_hidden_layers=24)
    source = save(replace(sizes(), text_config=text))
    weights = (source / "model.safetensors").stat().st_size
    job = Conversion(source, tmp_path / "small", dtype="bfloat16", bits=8, group_size=32, shard_bytes=2_000_000)
    plan = make_plan(job)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    convert.convert(job, plan)
    assert weights > 60_000_000
    assert mx.get_peak_memory() - before < 8_000_000


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["convert-ckpt", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture
def _no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def read_weights(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("streaming_vlm_mlx.models.loading.ShardReader.take", read_weights)
    return


@pytest.mark.usefixtures("_no_weight_is_read")
def test_impossible_conversions_are_refused_at_once(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = str(save()), str(tmp_path / "out")
    assert "do not divide into groups of 128; choose another --group-size" in refused(
        [source, out, "--bits", "4", "--group-size", "128"], capsys
    )
    assert "exists and is not replaced" in refused([source, source], capsys)
    assert "no checkpoint 'nowhere'" in refused(["nowhere", out], capsys)
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    assert "--check runs the model in transformers, which needs torch" in refused([source, out, "--check"], capsys)
    assert not Path(out).exists()


@pytest.mark.usefixtures("_no_weight_is_read")
def test_a_model_without_a_vision_tower_cannot_go_to_transformers(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(sizes(vision=False))
    assert "so transformers cannot open it" in refused([str(source), str(tmp_path / "out")], capsys)


def test_a_quantized_model_is_not_quantized_again(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run(save(), tmp_path / "small", bits=8, group_size=32)
    words = [str(small), str(tmp_path / "smaller"), "--bits", "4", "--group-size", "32"]
    assert "is quantized already" in refused(words, capsys)


def test_an_interrupted_conversion_leaves_nothing(save: Save, tmp_path: Path) -> None:
    job = Conversion(save(), tmp_path / "out", shard_bytes=10_000)

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert.convert(job, make_plan(job), stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run1"]


def test_a_wrong_result_fails_the_check(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    off = check.Comparison(error=0.1, spread=1.0, agreement=1.0)
    monkeypatch.setattr(check, "check_against_transformers", lambda _: off)
    assert cli.main(["convert-ckpt", str(save()), str(tmp_path / "hub"), "--check"]) == 2
    assert "logits differ from transformers' by 0.1" in capsys.readouterr().err


def test_differences_are_reported() -> None:
    ours = np.array([[0.0, 1.0, 4.0], [3.0, 1.0, 2.0]], np.float32)
    found = check.compare_logits(ours, ours + np.array([[0, 0, 0.5], [-2.5, 0, 0]], np.float32))
    assert (found.error, found.agreement, found.same) == (2.5, 0.5, False)
