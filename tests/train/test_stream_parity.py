"""Tests that training and streaming see the same tokens, positions, pixels and losses."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.data.dataset import Sample
from streaming_vlm_mlx.data.frame_workers import FrameDecoder, FrameJob
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import Checkpoint, ModelBundle
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.gradients import Compute
from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint
from streaming_vlm_mlx.train.loss import TEXT, LossWeights, TrainModel
from streaming_vlm_mlx.train.setup import make_builder, make_windows, open_records
from streaming_vlm_mlx.train.trainer import MicrobatchBuilder
from streaming_vlm_mlx.train.vision_heads import TargetReader
from streaming_vlm_mlx.train.workers import WorkerPool
from streaming_vlm_mlx.video.image_processor import patchify
from streaming_vlm_mlx.video.video_file import open_video
from tests.train.batching import make_batch
from tests.train.running import BASE, write_records

SECONDS, WINDOW = 9, 3
ASKED = "What do you see?"
CONFIG = BASE.merged({"data": {"seconds": WINDOW, "stride": 1}})

QWEN3 = CONFIG.merged(
    {
        "model": {
            "config": {
                "model_type": "qwen3_vl",
                "text_config": {"qk_norm": True, "qkv_bias": False, "mrope_interleaved": True},
                "vision_config": {
                    "tokens_per_second": None,
                    "window_size": None,
                    "fullatt_block_indexes": [],
                    "hidden_act": "gelu_pytorch_tanh",
                    "num_position_embeddings": 16,
                    "deepstack_visual_indexes": [0, 1],
                },
            }
        }
    }
)


@dataclass
class Forced:
    """Says the record's words; keeps what the model was asked with, and what it found likely."""

    session: Session
    checkpoint: Checkpoint
    said: list[int]
    ids: Any = None
    positions: Any = None
    losses: list[float] = field(default_factory=list)

    def sample(self, logits: mx.array, seen: np.ndarray, step: int) -> int:
        if not self.losses:
            self.ids, self.positions = self.session.ids, self.session.positions
        row = int(self.checkpoint.vocabulary.to_rows([self.said[len(self.losses)]])[0])
        self.losses.append(float(mx.logsumexp(logits).item()) - float(logits[row].item()))
        return row


@pytest.fixture(scope="module", params=["", "Before the match."], ids=["at once", "after a text"])
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model with random weights, the windows of a record, and what it met second by second."""
    path = write_records(tmp_path_factory.mktemp("records"), clips=1, seconds=SECONDS)
    record = StreamingRecord.from_line(path.read_bytes())
    silent = replace(record.turns[4], assistant_text="\n ...")
    turns = (*record.turns[:4], silent, *record.turns[5:])
    path.write_bytes(replace(record, turns=turns, previous=request.param).to_line())
    files = open_records([str(path)], print)
    checkpoint = load_initial_checkpoint(CONFIG, files)
    return checkpoint, make_windows(files, CONFIG), list(generate(checkpoint, files[0][0], CONFIG))


def generate(
    checkpoint: Checkpoint, record: StreamingRecord, config: TrainConfig
) -> Iterator[tuple[Forced, np.ndarray]]:
    builder = make_builder(checkpoint, config)
    has_stamps = family_of(checkpoint.model.config).HAS_STAMPS
    layout = ChatTemplate.of(checkpoint.tokenizer, "training", has_stamps=has_stamps)
    bundle = ModelBundle(checkpoint.model, checkpoint.tokenizer, checkpoint.vocabulary, layout, lambda: 0.0)
    session = Session(bundle, replace(checkpoint.stream, previous=record.previous))
    with open_video(record.video, 2) as source:
        for turn, chunk in zip(record.turns, source.chunks(0, None), strict=True):
            one = builder.build(replace(record, turns=(turn,)))
            forced = Forced(session, checkpoint, one.labels[one.labels >= 0].tolist())
            patches = patchify(chunk.frames, checkpoint.stream.pixels)
            for _ in session.generate(SecondRequest(chunk.index, chunk.start, chunk.end, patches), forced):
                pass
            yield forced, patches.pixel_values


def label_runs(sample: Sample) -> np.ndarray:
    """Return where each second's words begin."""
    train_set = sample.labels >= 0
    return np.flatnonzero(train_set & ~np.concatenate([[False], train_set[:-1]]))


