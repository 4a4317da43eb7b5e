"""``svm-tui doctor``: what this machine computes with, what would make it faster, and whether a model fits it."""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from tui.diagnosis import Diagnosis, Model, diagnose, weigh

HELP = (
    "Say what this machine computes with and how fast, what is installed, and what would make it faster. "
    "With --ckpt, add up what that model takes in memory, and what to change where it does not fit. "
    "Exit status 1 when no model could run here at all, or that one does not fit."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    parser.add_argument("--ckpt", metavar="C", help="a folder, a name below checkpoints/, or a hub id")
    parser.add_argument(
        "--config", type=Path, metavar="S", help="YAML of stream settings, laid over the checkpoint's own"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in bytes")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; return 1 when MLX can not be loaded, or the model that was named does not fit."""
    if args.config and not args.ckpt:
        raise SvmError("--config is of a stream; name the checkpoint with --ckpt.")
    found = diagnose(os.environ, time.perf_counter)
    if args.ckpt and found.compute.kind:
        found = dataclasses.replace(found, model=weigh(args.ckpt, args.config))
    if args.json:
        print(json.dumps({**dataclasses.asdict(found), "advice": found.advice}, indent=2, ensure_ascii=False))
    elif found.terminal.interactive:
        _print_table(found)
    else:
        for name, value in rows(found):
            print(f"{name}: {value}")
    return 0 if found.compute.kind and (found.model is None or found.model.fits) else 1


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
        *(_model_rows(found.model) if found.model else []),
        *(("advice", line) for line in found.advice),
    ]


def _model_rows(model: Model) -> list[tuple[str, str]]:
    """Return the lines on a model's memory."""
    parts = (f"{name} {size / GIB:.2f}" for name, size in model.parts.items())
    span = f"{model.rounds} s, {model.tokens} tokens" + ("" if model.bounded else "; these settings bound nothing")
    return [
        ("model", f"{model.folder}, computed in {model.dtype}"),
        ("windows", span),
        ("needs", f"{model.peak / GIB:.2f} GiB: {', '.join(parts)}"),
        ("fits", f"{'yes' if model.fits else 'no'}: {model.limit / GIB:.1f} GiB for it"),
        *(("with", f"{change}: {peak / GIB:.2f} GiB") for change, peak in model.changes.items()),
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
