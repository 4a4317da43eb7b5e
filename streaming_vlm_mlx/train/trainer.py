"""From a batch of windows to what the cores work on: rows, angles, labels, and what the vision heads should say."""

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
from streaming_vlm_mlx.models.adapters import Adapter, save_adapter
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.train.checkpointing import Progress, RunFolder
from streaming_vlm_mlx.train.config import OptimizerConfig, TrainConfig
from streaming_vlm_mlx.train.loss import TEXT, LossWeights, TrainModel, count_targets
from streaming_vlm_mlx.train.metrics import Event, Note, Saved, StepDone, Validated
from streaming_vlm_mlx.train.microbatch import Grid, Microbatch, Targets, make_microbatches
from streaming_vlm_mlx.train.optim import rate_fraction
from streaming_vlm_mlx.train.vision_heads import TargetReader
from streaming_vlm_mlx.train.workers import WorkerPool


@dataclass(frozen=True)
class Dataset:
    """Windows, and the batches that they come in."""

    windows: Windows
    batches: Batches


class MicrobatchBuilder:
    """Cuts batches into shards for one model."""

    def __init__(
        self, checkpoint: Checkpoint, targets: TargetReader, parts: int, report: Callable[[str], None]
    ) -> None:
        """Make `parts` shards of a batch; `report` is told of windows whose sidecar cannot be read."""
        self._checkpoint, self._targets = checkpoint, targets
        self._parts, self._report = parts, report

    def microbatches(self, batch: Batch, windows: Windows) -> list[Microbatch]:
        """Return the shards of `batch`, which is of `windows`."""
        vocabulary, video = self._checkpoint.vocabulary, self._checkpoint.model.config.video_token_id
        return list(make_microbatches(batch, self._known(batch, windows), vocabulary, video, self._parts))

    def _known(self, batch: Batch, windows: Windows) -> dict[str, list[Targets]]:
        """Return what the heads should say; a batch's videos follow one another as its windows do."""
        known: dict[str, list[Targets]] = {name: [] for name in self._targets.names}
        grids: Sequence[Grid] = [(t, h, w) for t, h, w in batch.tokens.video_grid_thw.tolist()]
        for number in batch.numbers if known else ():
            record = windows[number]
            own, grids = grids[: len(record.turns)], grids[len(record.turns) :]
            try:
                found = self._targets.read(record, own)
            except SvmError as error:
                self._report(f"window {number} teaches no head: {error}")
                found = self._targets.unknown(own)
            for name, targets in found.items():
                known[name] += targets
        return known


