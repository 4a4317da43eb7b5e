"""The training loop: optimizer steps, validation, samples and checkpoints."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.optimizers as optim

from streaming_vlm_mlx.data.collator import Batch, Batches
from streaming_vlm_mlx.data.dataset import Windows
from streaming_vlm_mlx.data.frame_workers import FramePool
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import read_memory
from streaming_vlm_mlx.models.adapters import Adapter, save_adapter
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.train.checkpointing import Progress, RunFolder
from streaming_vlm_mlx.train.config import OptimizerConfig, TrainConfig
from streaming_vlm_mlx.train.loss import TEXT, LossWeights, TrainModel, count_targets
from streaming_vlm_mlx.train.metrics import CheckpointSaved, Event, Note, Stage, StepDone, Validated
from streaming_vlm_mlx.train.microbatch import Grid, Microbatch, Targets, make_microbatches
from streaming_vlm_mlx.train.optim import rate_fraction
from streaming_vlm_mlx.train.validation_samples import SampleGenerator
from streaming_vlm_mlx.train.vision_heads import TargetReader
from streaming_vlm_mlx.train.workers import WorkerPool


@dataclass(frozen=True)
class Dataset:
    """Windows of records and their batches."""

    windows: Windows
    batches: Batches


class MicrobatchBuilder:
    """Cuts batches into microbatches for one model and adds the targets of its vision heads."""

    def __init__(
        self, checkpoint: Checkpoint, targets: TargetReader, count: int, report: Callable[[str], None]
    ) -> None:
        """Make `count` microbatches of a batch; `report` receives a message for each sidecar that cannot be read."""
        self._checkpoint, self._targets = checkpoint, targets
        self._count, self._report = count, report

    def microbatches(self, batch: Batch, windows: Windows) -> list[Microbatch]:
        """Return the microbatches of `batch`, whose windows are in `windows`."""
        vocabulary, video = self._checkpoint.vocabulary, self._checkpoint.model.config.video_token_id
        return list(make_microbatches(batch, self._head_targets(batch, windows), vocabulary, video, self._count))

    def _head_targets(self, batch: Batch, windows: Windows) -> dict[str, list[Targets]]:
        """Return the targets of each head for each video of `batch`; videos are in the order of the windows."""
        head_targets: dict[str, list[Targets]] = {name: [] for name in self._targets.names}
        grids: Sequence[Grid] = [(t, h, w) for t, h, w in batch.tokens.video_grid_thw.tolist()]
        for number in batch.numbers if head_targets else ():
            record = windows[number]
            own, grids = grids[: len(record.turns)], grids[len(record.turns) :]
            try:
                found = self._targets.read(record, own)
            except SvmError as error:
                self._report(f"{record.source}: no targets for the vision heads: {error}")
                found = self._targets.unknown(own)
            for name, targets in found.items():
                head_targets[name] += targets
        return head_targets


def validate(
    pool: WorkerPool,
    microbatch_builder: MicrobatchBuilder,
    dataset: Dataset,
    frames: FramePool,
    weights: LossWeights,
    limit: int | None,
    stopped: Callable[[], bool],
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return each part's mean loss over the first `limit` batches (None: all), or nothing once `stopped`.

    In a distributed run `dataset` is this rank's share, a stop on one rank stops all, and the means are over all ranks.

    Args:
        pool: computes the losses.
        microbatch_builder: makes the microbatches.
        dataset: the validation set.
        frames: decodes the frames.
        weights: the weights of the loss's parts; a part without a weight is not computed.
        limit: the maximum number of batches.
        stopped: asked before each batch.
        report: receives the number of batches done so far.

    Raises:
        SvmError: a worker of `pool` or another rank exited.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    interrupted = False
    batches = islice(dataset.batches.read(frames, epochs=1) if len(dataset.windows) else (), limit)
    for number, batch in enumerate(batches):
        if interrupted := stopped():
            break
        report(number)
        microbatches = microbatch_builder.microbatches(batch, dataset.windows)
        sums.update(pool.losses(microbatches, weights))
        counts.update(count_targets(microbatches))
    if pool.ranks.any(interrupted):
        return {}
    names = pool.parts(weights)
    totals = pool.ranks.total({name: sums[name] for name in names})
    targets = pool.ranks.total({name: counts[name] for name in names})
    return {name: totals[name] / targets[name] for name in names if targets[name]}


@dataclass(frozen=True)
class UpdateResult:
    """Each part's mean loss, and the gradient's norm before clipping."""

    losses: dict[str, float]
    grad_norm: float


def update(
    train_model: TrainModel,
    optimizer: optim.MultiOptimizer,
    pool: WorkerPool,
    microbatches: Sequence[Microbatch],
    weights: LossWeights,
    config: OptimizerConfig,
    fraction: float,
) -> UpdateResult:
    """Do one optimizer step on `train_model`, with `fraction` of the highest learning rate.

    Raises:
        SvmError: a worker of `pool` exited, or the gradient is not finite; the weights are unchanged.
    """
    losses, grads = pool.compute_grads(microbatches, weights)
    grads, norm = optim.clip_grad_norm(grads, config.max_grad_norm)
    if not math.isfinite(cast(float, norm.item())):
        raise SvmError(
            "the gradient is not finite: resume from the last checkpoint with --resume, and with --config and a lower "
            "optimizer.learning_rate."
        )
    optimizer.learning_rate = config.learning_rate * fraction
    optimizer.update(train_model, grads)
    mx.eval(train_model.parameters(), optimizer.state, norm)
    pool.mark_updated()
    return UpdateResult(losses, cast(float, norm.item()))


@dataclass(frozen=True)
class TrainState:
    """The model and the optimizer of a run.

    Attributes:
        checkpoint: the model with its tokenizer, vocabulary and stream settings.
        train_model: the model and its vision heads.
        optimizer: the optimizer of both.
        microbatch_builder: makes the model's microbatches.
        adapter: the LoRA adapter that is saved in place of the model, or None.
    """

    checkpoint: Checkpoint
    train_model: TrainModel
    optimizer: optim.MultiOptimizer
    microbatch_builder: MicrobatchBuilder
    adapter: Adapter | None = None

    def write(self, folder: Path, extra: Callable[[Path], None]) -> None:
        """Save the model or the adapter in `folder` atomically, with the files that `extra` adds.

        Raises:
            SvmError: the folder cannot be written.
        """
        if self.adapter is None:
            save_checkpoint(folder, self.checkpoint, extra)
        else:
            save_adapter(folder, self.adapter, self.checkpoint, extra)


@dataclass(frozen=True)
class Callbacks:
    """What a run calls.

    Attributes:
        report: receives the run's events, in the run's own thread.
        clock: returns seconds.
        stopped: asked before each step; once true, the run writes a checkpoint and ends.
    """

    report: Callable[[Event], None]
    clock: Callable[[], float]
    stopped: Callable[[], bool]


class Trainer:
    """Runs the training loop from `progress` to the last step, an early stop or an interrupt."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        state: TrainState,
        pool: WorkerPool,
        train_set: Dataset,
        validation_set: Dataset | None,
        progress: Progress,
        callbacks: Callbacks,
    ) -> None:
        """Prepare the run; nothing is computed yet.

        Args:
            config: the run's settings.
            folder: receives the checkpoints.
            state: the model and the optimizer.
            pool: computes losses and gradients.
            train_set: the training set.
            validation_set: the validation set, or None.
            progress: the state of the run.
            callbacks: receives events, and says when to stop.
        """
        self._config, self._folder, self._state, self._pool = config, folder, state, pool
        self._train_set, self._validation_set, self._callbacks = train_set, validation_set, callbacks
        self.progress = progress
        seconds = config.validation.sample_seconds
        self._samples = SampleGenerator(state.checkpoint, validation_set.windows, seconds) if validation_set else None

    def run(self, frames: FramePool) -> None:
        """Train until the last step, an early stop or an interrupt.

        Raises:
            SvmError: no window has a target, or the folder cannot be written.
        """
        self._report_stage("preparing the first batch")
        batches = self._train_set.batches.read(frames, self.progress.position)
        saved = self.progress.step
        while self.progress.step < self._config.schedule.steps and not self._is_over():
            group, microbatches = self._next(batches)
            if self._stopped():
                break
            self._step(group, microbatches)
            every = self._config.validation.sample_every
            if every and self.progress.step % every == 0:
                self._sample(self.progress.step // every)
            if self.progress.step % self._config.checkpointing.every == 0:
                self._validate_and_save(frames)
                saved = self.progress.step
        if self.progress.step > saved:
            self._validate_and_save(frames)
        self._report_skipped()

    def _next(self, batches: Iterator[Batch]) -> tuple[list[Batch], list[Microbatch]]:
        """Return the batches and microbatches of the next step; groups of batches without a target are skipped."""
        last = None
        while True:
            group = list(islice(batches, self._config.optimizer.accumulate))
            microbatches = [
                microbatch
                for batch in group
                for microbatch in self._state.microbatch_builder.microbatches(batch, self._train_set.windows)
            ]
            if self._has_targets(microbatches) or self._stopped():
                return group, microbatches
            last = last or group[0].epoch + 1
            if group[-1].epoch > last:
                raise SvmError("no window of a whole epoch has a target; see the messages above, and convert it again.")

    def _has_targets(self, microbatches: list[Microbatch]) -> bool:
        """Whether `microbatches`, on any rank, have a target of a part that has a weight in the next step."""
        train_model, weights = self._state.train_model, self._weights()
        totals = self._pool.ranks.total(count_targets(microbatches))
        return any(count and train_model.weight(part, weights) for part, count in totals.items())

    def _stopped(self) -> bool:
        """Whether the run was stopped, on any rank."""
        return self._pool.ranks.any(self._callbacks.stopped())

    def _step(self, group: list[Batch], microbatches: list[Microbatch]) -> None:
        number = self.progress.step
        fraction = rate_fraction(number, self._config.schedule)
        state, optimizer = self._state, self._config.optimizer
        weights, started_at = self._weights(), self._callbacks.clock()
        result = update(state.train_model, state.optimizer, self._pool, microbatches, weights, optimizer, fraction)
        self.progress = replace(self.progress, step=number + 1, position=group[-1].following)
        self._callbacks.report(self._step_event(result, group, fraction, started_at))

    def _step_event(self, result: UpdateResult, group: list[Batch], fraction: float, started_at: float) -> StepDone:
        return StepDone(
            step=self.progress.step,
            losses=result.losses,
            learning_rate=self._config.optimizer.learning_rate * fraction,
            grad_norm=result.grad_norm,
            video_seconds=sum(batch.seconds for batch in group),
            tokens=sum(batch.tokens.input_ids.size for batch in group),
            epoch=group[-1].epoch,
            started_at=started_at,
            ended_at=self._callbacks.clock(),
            memory=_memory(),
        )

    def _weights(self) -> LossWeights:
        """Return the weights of the loss's parts in the next step."""
        auxiliary = self._config.auxiliary
        if self.progress.step < auxiliary.first_steps:
            return LossWeights(text=0.0, heads=1.0)
        return LossWeights(text=1.0, heads=auxiliary.weight if auxiliary.heads else 0.0)

    def _validate_and_save(self, frames: FramePool) -> None:
        """Validate, generate a sample, write a checkpoint, and promote it if it is the best so far."""
        is_best = self._validation_set is None
        if self._validation_set is not None:
            microbatch_builder, limit = self._state.microbatch_builder, self._config.validation.batches
            weights, stopped = replace(self._weights(), text=1.0), self._callbacks.stopped
            limit = limit and -(-limit // self._pool.ranks.size)
            losses = validate(
                self._pool,
                microbatch_builder,
                self._validation_set,
                frames,
                weights,
                limit,
                stopped,
                lambda done: self._report_stage("validation", done),
            )
            is_best = self._record_validation(losses) if TEXT in losses else self.progress.best_loss is None
            if self._config.validation.sample_every == 0:
                self._sample(self.progress.step // self._config.checkpointing.every)
        self._save(is_best)

    def _sample(self, number: int) -> None:
        """Generate commentary for the validation window `number`, on the main rank only."""
        if self._samples is None or not self._pool.ranks.is_main or self._callbacks.stopped():
            return
        self._report_stage("generating a sample")
        try:
            sampled = self._samples.generate(self.progress.step, number, self._callbacks.stopped)
        except SvmError as error:
            self._callbacks.report(Note(f"step {self.progress.step}: no sample was generated: {error}"))
            return
        if sampled is not None:
            self._callbacks.report(sampled)

    def _report_stage(self, name: str, done: int = 0) -> None:
        self._callbacks.report(Stage(name, done, self._callbacks.clock()))

    def _report_skipped(self) -> None:
        """Report how many windows could not be used."""
        for name, dataset in (("training", self._train_set), ("validation", self._validation_set)):
            if dataset is not None and (count := len(dataset.batches.skipped)):
                text = f"{count} of {len(dataset.windows)} {name} windows were skipped; see the messages above."
                self._callbacks.report(Note(text))

    def _record_validation(self, losses: dict[str, float]) -> bool:
        """Update the progress; return whether the text loss was never lower."""
        loss, best_loss = losses[TEXT], self.progress.best_loss
        is_best = best_loss is None or loss < best_loss
        since = 0 if is_best else self.progress.since_best + 1
        self.progress = replace(self.progress, best_loss=loss if is_best else best_loss, since_best=since)
        self._callbacks.report(Validated(self.progress.step, losses, is_best))
        return is_best

    def _is_over(self) -> bool:
        """Whether the run was stopped, or has not improved for `validation.patience` validations."""
        patience = self._config.validation.patience
        if patience is not None and self.progress.since_best >= patience:
            self._callbacks.report(Note(f"no lower validation loss in {patience} validations; the run stops early."))
            return True
        return self._stopped()

    def _save(self, is_best: bool) -> None:
        state = self._state
        if is_best:
            self.progress = replace(self.progress, best_step=self.progress.step)
        if not self._pool.ranks.is_main:
            return
        heads, keep = state.train_model.vision_heads, self._config.checkpointing.keep
        checkpoint = self._folder.save(self.progress, state.write, state.optimizer, heads, keep)
        if is_best:
            self._folder.promote(checkpoint)
        self._callbacks.report(CheckpointSaved(self.progress.step, checkpoint))


def _memory() -> int:
    """Return MLX's peak memory on a GPU, and on a CPU the memory of this process without its workers, in bytes."""
    memory = read_memory()
    return memory.process if mx.default_device().type == mx.DeviceType.cpu else memory.peak
