"""How a training run looks in a terminal: a table that is kept up to date, and its loss as a line of blocks."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.train.metrics import Event, Note, Saved, Started, StepDone, Validated
from tui.player.metrics import sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

# Blocks of the loss's course.
WIDTH = 60
# Lines of a run without a terminal: one for so many updates.
EVERY = 10


class ProgressView(Protocol):
    """Shows a run's events."""

    def __call__(self, event: Event) -> None:
        """Show `event`."""


class RunMetrics:
    """What is shown of a run: the last update, means over the latest, the course of the loss."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.last: StepDone | None = None
        self.validated: Validated | None = None
        self.saved: Saved | None = None
        self._recent: deque[StepDone] = deque(maxlen=20)
        self._losses: list[float] = []

    def add(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, StepDone):
            self.last = event
            self._recent.append(event)
            self._losses.append(main_loss(event))
        elif isinstance(event, Started):
            self.started = event
        elif isinstance(event, Validated):
            self.validated = event
        elif isinstance(event, Saved):
            self.saved = event

    @property
    def loss(self) -> float:
        """Mean over the latest updates."""
        return sum(map(main_loss, self._recent)) / max(len(self._recent), 1)

    @property
    def seconds_a_step(self) -> float:
        """From update to update, waits included; 0 until there are two."""
        if len(self._recent) < 2:
            return 0.0
        return (self._recent[-1].ended_at - self._recent[0].ended_at) / (len(self._recent) - 1)

    @property
    def waiting(self) -> float:
        """The share of the time that was spent waiting for frames."""
        if len(self._recent) < 2:
            return 0.0
        busy = sum(step.ended_at - step.started_at for step in list(self._recent)[1:])
        return max(0.0, 1 - busy / max(self._recent[-1].ended_at - self._recent[0].ended_at, 1e-9))

    @property
    def speed(self) -> float:
        """Seconds of video a second, waits included."""
        video = sum(step.video_seconds for step in list(self._recent)[1:])
        return video / max(self.seconds_a_step * (len(self._recent) - 1), 1e-9) if len(self._recent) > 1 else 0.0

    @property
    def remaining(self) -> float:
        """Seconds that the run will still take, evaluations left out."""
        left = self.started.steps - self.last.step if self.started and self.last else 0
        return left * self.seconds_a_step

    @property
    def course(self) -> list[float]:
        """The loss from the first update to the last, at most `WIDTH` means of as many updates each."""
        return thin(self._losses, WIDTH)


def main_loss(event: StepDone) -> float:
    """Return the words' loss, or while only heads are taught the sum of theirs."""
    return event.losses.get("text", sum(event.losses.values()))


def thin(values: Sequence[float], count: int) -> list[float]:
    """Return means of at most `count` equally long stretches of `values`."""
    count = min(count, len(values))
    edges = [len(values) * number // count for number in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


@contextmanager
def show_progress(rank: int = 0) -> Iterator[ProgressView]:
    """Yield what shows a run's events on stderr: a live table where that is a terminal, else a line now and then.

    Of several machines one shows them; the others tell no more than what happened to them alone.
    """
    if rank:
        yield lambda event: _note(rank, event)
    elif sys.stderr.isatty():
        with _table() as view:
            yield view
    else:
        yield _lines()


def _note(rank: int, event: Event) -> None:
    if isinstance(event, Note):
        print(f"rank {rank}: {event.text}", file=sys.stderr, flush=True)


def _lines() -> ProgressView:
    metrics = RunMetrics()

    def show(event: Event) -> None:
        metrics.add(event)
        for line in _lines_for(event):
            print(line, file=sys.stderr, flush=True)
        if isinstance(event, StepDone) and event.step % EVERY == 0:
            print(_line(metrics, event), file=sys.stderr, flush=True)

    return show


@contextmanager
def _table() -> Iterator[ProgressView]:
    from rich.console import Console
    from rich.live import Live

    metrics, console = RunMetrics(), Console(stderr=True)
    with Live(console=console, refresh_per_second=4, redirect_stdout=False) as live:

        def show(event: Event) -> None:
            metrics.add(event)
            for line in _lines_for(event):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            live.update(_picture(metrics))

        yield show


def _lines_for(event: Event) -> Iterator[str]:
    """Yield what is worth a line of its own."""
    if isinstance(event, Note):
        yield event.text
    elif isinstance(event, Started):
        moving, every = event.parameters
        share = "" if moving == every else f", of which {moving:,} move"
        yield f"{every:,} parameters{share}; {event.windows:,} windows; steps {event.step + 1} to {event.steps}"
    elif isinstance(event, Validated):
        losses = ", ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
        yield f"step {event.step}: not learnt from: {losses}{', the best_loss so far' if event.is_best else ''}"


def _line(metrics: RunMetrics, event: StepDone) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
    return f"step {event.step}: {losses}; {metrics.speed:.1f} s of video a second"


def _picture(metrics: RunMetrics) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim")
    table.add_column()
    for name, value in _rows(metrics):
        table.add_row(name, value)
    return Group(table, sparkline(metrics.course, WIDTH))


def _rows(metrics: RunMetrics) -> Iterator[tuple[str, str]]:
    """Yield a name and a value for each line of the table."""
    started, last = metrics.started, metrics.last
    if started is None or last is None:
        return
    yield "step", f"{last.step:,} of {started.steps:,}, epoch {last.epoch + 1}, {_time(metrics.remaining)} to go"
    yield "loss", f"{main_loss(last):.4f}, lately {metrics.loss:.4f}"
    for name, value in last.losses.items():
        if name != "text":
            yield name, f"{value:.4f}"
    if metrics.validated:
        yield "not learnt from", f"{metrics.validated.losses.get('text', 0.0):.4f} at step {metrics.validated.step:,}"
    yield "learning rate", f"{last.learning_rate:.2e}, gradient {last.grad_norm:.2f}"
    yield "speed", f"{metrics.speed:.1f} s of video a second, {metrics.waiting:.0%} of the time waiting for frames"
    if metrics.saved:
        yield "saved", f"step {metrics.saved.step:,} in {metrics.saved.folder}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
