"""A run's folder: its checkpoints, settings and metrics, and the lock of the process that trains in it.

::

    run1/config.json, model.safetensors, ...   what --ckpt run1 loads: the best checkpoint, or the newest if the run
                                               has no validation set
    run1/training/heads.safetensors            its vision heads, for a run that starts from it
    run1/steps/00000200/config.json, ...       a checkpoint, which --ckpt can load as well
    run1/steps/00000200/training/              optimizer.safetensors, heads.safetensors, state.json
    run1/train.yaml, metrics.jsonl, samples.jsonl, loss.png
    run1/train.lock                            the id of the process that trains, while it does

A name in ``steps`` that starts with a dot was being written or removed when a run was killed.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, CONFIG
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.collator import Position
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file

VERSION = 2
STEPS, TRAINING, LOCK = "steps", "training", "train.lock"
STATE, OPTIMIZER, HEADS = "state.json", "optimizer.safetensors", "heads.safetensors"


@dataclass(frozen=True)
class Progress(FromDict):
    """The state of a run between two steps, beside its weights and optimizer.

    Attributes:
        version: version of the file's format.
        step: steps done.
        position: where the batches continue; their order follows from `seed`.
        seed: seed of the run.
        windows: windows in the training set; a run can only be resumed with the same number.
        best_loss: the lowest text loss on the validation set.
        since_best: validations since the one with `best_loss`.
        best_step: the step of the checkpoint in the run's own folder.
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
    """Writes and finds the files of a run."""

    def __init__(self, path: Path) -> None:
        """Use the folder `path`, which need not exist."""
        self.path = path

    @property
    def metrics(self) -> Path:
        """The file of metrics."""
        return self.path / "metrics.jsonl"

    @property
    def plot(self) -> Path:
        """The plot of the losses."""
        return self.path / "loss.png"

    @property
    def settings(self) -> Path:
        """The settings of the run."""
        return self.path / "train.yaml"

    @property
    def samples(self) -> Path:
        """The file of generated commentary."""
        return self.path / "samples.jsonl"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in this folder while the block runs.

        The lock is an ``flock`` on a file with the process id, so it ends with the process, however that ends.

        Raises:
            SvmError: another process trains here, or the folder cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise SvmError(f"{self.path} is a file; choose another place with --out.")
        file, is_new = self.path / LOCK, not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = _open_locked(file)
        except OSError as error:
            raise SvmError(f"{file} cannot be written: {error.strerror}.") from error
        if handle is None:
            holder = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
            raise SvmError(
                f"{self.path} is in use by another training run, process {holder or 'unknown'}; wait for it to end, "
                "or choose another --out."
            )
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            os.close(handle)
            if is_new and not any(self.path.iterdir()):
                self.path.rmdir()

    def checkpoints(self) -> list[Path]:
        """Return the folders of the complete checkpoints, oldest first."""
        found = (path for path in (self.path / STEPS).glob("*") if path.name.isdigit())
        return sorted((path for path in found if (path / TRAINING / STATE).is_file()), key=lambda path: int(path.name))

    def newest(self) -> Path | None:
        """Return the newest checkpoint, or None for a run that ended before its first one.

        Raises:
            SvmError: the folder holds no run.
        """
        checkpoints = self.checkpoints()
        if not checkpoints and (self._holds_checkpoint() or not self.settings.is_file()):
            raise SvmError(f"{self.path} holds no run to resume; start one without --resume.")
        return checkpoints[-1] if checkpoints else None

    def check_new(self) -> None:
        """Check that a new run may be written here.

        Raises:
            SvmError: the folder holds a run or a checkpoint.
        """
        if self.checkpoints():
            step = int(self.checkpoints()[-1].name)
            raise SvmError(f"{self.path} holds a run at step {step}; continue with --resume, or choose another --out.")
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
        """Write a checkpoint atomically, remove all but the newest `keep`, and return its folder.

        Args:
            progress: the state of the run.
            write: writes the weights to a folder atomically; the function that it is given adds further files.
            optimizer: its state is saved.
            heads: the vision heads, or None.
            keep: the number of checkpoints to keep.

        Raises:
            SvmError: the folder cannot be written.
        """

        def add(part: Path) -> None:
            (part / TRAINING).mkdir()
            _save_arrays(part / TRAINING / OPTIMIZER, optimizer.state)
            if heads is not None:
                _save_arrays(part / TRAINING / HEADS, heads.parameters())
            write_text(part / TRAINING / STATE, json.dumps(progress.to_dict(), indent=1) + "\n")

        folder = self._step_folder(progress.step)
        write(folder, add)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(_hide(old), ignore_errors=True)
        return folder

    def recover(self, progress: Progress) -> None:
        """Remove partial files of a run that was killed at or after `progress`, and finish its promotion.

        Raises:
            SvmError: the folder cannot be written.
        """
        for stray in (self.path / STEPS).glob(".*"):
            shutil.rmtree(stray, ignore_errors=True)
        for file in (self.metrics, self.samples, self.plot, self.settings):
            for stray in self.path.glob(f".{file.name}.*"):
                stray.unlink(missing_ok=True)
        best = self._step_folder(progress.best_step)
        if best.is_dir():
            self.promote(best)

    def promote(self, checkpoint: Path) -> None:
        """Link the files of `checkpoint` into the run's own folder, each atomically, so that --ckpt loads them.

        Raises:
            SvmError: the folder cannot be written.
        """
        heads = checkpoint / TRAINING / HEADS
        try:
            for file in sorted(path for path in (*checkpoint.iterdir(), heads) if path.is_file()):
                place = self.path / file.relative_to(checkpoint)
                place.parent.mkdir(exist_ok=True)
                part = place.with_name(f".{file.name}.part")
                part.unlink(missing_ok=True)
                _link(file, part)
                part.replace(place)
                # Renaming one link onto another one of the same file does nothing.
                part.unlink(missing_ok=True)
        except OSError as error:
            raise SvmError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _holds_checkpoint(self) -> bool:
        return any((self.path / name).exists() for name in (CONFIG, ADAPTER_CONFIG))

    def _step_folder(self, step: int) -> Path:
        return self.path / STEPS / f"{step:08d}"


