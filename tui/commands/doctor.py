"""``svm-tui doctor``: shows what this machine computes on, what a checkpoint needs, and what to change."""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streaming_vlm_mlx.backend import installed_version
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.plain_text import safe_json, visible
from tui.commands.options import CHECKPOINT_NAMES
from tui.downloads import find_checkpoint
from tui.messages import tell
from tui.session_paths import CHECKPOINTS, state_folder

PACKAGES = ("svm-tui", "mlx", "numpy", "av", "textual", "transformers")
VARIABLES = ("SVM_TUI_BLAS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NO_COLOR")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Compute:
    """The device that MLX computes on.

    Attributes:
        kind: Metal, CUDA or CPU; None where MLX cannot be loaded.
        dtype: of weights and activations.
        blas: the library of matrix products on a CPU; None for MLX's own.
        blas_path: its file.
        gflops: measured speed of a matrix product, 1e9 operations a second.
        advice: how to make MLX faster, or how to make it load.
        limit: bytes that a model may use; None on a Mac, where they follow from the memory.
    """

    kind: str | None = None
    dtype: str | None = None
    blas: str | None = None
    blas_path: str | None = None
    gflops: float | None = None
    advice: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Machine:
    """The machine. Memory is in bytes; `available` is None where the system does not report it."""

    system: str
    cores: int
    memory: int
    available: int | None
    nvidia: bool


@dataclass(frozen=True)
class Terminal:
    """The terminal on stdout: its size in cells, and its number of colours (0 for none, or for no terminal).

    Attributes:
        graphics: protocols for pictures that it names, the best first; None where it could not be asked.
        picture: how the player draws its picture on it.
    """

    columns: int
    lines: int
    colors: int
    interactive: bool
    graphics: Sequence[str] | None = None
    picture: str = "blocks"


@dataclass(frozen=True)
class Sound:
    """The default sound device, and the program that speaks; None where there is none, and then why."""

    device: str | None
    voice: str | None
    no_device: str = ""
    no_voice: str = ""


@dataclass(frozen=True)
class Model:
    """What a checkpoint needs in memory, in bytes.

    Attributes:
        folder: the checkpoint's folder.
        dtype: of weights and activations.
        parts: weights, cache at full windows, and activations of the vision tower and of the decoder.
        peak: the most that is in use at once.
        limit: the most that it may use on this machine.
        tokens: tokens in the cache at the peak.
        rounds: seconds in full windows.
        bounded: whether the settings bound the cache.
        changes: settings that need less, and the peak with each.
        preset: a sentence on how it runs; empty for a checkpoint that was trained to stream.
    """

    folder: str
    dtype: str
    parts: Mapping[str, int]
    peak: int
    limit: int
    tokens: int
    rounds: int
    bounded: bool
    changes: Mapping[str, int]
    preset: str = ""

    @property
    def fits(self) -> bool:
        """Whether the checkpoint fits in the memory of this machine."""
        return self.peak <= self.limit


@dataclass(frozen=True)
class Row:
    """A finding: its name and value, whether it is well (None for a mere fact), and what to do where it is not."""

    name: str
    value: str
    well: bool | None = None
    advice: str = ""

    @property
    def mark(self) -> str:
        """The verdict in one character."""
        return {True: "✓", False: "⚠", None: " "}[self.well]


@dataclass(frozen=True)
class Diagnosis:
    """All findings; the version of a package that is not installed is None."""

    compute: Compute
    machine: Machine
    terminal: Terminal
    sound: Sound
    versions: Mapping[str, str | None]
    variables: Mapping[str, str]
    checkpoints: str
    state: str
    model: Model | None = None

    @property
    def advice(self) -> list[str]:
        """What to change, one line each; empty where nothing needs to change."""
        return [row.advice for row in rows(self) if row.advice]


def diagnose(environ: Mapping[str, str], clock: Callable[[], float]) -> Diagnosis:
    """Return what this machine has; `clock` returns seconds, for the matrix product and the terminal's answer."""
    return Diagnosis(
        compute=_compute(clock),
        machine=_machine(),
        terminal=_terminal(clock),
        sound=_sound(),
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        variables={name: environ[name] for name in VARIABLES if name in environ},
        checkpoints=str(CHECKPOINTS.resolve()),
        state=str(state_folder(environ, Path.home())),
    )


