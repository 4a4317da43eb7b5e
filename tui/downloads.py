"""Finds checkpoints and adapters for the commands, and shows on stderr how far a download is."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from streaming_vlm_mlx.plain_text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from streaming_vlm_mlx.hub_download import DownloadProgress, Report

# Seconds between two lines where stderr is no terminal.
INTERVAL = 10.0
# Seconds between two updates of the line on a terminal.
_REDRAW = 0.1


def find_checkpoint(name: str) -> Path:
    """Return the folder of the checkpoint `name`, which is downloaded if it is a name on the hub.

    Raises:
        SvmError: there is none, it cannot be downloaded, or its config is of a model that cannot be used.
    """
    from streaming_vlm_mlx.hub import resolve_checkpoint

    with show_download() as report:
        return resolve_checkpoint(name, check=_check_config, report=report)


def find_adapter(path: Path | None) -> Path | None:
    """Return the folder of the adapter `path`, which is downloaded if it is a name on the hub; None for None.

    Raises:
        SvmError: the hub has none of that name, or it cannot be downloaded.
    """
    from streaming_vlm_mlx.hub import resolve_adapter

    with show_download() as report:
        return path and resolve_adapter(path, report=report)


def _check_config(folder: Path) -> None:
    from streaming_vlm_mlx import backend

    backend.prepare()
    from streaming_vlm_mlx.models.loading import read_model_config

    read_model_config(folder)


@contextlib.contextmanager
def show_download() -> Iterator["Report"]:
    """Yield what shows a download: one line that is redrawn on a terminal, else a line every `INTERVAL` seconds."""
    if not sys.stderr.isatty():
        yield plain_view(sys.stderr)
        return
    from streaming_vlm_mlx.hub_download import DownloadProgress

    with contextlib.ExitStack() as stack:
        view: list[Report] = []

        def show(progress: DownloadProgress) -> None:
            # Rich takes a while to import, and most checkpoints are there already.
            if not view:
                from rich.console import Console

                view.append(stack.enter_context(live_view(Console(stderr=True))))
            view[0](progress)

        yield show


def plain_view(file: TextIO) -> "Report":
    """Return a view that prints the first progress, the last, all notes, and a line every `INTERVAL` seconds."""
    state = _Speed()
    printed_at = float("-inf")

    def show(progress: "DownloadProgress") -> None:
        nonlocal printed_at
        state.add(progress)
        if progress.note:
            print(visible(f"{progress.name}: {progress.note}"), file=file, flush=True)
        elif progress.at - printed_at >= INTERVAL or progress.done == progress.total:
            print(visible(state.line(progress)), file=file, flush=True)
            printed_at = progress.at

    return show


class _Speed:
    """The mean speed of a download since its first progress, without what was there before."""

    def __init__(self) -> None:
        self._first: DownloadProgress | None = None

    def add(self, progress: "DownloadProgress") -> None:
        """Take the first progress, and each that has less than it, as the start."""
        if self._first is None or progress.done < self._first.done:
            self._first = progress

    def line(self, progress: "DownloadProgress") -> str:
        """Return the progress in one line: ``owner/name: 3.2 GB of 17.1 GB, 45.0 MB/s, 0:05:10 left``."""
        from streaming_vlm_mlx.hub_download import format_size
        from tui.train_progress import format_time

        parts = [f"{progress.name}: {format_size(progress.done)} of {format_size(progress.total)}"]
        assert self._first
        received, seconds = progress.done - self._first.done, progress.at - self._first.at
        if received > 0 and seconds > 0:
            speed = received / seconds
            parts += [f"{format_size(speed)}/s", f"{format_time((progress.total - progress.done) / speed)} left"]
        return ", ".join(parts)


@contextlib.contextmanager
def live_view(console: "Console", get_time: Callable[[], float] | None = None) -> Iterator["Report"]:
    """Yield a view that redraws one line of `console`, and removes it at the end; `get_time` returns seconds."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    times = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, transient=True, get_time=get_time) as bar:
        task = bar.add_task("", total=None, visible=False)
        drawn_at = float("-inf")

        def show(progress: "DownloadProgress") -> None:
            nonlocal drawn_at
            if progress.note:
                text = visible(f"{progress.name}: {progress.note}")
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            if progress.at - drawn_at >= _REDRAW or progress.done == progress.total:
                name = visible(progress.name)
                bar.update(task, description=name, completed=progress.done, total=progress.total, visible=True)
                drawn_at = progress.at

        yield show
