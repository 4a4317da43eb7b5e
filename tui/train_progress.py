"""Shows the progress of a training run: a live status on a terminal, plain lines elsewhere."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TextIO

from streaming_vlm_mlx.plain_text import visible
from streaming_vlm_mlx.train.metrics import (
    CheckpointSaved,
    Event,
    Note,
    Sampled,
    Stage,
    Started,
    StepDone,
    Validated,
)
from tui.messages import warn
from tui.player.metrics import sparkline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Columns of the loss curve.
WIDTH = 60
# Seconds between two plain lines.
INTERVAL = 10.0


class ProgressView(Protocol):
    """Shows a run's events."""

    def __call__(self, event: Event) -> None:
        """Show `event`."""


class RunMetrics:
    """The state of a run as it is shown: the last events, means over recent steps, the loss curve."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.stage: Stage | None = None
        self.last: StepDone | None = None
        self.validated: Validated | None = None
        self.saved: CheckpointSaved | None = None
        self._recent: deque[StepDone] = deque(maxlen=20)
        # Seconds of each recent step, and the end of the last one; None if another event came after it.
        self._seconds: deque[float] = deque(maxlen=self._recent.maxlen)
        self._step_ended_at: float | None = None
        self._losses: list[float] = []

    def add(self, event: Event) -> None:
        """Update the state with `event`."""
        if isinstance(event, StepDone):
            self.last, self.stage = event, None
            begun_at = event.started_at if self._step_ended_at is None else self._step_ended_at
            self._recent.append(event)
            self._seconds.append(event.ended_at - begun_at)
            self._step_ended_at = event.ended_at
            self._losses.append(main_loss(event))
        elif isinstance(event, Stage):
            self.stage, self._step_ended_at = event, None
        elif isinstance(event, Started):
            self.started = event
        elif isinstance(event, Validated):
            self.validated = event
        elif isinstance(event, CheckpointSaved):
            self.saved, self._step_ended_at = event, None

    @property
    def loss(self) -> float:
        """Mean loss of the recent steps."""
        return sum(map(main_loss, self._recent)) / max(len(self._recent), 1)

    @property
    def elapsed(self) -> float:
        """Seconds of the recent steps, waits for frames included; validations, samples and checkpoints are left out."""
        return sum(list(self._seconds)[1:] or self._seconds)

    @property
    def seconds_a_step(self) -> float:
        """Mean seconds of a recent step, waits included; 0 before the first step."""
        return self.elapsed / max(len(self._timed), 1)

    @property
    def waiting(self) -> float:
        """The fraction of the time that is spent waiting for frames."""
        if len(self._recent) < 2:
            return 0.0
        busy = sum(step.ended_at - step.started_at for step in self._timed)
        return max(0.0, 1 - busy / max(self.elapsed, 1e-9))

    @property
    def video_speed(self) -> float:
        """Seconds of video that are trained on in a second, waits included."""
        return sum(step.video_seconds for step in self._timed) / max(self.elapsed, 1e-9)

    @property
    def token_speed(self) -> float:
        """Tokens that are trained on in a second, waits included."""
        return sum(step.tokens for step in self._timed) / max(self.elapsed, 1e-9)

    @property
    def remaining(self) -> float:
        """Seconds that the remaining steps take, without validations, samples and checkpoints."""
        left = self.started.steps - self.last.step if self.started and self.last else 0
        return left * self.seconds_a_step

    @property
    def curve(self) -> list[float]:
        """The loss from the first step to the last, as at most `WIDTH` means of equally many steps."""
        return downsample(self._losses, WIDTH)

    @property
    def _timed(self) -> list[StepDone]:
        """The steps that `elapsed` covers."""
        return list(self._recent)[1:] or list(self._recent)


def main_loss(event: StepDone) -> float:
    """Return the text loss, or the sum of the heads' losses while only those are trained."""
    return event.losses.get("text", sum(event.losses.values()))


