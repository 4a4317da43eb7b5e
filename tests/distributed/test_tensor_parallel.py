"""A model that is split over two machines, which here are two processes, says what it says on one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, StreamConfig
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.models.tensor_parallel import check_splits
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.data.making import write_clip
from tests.distributed.launching import REPORT_WITHIN, Ended, run
from tests.distributed.streaming import play
from tests.small import small_config, small_vocabulary
from tui.cli import main

RANK = str(Path(__file__).with_name("tensor_parallel_rank.py"))
CONFIG = StreamConfig(window=2, text_round=3, sink=4, slide=5, pixels=PixelConfig(min_pixels=784))
SECONDS = 6


def sizes(rows: int, quantization: QuantizationConfig | None = None) -> ModelConfig:
    """Return a small model with heads of 16."""
    base = small_config(rows)
    assert base.vision_config is not None
    text = replace(base.text_config, hidden_size=64, intermediate_size=64, head_dim=16, mrope_section=(2, 3, 3))
    vision = replace(base.vision_config, out_hidden_size=64)
    return replace(base, text_config=text, vision_config=vision, quantization=quantization)


def qwen3(config: ModelConfig) -> ModelConfig:
    """Return a Qwen3-VL of these sizes, whose heads are wider than the model together; DeepStack in both layers."""
    assert config.vision_config is not None
    text = replace(config.text_config, head_dim=32, mrope_section=(6, 5, 5))
    text = replace(text, mrope_interleaved=True, qkv_bias=False, qk_norm=True)
    tower = replace(
        config.vision_config,
        tokens_per_second=None,
        window_size=None,
        fullatt_block_indexes=(),
        num_position_embeddings=16,
        deepstack_visual_indexes=(0, 1),
        hidden_act="gelu_pytorch_tanh",
    )
    return replace(config, text_config=text, vision_config=tower, model_type="qwen3_vl")


def save(folder: Path, tokenizer: Tokenizer, bits: int | None, is_qwen3: bool = False) -> Path:
    """Save a model with biases and norms of their own, in `bits` where its layers divide into groups."""
    vocabulary = small_vocabulary(tokenizer, 400)
    config = sizes(len(vocabulary))
    model = VisionLanguageModel(qwen3(config) if is_qwen3 else config)
    seed_weights(model, 0)
    for number, layer in enumerate(model.model.layers):
        vectors = [layer.self_attn[name] for name in ("q_norm", "k_norm") if is_qwen3]
        for norm in vectors:
            norm.weight = 1 + 0.5 * mx.random.normal(norm.weight.shape, key=mx.random.key(number))
        for name in ("q_proj", "k_proj", "v_proj") if not is_qwen3 else ():
            bias = layer.self_attn[name].bias
            layer.self_attn[name].bias = mx.random.normal(bias.shape, key=mx.random.key(number))
    if bits:
        plain = {name: False for name, _ in model.named_modules() if name.startswith("visual.")}
        model.quantize(QuantizationConfig(group_size=32, bits=bits, layers=plain))
    save_checkpoint(folder, Checkpoint(model, tokenizer, vocabulary, CONFIG))
    return folder


def split(folder: Path, checkpoint: Path, config: StreamConfig = CONFIG, **more: Any) -> list[Ended]:
    asked = {"folder": str(checkpoint), "config": config.to_dict(), "out": str(folder / "logits.npy"), **more}
    return run(folder, 2, [RANK, json.dumps({"seconds": SECONDS, **asked})])


@pytest.mark.parametrize(
    ("bits", "pos_mode", "is_qwen3", "drop_still"),
    [
        (None, "shrink", False, None),
        # Every second but the first and the third is without video.
        (None, "append", False, 255.0),
        (8, "shrink", False, None),
        (8, "shrink", True, None),
    ],
)
def test_it_says_what_the_whole_one_says(
    tokenizer: Tokenizer, tmp_path: Path, bits: int | None, pos_mode: Any, is_qwen3: bool, drop_still: float | None
) -> None:
    checkpoint = save(tmp_path / "whole", tokenizer, bits, is_qwen3)
    config = replace(CONFIG, pos_mode=pos_mode, drop_still=drop_still)

    _, bundle = bundle_loader(checkpoint, mx.float32, config)(lambda _: None)
    whole = play(Session(bundle, config), bundle, SECONDS)
    ended_at = split(tmp_path, checkpoint, config)
    assert [each.status for each in ended_at] == [0, 0], ended_at
    assert np.allclose(np.load(tmp_path / "logits.npy"), whole, atol=2e-4)
    layers = sum(a.nbytes for name, a in bundle.model.named_arrays() if name.startswith("model.layers"))
    every = sum(a.nbytes for _, a in bundle.model.named_arrays())
    for each in ended_at:
        assert each.result["held"] == pytest.approx(every - layers / 2, rel=0.02)


def test_one_that_dies_ends_the_other(tokenizer: Tokenizer, tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "whole", tokenizer, None)
    leader, follower = split(tmp_path, checkpoint, dies=2)
    assert (leader.status, follower.status) == (9, 2)
    assert "rank 1 of 2 lost the connection to another rank" in follower.err.splitlines()[-1]
    assert follower.at - leader.at < REPORT_WITHIN


def test_the_command_speaks_on_one_and_is_silent_on_the_other(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, clip = save(tmp_path / "whole", tokenizer, None), tmp_path / "clip.mp4"
    write_clip(clip, range(40), rate=10)
    command = ["infer", str(clip), "--ckpt", str(checkpoint), "--json"]
    leader, follower = run(tmp_path, 2, ["-m", "tui.cli", *command])
    assert [leader.status, follower.status] == [0, 0], leader.err + follower.err
    assert main(command) == 0
    said = [[json.loads(line)["text"] for line in out.splitlines()] for out in (leader.out, capsys.readouterr().out)]
    assert said[0] == said[1]
    assert len(said[0]) == 4
    assert any(said[0])
    assert follower.out == ""


def commands_by_rank(*commands: list[str]) -> list[str]:
    """Return arguments of Python that run one of `commands`, chosen by the rank."""
    return ["-c", f"import os, sys; from tui.cli import main; sys.exit(main({commands}[int(os.environ['MLX_RANK'])]))"]


def test_a_player_on_another_machine_follows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The player follows without a terminal; what leads is a command without a screen."""
    checkpoint, clip = save(tmp_path / "whole", tokenizer, None), tmp_path / "clip.mp4"
    write_clip(clip, range(20), rate=10)
    model = [str(clip), "--ckpt", str(checkpoint)]
    leader, follower = run(tmp_path, 2, commands_by_rank(["infer", *model, "--json"], ["play", *model]))
    assert [leader.status, follower.status] == [0, 0], leader.err + follower.err
    assert len(leader.out.splitlines()) == 2
    assert follower.out == ""


