"""``svm-tui validate``: how good a model's commentary is, on matches that it was never trained on."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import add_model_arguments, make_engine, resolve_settings, run_as_follower
from tui.session_paths import cache_folder, check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.eval.report import Report, Row
    from streaming_vlm_mlx.eval.runner import Case, Entry, Speaker
    from streaming_vlm_mlx.stream.events import Event

HELP = (
    "Let a model comment on clips as a viewer would hear it, and measure what it says: against what happened, against "
    "the true words, by chance, and with grey pictures in the place of the clip's."
)
FIRST = 900_000
BOTH = ("as seen", "grey pictures")

# Told how many cases are done, parts of one included, and what is going on.
Tell = Callable[[float, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    clips = parser.add_mutually_exclusive_group(required=True)
    clips.add_argument("--matches", type=int, metavar="N", help="simulated matches to validate on, filmed where absent")
    clips.add_argument("--records", type=Path, nargs="+", metavar="F", help="records (.jsonl) to validate on instead")
    parser.add_argument("--ckpt", metavar="C", help="a folder, a name below checkpoints/, or a hub id")
    parser.add_argument("--adapter", type=Path, metavar="A", help="a folder of train --lora, to put beside --ckpt")
    parser.add_argument("--config", type=Path, metavar="F", help="YAML of stream settings, laid over the checkpoint's")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures, and a row for every match")
    parser.add_argument(
        "--seed", dest="first", type=int, default=FIRST, metavar="S", help=f"first match's seed (default {FIRST})"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="T", help="length of a match (default 60)")
    parser.add_argument(
        "--fps", dest="filmed_fps", type=int, default=25, metavar="F", help="frames filmed a second (default 25)"
    )
    parser.add_argument("--ask", type=float, metavar="S", help="ask a viewer's question in every S seconds of a match")
    parser.add_argument("--folder", type=Path, metavar="D", help="where matches are kept (default: the user's cache)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that film (default 1)")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table and write what was asked for, also when the run breaks off."""
    from streaming_vlm_mlx.eval.report import Report

    config, folder = resolve_settings(_as_viewed(args))
    if args.json:
        check_writable(args.json)
    if run_as_follower(folder, config):
        return 0
    total, opened = _open(args)
    engine, name = make_engine(folder, config, _note, args.adapter)
    report = Report()
    try:
        with _progress(total) as tell, opened as entries:
            _measure_all(engine, config, entries, report, tell)
        report.complete = True
    finally:
        engine.close()
        if report.rows:
            _finish(report, args, {"checkpoint": name, **_about(args, config)})
    if not report.rows:
        raise SvmError(f"none of {total} could be measured; the first: {next(iter(report.failed.values()))}")
    return 0