def downsample(values: Sequence[float], count: int) -> list[float]:
    """Return the means of at most `count` equally long parts of `values`."""
    count = min(count, len(values))
    edges = [len(values) * number // count for number in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


@contextmanager
def show_progress(rank: int = 0) -> Iterator[ProgressView]:
    """Yield a function that shows a run's events on stderr: live on a terminal, else as plain lines.

    In a distributed run only rank 0 shows the progress; the others print their notes.
    """
    if rank:
        yield lambda event: _print_note(rank, event)
    elif sys.stderr.isatty():
        from rich.console import Console

        with live_view(Console(stderr=True)) as view:
            yield view
    else:
        yield plain_view(sys.stderr)


def _print_note(rank: int, event: Event) -> None:
    if isinstance(event, Note):
        warn(f"rank {rank}: {event.text}")


def plain_view(file: TextIO) -> ProgressView:
    """Return a view that prints lines to `file`: the first step, the last, and one every `INTERVAL` seconds.

    Time is that of the events, which is the run's own clock. A line comes with the first event after an interval. The
    stages before the first step have a line each.
    """
    metrics, printed_at = RunMetrics(), float("-inf")

    def show(event: Event) -> None:
        nonlocal printed_at
        metrics.add(event)
        lines = list(event_lines(event))
        if isinstance(event, StepDone):
            ends = metrics.started is not None and event.step == metrics.started.steps
            if event.ended_at - printed_at >= INTERVAL or ends:
                lines.append(status_line(metrics))
                printed_at = event.ended_at
        elif isinstance(event, Stage) and event.at - printed_at >= INTERVAL:
            lines.append(stage_line(event))
            if metrics.last is not None:
                printed_at = event.at
        for line in lines:
            print(visible(line), file=file, flush=True)

    return show


@contextmanager
def live_view(console: "Console") -> Iterator[ProgressView]:
    """Yield a view that keeps a status, a table of details and the loss curve up to date below the printed lines."""
    from rich.live import Live

    metrics = RunMetrics()
    with Live(console=console, refresh_per_second=4, redirect_stdout=False) as live:

        def show(event: Event) -> None:
            metrics.add(event)
            for line in event_lines(event):
                console.print(visible(line), markup=False, highlight=False, soft_wrap=True)
            live.update(render(metrics))

        yield show


def event_lines(event: Event) -> Iterator[str]:
    """Yield the lines that are printed for `event` on any output."""
    if isinstance(event, Note):
        yield event.text
    elif isinstance(event, Started):
        trainable, total = event.parameters
        share = "" if trainable == total else f", {trainable:,} of them trainable"
        yield f"{total:,} parameters{share}; {event.windows:,} windows; steps {event.step + 1:,} to {event.steps:,}"
    elif isinstance(event, Validated):
        losses = ", ".join(f"{_loss_name(name)} {value:.4f}" for name, value in event.losses.items())
        yield f"step {event.step:,}: validation {losses}{' (best so far)' if event.is_best else ''}"
    elif isinstance(event, Sampled):
        yield f"step {event.step:,}: sample of {event.video}"
        for second in event.seconds:
            yield f"  {second.start:g}-{second.end:g} s  generated: {second.generated or '(silence)'}"
            yield f"  {' ' * len(f'{second.start:g}-{second.end:g} s')}  reference: {second.reference or '(silence)'}"


def stage_line(stage: Stage) -> str:
    """Return the line of a stage."""
    return f"{stage.name} · {stage.done:,} batches" if stage.done else f"{stage.name} …"


def status_line(metrics: RunMetrics) -> str:
    """Return the progress in one line: ``step 120/20,000 · loss 2.314 · … · 1.3 GB · 0:42:10 left``."""
    last, started = metrics.last, metrics.started
    if last is None or started is None:
        return stage_line(metrics.stage) if metrics.stage else ""
    parts = [f"step {last.step:,}/{started.steps:,}", f"loss {metrics.loss:.3f}"]
    if metrics.validated and "text" in metrics.validated.losses:
        parts.append(f"val {metrics.validated.losses['text']:.3f}")
    parts.append(f"lr {last.learning_rate:.1e}")
    if metrics.elapsed > 0:
        parts += [f"{metrics.video_speed:,.0f} s video/s", f"{metrics.token_speed:,.0f} tok/s"]
    if last.memory:
        parts.append(f"{last.memory / 1e9:.1f} GB")
    parts.append(f"{format_time(metrics.remaining)} left")
    return " · ".join(parts)


def render(metrics: RunMetrics) -> "RenderableType":
    """Return the live display of `metrics`."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim")
    table.add_column()
    for name, value in _details(metrics):
        table.add_row(name, Text(visible(value)))
    return Group(Text(status_line(metrics)), table, sparkline(metrics.curve, WIDTH))


def _details(metrics: RunMetrics) -> Iterator[tuple[str, str]]:
    """Yield a name and a value for each row of the table."""
    last = metrics.last
    if last is None:
        return
    if metrics.stage:
        yield "now", stage_line(metrics.stage)
    yield "epoch", f"{last.epoch + 1}"
    for name, value in last.losses.items():
        if name != "text":
            yield f"{name} loss", f"{value:.4f}"
    yield "gradient norm", f"{last.grad_norm:.2f}"
    yield "waiting for frames", f"{metrics.waiting:.0%} of the time"
    if metrics.saved:
        yield "checkpoint", f"step {metrics.saved.step:,} in {metrics.saved.folder}"


def _loss_name(part: str) -> str:
    return "loss" if part == "text" else f"{part} loss"


def format_time(seconds: float) -> str:
    """Return `seconds` as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
