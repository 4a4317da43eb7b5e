"""A run's figures: one JSON object a line, and a picture of its losses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.atomic import replacing, write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.events import Evaluated, Event, Stepped

LOSSES = "losses"
EVALUATION = "evaluation"


class MetricsFile:
    """Appends a line for each update and each evaluation."""

    def __init__(self, path: Path, step: int) -> None:
        """Go on in `path` behind update `step`; lines of later updates, which will be made again, go.

        Raises:
            SvmError: the file can not be written.
        """
        self._path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, event: Event) -> None:
        """Write what `event` says, if it holds figures.

        Raises:
            SvmError: the file can not be written.
        """
        line = _line(event)
        if line is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise SvmError(f"{self._path} can not be written: {error.strerror}.") from error


def _line(event: Event) -> dict[str, Any] | None:
    if isinstance(event, Evaluated):
        return {"step": event.step, EVALUATION: dict(event.losses), "is_best": event.is_best}
    if isinstance(event, Stepped):
        names = ("learning_rate", "grad_norm", "video_seconds", "tokens", "epoch", "begun", "ended")
        return {"step": event.step, LOSSES: dict(event.losses), **{name: getattr(event, name) for name in names}}
    return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's figures; none when there is no file, and no line that was cut short."""
    if not path.is_file():
        return []
    return list(_whole_lines(path))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line


def plot_losses(metrics: Path, picture: Path) -> None:
    """Draw the losses in the file `metrics` over the updates, as a PNG at `picture`.

    Raises:
        SvmError: matplotlib is not installed, or the file can not be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SvmError("plots need matplotlib: pip install 'svm-tui[plot]'.") from error
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lines = read_metrics(metrics)
    for kind, style in ((LOSSES, "-"), (EVALUATION, "o--")):
        for name in sorted({name for line in lines for name in line.get(kind, {})}):
            steps = [line["step"] for line in lines if name in line.get(kind, {})]
            values = [line[kind][name] for line in lines if name in line.get(kind, {})]
            label = name if kind == LOSSES else f"{name}, not learnt from"
            axes.plot(steps, values, style, label=label, linewidth=1, markersize=3)
    axes.set_xlabel("updates")
    axes.set_ylabel("cross entropy")
    if axes.has_data():
        axes.legend()
    with replacing(picture) as part:
        figure.savefig(part, format="png", dpi=120)