def _as_viewed(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options of a viewer who names no more than a checkpoint and a file of settings."""
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    named = {name: getattr(args, name) for name in ("ckpt", "adapter", "config")}
    return argparse.Namespace(**{**vars(parser.parse_args([])), **named})


def _open(args: argparse.Namespace) -> "tuple[int, contextlib.AbstractContextManager[Iterator[Entry]]]":
    """Return how many cases there are, and their entries; matches are filmed as they are asked for.

    Raises:
        SvmError: an option is off, or a file of records cannot be read.
    """
    from streaming_vlm_mlx.eval.runner import check_seeds, record_entries

    if args.records and args.ask is not None:
        raise SvmError("--ask goes with --matches: of records it is not known what could be asked.")
    if args.records:
        from streaming_vlm_mlx.data.records import RecordFile

        files = [RecordFile.open(path) for path in args.records]
        for line in (line for file in files for line in file.skipped):
            _note(f"{line}; passed over.")
        return sum(map(len, files)), contextlib.nullcontext(record_entries(files))
    from streaming_vlm_mlx.matches.tennis.match import Tennis
    from streaming_vlm_mlx.matches.writer import EVERY, check

    seeds = range(args.first, args.first + args.matches)
    if not seeds:
        raise SvmError("--matches must be at least 1.")
    check_seeds(seeds)
    check(seeds, args.seconds, args.workers, EVERY if args.ask is None else args.ask)
    kept = cache_folder(os.environ, Path.home()) / "matches" / f"{args.seconds:g}s-{args.filmed_fps}fps"
    return len(seeds), _filmed(args.folder or kept, Tennis(args.filmed_fps), seeds, args)


@contextlib.contextmanager
def _filmed(folder: Path, sport: Any, seeds: range, args: argparse.Namespace) -> "Iterator[Iterator[Entry]]":
    from streaming_vlm_mlx.eval.runner import match_entry
    from streaming_vlm_mlx.matches.writer import make_matches

    made = make_matches(folder, sport, seeds, args.seconds, args.workers)
    # Closing lets films under way end, and lists what was filmed.
    with contextlib.closing(made):  # type: ignore[type-var]
        yield (match_entry(match.clip, args.ask) for match in made)


def _measure_all(
    speaker: "Speaker", config: "StreamConfig", entries: "Iterator[Entry]", report: "Report", tell: Tell
) -> None:
    from streaming_vlm_mlx.eval.runner import load

    tell(0.0, "loading")
    load(speaker, lambda _: None)
    tell(0.0, "filming")
    for number, entry in enumerate(entries):
        try:
            report.rows.append(_measure(speaker, config, entry, partial(_tell_part, tell, number)))
        except SvmError as error:
            report.failed[entry.name] = str(error)
            _note(f"{entry.name} is left out: {error}")
        tell(number + 1.0, entry.name)


def _tell_part(tell: Tell, number: int, part: float, what: str) -> None:
    tell(number + part, what)


def _measure(speaker: "Speaker", config: "StreamConfig", entry: "Entry", tell: Tell) -> "Row":
    from streaming_vlm_mlx.eval.report import Row
    from streaming_vlm_mlx.eval.runner import run_case

    case = entry.read()
    seen = run_case(speaker, config, case, _shower(case, lambda part: tell(part / 2, entry.name)))
    grey = _shower(case, lambda part: tell((1 + part) / 2, f"{entry.name}, grey"))
    return Row(entry.name, case.number, seen, run_case(speaker, config, case, grey, blank=True))


def _shower(case: "Case", tell: Callable[[float], None]) -> "Callable[[Event], None]":
    """Return what tells how much of a case is done, 0 to 1."""
    from streaming_vlm_mlx.stream.events import GenerationResult

    start, end = case.reference.start, case.reference.end

    def show(event: "Event") -> None:
        if isinstance(event, GenerationResult):
            tell((event.end - start) / (end - start))

    return show


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Tell]:
    """Show how much is done, on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("loading", total=total)
        yield lambda done, what: bar.update(task, completed=done, description=what)


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
    """Write and print what was measured."""
    _print_tables(report, about["checkpoint"])
    if args.json:
        report.write(args.json, about)
        _note(f"{args.json} written.")


def _print_tables(report: "Report", checkpoint: str) -> None:
    from rich.console import Console

    # A pipe has no width of its own, and eighty columns would cut the figures.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in _tables(report, checkpoint):
        console.print(table)


def _tables(report: "Report", checkpoint: str) -> "Iterator[Table]":
    from streaming_vlm_mlx.eval.measures import FIGURES

    seen = report.figures()
    grey = seen["blanked"]
    left_out = f", {len(report.failed)} left out" if report.failed else ""
    title = f"{checkpoint}: {len(report.rows)} measured{left_out}"
    names = (*FIGURES, "seconds_per_second")
    yield _table(title, "figure", BOTH, ((n.replace("_", " "), _shown(seen[n]), _shown(grey[n])) for n in names))
    if events := seen["events"]:
        shares = ("event_recall", "event_precision", "event_precision_shuffled")
        rows = (
            (kind.replace("_", " "), str(v["asked"]), str(v["said"]), *(_shown(v[n]) for n in shares))
            for kind, v in events.items()
        )
        columns = ("happened", "said", "recall", "precision", "by chance")
        yield _table("endings of points, as seen", "kind", columns, rows)
    if notes := seen["notes"]:
        rows = ((fact, _shown(share), _shown(grey["notes"].get(fact))) for fact, share in notes.items())
        yield _table("noted for itself, share of seconds that are right", "fact", BOTH, rows)
    if answers := seen["answers"]:
        rows = (
            (kind, str(v["asked"]), _shown(v["right"]), _shown(grey["answers"][kind]["right"]))
            for kind, v in answers.items()
        )
        yield _table("answers to a viewer, share that are right", "question", ("asked", *BOTH), rows)


def _table(title: str, first: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _note(text: str) -> None:
    print(f"svm-tui: {text}", file=sys.stderr)
