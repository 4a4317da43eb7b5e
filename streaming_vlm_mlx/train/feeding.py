"""From a batch of windows to what the cores work on: rows, angles, labels, and what the vision heads should say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streaming_vlm_mlx.data.batches import Batch, Batches
from streaming_vlm_mlx.data.windows import Windows
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.checkpoint import Checkpoint
from streaming_vlm_mlx.train.shards import Grid, Shard, Targets, make_shards
from streaming_vlm_mlx.train.targets import TargetReader


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
