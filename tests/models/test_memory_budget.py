"""Compares the memory budget with the memory that MLX reports for a stream."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, SamplingConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import machine_memory
from streaming_vlm_mlx.models.loading import Checkpoint, ModelBundle, save_checkpoint
from streaming_vlm_mlx.models.memory_budget import Budget, cache_nbytes, check_fits, estimate, memory_limit, ways_out
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.processor_config import DEFAULTS
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader, random_bundle
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.stream.kv_cache import KVCache
from streaming_vlm_mlx.stream_settings import PRESETS
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.video.image_processor import patchify
from tests.small import small_config, small_model, small_vocabulary
from tui import cli
from tui.commands import doctor as diagnosis

GIB = 1 << 30
SEVEN = ModelConfig(TextConfig(), VisionConfig())
WIDE = ModelConfig(
    TextConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=151_680,
        mrope_section=(8, 12, 12),
        tie_word_embeddings=True,
    ),
    VisionConfig(
        depth=2,
        hidden_size=128,
        intermediate_size=340,
        num_heads=4,
        fullatt_block_indexes=(1,),
        out_hidden_size=256,
    ),
)
# Of these sizes in Qwen3-VL, with heads that are twice as wide as the model together.
WIDE_QWEN3 = replace(
    PUBLISHED["Qwen3-VL 2B"],
    text_config=replace(
        PUBLISHED["Qwen3-VL 2B"].text_config,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=151_680,
    ),
    vision_config=replace(
        cast(VisionConfig, PUBLISHED["Qwen3-VL 2B"].vision_config),
        depth=2,
        hidden_size=128,
        intermediate_size=340,
        num_heads=4,
        deepstack_visual_indexes=(0, 1),
        out_hidden_size=256,
    ),
)
STREAM = StreamConfig(
    window=3,
    text_round=3,
    sink=32,
    slide=32,
    pixels=PixelConfig(max_pixels=200 * 784),
    sampling=SamplingConfig(max_new_tokens=4),
)
STREAMS = {
    "streaming": STREAM,
    "recompute": replace(STREAM, mode="recompute"),
    "append": replace(STREAM, pos_mode="append"),
    "8 bits": replace(STREAM, kv_bits=8),
}


def estimate_of(config: ModelConfig, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, machines: int = 1) -> Budget:
    return estimate(VisionLanguageModel(config), stream, dtype, gpu, machines)


@pytest.fixture(scope="module", params=[WIDE, WIDE_QWEN3], ids=["Qwen2.5-VL", "Qwen3-VL"])
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    """A model of these sizes."""
    return random_bundle(request.param, mx.float32, STREAM, seed=0)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_uses_the_estimated_memory(bundle: ModelBundle, stream: StreamConfig) -> None:
    config, unit = bundle.model.config, 28
    if config.model_type == "qwen3_vl":
        unit = 32
        stream = replace(stream, pixels=replace(DEFAULTS["qwen3_vl"], max_pixels=200 * unit**2))
    session = Session(bundle, stream)
    side = int(stream.pixels.max_pixels**0.5) // unit * unit
    frames = np.random.default_rng(0).integers(0, 255, (2, side, side, 3), dtype=np.uint8)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    weights = sum(array.nbytes for _, array in bundle.model.named_arrays())
    for number in range(6):
        for _ in session.generate(SecondRequest(number, float(number), number + 1.0, patchify(frames, stream.pixels))):
            pass
    estimated = estimate_of(config, stream, mx.float32, gpu=mx.default_device().type != mx.DeviceType.cpu)
    taken = mx.get_peak_memory() - before + weights
    assert estimated.weights == weights
    assert session.cache_bytes <= estimated.cache <= 1.5 * session.cache_bytes
    assert session.cache_length <= estimated.tokens
    assert 0.95 * taken <= estimated.peak <= 1.5 * taken


def test_the_7b_has_the_published_sizes() -> None:
    """8.29 billion parameters, as the hub says; 57,344 bytes a token of keys and values at two each, 1.5 with both."""
    estimated = estimate_of(SEVEN, StreamConfig(), mx.bfloat16, gpu=True)
    assert estimated.weights == 2 * 8_292_166_656
    assert estimated.cache % (57_344 * 3 // 2) == 0
    assert estimated.cache // (57_344 * 3 // 2) >= estimated.tokens
    assert estimated.bounded


def test_two_machines_share_the_layers_only() -> None:
    """A layer's matrices, and the biases of queries, keys and values; 3,584 wide, 512 of keys and 18,944 within."""
    whole, shared = (estimate_of(SEVEN, StreamConfig(), mx.bfloat16, gpu=True, machines=n) for n in (1, 2))
    layer = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512
    assert whole.weights - shared.weights == 2 * 28 * layer // 2
    assert shared.cache == whole.cache // 2
    # Half of the whole would fit, what is whole on each machine does not.
    assert whole.peak < 18 * GIB
    seven = VisionLanguageModel(SEVEN)
    with pytest.raises(SvmError, match=r"big needs \d+\.\d GiB on each of 2 machines \(weights 9\.\d GiB"):
        check_fits(seven, Path("big"), StreamConfig(), mx.bfloat16, gpu=True, limit=9 * GIB, machines=2)
    check_fits(seven, Path("big"), StreamConfig(), mx.bfloat16, gpu=True, limit=11 * GIB, machines=2)


