"""What a run tells whoever watches it; plain Python."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.plots import drawing


@dataclass(frozen=True, slots=True)
class Started:
    """The run is ready to compute.

    Attributes:
        step: updates that were made before.
        steps: updates in all.
        windows: to learn from.
        parameters: numbers that move, and all of them.
    """

    step: int
    steps: int
    windows: int
    parameters: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StepDone:
    """One update was made.

    Attributes:
        step: its number, counted from 1.
        losses: the mean loss of the words (``text``) and of each vision head.
        learning_rate: that it was made with.
        grad_norm: the gradient's length before it was cut.
        video_seconds: of video in it.
        tokens: in it, padding included.
        epoch: how often all windows were seen before.
        started_at: when its frames were there, by the run's clock, in seconds.
        ended_at: when the weights had moved.
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


@dataclass(frozen=True, slots=True)
class Validated:
    """What is not learnt from was looked at after update `step`; `is_best` if the words' loss was never lower."""

    step: int
    losses: Mapping[str, float]
    is_best: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """All that the run needs to go on from update `step` is in `folder`, which can also be played."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know, in one line."""

    text: str


Event = Started | StepDone | Validated | Saved | Note

LOSSES = "losses"
VALIDATION = "validation"


class MetricsFile:
    """Appends a line for each update and each evaluation."""

    def __init__(self, path: Path, step: int) -> None:
        """Go on in `path` behind update `step`; lines of later updates, which will be made again, go.

        Raises:
            SvmError: the file cannot be written.
        """
        self._path = path
        with replacing(path) as part, part.open("w", encoding="utf-8") as file:
            for line in read_metrics(path):
                if line["step"] <= step:
                    file.write(json.dumps(line) + "\n")

    def add(self, event: Event) -> None:
        """Write what `event` says, if it holds figures.

        Raises:
            SvmError: the file cannot be written.
        """
        line = _line(event)
        if line is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise SvmError(f"{self._path} cannot be written: {error.strerror}.") from error


def _line(event: Event) -> dict[str, Any] | None:
    if isinstance(event, Validated):
        return {"step": event.step, VALIDATION: dict(event.losses), "is_best": event.is_best}
    if isinstance(event, StepDone):
        names = ("learning_rate", "grad_norm", "video_seconds", "tokens", "epoch", "started_at", "ended_at")
        return {"step": event.step, LOSSES: dict(event.losses), **{name: getattr(event, name) for name in names}}
    return None


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's figures; none when there is no file, and no line that was cut short."""
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
    """Draw the losses in the file `metrics` over the updates, as a PNG at `picture`.

    Raises:
        SvmError: matplotlib is not installed, or the file cannot be written.
    """
    with drawing(picture, 9, 5) as figure:
        axes = figure.subplots()
        for (kind, name), (steps, values) in sorted(_courses(metrics).items(), reverse=True):
            label, style = (name, "-") if kind == LOSSES else (f"{name}, not learnt from", "o--")
            axes.plot(steps, values, style, label=label, linewidth=1, markersize=3)
        axes.set_xlabel("updates")
        axes.set_ylabel("cross entropy")
        if axes.has_data():
            axes.legend()


def _courses(metrics: Path) -> dict[tuple[str, str], tuple["array[int]", "array[float]"]]:
    """Return the updates and values of each kind of loss and part of it, sixteen bytes each: runs are long."""
    courses: dict[tuple[str, str], tuple[array[int], array[float]]] = defaultdict(lambda: (array("q"), array("d")))
    for line in read_metrics(metrics):
        for kind in (LOSSES, VALIDATION):
            for name, value in line.get(kind, {}).items():
                steps, values = courses[kind, name]
                steps.append(line["step"])
                values.append(value)
    return courses