@pytest.mark.parametrize("second", range(SECONDS))
def test_a_window_is_what_the_stream_holds(stream: Any, second: int) -> None:
    checkpoint, windows, met = stream
    start = max(0, second - WINDOW + 1)
    window, builder = windows[min(start, len(windows) - 1)], make_builder(checkpoint, CONFIG)
    sample, forced = builder.build(window), met[second][0]
    end = label_runs(sample)[second - start]
    said = checkpoint.tokenizer.decode(forced.ids, markup=True)
    assert said == checkpoint.tokenizer.decode(sample.input_ids[:end], markup=True)
    assert np.array_equal(forced.ids, sample.input_ids[:end])
    assert np.array_equal(forced.positions[:, :end], sample.position_ids[:, :end])
    count = len(window.turns) * 2
    job = FrameJob(window.video, window.video_start, window.video_end, count, 2, CONFIG.data.pixels)
    shown = np.split(FrameDecoder(0).load(job), len(window.turns))
    assert np.array_equal(shown[second - start], met[second][1])


def test_the_loss_equals_that_of_the_stream(stream: Any) -> None:
    """While nothing was let go of, the stream's own losses are those of the first window."""
    checkpoint, windows, met = stream
    check_losses(checkpoint, windows, met, CONFIG)


def test_the_loss_of_a_qwen3_vl_equals_that_of_the_stream(tmp_path: Path) -> None:
    """Its stamps and its DeepStack features are the same in training and in a stream."""
    files = open_records([str(write_records(tmp_path, clips=1, seconds=WINDOW))], print)
    checkpoint = load_initial_checkpoint(QWEN3, files)
    met = list(generate(checkpoint, files[0][0], QWEN3))
    sample = make_builder(checkpoint, QWEN3).build(files[0][0])
    assert checkpoint.tokenizer.decode(sample.input_ids, markup=True).count(" seconds>") == WINDOW
    assert checkpoint.model.config.vision_config.features_width == 3 * checkpoint.model.config.text_config.hidden_size
    check_losses(checkpoint, make_windows(files, QWEN3), met, QWEN3)


def test_the_loss_with_a_scratchpad_equals_that_of_the_stream(tmp_path: Path) -> None:
    """So it is with a scratchpad, whose lines are there for what is said and not for what is noted later."""
    config = CONFIG.merged({"stream": {"scratchpad": ASKED, "scratch_round": WINDOW}})
    path = write_records(tmp_path, clips=1, seconds=WINDOW)
    record = StreamingRecord.from_line(path.read_bytes())
    turns = tuple(logits_to_keep(turn, number) for number, turn in enumerate(record.turns))
    path.write_bytes(replace(record, turns=turns, previous="Before the match.").to_line())
    files = open_records([str(path)], print)
    checkpoint = load_initial_checkpoint(config, files)
    met = list(generate(checkpoint, files[0][0], config))
    assert all(len(forced.losses) > 3 for forced, _ in met)
    check_losses(checkpoint, make_windows(files, config), met, config)


def logits_to_keep(turn: Turn, number: int) -> Turn:
    space = " " if number else ""
    noted = ("Red near.", "Blue far.", "A pause.")[number]
    return replace(
        turn,
        user_text=f"Time={turn.start}-{turn.end}s{space}{ASKED}",
        assistant_text=f"{noted}\n{turn.assistant_text.lstrip()}",
        question=ASKED,
        answer=noted,
    )


def check_losses(checkpoint: Checkpoint, windows: Any, met: Any, config: TrainConfig) -> None:
    builder, window = make_builder(checkpoint, config), windows[0]
    sample = builder.build(window)
    pixels = np.concatenate([values for _, values in met[:WINDOW]])
    batch = replace(make_batch([[sample]]), pixel_values=pixels)
    microbatches = MicrobatchBuilder(checkpoint, TargetReader((), 2, 2), 1, print).microbatches(batch, windows)
    found = WorkerPool(TrainModel(checkpoint.model), Compute(), []).losses(microbatches, LossWeights())[TEXT]
    streamed = [loss for forced, _ in met[:WINDOW] for loss in forced.losses]
    assert len(streamed) == np.count_nonzero(sample.labels >= 0)
    assert found == pytest.approx(sum(streamed), abs=1e-3)
