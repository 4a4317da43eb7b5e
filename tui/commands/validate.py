"""``svm-tui validate``: measure a model's commentary on clips that it was not trained on."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError, log_limit
from streaming_vlm_mlx.plain_text import visible
from streaming_vlm_mlx.shipped import notice
from tui.commands.options import (
    ADAPTER_NAMES,
    CHECKPOINT_NAMES,
    add_drop_still,
    add_model_arguments,
    make_engine,
    resolve_settings,
    run_as_follower,
)
from tui.downloads import find_adapter
from tui.messages import note
from tui.session_paths import cache_folder, check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.eval.report import CaseResult, Report
    from streaming_vlm_mlx.eval.runner import FigureTable, PendingCase, Speaker, ValidationCase
    from streaming_vlm_mlx.stream.events import Event

HELP = (
    "Run a model on clips as a viewer would, and measure its commentary: against the reference words and, for "
    "simulated matches, against what happened. A second run on grey pictures shows what the model says without seeing."
)
FIRST = 900_000
SECONDS, FPS = 60.0, 25

# Called with the number of finished cases, including a fraction of the one under way, and a word on the work.
OnProgress = Callable[[float, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    clips = parser.add_mutually_exclusive_group(required=True)
    clips.add_argument("--matches", type=int, metavar="N", help="simulated matches to use; missing ones are filmed")
    clips.add_argument("--records", type=Path, nargs="+", metavar="F", help="records (.jsonl) to validate on instead")
    parser.add_argument("--ckpt", metavar="C", help=CHECKPOINT_NAMES)
    parser.add_argument("--adapter", type=Path, metavar="A", help=f"LoRA adapter of --ckpt: {ADAPTER_NAMES}")
    parser.add_argument("--config", type=Path, metavar="F", help="YAML of stream settings; overrides the checkpoint's")
    add_drop_still(parser)
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures, and those of every case")
    parser.add_argument(
        "--seed", dest="first", type=int, default=FIRST, metavar="S", help=f"seed of the first match (default {FIRST})"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="T", help="seconds of each match (default 60)"
    )
    parser.add_argument(
        "--fps",
        dest="filmed_fps",
        type=int,
        default=FPS,
        metavar="F",
        help="frames a second of a match (default 25)",
    )
    parser.add_argument("--ask", type=float, metavar="S", help="ask a viewer's question once in S seconds of a match")
    parser.add_argument("--folder", type=Path, metavar="D", help="folder of the matches (default: the user's cache)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that film matches (default 1)")


def run(args: argparse.Namespace) -> int:
    """Validate, print tables and write the JSON file; an interrupted run keeps the results so far."""
    from streaming_vlm_mlx.eval.report import Report

    args.adapter = find_adapter(args.adapter)
    config, folder = resolve_settings(_as_viewed(args))
    if args.json:
        check_writable(args.json, args.records or ())
    if run_as_follower(folder, config):
        return 0
    total, opened = _open(args)
    engine, name = make_engine(folder, config, note, args.adapter)
    report = Report()
    try:
        with case_progress(total) as progress, opened as cases:
            warn = warn_of_other_clips(folder)

            def measure(pending: "PendingCase", progress: OnProgress) -> None:
                report.results.append(_measure(engine, config, pending, warn, progress))

            measure_each(engine, cases, measure, report.failed, progress)
        report.complete = True
    finally:
        engine.close()
        if report.results:
            _finish(report, args, {"checkpoint": name, **_about(args, config)})
    if not report.results:
        raise SvmError(f"none of {total} cases could be measured; the first: {next(iter(report.failed.values()))}")
    return 0


def _as_viewed(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options of a viewer who gives only what a validation can be given too."""
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    named = {name: getattr(args, name) for name in ("ckpt", "adapter", "config", "drop_still")}
    return argparse.Namespace(**{**vars(parser.parse_args([])), **named})


def _open(args: argparse.Namespace) -> "tuple[int, contextlib.AbstractContextManager[Iterator[PendingCase]]]":
    """Return the number of cases, and the cases; each match is filmed when its case is taken.

    Raises:
        SvmError: an option is out of range, or a file of records cannot be read.
    """
    if args.records and args.ask is not None:
        raise SvmError("--ask needs --matches: the answers for records are not known.")
    if args.records:
        return open_records(args.records)
    return open_matches(
        range(args.first, args.first + args.matches), args.seconds, args.filmed_fps, args.folder, args.workers, args.ask
    )


def open_records(paths: Sequence[Path]) -> "tuple[int, contextlib.AbstractContextManager[Iterator[PendingCase]]]":
    """Return the number of records in the files `paths`, and a case for each.

    Raises:
        SvmError: a file cannot be read.
    """
    from streaming_vlm_mlx.data.records import RecordFile
    from streaming_vlm_mlx.eval.runner import record_cases
    from streaming_vlm_mlx.matches.tennis.judge import find_judge

    files = [RecordFile.open(path) for path in paths]
    for line in (line for file in files for line in file.skipped):
        note(f"{line}; skipped.")
    return sum(map(len, files)), contextlib.nullcontext(record_cases(files, find_judge))


