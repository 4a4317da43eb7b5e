"""A run's folder: the checkpoint to play, the savings to go on from, the figures.

::

    run1/config.json, model.safetensors, ...   what --ckpt run1 plays: the best, or without an evaluation the newest
    run1/training/heads.safetensors            its vision heads, for a run that begins with it
    run1/steps/00000200/config.json, ...       a saving, which can be played as well
    run1/steps/00000200/training/              optimizer.safetensors, heads.safetensors, state.json
    run1/train.yaml, metrics.jsonl, loss.png

A name in ``steps`` that begins with a dot was being written or removed when a run was killed.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.collator import Position
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.adapters import SETTINGS
from streaming_vlm_mlx.models.loading import CONFIG

VERSION = 2
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
        best_loss: the words' lowest loss on what is not learnt from.
        since_best: evaluations behind that one.
        best_step: updates behind the saving that the run's own folder plays.
    """

    version: int = VERSION
    step: int = 0
    position: Position = field(default_factory=Position)
    seed: int = 0
    windows: int = 0
    best_loss: float | None = None
    since_best: int = 0
    best_step: int = 0


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

    def checkpoints(self) -> list[Path]:
        """Return the folders of what was saved, oldest first."""
        found = (path for path in (self.path / STEPS).glob("*") if path.name.isdigit())
        return sorted((path for path in found if (path / TRAINING / STATE).is_file()), key=lambda path: int(path.name))

    def newest(self) -> Path | None:
        """Return the saving to go on from, or None when the run ended before it was first saved.

        Raises:
            SvmError: no run ever began here.
        """
        checkpoints = self.checkpoints()
        if not checkpoints and (self._holds_checkpoint() or not self.settings.is_file()):
            raise SvmError(f"{self.path} holds no run to go on with; start one without --resume.")
        return checkpoints[-1] if checkpoints else None

    def check_new(self) -> None:
        """Refuse a folder that something stands in.

        Raises:
            SvmError: it is a file, holds a run, or a checkpoint.
        """
        if self.path.exists() and not self.path.is_dir():
            raise SvmError(f"{self.path} is a file; choose another place with --out.")
        if self.checkpoints():
            step = int(self.checkpoints()[-1].name)
            raise SvmError(f"{self.path} holds a run at step {step}: go on with --resume, or choose another --out.")
        if self._holds_checkpoint():
            raise SvmError(f"{self.path} holds a checkpoint, which a run would replace; choose another --out.")

    def save(
        self,
        progress: Progress,
        write: Callable[[Path, Callable[[Path], None]], None],
        optimizer: optim.Optimizer,
        heads: nn.Module | None,
        keep: int,
    ) -> Path:
        """Write a saving whole or not at all, and remove all but the newest `keep`; return its folder.

        `write` writes what was learnt to a folder, whole, with what is added to it by the function that it is given.

        Raises:
            SvmError: the place cannot be written.
        """

        def add(part: Path) -> None:
            (part / TRAINING).mkdir()
            _save_arrays(part / TRAINING / OPTIMIZER, optimizer.state)
            if heads is not None:
                _save_arrays(part / TRAINING / HEADS, heads.parameters())
            write_text(part / TRAINING / STATE, json.dumps(progress.to_dict(), indent=1) + "\n")

        folder = self._saving(progress.step)
        write(folder, add)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(_aside(old), ignore_errors=True)
        return folder

    def recover(self, progress: Progress) -> None:
        """Finish what was cut off when the run was killed at `progress` or behind it.

        Raises:
            SvmError: the folder cannot be written.
        """
        for stray in (self.path / STEPS).glob(".*"):
            shutil.rmtree(stray, ignore_errors=True)
        for file in (self.metrics, self.plot, self.settings):
            for stray in self.path.glob(f".{file.name}.*"):
                stray.unlink(missing_ok=True)
        if self._saving(progress.best_step).is_dir():
            self.promote(self._saving(progress.best_step))

    def promote(self, step_folder: Path) -> None:
        """Make `step_folder` what the run's own folder plays, a file at a time, each whole; no bytes are copied.

        Raises:
            SvmError: the folder cannot be written.
        """
        heads = step_folder / TRAINING / HEADS
        try:
            for file in sorted(path for path in (*step_folder.iterdir(), heads) if path.is_file()):
                place = self.path / file.relative_to(step_folder)
                place.parent.mkdir(exist_ok=True)
                part = place.with_name(f".{file.name}.part")
                part.unlink(missing_ok=True)
                _link(file, part)
                part.replace(place)
        except OSError as error:
            raise SvmError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _holds_checkpoint(self) -> bool:
        return any((self.path / name).exists() for name in (CONFIG, SETTINGS))

    def _saving(self, step: int) -> Path:
        return self.path / STEPS / f"{step:08d}"


