"""``svm-tui train``: trains a model on records."""

import argparse
import json
import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import ADAPTER_NAMES
from tui.downloads import find_adapter, find_checkpoint
from tui.messages import note, tell, warn
from tui.session_paths import check_writable

if TYPE_CHECKING:
    from streaming_vlm_mlx.backend import Backend
    from streaming_vlm_mlx.train.checkpointing import Progress
    from streaming_vlm_mlx.train.config import TrainConfig
    from streaming_vlm_mlx.train.peers import StepComparison

HELP = (
    "Train a model on records, from random weights or from a checkpoint: "
    "'svm-tui train --config configs/train/clip.yaml --records clip.jsonl --out run1', then 'svm-tui play clip.mp4 "
    "--ckpt run1'."
)

BENCHMARK_ROUNDS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config", type=Path, metavar="F", help="YAML, as in configs/train")
    parser.add_argument("--out", type=Path, metavar="D", help="folder of the run, which --ckpt loads afterwards")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its newest checkpoint")
    parser.add_argument("--records", nargs="+", metavar="F", help="training records, for data.records")
    parser.add_argument("--validation", nargs="+", metavar="F", help="validation records, for validation.records")
    parser.add_argument("--ckpt", metavar="C", help="checkpoint to start from, as for play; for model.checkpoint")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="total steps, for schedule.steps; the warm-up is shortened in proportion"
    )
    parser.add_argument("--lora", type=int, nargs="?", const=8, metavar="R", help="train only adapters of rank R (8)")
    parser.add_argument(
        "--adapter", metavar="A", help=f"go on from this adapter of --ckpt, for model.adapter: {ADAPTER_NAMES}"
    )
    parser.add_argument(
        "--benchmark", action="store_true", help="measure this machine's training throughput instead of training"
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="with --benchmark: run the same step in plain PyTorch beside it (extra 'bench')",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="with --peers: write machine, versions and every step")


