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

    Raises:
        SvmError: a helper of `crew` died.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for batch in islice(dataset.batches.read(frames, epochs=1), limit):
        if stopped():
            return {}
        shards = feeder.shards(batch, dataset.windows)
        sums.update(crew.losses(shards, weights))
        counts.update(count_targets(shards))
    return {name: sums[name] / counts[name] for name in sums if counts[name]}