def estimate_memory(name: str, settings: Path | None, limit: int | None = None) -> Model:
    """Return the memory that checkpoint `name` needs under its own stream settings and those in the file `settings`.

    Args:
        name: a folder, a name in checkpoints/, or a name on the hub.
        settings: YAML of settings that replace the checkpoint's own, or None.
        limit: bytes that it may use; None for this machine's limit.

    Raises:
        SvmError: the checkpoint or the settings cannot be used.
    """
    from streaming_vlm_mlx import backend
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from streaming_vlm_mlx.stream_settings import describe_preset, read_stream_config

    machine = backend.prepare()
    from streaming_vlm_mlx.models.memory_budget import budget_of, memory_limit, ways_out

    folder = find_checkpoint(name)
    stream = read_stream_config(folder, settings)
    config, found = budget_of(folder, stream, machine.dtype, machine.device == "gpu")
    changes = ways_out(config, stream, machine.dtype, machine.device == "gpu")
    return Model(
        folder=str(folder),
        dtype=str(machine.dtype).rsplit(".", 1)[-1],
        parts={"weights": found.weights, "cache": found.cache, "vision": found.vision, "decoder": found.decoder},
        peak=found.peak,
        limit=memory_limit() if limit is None else limit,
        tokens=found.tokens,
        rounds=found.rounds,
        bounded=found.bounded,
        changes={change.what: change.peak for change in changes},
        preset=describe_preset(checkpoint_name(folder), stream),
    )


def _compute(clock: Callable[[], float]) -> Compute:
    from streaming_vlm_mlx import backend

    try:
        found = backend.prepare()
    except SvmError as error:
        return Compute(advice=str(error))
    from streaming_vlm_mlx.models.memory_budget import memory_limit

    # Only a large product uses a whole GPU; with the reference BLAS only a small one is done soon.
    size = 512 if found.device == "cpu" else 4096
    return Compute(
        kind=found.kind,
        dtype=str(found.dtype).rsplit(".", 1)[-1],
        blas=found.blas.name if found.blas else None,
        blas_path=str(found.blas.path) if found.blas else None,
        limit=None if found.kind == "Metal" else memory_limit(),
        gflops=round(backend.matmul_gflops(clock, found.dtype, size), 1),
        advice=found.advice,
    )


def _machine() -> Machine:
    from streaming_vlm_mlx.backend import usable_cores
    from streaming_vlm_mlx.memory import available_memory, machine_memory

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cores=usable_cores(),
        memory=machine_memory(),
        available=available_memory(),
        nvidia=NVIDIA_DRIVER.exists(),
    )


def _terminal(clock: Callable[[], float]) -> Terminal:
    from rich.console import Console

    console = Console()
    answer = None
    if sys.stdin.isatty() and sys.stdout.isatty():
        # Unix alone has what it imports.
        from tui.terminal_graphics import ask_terminal

        answer = ask_terminal(sys.stdin.fileno(), sys.stdout.fileno(), clock).answer
    depths = {"standard": 16, "windows": 16, "256": 256, "truecolor": 1 << 24}
    shown = None if console.no_color else console.color_system
    about = (answer.protocols, answer.picture_mode) if answer else (None,)
    return Terminal(console.width, console.height, depths.get(shown or "", 0), console.is_terminal, *about)


def _sound() -> Sound:
    from streaming_vlm_mlx.audio.output import find_device
    from streaming_vlm_mlx.audio.voice import find_voice

    (device, no_device), (voice, no_voice) = _find(find_device), _find(lambda: find_voice()[0])
    return Sound(device, voice, no_device, no_voice)


def _find(find: Callable[[], str]) -> tuple[str | None, str]:
    """Return what `find` returns, or None and why it finds nothing."""
    try:
        return find(), ""
    except SvmError as error:
        return None, str(error)


