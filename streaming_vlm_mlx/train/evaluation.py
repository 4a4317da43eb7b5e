"""How a model does on what it does not learn from."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

from streaming_vlm_mlx.data.workers import FramePool
from streaming_vlm_mlx.train.crew import Crew
from streaming_vlm_mlx.train.feeding import Dataset, Feeder
from streaming_vlm_mlx.train.loss import Weights, count_targets


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