def test_validate_measures_on_one_and_is_silent_on_the_other(tokenizer: Tokenizer, tmp_path: Path) -> None:
    checkpoint, clip = save(tmp_path / "whole", tokenizer, None), tmp_path / "clip.mp4"
    write_clip(clip, range(20), rate=10)
    turns = tuple(Turn(n, n + 1.0, f"Time={n}.0-{n + 1}.0s", " he scores ...") for n in range(2))
    (tmp_path / "r.jsonl").write_bytes(StreamingRecord(str(clip), 0.0, 2.0, turns).to_line())
    command = ["validate", "--records", str(tmp_path / "r.jsonl"), "--ckpt", str(checkpoint)]
    leader, follower = run(tmp_path, 2, ["-m", "tui.cli", *command])
    assert [leader.status, follower.status] == [0, 0], leader.err + follower.err
    assert "1 measured" in leader.out
    assert (follower.out, follower.err) == ("", "")


@pytest.mark.parametrize(
    ("size", "quantization", "message"),
    [
        (3, None, "3 machines cannot share num_attention_heads, which is 4"),
        (4, None, "4 machines cannot share num_key_value_heads, which is 2"),
        (2, QuantizationConfig(group_size=64), "the 64 inputs of o_proj in groups of 64"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(
    size: int, quantization: QuantizationConfig | None, message: str
) -> None:
    with pytest.raises(SvmError, match=message):
        check_splits(sizes(400, quantization), size)
