"""Losses and gradients: against Hugging Face's model in PyTorch, and against themselves however a batch is cut."""

import multiprocessing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from streaming_vlm_mlx.data.collator import Batch
from streaming_vlm_mlx.data.dataset import IGNORED
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.lora import LoraConfig, adapted_layers
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train import loss
from streaming_vlm_mlx.train.gradients import (
    Compute,
    Request,
    WorkerSpec,
    as_numpy,
    flatten,
    handle_request,
    make_train_model,
)
from streaming_vlm_mlx.train.loss import TEXT, LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import Microbatch, make_microbatches
from streaming_vlm_mlx.train.optim import freeze
from streaming_vlm_mlx.train.workers import WorkerPool, open_worker_pool
from tests.small import small_config, small_model
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample

SAMPLES = [make_sample(3, (1, 4, 6), 1), make_sample(2, (1, 8, 4), 2), make_sample(2, (2, 4, 6), 3)]

Gradient = dict[str, mx.array]


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return small_model(small_config(ROWS))


def shards_of(batch: Batch, parts: int = 1) -> list[Microbatch]:
    return list(make_microbatches(batch, {}, FullVocabulary(ROWS), VIDEO, parts))


def compute_grads(batch: Batch, model: VisionLanguageModel, parts: int = 1, **work: Any) -> tuple[float, Gradient]:
    return gradient_of(WorkerPool(TrainModel(model), Compute(**work), []), batch, parts)


def gradient_of(pool: WorkerPool, batch: Batch, parts: int) -> tuple[float, Gradient]:
    losses, grads = pool.compute_grads(shards_of(batch, parts), LossWeights())
    return losses[TEXT], dict(tree_flatten(grads["model"]))


