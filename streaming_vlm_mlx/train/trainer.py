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
from streaming_vlm_mlx.train.loss import TEXT, Learner, Weights, count_targets
from streaming_vlm_mlx.train.metrics import Evaluated, Event, Note, Saved, Stepped
from streaming_vlm_mlx.train.microbatch import Grid, Shard, Targets, make_shards
from streaming_vlm_mlx.train.optim import rate_fraction
from streaming_vlm_mlx.train.vision_heads import TargetReader
from streaming_vlm_mlx.train.workers import Crew


@dataclass(frozen=True)
class Dataset:
    """Windows, and the batches that they come in."""

    windows: Windows
    batches: Batches


class Feeder:
    """Cuts batches into shards for one model."""

    def __init__(
        self, checkpoint: Checkpoint, targets: TargetReader, parts: int, report: Callable[[str], None]
    ) -> None:
        """Make `parts` shards of a batch; `report` is told of windows whose sidecar can not be read."""
        self._checkpoint, self._targets = checkpoint, targets
        self._parts, self._report = parts, report

    def shards(self, batch: Batch, windows: Windows) -> list[Shard]:
        """Return the shards of `batch`, which is of `windows`."""
        vocabulary, video = self._checkpoint.vocabulary, self._checkpoint.model.config.video_token_id
        return list(make_shards(batch, self._known(batch, windows), vocabulary, video, self._parts))

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


