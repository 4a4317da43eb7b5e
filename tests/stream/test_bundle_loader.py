"""Tests loading the model of an engine."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, SamplingConfig, StreamConfig, Style
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import Checkpoint, ModelBundle, arrange_for_decode, save_checkpoint
from streaming_vlm_mlx.models.sizes import TinyStreamingDecoder
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader, random_bundle
from streaming_vlm_mlx.stream.events import Failed, Loading, Ready
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary
from tests.small import small_config
from tests.stream.engines import done_texts, gather, make_chunks
from tests.stream.streams import generate, make_second

CONFIG = StreamConfig(pixels=PixelConfig(min_pixels=784), sampling=SamplingConfig(temperature=1.0, max_new_tokens=4))


@pytest.fixture
def folder(bundle: ModelBundle, tmp_path: Path) -> Path:
    """The small model's checkpoint, run1."""
    checkpoint = Checkpoint(bundle.model, bundle.tokenizer, bundle.vocabulary, CONFIG)
    save_checkpoint(tmp_path / "run1", checkpoint)
    return tmp_path / "run1"


async def test_a_folder_speaks_as_the_model_that_it_was_saved_from(folder: Path, bundle: ModelBundle) -> None:
    engine = Engine(bundle_loader(folder, mx.float32, CONFIG), CONFIG)
    try:
        events = await gather(engine, make_chunks(2))
    finally:
        engine.close()
    assert [e for e in events if isinstance(e, Loading)] == [
        Loading("model.safetensors", 0, 1),
        Loading("weights", 1, 1),
    ]
    assert Ready("run1", bundle.model.parameter_count()) in events
    assert len(done_texts(events)) == 2


def test_weights_tokenizer_and_layout_are_the_folders(folder: Path, bundle: ModelBundle) -> None:
    _, loaded = bundle_loader(folder, mx.float32, replace(CONFIG, style="training"))(lambda _: None)
    assert loaded.template.style == "training"
    assert loaded.tokenizer.name.startswith(str(folder))
    said = [
        generate(Session(p, CONFIG), make_second(0)).text for p in (bundle, replace(loaded, template=bundle.template))
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("style", "stated", "stops"),
    [
        ("livecc", {}, (151645, 151643)),
        ("livecc", {"config.json": 151645}, (151645,)),
        ("livecc", {"config.json": 151645, "generation_config.json": [151645, 151643, 825]}, (151645, 151643, 825)),
        ("inference", {"generation_config.json": [825]}, (151645, 151643)),
    ],
)
def test_stop_tokens_are_the_folder_s_where_the_style_reads_them(
    folder: Path, style: Style, stated: dict[str, object], stops: tuple[int, ...]
) -> None:
    for name, ids in stated.items():
        path = folder / name
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**values, "eos_token_id": ids}), encoding="utf-8")
    _, loaded = bundle_loader(folder, mx.float32, replace(CONFIG, style=style))(lambda _: None)
    assert loaded.template.stop_ids == stops


@pytest.mark.parametrize("ids", ["end", [], [True], [1.5], -1])
def test_stop_tokens_that_are_no_ids_are_named(folder: Path, ids: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}), encoding="utf-8")
    with pytest.raises(SvmError, match=r"generation_config.json: eos_token_id is .* an id or a list of ids"):
        bundle_loader(folder, mx.float32, replace(CONFIG, style="livecc"))(lambda _: None)


def test_a_loaded_model_is_saved_as_it_was_read(folder: Path, tmp_path: Path) -> None:
    """Its weights may lie in memory in another order than their shapes tell."""
    _, loaded = bundle_loader(folder, mx.float32, CONFIG)(lambda _: None)
    assert isinstance(loaded.vocabulary, CompactVocabulary)
    save_checkpoint(tmp_path / "run2", Checkpoint(loaded.model, loaded.tokenizer, loaded.vocabulary, CONFIG))
    one, two = (mx.load(str(path / "model.safetensors")) for path in (folder, tmp_path / "run2"))
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert mx.array_equal(array, two[name]), name


async def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    engine = Engine(bundle_loader(tmp_path / "gone", mx.float32, CONFIG), CONFIG)
    try:
        (failed,) = await gather(engine, make_chunks(1))
    finally:
        engine.close()
    assert isinstance(failed, Failed)
    assert str(tmp_path / "gone" / "config.json") in failed.message


def test_random_parts_have_every_id_and_the_dtype_asked_for() -> None:
    bundle = random_bundle(small_config(151_936, tied=True), mx.bfloat16, CONFIG, seed=0)
    assert isinstance(bundle.vocabulary, FullVocabulary)
    assert {a.dtype for _, a in bundle.model.named_arrays()} == {mx.bfloat16}
    assert generate(Session(bundle, CONFIG), make_second(0)).sum.tokens > 0


def test_how_weights_lie_in_memory_changes_no_value() -> None:
    model = TinyStreamingDecoder(300)
    before = {name: np.array(array) for name, array in model.named_arrays()}
    arrange_for_decode(model)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert memoryview(weight).strides == (weight.itemsize, weight.shape[0] * weight.itemsize)
    for name, array in model.named_arrays():
        np.testing.assert_array_equal(np.array(array), before[name], err_msg=name)


def test_unusable_kv_bits_are_refused_before_a_weight_is_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(SvmError, match=r"kv_bits is 8, .*16 numbers a token"):
        bundle_loader(folder, mx.float32, replace(CONFIG, kv_bits=8))(lambda _: None)


def test_a_checkpoint_builds_its_model_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[VisionLanguageModel] = []
    build = VisionLanguageModel.__init__

    def count(model: VisionLanguageModel, config: ModelConfig) -> None:
        built.append(model)
        build(model, config)

    monkeypatch.setattr(VisionLanguageModel, "__init__", count)
    _, loaded = bundle_loader(folder, mx.float32, CONFIG)(lambda _: None)
    assert built == [loaded.model]
