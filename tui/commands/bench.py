"""``svm-tui bench``: measure the cost of a second of the stream on this machine."""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import add_drop_still
from tui.messages import note
from tui.session_paths import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from streaming_vlm_mlx.backend import Backend
    from streaming_vlm_mlx.eval.bench import BenchConfig
    from streaming_vlm_mlx.eval.peers.figures import Ratio, Row
    from streaming_vlm_mlx.eval.peers.run import Comparison, Progress
    from streaming_vlm_mlx.eval.peers.worker import Who
    from streaming_vlm_mlx.stream.events import GenerationResult

HELP = (
    "Run a model of given sizes, with seeded random weights, over moving frames, and time every second; or time it "
    "beside transformers and mlx-vlm on one checkpoint."
)
PEERS_SECONDS = 300
COLUMNS = ("median s", "p95 s", "last tenth", "first token", "tokens/s", "peak MB", "time ÷ svm-tui's (10–90 %)")
MODES = ("full", "window", "recompute", "streaming")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config", type=Path, metavar="F", help="YAML, as in configs/bench; --peers has a default")
    parser.add_argument(
        "--mode", choices=(*MODES, "all"), default="all", help="how the stream is cached (default: all)"
    )
    parser.add_argument(
        "--seconds", type=int, metavar="N", help="seconds of video a mode (default 60; with --peers 300)"
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="run the stream beside transformers and mlx-vlm, each in a process of its own (extra 'bench')",
    )
    add_drop_still(parser)
    parser.add_argument("--json", type=Path, metavar="F", help="write settings, machine and every second's figures")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw the figures as a PNG")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write the files that were asked for."""
    from streaming_vlm_mlx.eval.bench import STANDARD, read_bench_config

    if args.seconds is not None and args.seconds < 1:
        raise SvmError(f"--seconds is {args.seconds}; it must be 1 or more.")
    if args.json:
        check_writable(args.json)
    if args.peers:
        if args.mode != "all" or args.plot or args.drop_still is not None:
            raise SvmError("--peers goes with --config, --seconds and --json only.")
        config = read_bench_config(args.config) if args.config else STANDARD
        if config.stream.drop_still is not None:
            raise SvmError(f"{args.config}: drop_still must be null with --peers: all programs are shown the same.")
        run_peers(config, args.seconds or PEERS_SECONDS, args.json)
        return 0
    if args.config is None:
        raise SvmError("bench needs --config, such as configs/bench/stream.yaml, or --peers.")
    config = read_bench_config(args.config)
    if args.drop_still is not None:
        config = replace(config, stream=config.stream.merged({"drop_still": args.drop_still}))
    _run_modes(args, config)
    return 0


def _run_modes(args: argparse.Namespace, config: "BenchConfig") -> None:
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.atomic import write_text

    modes = MODES if args.mode == "all" else (args.mode,)
    runs = {mode: _measure(config, mode, args.seconds or 60, machine) for mode in modes}
    _print_table(runs)
    if args.json:
        described = [describe(config, machine, mode, seconds) for mode, seconds in runs.items()]
        content = described[0] if len(described) == 1 else {"runs": described}
        write_text(args.json, json.dumps(content, indent=1) + "\n")
    if args.plot:
        from streaming_vlm_mlx.eval.bench import plot_bench

        plot_bench(runs, args.plot)


def _measure(config: "BenchConfig", mode: Any, seconds: int, machine: "Backend") -> "list[GenerationResult]":
    from rich.console import Console
    from rich.progress import track

    from streaming_vlm_mlx.eval.bench import run_bench

    console = Console(stderr=True)
    work = run_bench(config, mode, seconds, machine.dtype)
    shown = track(work, mode, total=seconds, console=console, transient=True, disable=not sys.stderr.isatty())
    return list(shown)


def describe(
    config: "BenchConfig", machine: "Backend", mode: str, seconds: "Sequence[GenerationResult]"
) -> dict[str, Any]:
    """Return the figures of one mode with the settings and the machine."""
    from streaming_vlm_mlx.backend import installed_versions

    return {
        "mode": mode,
        "settings": config.to_dict(),
        "machine": {**describe_machine(machine), "versions": installed_versions()},
        "seconds": [s.to_dict() for s in seconds],
    }


def describe_machine(machine: "Backend | None" = None) -> dict[str, Any]:
    """Return what the figures were measured on; without `machine`, nothing of the device that MLX computes on."""
    import os
    import platform

    from streaming_vlm_mlx.memory import machine_memory

    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "memory_bytes": machine_memory(),
        **({"device": machine.kind, "blas": machine.blas.name if machine.blas else None} if machine else {}),
    }