def evaluate(
    crew: Crew,
    feeder: Feeder,
    dataset: Dataset,
    frames: FramePool,
    weights: Weights,
    limit: int | None,
    stopped: Callable[[], bool],
) -> dict[str, float]:
    """Return each part's mean loss over the first `limit` batches (None: all), or nothing once `stopped`.

    With several machines `dataset` is this one's share, `stopped` is asked of each, and the means are of all of them.

    Raises:
        SvmError: a helper of `crew` died, or another machine.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    broken_off = False
    for batch in islice(dataset.batches.read(frames, epochs=1) if len(dataset.windows) else (), limit):
        if broken_off := stopped():
            break
        shards = feeder.shards(batch, dataset.windows)
        sums.update(crew.losses(shards, weights))
        counts.update(count_targets(shards))
    if crew.ranks.any(broken_off):
        return {}
    names = crew.parts(weights)
    totals = crew.ranks.total({name: sums[name] for name in names})
    targets = crew.ranks.total({name: counts[name] for name in names})
    return {name: totals[name] / targets[name] for name in names if targets[name]}


@dataclass(frozen=True)
class Updated:
    """What an update was made of: each part's mean loss, and the gradient's length before it was cut."""

    losses: dict[str, float]
    grad_norm: float


def update(
    learner: Learner,
    optimizer: optim.MultiOptimizer,
    crew: Crew,
    shards: Sequence[Shard],
    weights: Weights,
    config: OptimizerConfig,
    fraction: float,
) -> Updated:
    """Move `learner`'s weights once, at `fraction` of the highest learning rate.

    Raises:
        SvmError: a helper of `crew` died, or the gradient is no number any more; the weights stay as they were.
    """
    losses, slopes = crew.gradient(shards, weights)
    slopes, norm = optim.clip_grad_norm(slopes, config.max_grad_norm)
    if not math.isfinite(cast(float, norm.item())):
        raise SvmError(
            "The gradient is no number any more: go on from the last saving with --resume, and with --config and a "
            "lower optimizer.learning_rate."
        )
    optimizer.learning_rate = config.learning_rate * fraction
    optimizer.update(learner, slopes)
    mx.eval(learner.parameters(), optimizer.state, norm)
    crew.moved()
    return Updated(losses, cast(float, norm.item()))


@dataclass(frozen=True)
class Trained:
    """What a run moves, and how.

    Attributes:
        checkpoint: the model with all that belongs to it.
        learner: the model and its vision heads.
        optimizer: of both.
        feeder: makes shards for the model.
        adapter: what is saved in the checkpoint's place, if its weights stand still.
    """

    checkpoint: Checkpoint
    learner: Learner
    optimizer: optim.MultiOptimizer
    feeder: Feeder
    adapter: Adapter | None = None

    def write(self, folder: Path, extra: Callable[[Path], None]) -> None:
        """Save what was learnt in `folder`, whole or not at all, with what `extra` adds to it.

        Raises:
            SvmError: the place can not be written.
        """
        if self.adapter is None:
            save_checkpoint(folder, self.checkpoint, extra)
        else:
            save_adapter(folder, self.adapter, self.checkpoint, extra)


@dataclass(frozen=True)
class Watch:
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
        trained: Trained,
        crew: Crew,
        learnt: Dataset,
        watched: Dataset | None,
        progress: Progress,
        watch: Watch,
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            config: the run's settings.
            folder: where it is saved.
            trained: what moves.
            crew: who computes.
            learnt: what it learns from.
            watched: what it is evaluated on, or None.
            progress: where it stands.
            watch: the world around it.
        """
        self._config, self._folder, self._trained, self._crew = config, folder, trained, crew
        self._learnt, self._watched, self._watch = learnt, watched, watch
        self.progress = progress

    def run(self, frames: FramePool) -> None:
        """Go on until the last update, an early end or a stop.

        Raises:
            SvmError: nothing can be learnt from, or the folder can not be written.
        """
        batches = self._learnt.batches.read(frames, self.progress.position)
        saved = self.progress.step
        while self.progress.step < self._config.schedule.steps and not self._is_over():
            group, shards = self._next(batches)
            if self._stopped():
                break
            self._step(group, shards)
            if self.progress.step % self._config.saving.every == 0:
                self._look_and_save(frames)
                saved = self.progress.step
        if self.progress.step > saved:
            self._look_and_save(frames)

    def _next(self, batches: Iterator[Batch]) -> tuple[list[Batch], list[Shard]]:
        """Return the batches of the next update; those with nothing to learn in them are passed over."""
        last = None
        while True:
            group = list(islice(batches, self._config.optimizer.accumulate))
            shards = [shard for batch in group for shard in self._trained.feeder.shards(batch, self._learnt.windows)]
            if self._counts(shards) or self._stopped():
                return group, shards
            last = last or group[0].epoch + 1
            if group[-1].epoch > last:
                raise SvmError(
                    "A whole epoch held nothing to learn; see the reasons above, and convert the data again."
                )

    def _counts(self, shards: list[Shard]) -> bool:
        """Whether something in `shards`, or in those of another machine, has a weight in the update that comes."""
        learner, weights = self._trained.learner, self._weights()
        totals = self._crew.ranks.total(count_targets(shards))
        return any(count and learner.weight(part, weights) for part, count in totals.items())

    def _stopped(self) -> bool:
        """Whether the run was stopped, on whichever machine."""
        return self._crew.ranks.any(self._watch.stopped())

    def _step(self, group: list[Batch], shards: list[Shard]) -> None:
        number = self.progress.step
        fraction = rate_fraction(number, self._config.schedule)
        trained, optimizer = self._trained, self._config.optimizer
        weights, begun = self._weights(), self._watch.clock()
        done = update(trained.learner, trained.optimizer, self._crew, shards, weights, optimizer, fraction)
        self.progress = replace(self.progress, step=number + 1, position=group[-1].following)
        self._watch.report(self._stepped(done, group, fraction, begun))

    def _stepped(self, done: Updated, group: list[Batch], fraction: float, begun: float) -> Stepped:
        return Stepped(
            step=self.progress.step,
            losses=done.losses,
            learning_rate=self._config.optimizer.learning_rate * fraction,
            grad_norm=done.grad_norm,
            video_seconds=sum(batch.seconds for batch in group),
            tokens=sum(batch.tokens.input_ids.size for batch in group),
            epoch=group[-1].epoch,
            begun=begun,
            ended=self._watch.clock(),
        )

    def _weights(self) -> Weights:
        """Return what counts in the update that comes."""
        auxiliary = self._config.auxiliary
        if self.progress.step < auxiliary.first_steps:
            return Weights(text=0.0, heads=1.0)
        return Weights(text=1.0, heads=auxiliary.weight if auxiliary.heads else 0.0)

    def _look_and_save(self, frames: FramePool) -> None:
        """Evaluate, if there is something to evaluate on, save, and let the run's folder play the best so far."""
        is_best = self._watched is None
        if self._watched is not None:
            feeder, limit = self._trained.feeder, self._config.evaluation.batches
            weights, stopped = replace(self._weights(), text=1.0), self._watch.stopped
            limit = limit and -(-limit // self._crew.ranks.size)
            losses = evaluate(self._crew, feeder, self._watched, frames, weights, limit, stopped)
            is_best = self._note(losses) if TEXT in losses else self.progress.best is None
        self._save(is_best)

    def _note(self, losses: dict[str, float]) -> bool:
        """Enter an evaluation; return whether the words' loss was never lower."""
        loss, best = losses[TEXT], self.progress.best
        is_best = best is None or loss < best
        since = 0 if is_best else self.progress.since_best + 1
        self.progress = replace(self.progress, best=loss if is_best else best, since_best=since)
        self._watch.report(Evaluated(self.progress.step, losses, is_best))
        return is_best

    def _is_over(self) -> bool:
        """Whether the run was stopped, or has not become better for too long."""
        patience = self._config.evaluation.patience
        if patience is not None and self.progress.since_best >= patience:
            self._watch.report(Note(f"{patience} evaluations brought nothing better; the run ends here."))
            return True
        return self._stopped()

    def _save(self, is_best: bool) -> None:
        trained = self._trained
        if is_best:
            self.progress = replace(self.progress, played=self.progress.step)
        if not self._crew.ranks.leads:
            return
        heads, keep = trained.learner.vision_heads, self._config.saving.keep
        saving = self._folder.save(self.progress, trained.write, trained.optimizer, heads, keep)
        if is_best:
            self._folder.publish(saving)
        self._watch.report(Saved(self.progress.step, saving))
