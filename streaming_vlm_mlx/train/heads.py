"""Heads on the vision tower that say what a picture shows; they teach it to look, and are not part of the model.

With words alone a small tower learns nothing for a long time. A head names what is known of each picture from the
simulation that made it, or from somebody's labels: see `targets`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.shards import Grid, Targets


class VisionHeads(nn.Module):
    """A linear map for each head, and for a whole picture a learnt mean over its patches."""

    def __init__(self, configs: Sequence[HeadConfig], width: int) -> None:
        """Make random weights for features of `width`."""
        super().__init__()
        self._configs = tuple(configs)
        self.out = {c.name: nn.Linear(width, 1 if c.kind == "place" else c.classes) for c in configs}
        self.pool = {c.name: nn.Linear(width, 1) for c in configs if c.kind == "picture"}

    @property
    def names(self) -> list[str]:
        """What each head is called."""
        return [config.name for config in self._configs]

    def weight(self, name: str) -> float:
        """Return what head `name` counts for."""
        return next(config.weight for config in self._configs if config.name == name)

    def __call__(
        self, features: mx.array, grids: Sequence[Grid], known: Mapping[str, Targets]
    ) -> Iterator[tuple[str, mx.array, Targets]]:
        """Yield a head's name, its logits [targets, classes] where its target is known, and those targets.

        A head comes once for each run of videos of one size.

        Args:
            features: of all videos, [units, width].
            grids: of the runs of videos, in patches.
            known: of each head, -1 where nobody knows.
        """
        patches_a_unit = sum(math.prod(grid) for grid in grids) // features.shape[0]
        steps = np.cumsum([grid[0] for grid in grids])[:-1]
        units = np.cumsum([math.prod(grid) // patches_a_unit for grid in grids])[:-1]
        runs = mx.split(features, units.tolist())
        for config in self._configs:
            targets = np.split(known[config.name], units if config.kind == "patch" else steps)
            for grid, run, aims in zip(grids, runs, targets, strict=True):
                sure = np.flatnonzero(aims >= 0)
                if len(sure):
                    logits = self._logits(config, run.reshape(grid[0], -1, run.shape[-1]))
                    yield config.name, logits[mx.array(sure)], aims[sure]

    def _logits(self, config: HeadConfig, pictures: mx.array) -> mx.array:
        """Return the logits [targets, classes] of `pictures` [steps, units, width]."""
        out = self.out[config.name]
        if config.kind == "patch":
            return out(pictures.reshape(-1, pictures.shape[-1]))
        if config.kind == "place":
            return out(pictures)[..., 0]
        shares = mx.softmax(self.pool[config.name](pictures), axis=1)
        return out((shares * pictures).sum(axis=1))
