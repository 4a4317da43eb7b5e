"""How a training run looks in a terminal: a table that is kept up to date, and its loss as a line of blocks."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.train.metrics import Began, Evaluated, Event, Note, Saved, Stepped
from tui.player.metrics import sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

# Blocks of the loss's course.
WIDTH = 60
# Lines of a run without a terminal: one for so many updates.
EVERY = 10


class Watcher(Protocol):
    """Shows a run's events."""

    def __call__(self, event: Event) -> None:
        """Show `event`."""


class Figures:
    """What is shown of a run: the last update, means over the latest, the course of the loss."""

    def __init__(self) -> None:
        self.began: Began | None = None
        self.last: Stepped | None = None
        self.evaluated: Evaluated | None = None
        self.saved: Saved | None = None
        self._recent: deque[Stepped] = deque(maxlen=20)
        self._losses: list[float] = []

    def add(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, Stepped):
            self.last = event
            self._recent.append(event)
            self._losses.append(main_loss(event))
        elif isinstance(event, Began):
            self.began = event
        elif isinstance(event, Evaluated):
            self.evaluated = event
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
        return (self._recent[-1].ended - self._recent[0].ended) / (len(self._recent) - 1)

    @property
    def waiting(self) -> float:
        """The share of the time that was spent waiting for frames."""
        if len(self._recent) < 2:
            return 0.0
        busy = sum(step.ended - step.begun for step in list(self._recent)[1:])
        return max(0.0, 1 - busy / max(self._recent[-1].ended - self._recent[0].ended, 1e-9))

    @property
    def speed(self) -> float:
        """Seconds of video a second, waits included."""
        video = sum(step.video_seconds for step in list(self._recent)[1:])
        return video / max(self.seconds_a_step * (len(self._recent) - 1), 1e-9) if len(self._recent) > 1 else 0.0

    @property
    def remaining(self) -> float:
        """Seconds that the run will still take, evaluations left out."""
        left = self.began.steps - self.last.step if self.began and self.last else 0
        return left * self.seconds_a_step

    @property
    def course(self) -> list[float]:
        """The loss from the first update to the last, at most `WIDTH` means of as many updates each."""
        return thin(self._losses, WIDTH)


def main_loss(event: Stepped) -> float:
    """Return the words' loss, or while only heads are taught the sum of theirs."""
    return event.losses.get("text", sum(event.losses.values()))


def thin(values: Sequence[float], count: int) -> list[float]:
    """Return means of at most `count` equally long stretches of `values`."""
    count = min(count, len(values))
    edges = [len(values) * number // count for number in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


@contextmanager
def watching(rank: int = 0) -> Iterator[Watcher]:
    """Yield what shows a run's events on stderr: a live table where that is a terminal, else a line now and then.

    Of several machines one shows them; the others tell no more than what happened to them alone.
    """
    if rank:
        yield lambda event: _note(rank, event)
    elif sys.stderr.isatty():
        with _table() as watcher:
            yield watcher
    else:
        yield _lines()


def _note(rank: int, event: Event) -> None:
    if isinstance(event, Note):
        print(f"rank {rank}: {event.text}", file=sys.stderr, flush=True)


def _lines() -> Watcher:
    figures = Figures()

    def show(event: Event) -> None:
        figures.add(event)
        for line in _told(event):
            print(line, file=sys.stderr, flush=True)
        if isinstance(event, Stepped) and event.step % EVERY == 0:
            print(_line(figures, event), file=sys.stderr, flush=True)

    return show


@contextmanager
def _table() -> Iterator[Watcher]:
    from rich.console import Console
    from rich.live import Live

    figures, console = Figures(), Console(stderr=True)
    with Live(console=console, refresh_per_second=4, redirect_stdout=False) as live:

        def show(event: Event) -> None:
            figures.add(event)
            for line in _told(event):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            live.update(_picture(figures))

        yield show


def _told(event: Event) -> Iterator[str]:
    """Yield what is worth a line of its own."""
    if isinstance(event, Note):
        yield event.text
    elif isinstance(event, Began):
        moving, every = event.parameters
        share = "" if moving == every else f", of which {moving:,} move"
        yield f"{every:,} parameters{share}; {event.windows:,} windows; steps {event.step + 1} to {event.steps}"
    elif isinstance(event, Evaluated):
        losses = ", ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
        yield f"step {event.step}: not learnt from: {losses}{', the best so far' if event.is_best else ''}"


def _line(figures: Figures, event: Stepped) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
    return f"step {event.step}: {losses}; {figures.speed:.1f} s of video a second"


def _picture(figures: Figures) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim")
    table.add_column()
    for name, value in _rows(figures):
        table.add_row(name, value)
    return Group(table, sparkline(figures.course, WIDTH))


def _rows(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yield a name and a value for each line of the table."""
    began, last = figures.began, figures.last
    if began is None or last is None:
        return
    yield "step", f"{last.step:,} of {began.steps:,}, epoch {last.epoch + 1}, {_time(figures.remaining)} to go"
    yield "loss", f"{main_loss(last):.4f}, lately {figures.loss:.4f}"
    for name, value in last.losses.items():
        if name != "text":
            yield name, f"{value:.4f}"
    if figures.evaluated:
        yield "not learnt from", f"{figures.evaluated.losses.get('text', 0.0):.4f} at step {figures.evaluated.step:,}"
    yield "learning rate", f"{last.learning_rate:.2e}, gradient {last.grad_norm:.2f}"
    yield "speed", f"{figures.speed:.1f} s of video a second, {figures.waiting:.0%} of the time waiting for frames"
    if figures.saved:
        yield "saved", f"step {figures.saved.step:,} in {figures.saved.folder}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
