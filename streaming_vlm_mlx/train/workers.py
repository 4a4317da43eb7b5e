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
    Blueprint,
    Done,
    Job,
    NumpyArrays,
    Work,
    as_floats,
    as_numpy,
    by_name,
    gradient,
    losses_alone,
)
from streaming_vlm_mlx.train.loss import Learner, Weights, count_targets
from streaming_vlm_mlx.train.microbatch import Shard
from streaming_vlm_mlx.train.worker_process import Helper


class Crew:
    """This process and its helpers, who all come to the same weights before they work."""

    def __init__(self, learner: Learner, work: Work, helpers: Sequence[Helper], ranks: Ranks = ALONE) -> None:
        """Work on `learner` here, and on copies of it in `helpers`, in step with the crews of `ranks`."""
        self._learner, self._work, self._helpers = learner, work, helpers
        self.ranks = ranks
        self._version = 0

    @property
    def size(self) -> int:
        """How many shards are worked on at once."""
        return 1 + len(self._helpers)

    def parts(self, weights: Weights) -> list[str]:
        """Return the names of the parts of the loss that have a weight."""
        return self._learner.parts(weights)

    def moved(self) -> None:
        """Take note that an update changed the learner's weights."""
        self._version += 1

    def gradient(self, shards: Sequence[Shard], weights: Weights) -> tuple[dict[str, float], Any]:
        """Return each part's mean loss over all targets of `shards`, and the gradient of their weighted sum.

        With several machines it is over all of their targets, and all are given the same.

        Raises:
            SvmError: a helper died, or another machine.
        """
        totals = self.ranks.total(count_targets(shards))
        # The gradients are averaged, not added: so each machine counts as if it had an even share of the targets.
        counts = {name: total / self.ranks.size for name, total in totals.items()}
        losses: Counter[str] = Counter()
        whole: dict[str, mx.array] = {}
        for group in self._groups(shards):
            self._send(group[1:], weights, counts)
            own, slopes = gradient(self._learner, group[0], weights, counts, self._work)
            losses.update(as_floats(own))
            whole = {name: whole[name] + slope if whole else slope for name, slope in slopes.items()}
            for done in self._receive(group[1:]):
                losses.update(done.losses)
                whole = {name: slope + mx.array(done.slopes[name]) for name, slope in whole.items()}
        counted = [name for name in self._learner.parts(weights) if totals.get(name)]
        sums = self.ranks.total({name: losses[name] for name in counted})
        return {name: sums[name] / totals[name] for name in counted}, tree_unflatten(
            list(self.ranks.mean(whole).items())
        )

    def losses(self, shards: Sequence[Shard], weights: Weights) -> dict[str, float]:
        """Return each part's loss summed over all targets of `shards`.

        Raises:
            SvmError: a helper died.
        """
        losses: Counter[str] = Counter()
        for group in self._groups(shards):
            self._send(group[1:], weights, None)
            losses.update(as_floats(losses_alone(self._learner, group[0], weights, self._work)))
            for done in self._receive(group[1:]):
                losses.update(done.losses)
        return dict(losses)

    def _groups(self, shards: Sequence[Shard]) -> Iterator[Sequence[Shard]]:
        return (shards[at : at + self.size] for at in range(0, len(shards), self.size))

    def _send(self, shards: Sequence[Shard], weights: Weights, counts: Mapping[str, float] | None) -> None:
        for helper, shard in zip(self._helpers, shards, strict=False):
            helper.send(Job(self._news(helper), shard, weights, counts))
            helper.version = self._version

    def _news(self, helper: Helper) -> NumpyArrays:
        """Return the weights that `helper` does not have: all at first, then those that move, if they did."""
        if helper.version == self._version:
            return {}
        learner = self._learner
        return as_numpy(by_name(learner.parameters() if helper.version is None else learner.trainable_parameters()))

    def _receive(self, shards: Sequence[Shard]) -> list[Done]:
        return [helper.receive() for helper, _ in zip(self._helpers, shards, strict=False)]


@contextmanager
def hired(learner: Learner, blueprint: Blueprint, dtype: mx.Dtype, cores: int, ranks: Ranks = ALONE) -> Iterator[Crew]:
    """Yield a crew of `cores`, this process among them; its helpers, who compute in float32, end with the block.

    It goes in step with the crews of `ranks`.

    Helpers are spawned: a program that hires them keeps its own start under ``if __name__ == "__main__"``.
    """
    with ExitStack() as stack:
        helpers = [stack.enter_context(closing(Helper(blueprint))) for _ in range(cores - 1)]
        yield Crew(learner, Work(dtype, blueprint.recompute), helpers, ranks)
