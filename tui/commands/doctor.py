"""``svm-tui doctor``: what this machine computes with, and what would make it faster."""

import argparse
import dataclasses
import json
import os
import time

from tui.diagnosis import Diagnosis, diagnose

HELP = (
    "Say what this machine computes with and how fast, what is installed, and what would make it faster. "
    "Exit status 1 when the model could not run here at all."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in bytes")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; return 1 when MLX can not be loaded."""
    found = diagnose(os.environ, time.perf_counter)
    if args.json:
        print(json.dumps({**dataclasses.asdict(found), "advice": found.advice}, indent=2, ensure_ascii=False))
    elif found.terminal.interactive:
        _print_table(found)
    else:
        for name, value in rows(found):
            print(f"{name}: {value}")
    return 0 if found.compute.kind else 1


def rows(found: Diagnosis) -> list[tuple[str, str]]:
    """Return the diagnosis as lines of a table: what, and how it stands."""
    compute, machine, terminal = found.compute, found.machine, found.terminal
    available = f", {machine.available / GIB:.1f} GiB available" if machine.available is not None else ""
    colors = f"{terminal.colors} colours" if terminal.colors else "no colours"
    return [
        ("device", f"{compute.kind}, {compute.dtype}" if compute.kind else "none: MLX can not be loaded"),
        *([("BLAS", f"{compute.blas}, {compute.blas_path}" if compute.blas else "MLX's own")] if compute.kind else []),
        *([("matrix product", f"{compute.gflops:g} GFLOP/s")] if compute.gflops is not None else []),
        ("machine", f"{machine.system}, {machine.cores} cores"),
        ("memory", f"{machine.memory / GIB:.1f} GiB{available}"),
        ("versions", ", ".join(f"{name} {version or 'absent'}" for name, version in found.versions.items())),
        ("terminal", f"{terminal.columns}x{terminal.lines}, {colors}" if terminal.interactive else "none"),
        *(("variable", f"{name}={value}") for name, value in found.variables.items()),
        ("checkpoints", found.checkpoints),
        ("state", found.state),
        *(("advice", line) for line in found.advice),
    ]


def _print_table(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(found):
        table.add_row(name, Text(value, style="bold yellow" if name == "advice" else ""))
    Console().print(table)