def assert_close(found: Gradient, expected: Gradient, limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        reference = np.array(array)
        error = np.abs(np.array(found[name]) - reference).max() / max(np.abs(reference).max(), 1e-6)
        assert error < limit, name


def test_a_microbatch_without_targets_runs_no_language_model(
    model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over no tokens do not always end in MLX, on a CPU."""
    batch = make_batch([SAMPLES[:1]])
    unknown = replace(batch, tokens=replace(batch.tokens, labels=np.full_like(batch.tokens.labels, IGNORED)))
    monkeypatch.setattr(loss, "text_loss", None)
    pool = WorkerPool(TrainModel(model), Compute(), [])
    assert pool.losses(shards_of(unknown), LossWeights()) == {TEXT: 0.0}
    with pytest.raises(TypeError):
        pool.losses(shards_of(batch), LossWeights())


def test_a_worker_measures_the_weights_that_dora_adapts() -> None:
    spec = WorkerSpec(small_config(ROWS), lora=LoraConfig(kind="dora", rank=2))
    own = make_train_model(small_model(spec.model), spec)
    for number, (_, layer) in enumerate(adapted_layers(own)):
        layer.lora_b = 0.1 * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
    (microbatch,) = shards_of(make_batch([[SAMPLES[0]]]))
    request = Request(as_numpy(flatten(own.parameters())), microbatch, LossWeights(), {TEXT: 3.0})
    found, expected = (handle_request(model, request, Compute()) for model in (spec.build(), own))
    assert found.losses[TEXT] == pytest.approx(expected.losses[TEXT], rel=1e-5)
    assert_close(
        {n: mx.array(a) for n, a in found.grads.items()}, {n: mx.array(a) for n, a in expected.grads.items()}, 1e-4
    )


def test_the_loss_is_that_of_all_logits(model: VisionLanguageModel) -> None:
    batch = make_batch([[SAMPLES[0]]])
    (microbatch,) = shards_of(batch)
    features = model.visual(mx.array(microbatch.pixel_values), microbatch.grids[0])
    angles = model.model.rope(SAMPLES[0].position_ids.astype(np.int64))
    hidden = model.model(model.embed(microbatch.token_ids[0], features, microbatch.is_video[0]), angles)
    logits = np.array(model.head(hidden)[0], np.float64)
    labels = SAMPLES[0].labels
    at = np.flatnonzero(labels[1:] >= 0)
    expected = np.log(np.exp(logits[at]).sum(axis=1)) - logits[at, labels[at + 1]]
    loss, _ = compute_grads(batch, model)
    assert len(at) > 5
    assert loss == pytest.approx(expected.mean(), abs=1e-5)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_cutting_a_batch_changes_nothing(model: VisionLanguageModel, parts: int) -> None:
    batch = make_batch([[sample] for sample in SAMPLES])
    loss, whole = compute_grads(batch, model)
    same_loss, same = compute_grads(batch, model, parts)
    assert same_loss == pytest.approx(loss, abs=1e-5)
    assert_close(same, whole, 1e-4)


def test_workers_compute_the_same_gradient(model: VisionLanguageModel) -> None:
    """Also after the weights moved, when a worker has no microbatch, and with more microbatches than cores."""
    batch = make_batch([[sample] for sample in SAMPLES])
    train_model = TrainModel(small_model(model.config))
    with open_worker_pool(
        train_model, WorkerSpec(model.config, freeze=("visual.patch_embed.*",)), mx.float32, 2
    ) as pool:
        freeze(train_model.model, ["visual.patch_embed.*"])
        for parts in (2, 1, 3):
            train_model.update(tree_map(lambda array: array * 1.1, train_model.trainable_parameters()))
            pool.mark_updated()
            expected_loss, expected = gradient_of(WorkerPool(train_model, Compute(), []), batch, 1)
            loss, found = gradient_of(pool, batch, parts)
            assert loss == pytest.approx(expected_loss, abs=1e-5)
            assert_close(found, expected, 1e-4)
            labels = sum(np.count_nonzero(sample.labels >= 0) for sample in SAMPLES)
            alone = pool.losses(shards_of(batch, parts), LossWeights())
            assert alone[TEXT] / labels == pytest.approx(expected_loss, abs=1e-5)


def test_a_worker_that_exited_is_reported(model: VisionLanguageModel) -> None:
    batch = make_batch([[sample] for sample in SAMPLES])
    with open_worker_pool(TrainModel(model), WorkerSpec(model.config), mx.float32, 2) as pool:
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join()
        with pytest.raises(SvmError, match="A worker process exited"):
            pool.compute_grads(shards_of(batch, 2), LossWeights())


def test_samples_packed_into_a_row_do_not_see_one_another(model: VisionLanguageModel) -> None:
    loss, apart = compute_grads(make_batch([[sample] for sample in SAMPLES]), model)
    packed_loss, packed = compute_grads(make_batch([SAMPLES]), model)
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert_close(packed, apart, 1e-4)


def test_padding_changes_nothing(model: VisionLanguageModel) -> None:
    loss, tight = compute_grads(make_batch([[SAMPLES[0]]]), model)
    padded_loss, padded = compute_grads(make_batch([[SAMPLES[0]]], pad_to_multiple_of=64), model)
    assert padded_loss == pytest.approx(loss, abs=1e-5)
    assert_close(padded, tight, 1e-4)


def test_what_is_no_label_has_no_loss(model: VisionLanguageModel) -> None:
    """A token without a label may be anything; an input before it may not."""
    loss, _ = compute_grads(make_batch([[SAMPLES[0]]]), model)
    last = SAMPLES[0].labels.copy()
    last[-1] = -100
    masked = make_batch([[SAMPLES[0].__class__(SAMPLES[0].input_ids, last, *rest(SAMPLES[0]))]])
    changed = SAMPLES[0].input_ids.copy()
    changed[-1] = 7
    other = make_batch([[SAMPLES[0].__class__(changed, last, *rest(SAMPLES[0]))]])
    assert compute_grads(masked, model)[0] == pytest.approx(compute_grads(other, model)[0], abs=1e-6)
    assert compute_grads(masked, model)[0] != pytest.approx(loss, abs=1e-4)


def rest(sample: Any) -> tuple[Any, Any]:
    return sample.position_ids, sample.video_grid_thw


def test_recomputing_layers_gives_the_same_gradient(model: VisionLanguageModel) -> None:
    batch = make_batch([[sample] for sample in SAMPLES])
    loss, plain = compute_grads(batch, model)
    same_loss, recomputed = compute_grads(batch, model, grad_checkpoint=True)
    assert same_loss == pytest.approx(loss, abs=1e-6)
    assert_close(recomputed, plain, 1e-5)


def test_every_layer_can_be_recomputed(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = []
    monkeypatch.setattr(nn.utils, "checkpoint", lambda module: wrapped.append(module) or module)
    compute_grads(make_batch([[SAMPLES[0]]]), model, grad_checkpoint=True)
    assert [id(module) for module in wrapped] == [id(m) for m in (*model.visual.blocks, *model.model.layers)]


def test_half_precision_computes_and_leaves_float32(model: VisionLanguageModel) -> None:
    batch = make_batch([[sample] for sample in SAMPLES])
    loss, _ = compute_grads(batch, model)
    half_loss, grads = compute_grads(batch, model, dtype=mx.bfloat16)
    assert half_loss != loss
    assert half_loss == pytest.approx(loss, rel=0.02)
    assert {array.dtype for array in grads.values()} == {mx.float32}
    assert {array.dtype for _, array in model.named_arrays()} == {mx.float32}


LEARNT = {
    "qwen2.5": "untied, two queries a key",
    "qwen2.5 tied": "untied, four queries a key, one window",
    # What is added to video behind the last layer reaches no label.
    "qwen3, every layer": "tied, one query a key, two DeepStack layers",
    "qwen3": "untied, eight queries a key",
}


@pytest.mark.parametrize("name", LEARNT)
def test_gradients_are_those_of_pytorch(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    torch = pytest.importorskip("torch")
    hf = import_module("tests.models.hugging_face")
    is_qwen3 = name.startswith("qwen3")
    reference = hf.make_torch((hf.QWEN3_SIZES if is_qwen3 else hf.SIZES)[LEARNT[name]], seed=5)
    model = hf.load_saved(reference, tmp_path, tokenizer).model
    samples = [make_sample(3, (1, 4, 6), 1), make_sample(2, (1, 8, 4), 2)]
    batch = make_batch([[sample] for sample in samples], patch_size=16 if is_qwen3 else 14)
    timing = {} if is_qwen3 else {"second_per_grid_ts": torch.tensor([1.0] * 3)}
    expected_loss, expected = torch_gradient(torch, hf, reference, samples, batch.pixel_values, timing)
    loss, found = compute_grads(batch, model, parts=2)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    still = {key.rpartition(".linear")[0] for key, array in expected.items() if np.abs(array).max() <= 1e-5}
    assert still - {""} == ({"visual.deepstack_merger_list.1"} if "every" in name else set())
    assert_close(found, expected, 1e-4)


def torch_gradient(
    torch: Any, hf: Any, reference: Any, samples: list[Any], pixels: np.ndarray, timing: dict[str, Any]
) -> tuple[float, Any]:
    """Return what Hugging Face's model says of the samples one after another, and its gradients by our names."""
    count = sum(np.count_nonzero(sample.labels >= 0) for sample in samples)
    total = 0.0
    for sample in samples:
        patches = int(sample.video_grid_thw.prod(axis=1).sum())
        own, pixels = pixels[:patches], pixels[patches:]
        ids = torch.tensor(sample.input_ids[None].astype(np.int64))
        logits = reference(
            input_ids=ids,
            mm_token_type_ids=2 * (ids == hf.VIDEO_ROW),
            pixel_values_videos=torch.tensor(own),
            video_grid_thw=torch.tensor(sample.video_grid_thw.astype(np.int64)),
            **{name: value[: len(sample.video_grid_thw)] for name, value in timing.items()},
        ).logits[0]
        targets = torch.tensor(sample.labels[1:].astype(np.int64))
        total += torch.nn.functional.cross_entropy(logits[:-1], targets, ignore_index=-100, reduction="sum") / count
    total.backward()
    renamed = {"model.language_model.": "model.", "model.visual.": "visual."}
    grads = {}
    for name, parameter in reference.named_parameters():
        start = next((old for old in renamed if name.startswith(old)), "")
        grads[renamed.get(start, "") + name.removeprefix(start)] = parameter.grad.numpy()
    return float(total.detach()), grads