def run(args: argparse.Namespace) -> int:
    """Train until the last step or Ctrl-C; print where the checkpoint is, or how to resume."""
    if (args.peers and not args.benchmark) or (args.json and not args.peers):
        raise SvmError("--peers goes with --benchmark, and --json with both.")
    if args.peers:
        return _benchmark_peers(args)
    machine = _prepare()
    if args.benchmark:
        return _benchmark(args, machine)
    if args.out is None:
        raise SvmError("name the run's folder with --out, for example --out runs/first.")
    config = _config(args)
    if config.model.checkpoint and (config.lora or not args.resume):
        find_checkpoint(config.model.checkpoint)
    if config.model.adapter and not args.resume:
        find_adapter(Path(config.model.adapter))
    from streaming_vlm_mlx.distributed import count_neighbours, join
    from streaming_vlm_mlx.train.setup import train
    from streaming_vlm_mlx.train.trainer import Callbacks
    from tui.train_progress import show_progress

    ranks, cores = join(os.environ), max(1, _cores(machine) // count_neighbours(os.environ))
    with _stopping() as stop, show_progress(ranks.rank) as view:
        callbacks = Callbacks(view, time.perf_counter, lambda: stop.status > 0)
        progress = train(config, args.out, args.resume, machine.dtype, cores, callbacks, ranks)
    if not ranks.is_main:
        return stop.status
    if stop.status:
        warn(resume_hint(args.out, progress))
        return stop.status
    out = shlex.quote(str(args.out))
    ckpt = f"{config.model.checkpoint} --adapter {out}" if config.lora or config.model.adapter else out
    tell(f"{args.out} is trained for {progress.step} steps; try it with: svm-tui infer CLIP --ckpt {ckpt}")
    return 0


def _prepare() -> "Backend":
    """Return the backend; BLAS gets one thread, since each core computes a microbatch of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    if machine.advice:
        note(machine.advice)
    return machine


def _cores(machine: "Backend") -> int:
    """Return the number of microbatches that are computed at once."""
    from streaming_vlm_mlx.backend import usable_cores

    return 1 if machine.device == "gpu" else usable_cores()


def _config(args: argparse.Namespace) -> "TrainConfig":
    """Return the settings of --config, or of the run to resume, overridden by the other options."""
    from streaming_vlm_mlx.config_io import read_config
    from streaming_vlm_mlx.train.checkpointing import RunFolder, read_progress
    from streaming_vlm_mlx.train.config import TrainConfig

    path = args.config
    if path is None and args.resume:
        folder = RunFolder(args.out)
        path = folder.settings
        # A run of an earlier version is refused as such, not for the names of its settings.
        if path.is_file() and (newest := folder.newest()) is not None:
            read_progress(newest)
    if path is None:
        raise SvmError("name the settings with --config; configs/train has examples.")
    overrides: dict[str, Any] = {}
    if args.records:
        overrides["data"] = {"records": args.records}
    if args.validation:
        overrides["validation"] = {"records": args.validation}
    model = {"checkpoint": args.ckpt, "adapter": args.adapter}
    overrides["model"] = {name: value for name, value in model.items() if value}
    config = read_config(path, TrainConfig)
    if args.lora is not None:
        overrides["lora"] = {"rank": args.lora}
    if args.steps is not None:
        overrides["schedule"] = config.schedule.of_length(args.steps)
    return config.merged(overrides)


@dataclass
class _Stop:
    """Whether a run is to end: `status` is 0, or the exit status for the signal that stopped it."""

    status: int = 0


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Yield the flag that the first Ctrl-C (or SIGTERM) sets; a second one interrupts at once."""
    stopping = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        if stopping.status:
            raise KeyboardInterrupt
        stopping.status = 128 + number
        # Not through sys.stderr: the signal may have come while a line is written to it, which cannot be nested.
        with suppress(OSError):
            os.write(2, b"svm-tui: stopping after this step; press Ctrl-C again to stop without a checkpoint.\n")

    try:
        for number in before:
            signal.signal(number, stop)
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_hint(out: Path, progress: "Progress") -> str:
    """Return what a stopped run says: how far it is, and how to go on."""
    where = shlex.quote(str(out))
    how = f"and saved at step {progress.step}" if progress.step else "before the first step"
    return f"svm-tui: stopped {how}; resume with: svm-tui train --out {where} --resume"


def _benchmark_config(args: argparse.Namespace) -> "TrainConfig":
    from streaming_vlm_mlx.config_io import read_config
    from streaming_vlm_mlx.train.benchmark import default_config
    from streaming_vlm_mlx.train.config import TrainConfig

    return read_config(args.config, TrainConfig) if args.config else default_config()


def _benchmark(args: argparse.Namespace, machine: "Backend") -> int:
    from statistics import median

    from streaming_vlm_mlx.train.benchmark import measure

    config, cores = _benchmark_config(args), _cores(machine)
    speeds = list(measure(config, machine.dtype, cores, BENCHMARK_ROUNDS, time.perf_counter))
    where = f"{machine.kind}, {cores} cores" if machine.device == "cpu" else machine.kind
    tell(
        f"{median(speeds):.1f} s of video a second (best {max(speeds):.1f}): "
        f"{config.data.batches.batch_size} windows of {config.data.seconds} s a step, {where}"
        f"{f', {machine.blas.name}' if machine.blas else ''}"
    )
    return 0


def _benchmark_peers(args: argparse.Namespace) -> int:
    """Measure steps of this program and of PyTorch in turns; print a table, and write the report to --json."""
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.train import peers
    from tui.commands.bench import peers_progress

    if args.json:
        check_writable(args.json)
    config, steps = _benchmark_config(args), args.steps or BENCHMARK_ROUNDS
    peers.check_comparable(config)
    comparison = peers.StepComparison(config, steps, min(_cores(machine), config.data.batches.batch_size))
    try:
        with peers_progress(steps * len(peers.ROWS)) as progress:
            comparison.run(lambda log, who: peers.start_worker(log, who, comparison.cores), time.sleep, progress)
    finally:
        if comparison.measured:
            _report_peers(comparison, args.json)
    return 0


def _report_peers(comparison: "StepComparison", out: Path | None) -> None:
    """Print the table and write the report, so far."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from streaming_vlm_mlx.atomic import write_text
    from streaming_vlm_mlx.train.peers import step_ratios, step_rows

    data, ratios = comparison.config.data, step_ratios(comparison)
    title = (
        f"a training step on {data.batches.batch_size} windows of {data.seconds} s, medians of {comparison.measured}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("who", no_wrap=True)
    for name in ("seconds", "CPU seconds", "peak MB", "first loss", "last loss"):
        table.add_column(name, justify="right")
    for row in step_rows(comparison):
        losses = f"{row.first_loss:.5f}", f"{row.last_loss:.5f}"
        table.add_row(row.who, f"{row.median_s:.3f}", f"{row.cpu_s:.3f}", f"{row.peak_rss_mb:,.0f}", *losses)
    table.add_row(
        "svm-tui ÷ PyTorch", f"{ratios.seconds:.2f}", f"{ratios.cpu_seconds:.2f}", f"{ratios.peak_rss:.2f}", "", ""
    )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"The losses of a step differ by at most {comparison.loss_difference:.1e} of their size.")
    if out:
        write_text(out, json.dumps(_describe_peers(comparison), indent=1) + "\n")
        note(f"{out} written.")


def _describe_peers(comparison: "StepComparison") -> dict[str, Any]:
    """Return the report as plain values."""
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.eval.peers.run import versions_beside
    from streaming_vlm_mlx.train.peers import PACKAGES, step_ratios, step_rows
    from tui.commands.bench import describe_machine

    return {
        "partial": comparison.measured < comparison.steps,
        "machine": {**describe_machine(prepare()), "microbatches": comparison.cores},
        "versions": versions_beside(PACKAGES),
        "settings": comparison.config.to_dict(),
        "rows": [vars(row) for row in step_rows(comparison)],
        "ratios": vars(step_ratios(comparison)),
        "steps": {who: [vars(cost) for cost in costs] for who, costs in comparison.costs.items()},
        "loss_difference": comparison.loss_difference,
    }