def open_matches(
    seeds: range,
    seconds: float = SECONDS,
    fps: int = FPS,
    folder: Path | None = None,
    workers: int = 1,
    ask: float | None = None,
) -> "tuple[int, contextlib.AbstractContextManager[Iterator[PendingCase]]]":
    """Return the number of matches, and a case for each, which is filmed when its case is taken.

    Args:
        seeds: of the matches.
        seconds: length of each.
        fps: frames a second.
        folder: where they are kept; by default the user's cache.
        workers: processes that film.
        ask: seconds between two questions of a viewer, or None.

    Raises:
        SvmError: an argument is out of range.
    """
    from streaming_vlm_mlx.matches.tennis.match import Tennis
    from streaming_vlm_mlx.matches.writer import EVERY, check, check_test_seeds

    if not seeds:
        raise SvmError("--matches must be at least 1.")
    check_test_seeds(seeds)
    check(seeds, seconds, workers, EVERY if ask is None else ask)
    kept = cache_folder(os.environ, Path.home()) / "matches" / f"{seconds:g}s-{fps}fps"
    return len(seeds), _filmed(folder or kept, Tennis(fps), seeds, seconds, workers, ask)


@contextlib.contextmanager
def _filmed(
    folder: Path, sport: Any, seeds: range, seconds: float, workers: int, ask: float | None
) -> "Iterator[Iterator[PendingCase]]":
    from streaming_vlm_mlx.matches.tennis.judge import match_case
    from streaming_vlm_mlx.matches.writer import make_matches

    made = make_matches(folder, sport, seeds, seconds, workers)
    # Closing waits for films under way, and lists the finished ones.
    with contextlib.closing(made):  # type: ignore[type-var]
        yield (match_case(match.clip, ask) for match in made)


def measure_each(
    speaker: "Speaker",
    cases: "Iterator[PendingCase]",
    measure: "Callable[[PendingCase, OnProgress], None]",
    failed: dict[str, str],
    progress: OnProgress,
    tell: Callable[[str], None] = note,
) -> None:
    """Load the model and call `measure` with each case; one that fails is named to `tell`, and the rest go on.

    Args:
        speaker: runs the model.
        cases: what to measure.
        measure: called with a case, and with what to call with the finished share of it and a word on the work.
        failed: takes the reason by name for each case that failed.
        progress: called with the number of finished cases.
        tell: called with a sentence for each case that failed.
    """
    from streaming_vlm_mlx.eval.runner import load_model

    progress(0.0, "loading")
    load_model(speaker, lambda _: None)
    progress(0.0, "filming")
    for number, case in enumerate(cases):
        try:
            measure(case, partial(_report_part, progress, number))
        except SvmError as error:
            failed[case.name] = str(error)
            tell(f"{case.name} is left out: {error}")
        progress(number + 1.0, case.name)


def _report_part(progress: OnProgress, number: int, part: float, what: str) -> None:
    progress(number + part, what)


def warn_of_other_clips(folder: Path, tell: Callable[[str], None] = note) -> "Callable[[ValidationCase], None]":
    """Return a function that warns, once, where the checkpoint in `folder` is the shipped one and a case no match."""
    from streaming_vlm_mlx.memory import machine_memory

    once = log_limit(tell)

    def warn(case: "ValidationCase") -> None:
        if advice := notice(folder, [case.clip], machine_memory()):
            once(advice)

    return warn


def _measure(
    speaker: "Speaker",
    config: "StreamConfig",
    pending: "PendingCase",
    warn: "Callable[[ValidationCase], None]",
    progress: OnProgress,
) -> "CaseResult":
    from streaming_vlm_mlx.eval.report import CaseResult
    from streaming_vlm_mlx.eval.runner import run_case

    case = pending.load()
    warn(case)
    seen = run_case(speaker, config, case, report_parts(case, lambda part: progress(part / 2, pending.name)))
    grey = report_parts(case, lambda part: progress((1 + part) / 2, f"{pending.name}, grey"))
    return CaseResult(pending.name, case.number, seen, run_case(speaker, config, case, grey, grey=True))


def report_parts(case: "ValidationCase", progress: Callable[[float], None]) -> "Callable[[Event], None]":
    """Return a callback for events that reports the finished share of a case, 0 to 1."""
    from streaming_vlm_mlx.stream.events import GenerationResult

    def on_event(event: "Event") -> None:
        if isinstance(event, GenerationResult):
            progress((event.end - case.start) / (case.end - case.start))

    return on_event


@contextlib.contextmanager
def case_progress(total: int) -> Iterator[OnProgress]:
    """Show a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("loading", total=total)
        yield lambda done, what: bar.update(task, completed=done, description=escape(visible(what)))


def _about(args: argparse.Namespace, config: "StreamConfig") -> dict[str, Any]:
    from streaming_vlm_mlx.backend import installed_versions

    film = {"seconds": args.seconds, "fps": args.filmed_fps} if args.matches else None
    return {
        "settings": {
            "stream": config.to_dict(),
            "film": film,
            "ask": args.ask,
            "records": [str(p) for p in args.records or ()],
        },
        "seeds": list(range(args.first, args.first + (args.matches or 0))),
        "versions": installed_versions(),
    }


def _finish(report: "Report", args: argparse.Namespace, about: Mapping[str, Any]) -> None:
    """Print the tables, and write the JSON file if one was asked for."""
    _print_tables(report, about["checkpoint"])
    if args.json:
        report.write(args.json, about)
        note(f"{args.json} written.")


def _print_tables(report: "Report", checkpoint: str) -> None:
    from rich.console import Console

    # A pipe has no width, and 80 columns would truncate the figures.
    console = Console(width=None if sys.stdout.isatty() else 120)
    left_out = f", {len(report.failed)} left out" if report.failed else ""
    for table in report.tables(f"{checkpoint}: {len(report.results)} measured{left_out}"):
        console.print(_rich_table(table))


def _rich_table(figures: "FigureTable") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(figures.title)), title_justify="left")
    table.add_column(figures.columns[0], no_wrap=True)
    for column in figures.columns[1:]:
        table.add_column(column, justify="right")
    for row in figures.rows:
        table.add_row(*(Text(visible(_shown(value))) for value in row))
    return table


def _shown(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