def processor_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name; Linux has it in `info`."""
    import platform

    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _print_table(runs: "Mapping[str, Sequence[GenerationResult]]") -> None:
    from rich.console import Console
    from rich.table import Table

    from streaming_vlm_mlx.stream.events import still_share

    table = Table(title="seconds of work for a second of video (medians)", title_justify="left")
    table.add_column("mode", no_wrap=True)
    for name in (
        "first tenth",
        "last tenth",
        "vision",
        "prefill",
        "decode",
        "ms/token",
        "still",
        "cache tokens",
        "cache MB",
    ):
        table.add_column(name, justify="right")
    for mode, seconds in runs.items():
        tenth = max(len(seconds) // 10, 1)
        timings = [s.timings for s in seconds]
        parts = [(t.vision_ms, t.prefill_ms, t.decode_ms) for t in timings]
        token = statistics.median(s.timings.decode_ms / s.tokens for s in seconds)
        table.add_row(
            mode,
            _median_seconds(t.total_ms for t in timings[:tenth]),
            _median_seconds(t.total_ms for t in timings[-tenth:]),
            *map(_median_seconds, zip(*parts, strict=True)),
            f"{token:.1f}",
            f"{still_share(seconds) or 0:.0%}",
            f"{seconds[-1].cache_tokens:,}",
            f"{seconds[-1].cache_bytes / 1e6:.1f}",
        )
    # A pipe has no width, and 80 columns would truncate the figures.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _median_seconds(milliseconds: Iterable[float]) -> str:
    return f"{statistics.median(milliseconds) / 1e3:.3f}"


def run_peers(config: "BenchConfig", seconds: int, out: Path | None) -> None:
    """Measure, print a table for each length, and write the report to `out`; an interrupted run keeps its seconds.

    Raises:
        SvmError: no other program is installed, or none could be measured.
    """
    from streaming_vlm_mlx.eval.peers import run

    rows, remarks = run.installed_rows()
    for remark in remarks:
        note(remark)
    comparison = run.Comparison(config, seconds, remarks=list(remarks))
    try:
        with peers_progress(seconds * len(rows)) as progress:
            comparison.run(run.WorkerProcess, rows, time.sleep, progress)
    finally:
        for remark in comparison.remarks[len(remarks) :]:
            note(remark)
        if comparison.differences:
            _finish(comparison, out)


def _finish(comparison: "Comparison", out: Path | None) -> None:
    """Print the tables and write the report, so far."""
    from rich.console import Console

    from streaming_vlm_mlx.atomic import write_text
    from streaming_vlm_mlx.eval.peers.figures import figures, make_prefills
    from streaming_vlm_mlx.eval.peers.run import PREFILL_TOKENS

    rows, ratios = figures(comparison.costs, comparison.seconds, comparison.measured)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for length in dict.fromkeys(row.seconds for row in rows):
        title = f"seconds of work for a second of video, over {length} s"
        shown = [row for row in rows if row.seconds == length]
        beside = {ratio.who: ratio for ratio in ratios if ratio.seconds == length}
        console.print(_table(title, shown, beside))
    if prefills := make_prefills(comparison.prefills):
        shown_prefills = ", ".join(
            f"{prefill.who.partition(' ')[0]} {prefill.median_s:.3f} s ({prefill.ratio:.2f})" for prefill in prefills
        )
        console.print(f"Prefill of {PREFILL_TOKENS:,} tokens: {shown_prefills}.")
    largest = max(comparison.differences.values())
    console.print(
        f"Log-probabilities of the first seconds differ by at most {largest:.1e} from svm-tui's "
        f"(limit {comparison.tolerance:g})."
    )
    if out:
        write_text(out, json.dumps(describe_peers(comparison), indent=1) + "\n")
        note(f"{out} written{'' if comparison.complete else ', with the seconds so far'}.")


def describe_peers(comparison: "Comparison") -> dict[str, Any]:
    """Return the report as plain values: machine, versions, settings, rows, ratios, the check, and remarks."""
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.eval.peers.figures import figures, make_prefills
    from streaming_vlm_mlx.eval.peers.run import PREFILL_TOKENS, thread_counts, versions_beside

    rows, ratios = figures(comparison.costs, comparison.seconds, comparison.measured)
    return {
        "partial": not comparison.complete,
        "machine": {**describe_machine(prepare()), "threads": thread_counts()},
        "versions": versions_beside(("torch", "transformers", "mlx-vlm")),
        "settings": comparison.config.to_dict(),
        "rows": [vars(row) for row in rows],
        "ratios": [vars(ratio) for ratio in ratios],
        "prefill": {"tokens": PREFILL_TOKENS, "rows": [vars(row) for row in make_prefills(comparison.prefills)]},
        "logits": {"tolerance": comparison.tolerance, "differences": comparison.differences},
        "remarks": comparison.remarks,
    }


def _table(title: str, rows: "list[Row]", ratios: "Mapping[Who, Ratio]") -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("who", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        ratio = ratios.get(row.who)
        speed = row.decode_tokens_per_s
        table.add_row(
            row.who,
            *(f"{value:.3f}" for value in (row.median_s, row.p95_s, row.last_tenth_s, row.first_token_s)),
            f"{speed:.1f}" if speed else "-",
            f"{row.peak_rss_mb:,.0f}",
            f"{ratio.median:.2f} ({ratio.p10:.2f}–{ratio.p90:.2f})" if ratio else "1",
        )
    return table


@contextlib.contextmanager
def peers_progress(total: int) -> "Iterator[Progress]":
    """Show what is done, what all rows have measured and the time left on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # The time left is that of the last rounds: a growing cache makes later seconds longer.
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task("", total=total)
        yield lambda what, done: bar.update(task, completed=done, description=what)
