"""``svm-tui bench``: measure the cost of a second of the stream on this machine."""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.backend import Backend
    from streaming_vlm_mlx.eval.bench import BenchConfig
    from streaming_vlm_mlx.stream.events import GenerationResult

HELP = "Run a model of given sizes, with seeded random weights, over moving frames, and time every second."
MODES = ("full", "window", "recompute", "streaming")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="F", help="YAML, as in configs/bench")
    parser.add_argument(
        "--mode", choices=(*MODES, "all"), default="all", help="how the stream is cached (default: all)"
    )
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="seconds of video a mode (default 60)")
    parser.add_argument("--json", type=Path, metavar="F", help="write settings, machine and every second's figures")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw the figures as a PNG")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write the files that were asked for."""
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.atomic import write_text
    from streaming_vlm_mlx.eval.bench import read_bench_config

    if args.seconds < 1:
        raise SvmError(f"--seconds is {args.seconds}; it must be 1 or more.")
    config = read_bench_config(args.config)
    modes = MODES if args.mode == "all" else (args.mode,)
    runs = {mode: _measure(config, mode, args.seconds, machine) for mode in modes}
    _print_table(runs)
    if args.json:
        described = [describe(config, machine, mode, seconds) for mode, seconds in runs.items()]
        content = described[0] if len(described) == 1 else {"runs": described}
        write_text(args.json, json.dumps(content, indent=1) + "\n")
    if args.plot:
        from streaming_vlm_mlx.eval.bench import plot_bench

        plot_bench(runs, args.plot)
    return 0


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
    import os
    import platform

    from streaming_vlm_mlx.backend import installed_versions
    from streaming_vlm_mlx.memory import machine_memory

    return {
        "mode": mode,
        "settings": config.to_dict(),
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "memory_bytes": machine_memory(),
            "device": machine.kind,
            "blas": machine.blas.name if machine.blas else None,
            "versions": installed_versions(),
        },
        "seconds": [s.to_dict() for s in seconds],
    }


def _print_table(runs: "Mapping[str, Sequence[GenerationResult]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="seconds of work for a second of video (medians)", title_justify="left")
    table.add_column("mode", no_wrap=True)
    for name in ("first tenth", "last tenth", "vision", "prefill", "decode", "ms/token", "cache tokens", "cache MB"):
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
            f"{seconds[-1].cache_tokens:,}",
            f"{seconds[-1].cache_bytes / 1e6:.1f}",
        )
    # A pipe has no width, and 80 columns would truncate the figures.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _median_seconds(milliseconds: Iterable[float]) -> str:
    return f"{statistics.median(milliseconds) / 1e3:.3f}"
