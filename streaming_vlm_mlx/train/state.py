"""A run's folder: the checkpoint to play, the savings to go on from, the figures.

::

    run1/config.json, model.safetensors, ...   what --ckpt run1 plays: the best, or without an evaluation the newest
    run1/steps/00000200/config.json, ...       a saving, which can be played as well
    run1/steps/00000200/training/              optimizer.safetensors, heads.safetensors, state.json
    run1/train.yaml, metrics.jsonl, loss.png
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.config import FromDict
from streaming_vlm_mlx.data.batches import Position
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.checkpoint import Checkpoint, save_checkpoint

VERSION = 1
STEPS, TRAINING = "steps", "training"
STATE, OPTIMIZER, HEADS = "state.json", "optimizer.safetensors", "heads.safetensors"


@dataclass(frozen=True)
class Progress(FromDict):
    """Where a run stands between two updates.

    Attributes:
        version: of this file.
        step: updates that were made.
        position: where its data go on; their order follows from `seed`, from which all that is drawn is drawn.
        seed: the run's.
        windows: to learn from; a run can only go on with as many.
        best: the words' lowest loss on what is not learnt from.
        since_best: evaluations behind that one.
    """

    version: int = VERSION
    step: int = 0
    position: Position = field(default_factory=Position)
    seed: int = 0
    windows: int = 0
    best: float | None = None
    since_best: int = 0


class RunFolder:
    """Writes and finds what a run leaves."""

    def __init__(self, path: Path) -> None:
        """Work in `path`, which need not exist."""
        self.path = path

    @property
    def metrics(self) -> Path:
        """The file of its figures."""
        return self.path / "metrics.jsonl"

    @property
    def plot(self) -> Path:
        """The picture of its losses."""
        return self.path / "loss.png"

    @property
    def settings(self) -> Path:
        """The settings that it runs under."""
        return self.path / "train.yaml"

    def savings(self) -> list[Path]:
        """Return the folders of what was saved, oldest first."""
        found = (path for path in (self.path / STEPS).glob("*") if path.name.isdigit())
        return sorted((path for path in found if (path / TRAINING / STATE).is_file()), key=lambda path: int(path.name))

    def newest(self) -> Path:
        """Return the saving to go on from.

        Raises:
            SvmError: there is none.
        """
        savings = self.savings()
        if not savings:
            raise SvmError(f"{self.path} holds no run to go on with; start one without --resume.")
        return savings[-1]

    def check_new(self) -> None:
        """Refuse a folder that something stands in.

        Raises:
            SvmError: it is a file, holds a run, or a checkpoint.
        """
        if self.path.exists() and not self.path.is_dir():
            raise SvmError(f"{self.path} is a file; choose another place with --out.")
        if self.savings():
            step = int(self.savings()[-1].name)
            raise SvmError(f"{self.path} holds a run at step {step}: go on with --resume, or choose another --out.")
        if (self.path / "config.json").exists():
            raise SvmError(f"{self.path} holds a checkpoint, which a run would replace; choose another --out.")

    def save(
        self,
        progress: Progress,
        checkpoint: Checkpoint,
        optimizer: optim.Optimizer,
        heads: nn.Module | None,
        keep: int,
    ) -> Path:
        """Write a saving whole or not at all, and remove all but the newest `keep`; return its folder.

        Raises:
            SvmError: the place can not be written.
        """

        def add(part: Path) -> None:
            (part / TRAINING).mkdir()
            _save_arrays(part / TRAINING / OPTIMIZER, optimizer.state)
            if heads is not None:
                _save_arrays(part / TRAINING / HEADS, heads.parameters())
            write_text(part / TRAINING / STATE, json.dumps(progress.to_dict(), indent=1) + "\n")

        folder = self.path / STEPS / f"{progress.step:08d}"
        save_checkpoint(folder, checkpoint, add)
        for old in self.savings()[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def publish(self, saving: Path) -> None:
        """Make `saving` what the run's own folder plays, a file at a time, each whole; no bytes are copied.

        Raises:
            SvmError: the folder can not be written.
        """
        try:
            for file in sorted(path for path in saving.iterdir() if path.is_file()):
                part = self.path / f".{file.name}.part"
                part.unlink(missing_ok=True)
                _link(file, part)
                part.replace(self.path / file.name)
        except OSError as error:
            raise SvmError(f"{self.path} can not be written: {error.strerror}.") from error


def read_progress(saving: Path) -> Progress:
    """Return where the run stood.

    Raises:
        SvmError: the file is damaged, or a later version of this program wrote it.
    """
    path = saving / TRAINING / STATE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SvmError(f"{path} is damaged; remove {saving} to go on from the saving before it.") from error
    if version != VERSION:
        raise SvmError(f"{path} has version {version!r}, this program reads {VERSION}; update svm-tui.")
    return Progress.from_dict(values)


def load_training(saving: Path, optimizer: optim.Optimizer, heads: nn.Module | None) -> None:
    """Put `optimizer` and `heads` back to where they stood.

    Raises:
        SvmError: a file is damaged, or the heads are others than the run began with.
    """
    optimizer.state = tree_unflatten(list(_read_arrays(saving / TRAINING / OPTIMIZER).items()))
    if heads is None:
        return
    path = saving / TRAINING / HEADS
    try:
        heads.load_weights(list(_read_arrays(path).items()))
    except ValueError as error:
        raise SvmError(f"{path} is of other vision heads; go on with the settings that the run began with.") from error


def _save_arrays(path: Path, tree: Any) -> None:
    try:
        mx.save_safetensors(str(path), dict(tree_flatten(tree)))
    except RuntimeError as error:
        raise SvmError(f"{path} can not be written: {error}") from error


def _read_arrays(path: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(path))
    except (RuntimeError, OSError) as error:
        raise SvmError(f"{path} is damaged; remove {path.parents[1]} to go on from the saving before it.") from error
    assert isinstance(loaded, dict)
    return loaded


def _link(file: Path, part: Path) -> None:
    """Let `part` name the same bytes as `file`, or copies where the disk knows no such thing."""
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