HELP = (
    "Show what MLX computes on here and how fast, what is installed, what the terminal can show, what is heard, and "
    "which checkpoint to take; ✓ marks what is well, ⚠ what to change, and how. With --ckpt, show the memory that the "
    "model needs, and what to change if it does not fit. The exit status is 1 if MLX cannot be loaded, or if the model "
    "does not fit."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--ckpt", metavar="C", help=f"checkpoint: {CHECKPOINT_NAMES}")
    parser.add_argument("--config", type=Path, metavar="S", help="YAML of stream settings that replace --ckpt's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in bytes")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; return 1 if MLX cannot be loaded, or if the model in --ckpt does not fit."""
    if args.config and args.ckpt is None:
        raise SvmError("--config replaces settings of a checkpoint; name the checkpoint with --ckpt.")
    found = diagnose(os.environ, time.perf_counter)
    if args.ckpt is not None and found.compute.kind:
        found = dataclasses.replace(found, model=estimate_memory(args.ckpt, args.config))
    if args.json:
        print(
            safe_json(json.dumps({**dataclasses.asdict(found), "advice": found.advice}, indent=2, ensure_ascii=False))
        )
    elif found.terminal.interactive:
        _print_table(found)
    else:
        for row in rows(found):
            tell(f"{row.mark} {row.name}: {row.value}{f' → {row.advice}' if row.advice else ''}")
    return 0 if found.compute.kind and (found.model is None or found.model.fits) else 1


def rows(found: Diagnosis) -> list[Row]:
    """Return the diagnosis as rows of a table."""
    return [
        *_compute_rows(found.compute, found.machine),
        *_machine_rows(found),
        *_terminal_rows(found.terminal, found.variables),
        *_sound_rows(found.sound),
        *(Row("variable", f"{name}={value}") for name, value in found.variables.items()),
        Row("checkpoints", found.checkpoints),
        Row("state", found.state),
        *(_model_rows(found.model) if found.model else [_recommendation_row(found)]),
    ]


def _compute_rows(compute: Compute, machine: Machine) -> list[Row]:
    if compute.kind is None:
        return [Row("device", "none: MLX cannot be loaded", False, compute.advice or "")]
    unused = machine.nvidia and compute.kind == "CPU"
    advice = "MLX does not use this machine's NVIDIA GPU; pip install 'svm-tui[cuda]' in a new venv." if unused else ""
    found = [Row("device", f"{compute.kind}, {compute.dtype}", not unused, advice)]
    blas = f"{compute.blas}, {compute.blas_path}" if compute.blas else "MLX's own"
    found.append(Row("BLAS", blas, not compute.advice, compute.advice or ""))
    if compute.gflops is not None:
        found.append(Row("matrix product", f"{compute.gflops:g} GFLOP/s"))
    return found


def _machine_rows(found: Diagnosis) -> list[Row]:
    machine, absent = found.machine, [name for name, version in found.versions.items() if version is None]
    available = f", {machine.available / GIB:.1f} GiB available" if machine.available is not None else ""
    if found.compute.kind == "CUDA" and found.compute.limit is not None:
        available += f"; of the GPU's, {found.compute.limit / GIB:.1f} GiB for a model"
    versions = ", ".join(f"{name} {version or 'absent'}" for name, version in found.versions.items())
    # Without MLX the first row says how to install it.
    lacks = [name for name in absent if name != "mlx"]
    advice = f"{' and '.join(lacks)} cannot be found; install svm-tui again in a new venv." if lacks else ""
    return [
        Row("machine", f"{machine.system}, {machine.cores} cores"),
        Row("memory", f"{machine.memory / GIB:.1f} GiB{available}"),
        Row("versions", versions, not absent, advice),
    ]


def _terminal_rows(terminal: Terminal, variables: Mapping[str, str]) -> list[Row]:
    if not terminal.interactive:
        return [Row("terminal", "none")]
    advice = []
    if terminal.colors < 256 and "NO_COLOR" not in variables:
        advice.append("This terminal has too few colours for the picture; set TERM=xterm-256color if it can.")
    if terminal.columns < 80 or terminal.lines < 24:
        advice.append("This terminal is small; the player needs 80 columns and 24 lines.")
    colors = f"{terminal.colors} colours" if terminal.colors else "no colours"
    size = Row("terminal", f"{terminal.columns}x{terminal.lines}, {colors}", not advice, " ".join(advice))
    if terminal.graphics is None:
        return [size, Row("graphics", "not known: the terminal was not asked, or did not answer")]
    from tui.player.graphics.display import MODE_NAMES

    names = ", ".join(terminal.graphics) or "none"
    return [size, Row("graphics", f"{names}; the player draws {MODE_NAMES[terminal.picture]}")]


def _sound_rows(sound: Sound) -> list[Row]:
    """Return the rows on what can be heard, which the player does without."""
    pairs = ("sound", sound.device, sound.no_device), ("voice", sound.voice, sound.no_voice)
    return [Row(name, found, True) if found else Row(name, f"none: {why}") for name, found, why in pairs]


def _recommendation_row(found: Diagnosis) -> Row:
    """Return which checkpoint for real sport to take here."""
    from streaming_vlm_mlx.shipped import recommendation

    slow, limit = found.compute.kind in (None, "CPU"), found.compute.limit
    twice = "Without a GPU none keeps up, and each needs up to twice as much; use --pace every, or infer."
    half = limit // 2 if slow and limit is not None else limit
    return Row("for real sport", recommendation(found.machine.memory, half), not slow, twice if slow else "")


def _model_rows(model: Model) -> list[Row]:
    """Return the rows on a model's memory."""
    parts = (f"{name} {size / GIB:.2f}" for name, size in model.parts.items())
    span = f"{model.rounds} s, {model.tokens} tokens" + ("" if model.bounded else "; not bounded by these settings")
    limit = f"{'yes' if model.fits else 'no'}: the limit here is {model.limit / GIB:.1f} GiB"
    advice = "" if model.fits else "This checkpoint does not fit; quantize it with convert-ckpt, or take a smaller one."
    return [
        Row("model", f"{model.folder}, computed in {model.dtype}"),
        *([Row("preset", model.preset)] if model.preset else []),
        Row("windows", span),
        Row("needs", f"{model.peak / GIB:.2f} GiB: {', '.join(parts)}"),
        Row("fits", limit, model.fits, advice),
        *(Row("with", f"{change}: {peak / GIB:.2f} GiB") for change, peak in model.changes.items()),
    ]


def _print_table(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows(found):
        color = {True: "green", False: "bold yellow", None: ""}[row.well]
        table.add_row(Text(row.mark, style=color), row.name, Text(visible(row.value)))
        if row.advice:
            table.add_row("", "", Text(visible(row.advice), style="bold yellow"))
    Console().print(table)