def read_progress(step_folder: Path) -> Progress:
    """Return where the run stood.

    Raises:
        SvmError: the file is damaged, or a later version of this program wrote it.
    """
    path = step_folder / TRAINING / STATE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SvmError(f"{path} is damaged; remove {step_folder} to go on from the saving before it.") from error
    if version == 1:
        raise SvmError(
            f"{path} was written by svm-tui 0.1, whose runs cannot be resumed; start a new run from its checkpoint: "
            f"--ckpt {step_folder} and another --out."
        )
    if version != VERSION:
        raise SvmError(f"{path} has version {version!r}, this program reads {VERSION}; update svm-tui.")
    return Progress.from_dict(values)


def load_training(step_folder: Path, optimizer: optim.Optimizer, heads: nn.Module | None) -> None:
    """Put `optimizer` and `heads` back to where they stood.

    Raises:
        SvmError: a file is damaged, or the heads are others than the run began with.
    """
    way_out = f"remove {step_folder} to go on from the saving before it"
    optimizer.state = tree_unflatten(list(_read_arrays(step_folder / TRAINING / OPTIMIZER, way_out).items()))
    if heads is None:
        return
    path = step_folder / TRAINING / HEADS
    try:
        heads.load_weights(list(_read_arrays(path, way_out).items()))
    except ValueError as error:
        raise SvmError(f"{path} is of other vision heads; go on with the settings that the run began with.") from error


def take_heads(folder: Path, heads: nn.Module) -> set[str]:
    """Give `heads` what fits them of the vision heads beside the checkpoint in `folder`.

    Returns:
        names of the arrays that nothing was found for.

    Raises:
        SvmError: the file is damaged.
    """
    wanted = dict(tree_flatten(heads.parameters()))
    path = folder / TRAINING / HEADS
    found = _read_arrays(path, "remove it to begin with random heads") if path.is_file() else {}
    fitting = {n: array for n, array in found.items() if n in wanted and array.shape == wanted[n].shape}
    heads.load_weights(list(fitting.items()), strict=False)
    return wanted.keys() - fitting.keys()


def _aside(folder: Path) -> Path:
    """Rename `folder` to what `recover` removes, so that no half of it is taken for a whole; return the new name."""
    aside = folder.with_name(f".{folder.name}.old")
    try:
        return folder.rename(aside)
    except OSError:
        return folder  # it is only disk that is not freed


def _save_arrays(path: Path, tree: Any) -> None:
    try:
        mx.save_safetensors(str(path), dict(tree_flatten(tree)))
    except RuntimeError as error:
        raise SvmError(f"{path} cannot be written: {error}") from error


def _read_arrays(path: Path, way_out: str) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(path))
    except (RuntimeError, OSError) as error:
        raise SvmError(f"{path} is damaged; {way_out}.") from error
    assert isinstance(loaded, dict)
    return loaded


def _link(file: Path, part: Path) -> None:
    """Let `part` name the same bytes as `file`, or copies where the disk knows no such thing."""
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
