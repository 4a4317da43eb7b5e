"""Auxiliary vision heads, and their targets from the sidecar ``CLIP.targets.npz`` beside ``CLIP.mp4``.

A sidecar is a NumPy archive whose arrays have one entry a frame along the first axis: ``times``, float64 seconds,
ascending; and for each head an array of its name, with -1 (or NaN) for an unknown target:

- ``picture``: int [frames], the class of the whole picture.
- ``patch``: int [frames, rows, columns], the class of each cell of any even grid over the picture.
- ``place``: float [frames, 2], x and y of an object in fractions of the picture's width and height.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.data.records import StreamingRecord
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.config import HeadConfig, HeadKind
from streaming_vlm_mlx.train.microbatch import Grid, Targets

UNKNOWN = -1
_DIMENSIONS: Mapping[HeadKind, int] = {"picture": 1, "patch": 3, "place": 2}

Values = npt.NDArray[Any]


class TargetReader:
    """Reads targets from sidecars; the most recently used 64 stay in memory."""

    def __init__(self, heads: Sequence[HeadConfig], temporal_patch_size: int, merge_size: int) -> None:
        """Read targets of `heads`; a step is `temporal_patch_size` frames, a cell `merge_size` patches a side."""
        self._heads = tuple(heads)
        self._frames_a_step, self._merge = temporal_patch_size, merge_size
        self._read = lru_cache(maxsize=64)(self._load)

    @property
    def names(self) -> tuple[str, ...]:
        """The heads' names."""
        return tuple(head.name for head in self._heads)

    def read(self, record: StreamingRecord, grids: Sequence[Grid]) -> dict[str, list[Targets]]:
        """Return the targets of each head: for each second of `record` an int32 array [steps] or [steps × cells].

        Without a sidecar all targets are unknown.

        Args:
            record: a window.
            grids: the grid of each second's video, in patches.

        Raises:
            SvmError: the sidecar is damaged, or lacks a head's array in the right shape.
        """
        arrays = self._read(Path(record.video).with_suffix(".targets.npz"))
        found: dict[str, list[Targets]] = {head.name: [] for head in self._heads}
        for turn, grid in zip(record.turns, grids, strict=True):
            steps = np.arange(1, grid[0] + 1) * self._frames_a_step - 1
            shown = self._frames_at(arrays, turn.start + steps / record.fps)
            for head in self._heads:
                cells = grid[1] // self._merge, grid[2] // self._merge
                values = None if arrays is None else arrays[head.name][shown]
                found[head.name].append(_fit(head, values, grid[0], cells))
        return found

    def unknown(self, grids: Sequence[Grid]) -> dict[str, list[Targets]]:
        """Return unknown targets for videos of `grids`."""
        return {
            head.name: [_fit(head, None, g[0], (g[1] // self._merge, g[2] // self._merge)) for g in grids]
            for head in self._heads
        }

    def _frames_at(self, arrays: Mapping[str, Values] | None, times: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the number of the frame that is shown at each of `times`."""
        if arrays is None:
            return np.zeros(0, np.intp)
        return np.maximum(np.searchsorted(arrays["times"], times + 1e-6, side="right") - 1, 0)

    def _load(self, path: Path) -> Mapping[str, Values] | None:
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in ("times", *self.names)}
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise SvmError(f"{path} is damaged: {error}.") from error
        except KeyError as error:
            raise SvmError(f"{path} lacks an array of auxiliary.heads: {error.args[0]}.") from error
        frames = len(arrays["times"])
        for head in self._heads:
            shape = arrays[head.name].shape
            if not frames or len(shape) != _DIMENSIONS[head.kind] or shape[0] != frames:
                raise SvmError(
                    f"{path}: {head.name} is {list(shape)}, which does not fit {head.kind} of {frames} frames."
                )
        return arrays


def _fit(head: HeadConfig, values: Values | None, steps: int, cells: tuple[int, int]) -> Targets:
    """Return a head's targets: classes, or the number of the cell that contains the object."""
    if values is None:
        return np.full(steps * cells[0] * cells[1] if head.kind == "patch" else steps, UNKNOWN, np.int32)
    if head.kind == "place":
        return _cell_of(values, cells)
    if head.kind == "patch":
        rows, columns = (_centers(size, count) for size, count in zip(values.shape[1:], cells, strict=True))
        values = values[:, rows[:, None], columns].reshape(-1)
    known = (values >= 0) & (values < head.classes)
    return np.where(known, values, UNKNOWN).astype(np.int32)


def _centers(size: int, count: int) -> npt.NDArray[np.intp]:
    """Return which of `size` equal parts contain the centers of `count` equal parts."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)


def _cell_of(points: Values, cells: tuple[int, int]) -> Targets:
    x, y = np.nan_to_num(points, nan=-1.0).T
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    number = np.floor(y * cells[0]) * cells[1] + np.floor(x * cells[1])
    return np.where(inside, number, UNKNOWN).astype(np.int32)


class VisionHeads(nn.Module):
    """A linear layer for each head; heads of kind ``picture`` pool the patches with learned weights."""

    def __init__(self, configs: Sequence[HeadConfig], width: int) -> None:
        """Make heads with random weights for features of `width`."""
        super().__init__()
        self._configs = tuple(configs)
        self.out = {c.name: nn.Linear(width, 1 if c.kind == "place" else c.classes) for c in configs}
        self.pool = {c.name: nn.Linear(width, 1) for c in configs if c.kind == "picture"}

    @property
    def names(self) -> list[str]:
        """The names of the heads."""
        return [config.name for config in self._configs]

    def weight(self, name: str) -> float:
        """Return the weight of head `name`."""
        return next(config.weight for config in self._configs if config.name == name)

    def __call__(
        self, features: mx.array, grids: Sequence[Grid], head_targets: Mapping[str, Targets]
    ) -> Iterator[tuple[str, mx.array, Targets]]:
        """Yield (name, logits [targets, classes], targets) of each head, for its known targets.

        A head comes once for each run of videos of the same size.

        Args:
            features: features of all videos, [units, width].
            grids: grids of the runs of videos, in patches.
            head_targets: targets of each head, -1 where unknown.
        """
        patches_a_unit = sum(math.prod(grid) for grid in grids) // features.shape[0]
        steps = np.cumsum([grid[0] for grid in grids])[:-1]
        units = np.cumsum([math.prod(grid) // patches_a_unit for grid in grids])[:-1]
        runs = mx.split(features, units.tolist())
        for config in self._configs:
            targets = np.split(head_targets[config.name], units if config.kind == "patch" else steps)
            for grid, run, values in zip(grids, runs, targets, strict=True):
                known = np.flatnonzero(values >= 0)
                if len(known):
                    logits = self._logits(config, run.reshape(grid[0], -1, run.shape[-1]))
                    yield config.name, logits[mx.array(known)], values[known]

    def _logits(self, config: HeadConfig, pictures: mx.array) -> mx.array:
        """Return the logits [targets, classes] of `pictures` [steps, units, width]."""
        out = self.out[config.name]
        if config.kind == "patch":
            return out(pictures.reshape(-1, pictures.shape[-1]))
        if config.kind == "place":
            return out(pictures)[..., 0]
        weights = mx.softmax(self.pool[config.name](pictures), axis=1)
        return out((weights * pictures).sum(axis=1))
