"""Measures training throughput, in seconds of video a second, on synthetic windows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.collator import Batch, BatchConfig, Position, collate
from streaming_vlm_mlx.data.dataset import SampleBuilder
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.models.loading import Checkpoint
from streaming_vlm_mlx.text.chat_template import assistant_text, user_text
from streaming_vlm_mlx.train.config import DataConfig, InitialModelConfig, TrainConfig
from streaming_vlm_mlx.train.gradients import WorkerSpec, make_train_model
from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint
from streaming_vlm_mlx.train.loss import TEXT, LossWeights
from streaming_vlm_mlx.train.microbatch import make_microbatches
from streaming_vlm_mlx.train.optim import make_optimizer
from streaming_vlm_mlx.train.setup import make_builder
from streaming_vlm_mlx.train.trainer import update
from streaming_vlm_mlx.train.workers import open_worker_pool

SIZE = 308, 168
WORDS = ("and", "the", "ball", "goes", "wide", "past", "the", "line")


def make_batch(builder: SampleBuilder, windows: int, seconds: int) -> Batch:
    """Return a batch of `windows` windows of `seconds` seconds: noise for pixels, and a few words a second."""
    turns = tuple(
        Turn(float(s), s + 1.0, user_text(s, s + 1, first=not s), assistant_text(WORDS[s % 3 : s % 3 + 4]))
        for s in range(seconds)
    )
    record = StreamingRecord("noise", 0.0, float(seconds), turns, width=SIZE[0], height=SIZE[1])
    samples = [builder.build(record)] * windows
    patches, values = builder.pixels_shape(samples[0])
    pixels = np.random.default_rng(0).standard_normal((windows * patches, values), np.float32)
    tokens = collate([[sample] for sample in samples], builder.pad_id)
    return Batch(tokens, pixels, tuple(range(windows)), windows * seconds, 0, Position())


def default_config() -> TrainConfig:
    """Return settings of the laptop preset on windows of 8 s at 168×308: 2.8 M weights, 66 video tokens a second."""
    pixels = PixelConfig(min_pixels=SIZE[0] * SIZE[1], max_pixels=SIZE[0] * SIZE[1])
    data = DataConfig(seconds=8, pixels=pixels, batches=BatchConfig(batch_size=4))
    return TrainConfig(model=InitialModelConfig(vocab_size=512), data=data)


def measure(
    config: TrainConfig, dtype: mx.Dtype, cores: int, rounds: int, clock: Callable[[], float]
) -> Iterator[float]:
    """Yield the seconds of video that are trained on in a second, for each of `rounds` steps after a warm-up step.

    Args:
        config: settings of the model, the windows and the batch; its records are not read.
        dtype: of the computations.
        cores: the number of microbatches that are computed at once.
        rounds: the number of timed steps.
        clock: returns seconds.
    """
    checkpoint = load_initial_checkpoint(config, [])
    with open_step(checkpoint, make_standard_batch(checkpoint, config), config, dtype, cores) as step:
        for number in range(rounds + 1):
            started_at = clock()
            step()
            if number:
                yield config.data.batches.batch_size * config.data.seconds / (clock() - started_at)


def make_standard_batch(checkpoint: Checkpoint, config: TrainConfig) -> Batch:
    """Return the batch of `make_batch` with the windows of `config`, in the tokens of `checkpoint`."""
    return make_batch(make_builder(checkpoint, config), config.data.batches.batch_size, config.data.seconds)


@contextmanager
def open_step(
    checkpoint: Checkpoint, batch: Batch, config: TrainConfig, dtype: mx.Dtype, cores: int
) -> Iterator[Callable[[], float]]:
    """Yield a function that trains `checkpoint` for one step on `batch` and returns the loss before it.

    Args:
        checkpoint: the model, and what its batch was made with.
        batch: trained on in every step.
        config: settings of the optimizer, and of what is trained.
        dtype: of the computations.
        cores: the number of microbatches that are computed at once.
    """
    model = checkpoint.model
    spec = WorkerSpec(model.config, freeze=config.freeze, grad_checkpoint=config.grad_checkpoint)
    train_model, optimizer = make_train_model(model, spec), make_optimizer(config.optimizer)
    mx.eval(train_model.parameters())
    with open_worker_pool(train_model, spec, dtype, cores) as pool:

        def step() -> float:
            microbatches = list(make_microbatches(batch, {}, checkpoint.vocabulary, model.config.video_token_id, cores))
            done = update(train_model, optimizer, pool, microbatches, LossWeights(), config.optimizer, 1.0)
            return done.losses[TEXT]

        yield step