def test_unbounded_windows_are_reported() -> None:
    full = estimate_of(SEVEN, StreamConfig(mode="full"), mx.bfloat16, gpu=True)
    assert (full.bounded, full.rounds) == (False, 600)
    assert not estimate_of(SEVEN, StreamConfig(sink=None), mx.bfloat16, gpu=True).bounded
    # A style without previous text has none to keep.
    assert estimate_of(SEVEN, StreamConfig(style="livecc", sink=None), mx.bfloat16, gpu=True).bounded


def test_livecc_s_stream_is_unbounded_and_can_be_bounded() -> None:
    full = PRESETS["livecc"]
    budget = estimate_of(SEVEN, full, mx.bfloat16, gpu=True)
    assert (budget.bounded, budget.rounds) == (False, 600)
    ways = {change.what: change.peak for change in ways_out(SEVEN, full, mx.bfloat16, gpu=True)}
    bounded = estimate_of(SEVEN, replace(full, mode="streaming", pos_mode="shrink"), mx.bfloat16, gpu=True)
    assert ways["mode streaming and pos_mode shrink"] == bounded.peak < budget.peak
    assert bounded.bounded
    # Two more seconds of video in the first turn, and no previous text.
    other = estimate_of(SEVEN, StreamConfig(sink=0, slide=0, sampling=full.sampling), mx.bfloat16, gpu=True)
    assert bounded.tokens - other.tokens == 2 * 384


def test_each_change_leaves_the_stated_peak() -> None:
    stream = StreamConfig()
    now = estimate_of(SEVEN, stream, mx.bfloat16, gpu=True).peak
    found = {change.what: change.peak for change in ways_out(SEVEN, stream, mx.bfloat16, gpu=True)}
    assert list(found) == [
        "'svm-tui convert-ckpt --bits 8'",
        "'svm-tui convert-ckpt --bits 4'",
        "window 8 and text_round 8",
        "pixels.max_pixels 150528",
        "all of these",
    ]
    assert all(peak < now for peak in found.values())
    assert found["all of these"] == min(found.values())
    short = replace(stream, window=8, text_round=8)
    assert found["window 8 and text_round 8"] == estimate_of(SEVEN, short, mx.bfloat16, gpu=True).peak
    packed = replace(SEVEN, quantization=QuantizationConfig(64, 4, layers=uneven()))
    assert found["'svm-tui convert-ckpt --bits 4'"] == estimate_of(packed, stream, mx.bfloat16, gpu=True).peak
    assert "bits" not in "".join(change.what for change in ways_out(packed, stream, mx.bfloat16, gpu=True))


def uneven() -> dict[str, Any]:
    return {f"visual.blocks.{number}.mlp.down_proj": False for number in range(32)}


def test_a_model_that_does_not_fit_is_refused_with_changes_that_help() -> None:
    seven = VisionLanguageModel(SEVEN)
    with pytest.raises(SvmError) as caught:
        check_fits(seven, Path("big"), StreamConfig(), mx.bfloat16, gpu=True, limit=8 * GIB)
    text = str(caught.value)
    assert text.startswith("big needs 16.6 GiB (weights 15.4 GiB, cache ")
    assert "there are 8.0 GiB; what would fit: 'svm-tui convert-ckpt --bits 4' (5.7 GiB), or all of these (" in text
    with pytest.raises(SvmError, match="no setting makes it fit; use a smaller model"):
        check_fits(seven, Path("big"), StreamConfig(), mx.bfloat16, gpu=True, limit=GIB)
    check_fits(seven, Path("big"), StreamConfig(), mx.bfloat16, gpu=True, limit=24 * GIB)


