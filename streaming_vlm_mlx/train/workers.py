"""Cores that work on the shards of an update side by side.

On a CPU an MLX process keeps one core busy: elementwise operations have one thread, most products here are too small
to share, and MLX queues so few operations ahead that two streams in a process starve each other. So each core but one
has a helper process, which is sent weights and a shard and sends a gradient back. A GPU needs none of this. Where a run
goes on several machines, each has a crew of its own, and their gradients are averaged.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.train.gradients import (
    NumpyArrays,
    Request,
    Result,
    Work,
    WorkerSpec,
    as_floats,
    as_numpy,
    compute_grads,
    compute_losses,
    flatten,
)
from streaming_vlm_mlx.train.loss import LossWeights, TrainModel, count_targets
from streaming_vlm_mlx.train.microbatch import Microbatch
from streaming_vlm_mlx.train.worker_process import Worker


class WorkerPool:
    """This process and its helpers, who all come to the same weights before they work."""

    def __init__(self, train_model: TrainModel, work: Work, workers: Sequence[Worker], ranks: Ranks = ALONE) -> None:
        """Work on `train_model` here, and on copies of it in `workers`, in step with the crews of `ranks`."""
        self._train_model, self._work, self._workers = train_model, work, workers
        self.ranks = ranks
        self._version = 0

    @property
    def size(self) -> int:
        """How many shards are worked on at once."""
        return 1 + len(self._workers)

    def parts(self, weights: LossWeights) -> list[str]:
        """Return the names of the parts of the loss that have a weight."""
        return self._train_model.parts(weights)

    def moved(self) -> None:
        """Take note that an update changed the learner's weights."""
        self._version += 1

    def compute_grads(self, microbatches: Sequence[Microbatch], weights: LossWeights) -> tuple[dict[str, float], Any]:
        """Return each part's mean loss over all targets of `microbatches`, and the gradient of their weighted sum.

        With several machines it is over all of their targets, and all are given the same.

        Raises:
            SvmError: a helper died, or another machine.
        """
        totals = self.ranks.total(count_targets(microbatches))
        # The gradients are averaged, not added: so each machine counts as if it had an even share of the targets.
        counts = {name: total / self.ranks.size for name, total in totals.items()}
        losses: Counter[str] = Counter()
        whole: dict[str, mx.array] = {}
        for group in self._groups(microbatches):
            self._send(group[1:], weights, counts)
            own, grads = compute_grads(self._train_model, group[0], weights, counts, self._work)
            losses.update(as_floats(own))
            whole = {name: whole[name] + grad if whole else grad for name, grad in grads.items()}
            for done in self._receive(group[1:]):
                losses.update(done.losses)
                whole = {name: grad + mx.array(done.grads[name]) for name, grad in whole.items()}
        counted = [name for name in self._train_model.parts(weights) if totals.get(name)]
        sums = self.ranks.total({name: losses[name] for name in counted})
        return {name: sums[name] / totals[name] for name in counted}, tree_unflatten(
            list(self.ranks.mean(whole).items())
        )

    def losses(self, microbatches: Sequence[Microbatch], weights: LossWeights) -> dict[str, float]:
        """Return each part's loss summed over all targets of `microbatches`.

        Raises:
            SvmError: a helper died.
        """
        losses: Counter[str] = Counter()
        for group in self._groups(microbatches):
            self._send(group[1:], weights, None)
            losses.update(as_floats(compute_losses(self._train_model, group[0], weights, self._work)))
            for done in self._receive(group[1:]):
                losses.update(done.losses)
        return dict(losses)

    def _groups(self, microbatches: Sequence[Microbatch]) -> Iterator[Sequence[Microbatch]]:
        return (microbatches[at : at + self.size] for at in range(0, len(microbatches), self.size))

    def _send(
        self, microbatches: Sequence[Microbatch], weights: LossWeights, counts: Mapping[str, float] | None
    ) -> None:
        for worker, microbatch in zip(self._workers, microbatches, strict=False):
            worker.send(Request(self._news(worker), microbatch, weights, counts))
            worker.version = self._version

    def _news(self, worker: Worker) -> NumpyArrays:
        """Return the weights that `worker` does not have: all at first, then those that move, if they did."""
        if worker.version == self._version:
            return {}
        train_model = self._train_model
        return as_numpy(
            flatten(train_model.parameters() if worker.version is None else train_model.trainable_parameters())
        )

    def _receive(self, microbatches: Sequence[Microbatch]) -> list[Result]:
        return [worker.receive() for worker, _ in zip(self._workers, microbatches, strict=False)]


@contextmanager
def open_worker_pool(
    train_model: TrainModel, spec: WorkerSpec, dtype: mx.Dtype, cores: int, ranks: Ranks = ALONE
) -> Iterator[WorkerPool]:
    """Yield a crew of `cores`, this process among them; its helpers, who compute in float32, end with the block.

    It goes in step with the crews of `ranks`.

    Helpers are spawned: a program that hires them keeps its own start under ``if __name__ == "__main__"``.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(spec))) for _ in range(cores - 1)]
        yield WorkerPool(train_model, Work(dtype, spec.grad_checkpoint), workers, ranks)
