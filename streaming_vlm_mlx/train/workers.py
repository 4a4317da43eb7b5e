"""Data-parallel workers: processes that compute the microbatches of a step side by side.

On a CPU, MLX keeps about one core busy: elementwise operations run in one thread, most matrix products here are too
small to be split, and two streams in one process starve each other because MLX queues few operations ahead. So all
cores but one get a worker process, which receives weights and a microbatch and returns a gradient. A GPU needs no
workers. In a distributed run each rank has a pool of its own, and the ranks average their gradients.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.train.gradients import (
    Compute,
    NumpyArrays,
    Request,
    Result,
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
    """This process and its workers; each worker has the current weights before it computes."""

    def __init__(
        self, train_model: TrainModel, compute: Compute, workers: Sequence[Worker], ranks: Ranks = ALONE
    ) -> None:
        """Compute with `train_model` in this process and with copies of it in `workers`.

        Args:
            train_model: holds the weights.
            compute: dtype and gradient checkpointing in this process.
            workers: the worker processes.
            ranks: the processes of a distributed run, each of which has a pool.
        """
        self._train_model, self._compute, self._workers = train_model, compute, workers
        self.ranks = ranks
        self._version = 0

    @property
    def size(self) -> int:
        """The number of microbatches that are computed at once."""
        return 1 + len(self._workers)

    def parts(self, weights: LossWeights) -> list[str]:
        """Return the names of the loss's parts that have a weight."""
        return self._train_model.parts(weights)

    def mark_updated(self) -> None:
        """Record that the weights changed, so that the workers receive them with the next request."""
        self._version += 1

    def compute_grads(self, microbatches: Sequence[Microbatch], weights: LossWeights) -> tuple[dict[str, float], Any]:
        """Return each part's mean loss over the targets of `microbatches`, and the gradient of the weighted sum.

        In a distributed run both are over the targets of all ranks, and the same on each rank.

        Raises:
            SvmError: a worker or another rank exited.
        """
        totals = self.ranks.total(count_targets(microbatches))
        # The ranks average their gradients instead of adding them, so each rank divides by an equal part of the total.
        counts = {name: total / self.ranks.size for name, total in totals.items()}
        losses: Counter[str] = Counter()
        grads: dict[str, mx.array] = {}
        for group in self._groups(microbatches):
            self._send(group[1:], weights, counts)
            own_losses, own_grads = compute_grads(self._train_model, group[0], weights, counts, self._compute)
            losses.update(as_floats(own_losses))
            grads = {name: grads[name] + grad if grads else grad for name, grad in own_grads.items()}
            for result in self._receive(group[1:]):
                losses.update(result.losses)
                grads = {name: grad + mx.array(result.grads[name]) for name, grad in grads.items()}
        counted = [name for name in self._train_model.parts(weights) if totals.get(name)]
        sums = self.ranks.total({name: losses[name] for name in counted})
        means = {name: sums[name] / totals[name] for name in counted}
        return means, tree_unflatten(list(self.ranks.mean(grads).items()))

    def losses(self, microbatches: Sequence[Microbatch], weights: LossWeights) -> dict[str, float]:
        """Return each part's loss summed over the targets of this rank's `microbatches`.

        Raises:
            SvmError: a worker exited.
        """
        losses: Counter[str] = Counter()
        for group in self._groups(microbatches):
            self._send(group[1:], weights, None)
            losses.update(as_floats(compute_losses(self._train_model, group[0], weights, self._compute)))
            for result in self._receive(group[1:]):
                losses.update(result.losses)
        return dict(losses)

    def _groups(self, microbatches: Sequence[Microbatch]) -> Iterator[Sequence[Microbatch]]:
        return (microbatches[at : at + self.size] for at in range(0, len(microbatches), self.size))

    def _send(
        self, microbatches: Sequence[Microbatch], weights: LossWeights, counts: Mapping[str, float] | None
    ) -> None:
        for worker, microbatch in zip(self._workers, microbatches, strict=False):
            worker.send(Request(self._changed_parameters(worker), microbatch, weights, counts))
            worker.version = self._version

    def _changed_parameters(self, worker: Worker) -> NumpyArrays:
        """Return the parameters that `worker` lacks: all for the first request, later the updated trainable ones."""
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
    """Yield a pool of this process and `cores` - 1 workers, which end with the block.

    Workers are spawned, so the main module of the program needs ``if __name__ == "__main__"``.

    Args:
        train_model: holds the weights.
        spec: the structure of the workers' models.
        dtype: what this process computes in; workers compute in float32.
        cores: the number of microbatches that are computed at once.
        ranks: the processes of a distributed run.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(spec))) for _ in range(cores - 1)]
        yield WorkerPool(train_model, Compute(dtype, spec.grad_checkpoint), workers, ranks)