def read_progress(checkpoint: Path) -> Progress:
    """Return the state of the run at `checkpoint`.

    Raises:
        SvmError: the file is damaged, or a later version of this program wrote it.
    """
    path = checkpoint / TRAINING / STATE
    try:
        values = parse_json(read_file(path).decode("utf-8"))
        version = values["version"]
    except (SvmError, ValueError, KeyError, TypeError) as error:
        raise SvmError(f"{path} is damaged; remove {checkpoint} to resume from the checkpoint before it.") from error
    if version == 1:
        raise SvmError(
            f"{path} was written by svm-tui 0.1, whose runs cannot be resumed; start a new run from its checkpoint: "
            f"--ckpt {checkpoint} and another --out."
        )
    if version != VERSION:
        raise SvmError(f"{path} has version {version!r} and this program reads version {VERSION}; update svm-tui.")
    return Progress.from_dict(values)


def load_training(checkpoint: Path, optimizer: optim.Optimizer, heads: nn.Module | None) -> None:
    """Restore `optimizer` and `heads` from `checkpoint`.

    Raises:
        SvmError: a file is damaged, or the heads differ from the saved ones.
    """
    hint = f"remove {checkpoint} to resume from the checkpoint before it"
    optimizer.state = tree_unflatten(list(_read_arrays(checkpoint / TRAINING / OPTIMIZER, hint).items()))
    if heads is None:
        return
    path = checkpoint / TRAINING / HEADS
    try:
        heads.load_weights(list(_read_arrays(path, hint).items()))
    except ValueError as error:
        raise SvmError(f"{path} holds other vision heads; resume with the run's own auxiliary.heads.") from error


def load_heads(folder: Path, heads: nn.Module) -> set[str]:
    """Load the weights of `heads` from the checkpoint in `folder`, where names and shapes match.

    Returns:
        names of the arrays that were not found.

    Raises:
        SvmError: the file is damaged.
    """
    wanted = dict(tree_flatten(heads.parameters()))
    path = folder / TRAINING / HEADS
    found = _read_arrays(path, "remove it to start with random heads") if path.is_file() else {}
    matching = {n: array for n, array in found.items() if n in wanted and array.shape == wanted[n].shape}
    heads.load_weights(list(matching.items()), strict=False)
    return wanted.keys() - matching.keys()


def _open_locked(path: Path) -> int | None:
    """Write this process's id to `path` and lock it; return its file descriptor, or None if another process has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        # The holder before may have removed the file between the open and the lock.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            return handle
        os.close(handle)


def _hide(folder: Path) -> Path:
    """Rename `folder` to a name that `recover` removes, so that a partly removed checkpoint is never loaded."""
    hidden = folder.with_name(f".{folder.name}.old")
    try:
        return folder.rename(hidden)
    except OSError:
        return folder  # Only disk space is lost.


def _save_arrays(path: Path, tree: Any) -> None:
    try:
        mx.save_safetensors(str(path), dict(tree_flatten(tree)))
    except RuntimeError as error:
        raise SvmError(f"{path} cannot be written: {error}") from error


def _read_arrays(path: Path, hint: str) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(path))
    except (RuntimeError, OSError) as error:
        raise SvmError(f"{path} is damaged; {hint}.") from error
    assert isinstance(loaded, dict)
    return loaded


def _link(file: Path, part: Path) -> None:
    """Make `part` a hard link to `file`, or a copy where the file system has no links."""
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
