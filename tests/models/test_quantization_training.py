"""Trains adapters of a quantized checkpoint: its packed weights neither change nor are cast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from streaming_vlm_mlx.config import ModelConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig, attach
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.gradients import Compute, compute_grads
from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint
from streaming_vlm_mlx.train.loss import TEXT, LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import make_microbatches
from tests.small import small_config, small_model, small_vocabulary
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample
from tests.train.running import BASE

Save = Callable[[bool], Path]


def make(rows: int, packed: bool = True) -> VisionLanguageModel:
    """Return a small model; a packed one in 8 bits but for the layers whose inputs do not divide into groups."""
    model = small_model(small_config(rows))
    if packed:
        plain = [name for name, m in model.named_modules() if "weight" in m and m.weight.shape[-1] % 32]
        model.quantize(QuantizationConfig(32, 8, layers=dict.fromkeys(plain, False)))
        mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_packed_weights_stay_packed(kind: str, dtype: mx.Dtype) -> None:
    model = make(ROWS)
    attach(model, LoraConfig(kind=kind))  # type: ignore[arg-type]
    before = {name: mx.array(a) for name, a in model.named_arrays()}
    assert sum(a.dtype == mx.uint32 for a in before.values()) == 2 * 6 + 2 + 1  # the decoder, the merger, the embedding
    seen: set[mx.Dtype] = set()
    quantized_matmul = mx.quantized_matmul

    def spy(x: mx.array, weight: mx.array, **more: Any) -> mx.array:
        seen.add(weight.dtype)
        return quantized_matmul(x, weight, **more)

    batch = make_batch([[make_sample(3, (1, 4, 6), 1)]])
    (microbatch,) = make_microbatches(batch, {}, FullVocabulary(ROWS), VIDEO, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx, "quantized_matmul", spy)
        losses, grads = compute_grads(TrainModel(model), microbatch, LossWeights(), {TEXT: 3.0}, Compute(dtype))
    assert seen == {mx.uint32}
    assert mx.isfinite(losses[TEXT]).item()
    assert {name.rpartition(".")[2] for name in grads} <= {"lora_a", "lora_b", "m"}
    assert any(mx.abs(grad).max() > 0 for grad in grads.values())
    for name, array in model.named_arrays():
        assert array.dtype == before[name].dtype, name
        assert mx.array_equal(array, before[name]), name


@pytest.fixture
def save(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Return a way to save a small checkpoint, packed or not, as run1; its tokenizer is taken as read."""
    monkeypatch.setattr(Tokenizer, "load", lambda _: tokenizer)

    def write(packed: bool) -> Path:
        checkpoint = Checkpoint(make(400, packed), tokenizer, small_vocabulary(tokenizer, 400), StreamConfig())
        save_checkpoint(tmp_path / "run1", checkpoint)
        return tmp_path / "run1"

    return write


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None = None, **over: object) -> str:
    def read_weights(*_: object) -> None:
        raise AssertionError("a weight was read")

    with monkeypatch.context() as patch:
        patch.setattr("streaming_vlm_mlx.models.loading.ShardReader.take", read_weights)
        with pytest.raises(SvmError) as caught:
            load_initial_checkpoint(BASE.merged({"model": {"checkpoint": str(folder)}, **over}), [], limit=limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_packed_weights_do_not_move_without_adapters(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(True)
    assert "run1 is quantized, and quantized weights cannot be trained; train an adapter with --lora" in refused(
        folder, monkeypatch
    )
    started_at = load_initial_checkpoint(BASE.merged({"model": {"checkpoint": str(folder)}, "lora": {"rank": 2}}), [])
    assert started_at.model.config.quantization is not None


def needed(config: ModelConfig) -> int:
    """Bytes of a model that moves as a whole: a weight, its gradient, two means, four bytes each."""
    return 16 * VisionLanguageModel(config).parameter_count()


def test_training_stops_before_a_weight_is_read_where_memory_is_short(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(False)
    whole = needed(small_config(400))
    start = {"model": {"checkpoint": str(folder)}}
    said = refused(folder, monkeypatch, limit=whole - 1)
    assert "run1 needs more than 0.0 GiB to train (weights 0.0 GiB, gradients and AdamW's means" in said
    assert said.endswith("train adapters with --lora, or use a smaller model.")
    load_initial_checkpoint(BASE.merged(start), [], limit=whole)
    # What stands still has no gradient, and of adapters only the base's weights are sure to be held.
    load_initial_checkpoint(BASE.merged({**start, "freeze": ["visual.*"]}), [], limit=whole - 1)
    load_initial_checkpoint(BASE.merged({**start, "lora": {"rank": 2}}), [], limit=whole // 4)
    assert "take fewer bits" in refused(folder, monkeypatch, limit=whole // 4 - 1, lora={"rank": 2})