def validate(
    pool: WorkerPool,
    microbatch_builder: MicrobatchBuilder,
    dataset: Dataset,
    frames: FramePool,
    weights: LossWeights,
    limit: int | None,
    stopped: Callable[[], bool],
) -> dict[str, float]:
    """Return each part's mean loss over the first `limit` batches (None: all), or nothing once `stopped`.

    With several machines `dataset` is this one's share, `stopped` is asked of each, and the means are of all of them.

    Raises:
        SvmError: a helper of `pool` died, or another machine.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    broken_off = False
    for batch in islice(dataset.batches.read(frames, epochs=1) if len(dataset.windows) else (), limit):
        if broken_off := stopped():
            break
        microbatches = microbatch_builder.microbatches(batch, dataset.windows)
        sums.update(pool.losses(microbatches, weights))
        counts.update(count_targets(microbatches))
    if pool.ranks.any(broken_off):
        return {}
    names = pool.parts(weights)
    totals = pool.ranks.total({name: sums[name] for name in names})
    targets = pool.ranks.total({name: counts[name] for name in names})
    return {name: totals[name] / targets[name] for name in names if targets[name]}


@dataclass(frozen=True)
class Updated:
    """What an update was made of: each part's mean loss, and the gradient's length before it was cut."""

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
) -> Updated:
    """Move `train_model`'s weights once, at `fraction` of the highest learning rate.

    Raises:
        SvmError: a helper of `pool` died, or the gradient is no number any more; the weights stay as they were.
    """
    losses, grads = pool.compute_grads(microbatches, weights)
    grads, norm = optim.clip_grad_norm(grads, config.max_grad_norm)
    if not math.isfinite(cast(float, norm.item())):
        raise SvmError(
            "The gradient is no number any more: go on from the last saving with --resume, and with --config and a "
            "lower optimizer.learning_rate."
        )
    optimizer.learning_rate = config.learning_rate * fraction
    optimizer.update(train_model, grads)
    mx.eval(train_model.parameters(), optimizer.state, norm)
    pool.moved()
    return Updated(losses, cast(float, norm.item()))


@dataclass(frozen=True)
class TrainState:
    """What a run moves, and how.

    Attributes:
        checkpoint: the model with all that belongs to it.
        train_model: the model and its vision heads.
        optimizer: of both.
        microbatch_builder: makes shards for the model.
        adapter: what is saved in the checkpoint's place, if its weights stand still.
    """

    checkpoint: Checkpoint
    train_model: TrainModel
    optimizer: optim.MultiOptimizer
    microbatch_builder: MicrobatchBuilder
    adapter: Adapter | None = None

    def write(self, folder: Path, extra: Callable[[Path], None]) -> None:
        """Save what was learnt in `folder`, whole or not at all, with what `extra` adds to it.

        Raises:
            SvmError: the place cannot be written.
        """
        if self.adapter is None:
            save_checkpoint(folder, self.checkpoint, extra)
        else:
            save_adapter(folder, self.adapter, self.checkpoint, extra)


@dataclass(frozen=True)
class Callbacks:
    """The world around a run.

    Attributes:
        report: is told of what happens, in the run's own thread.
        clock: reads seconds.
        stopped: asked before each update; once true, the run is saved and ends.
    """

    report: Callable[[Event], None]
    clock: Callable[[], float]
    stopped: Callable[[], bool]


class Trainer:
    """A run, from where it stands to its end or until it is stopped."""

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
        """Prepare; nothing is computed yet.

        Args:
            config: the run's settings.
            folder: where it is saved.
            state: what moves.
            pool: who computes.
            train_set: what it learns from.
            validation_set: what it is evaluated on, or None.
            progress: where it stands.
            callbacks: the world around it.
        """
        self._config, self._folder, self._state, self._pool = config, folder, state, pool
        self._train_set, self._validation_set, self._callbacks = train_set, validation_set, callbacks
        self.progress = progress

    def run(self, frames: FramePool) -> None:
        """Go on until the last update, an early end or a stop.

        Raises:
            SvmError: nothing can be learnt from, or the folder cannot be written.
        """
        batches = self._train_set.batches.read(frames, self.progress.position)
        saved = self.progress.step
        while self.progress.step < self._config.schedule.steps and not self._is_over():
            group, microbatches = self._next(batches)
            if self._stopped():
                break
            self._step(group, microbatches)
            if self.progress.step % self._config.checkpointing.every == 0:
                self._validate_and_save(frames)
                saved = self.progress.step
        if self.progress.step > saved:
            self._validate_and_save(frames)

    def _next(self, batches: Iterator[Batch]) -> tuple[list[Batch], list[Microbatch]]:
        """Return the batches of the next update; those with nothing to learn in them are passed over."""
        last = None
        while True:
            group = list(islice(batches, self._config.optimizer.accumulate))
            microbatches = [
                microbatch
                for batch in group
                for microbatch in self._state.microbatch_builder.microbatches(batch, self._train_set.windows)
            ]
            if self._counts(microbatches) or self._stopped():
                return group, microbatches
            last = last or group[0].epoch + 1
            if group[-1].epoch > last:
                raise SvmError(
                    "A whole epoch held nothing to learn; see the reasons above, and convert the data again."
                )

    def _counts(self, microbatches: list[Microbatch]) -> bool:
        """Whether something in `microbatches`, here or on another machine, has a weight in the next update."""
        train_model, weights = self._state.train_model, self._weights()
        totals = self._pool.ranks.total(count_targets(microbatches))
        return any(count and train_model.weight(part, weights) for part, count in totals.items())

    def _stopped(self) -> bool:
        """Whether the run was stopped, on whichever machine."""
        return self._pool.ranks.any(self._callbacks.stopped())

    def _step(self, group: list[Batch], microbatches: list[Microbatch]) -> None:
        number = self.progress.step
        fraction = rate_fraction(number, self._config.schedule)
        state, optimizer = self._state, self._config.optimizer
        weights, started_at = self._weights(), self._callbacks.clock()
        done = update(state.train_model, state.optimizer, self._pool, microbatches, weights, optimizer, fraction)
        self.progress = replace(self.progress, step=number + 1, position=group[-1].following)
        self._callbacks.report(self._stepped(done, group, fraction, started_at))

    def _stepped(self, done: Updated, group: list[Batch], fraction: float, started_at: float) -> StepDone:
        return StepDone(
            step=self.progress.step,
            losses=done.losses,
            learning_rate=self._config.optimizer.learning_rate * fraction,
            grad_norm=done.grad_norm,
            video_seconds=sum(batch.seconds for batch in group),
            tokens=sum(batch.tokens.input_ids.size for batch in group),
            epoch=group[-1].epoch,
            started_at=started_at,
            ended_at=self._callbacks.clock(),
        )

    def _weights(self) -> LossWeights:
        """Return what counts in the update that comes."""
        auxiliary = self._config.auxiliary
        if self.progress.step < auxiliary.first_steps:
            return LossWeights(text=0.0, heads=1.0)
        return LossWeights(text=1.0, heads=auxiliary.weight if auxiliary.heads else 0.0)

    def _validate_and_save(self, frames: FramePool) -> None:
        """Evaluate, if there is something to evaluate on, save, and let the run's folder play the best so far."""
        is_best = self._validation_set is None
        if self._validation_set is not None:
            microbatch_builder, limit = self._state.microbatch_builder, self._config.validation.batches
            weights, stopped = replace(self._weights(), text=1.0), self._callbacks.stopped
            limit = limit and -(-limit // self._pool.ranks.size)
            losses = validate(self._pool, microbatch_builder, self._validation_set, frames, weights, limit, stopped)
            is_best = self._note(losses) if TEXT in losses else self.progress.best_loss is None
        self._save(is_best)

    def _note(self, losses: dict[str, float]) -> bool:
        """Enter an evaluation; return whether the words' loss was never lower."""
        loss, best_loss = losses[TEXT], self.progress.best_loss
        is_best = best_loss is None or loss < best_loss
        since = 0 if is_best else self.progress.since_best + 1
        self.progress = replace(self.progress, best_loss=loss if is_best else best_loss, since_best=since)
        self._callbacks.report(Validated(self.progress.step, losses, is_best))
        return is_best

    def _is_over(self) -> bool:
        """Whether the run was stopped, or has not become better for too long."""
        patience = self._config.validation.patience
        if patience is not None and self.progress.since_best >= patience:
            self._callbacks.report(Note(f"{patience} evaluations brought nothing better; the run ends here."))
            return True
        return self._stopped()

    def _save(self, is_best: bool) -> None:
        state = self._state
        if is_best:
            self.progress = replace(self.progress, best_step=self.progress.step)
        if not self._pool.ranks.is_main:
            return
        heads, keep = state.train_model.vision_heads, self._config.checkpointing.keep
        step_folder = self._folder.save(self.progress, state.write, state.optimizer, heads, keep)
        if is_best:
            self._folder.promote(step_folder)
        self._callbacks.report(Saved(self.progress.step, step_folder))
