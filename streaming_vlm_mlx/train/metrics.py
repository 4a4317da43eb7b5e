"""The events of a training run, and the files of metrics, samples and plots that are made of them."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.plots import drawing


@dataclass(frozen=True, slots=True)
class Started:
    """The model and the data are loaded.

    Attributes:
        step: steps that were done before, in a run that is resumed.
        steps: the total number of steps.
        windows: windows in the training set.
        parameters: the number of trainable weights, and of all weights.
    """

    step: int
    steps: int
    windows: int
    parameters: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage other than a step goes on.

    Attributes:
        name: ``loading the model``, ``preparing the first batch``, ``validation``.
        done: batches done, 0 in a stage without batches.
        at: seconds by the run's clock.
    """

    name: str
    done: int
    at: float


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step was done.

    Attributes:
        step: its number, counted from 1.
        losses: the mean loss of the text (``text``) and of each vision head.
        learning_rate: the learning rate of the step.
        grad_norm: the gradient's norm before clipping.
        video_seconds: seconds of video in the step.
        tokens: tokens in the step, padding included.
        epoch: complete passes over the training set before this step.
        started_at: when its frames were ready, in seconds by the run's clock.
        ended_at: when the weights were updated.
        memory: bytes: MLX's peak memory on a GPU, on a CPU the memory of this process without its workers.
    """

    step: int
    losses: Mapping[str, float]
    learning_rate: float
    grad_norm: float
    video_seconds: int
    tokens: int
    epoch: int
    started_at: float
    ended_at: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Validated:
    """The mean losses over the validation set after `step`; `is_best` if the text loss was never lower."""

    step: int
    losses: Mapping[str, float]
    is_best: bool


@dataclass(frozen=True, slots=True)
class SampledSecond:
    """One second of a sample: its times in the clip, the generated commentary and the reference transcript."""

    start: float
    end: float
    generated: str
    reference: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """Commentary was generated for some `seconds` of the validation clip `video` after `step`."""

    step: int
    video: str
    seconds: tuple[SampledSecond, ...]


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """The checkpoint of `step` is complete in `folder`."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Note:
    """A message for the user, in one line."""

    text: str


Event = Started | Stage | StepDone | Validated | Sampled | CheckpointSaved | Note

LOSSES = "losses"
VALIDATION = "validation"


class MetricsFile:
    """Appends a line of JSON for each step and each validation to one file, and for each sample to another."""

    def __init__(self, path: Path, samples: Path, step: int) -> None:
        """Continue `path` and `samples` after `step`; lines of later steps, which will be repeated, are removed.

        Raises:
            SvmError: a file cannot be written.
        """
        self._path, self._samples = path, samples
        for file in (path, samples):
            if file == path or file.is_file():
                _keep_until(file, step)

    def add(self, event: Event) -> None:
        """Write the line of `event`, if it has one.

        Raises:
            SvmError: the file cannot be written.
        """
        line = _line(event)
        if line is None:
            return
        path = self._samples if isinstance(event, Sampled) else self._path
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise SvmError(f"{path} cannot be written: {error.strerror}.") from error


def _keep_until(path: Path, step: int) -> None:
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for line in read_metrics(path):
            if line["step"] <= step:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _line(event: Event) -> dict[str, Any] | None:
    if isinstance(event, Validated):
        return {"step": event.step, VALIDATION: dict(event.losses), "is_best": event.is_best}
    if isinstance(event, StepDone | Sampled):
        return asdict(event)
    return None


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of metrics or samples, except incomplete ones; none if there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def plot_losses(metrics: Path, picture: Path) -> None:
    """Plot the losses in the file `metrics` over the steps, as a PNG at `picture`.

    Raises:
        SvmError: matplotlib is not installed, or the file cannot be written.
    """
    with drawing(picture, 9, 5) as figure:
        axes = figure.subplots()
        for (kind, name), (steps, values) in sorted(_loss_curves(metrics).items(), reverse=True):
            label, style = (name, "-") if kind == LOSSES else (f"{name}, validation", "o--")
            axes.plot(steps, values, style, label=label, linewidth=1, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel("cross entropy")
        if axes.has_data():
            axes.legend()


def _loss_curves(metrics: Path) -> dict[tuple[str, str], tuple["array[int]", "array[float]"]]:
    """Return the steps and values of each (kind, part) of the loss, in arrays of 16 bytes a point: runs are long."""
    curves: dict[tuple[str, str], tuple[array[int], array[float]]] = defaultdict(lambda: (array("q"), array("d")))
    for line in read_metrics(metrics):
        for kind in (LOSSES, VALIDATION):
            for name, value in line.get(kind, {}).items():
                steps, values = curves[kind, name]
                steps.append(line["step"])
                values.append(value)
    return curves