def test_the_peak_counts_vision_or_decoder() -> None:
    assert Budget(1, 2, 40, 8, tokens=0, rounds=0, bounded=True).peak == 43


def test_this_machine_has_a_limit() -> None:
    assert GIB // 4 < memory_limit() <= machine_memory()


@pytest.mark.parametrize(
    ("device", "limit"),
    [
        ({"max_recommended_working_set_size": 12 * GIB, "memory_size": 16 * GIB}, 12 * GIB),
        ({"device_name": "a GPU", "free_memory": 7 * GIB, "total_memory": 8 * GIB}, 7 * GIB),
        ({"device_name": "a GPU", "total_memory": 8 * GIB}, 8 * GIB),
    ],
    ids=["Metal", "CUDA", "CUDA without free memory"],
)
def test_the_limit_is_the_gpus(device: dict[str, str | int], limit: int) -> None:
    assert memory_limit(device) == limit


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("keep_unrotated", [True, False])
@pytest.mark.parametrize("tokens", [1, 256, 300])
def test_the_cache_is_estimated_to_the_byte(bits: int | None, keep_unrotated: bool, tokens: int) -> None:
    text = replace(WIDE.text_config, num_hidden_layers=2)
    cache = KVCache(text, mx.bfloat16, tokens, keep_unrotated, bits)
    assert cache_nbytes(text, mx.bfloat16, tokens, keep_unrotated, bits) == cache.nbytes


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkpoint, run1; its tokenizer is taken as read."""
    monkeypatch.setattr(Tokenizer, "load", lambda _: tokenizer)
    checkpoint = Checkpoint(small_model(small_config(400)), tokenizer, small_vocabulary(tokenizer, 400), STREAM)
    save_checkpoint(tmp_path / "run1", checkpoint)
    return tmp_path / "run1"


def test_loading_stops_before_a_weight_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_weights(*_: object) -> None:
        raise AssertionError("a weight was read")

    with monkeypatch.context() as patch:
        patch.setattr("streaming_vlm_mlx.models.loading.ShardReader.take", read_weights)
        with pytest.raises(SvmError, match=r"run1 needs .* GiB"):
            bundle_loader(folder, mx.float32, STREAM, limit=1 << 20)(lambda _: None)
    name, _ = bundle_loader(folder, mx.float32, STREAM, limit=GIB)(lambda _: None)
    assert name == "run1"


def test_doctor_reports_the_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--ckpt", str(folder), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["folder"] == str(folder)
    assert model["parts"]["weights"] == sum(a.nbytes for _, a in small_model(small_config(400)).named_arrays())
    assert model["rounds"] == 3
    wide = folder.parent / "wide.yaml"
    wide.write_text("window: 600\n", encoding="utf-8")
    assert cli.main(["doctor", "--ckpt", str(folder), "--config", str(wide)]) == 0
    lines = dict(line[2:].split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["windows"].startswith("600 s, ")
    assert lines["fits"].startswith("yes: ")
    assert lines["needs"].count(",") == 3


def test_doctor_says_that_a_model_was_not_trained_to_stream(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = []
    for style in ("instruct", "inference"):
        (folder / "stream.yaml").write_text(f"style: {style}\n", encoding="utf-8")
        assert cli.main(["doctor", "--ckpt", str(folder)]) == 0
        lines = dict(line[2:].split(": ", 1) for line in capsys.readouterr().out.splitlines())
        assert lines.get("preset", "").startswith("run1 was not trained to stream") == (style == "instruct")
        tokens.append(int(lines["windows"].split()[2]))
    assert tokens[0] < tokens[1] / 4


def test_doctor_reports_a_model_that_does_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = diagnosis.estimate_memory
    monkeypatch.setattr(
        "tui.commands.doctor.estimate_memory", lambda name, settings: estimate(name, settings, limit=1 << 20)
    )
    assert cli.main(["doctor", "--ckpt", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "⚠ fits: no: the limit here is 0.0 GiB → This checkpoint does not fit" in out
    assert "with: window 1 and text_round 1: " in out


def test_settings_without_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--config", "wide.yaml"]) == 2
    assert "name the checkpoint with --ckpt" in capsys.readouterr().err
