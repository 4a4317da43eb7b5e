"""What the doctor looks at, as plain facts."""

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.versions import installed_version
from tui.folders import CHECKPOINTS, state_folder

PACKAGES = ("svm-tui", "mlx", "numpy", "av", "textual", "transformers")
VARIABLES = ("SVM_TUI_BLAS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NO_COLOR")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Compute:
    """What MLX computes on.

    Attributes:
        kind: Metal, CUDA or CPU; None when MLX can not be loaded.
        dtype: what weights and activations are computed in.
        blas: the library that does matrix products on a CPU, when it is not MLX's own choice.
        blas_path: its file.
        gflops: measured speed of a matrix product, 1e9 operations a second.
        advice: what would make it faster, or run at all.
    """

    kind: str | None = None
    dtype: str | None = None
    blas: str | None = None
    blas_path: str | None = None
    gflops: float | None = None
    advice: str | None = None


@dataclass(frozen=True)
class Machine:
    """The machine; memory in bytes, `available` is None where the system does not say."""

    system: str
    cores: int
    memory: int
    available: int | None
    nvidia: bool


@dataclass(frozen=True)
class Terminal:
    """The terminal on stdout: size in cells, colours it can show (0 for none, or no terminal)."""

    columns: int
    lines: int
    colors: int
    interactive: bool


@dataclass(frozen=True)
class Model:
    """What a checkpoint takes in memory, in bytes.

    Attributes:
        folder: the checkpoint's.
        dtype: what it is computed in.
        parts: weights, cache at full windows, and what vision tower and decoder hold while they work.
        peak: at the fullest moment.
        limit: what it may take here.
        tokens: that the cache holds then.
        rounds: seconds that the windows span.
        bounded: whether the settings bound what is kept.
        changes: what would make it smaller, and the peak that this leaves.
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

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.peak <= self.limit


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor found; versions are None for what is not installed."""

    compute: Compute
    machine: Machine
    terminal: Terminal
    versions: Mapping[str, str | None]
    variables: Mapping[str, str]
    checkpoints: str
    state: str
    model: Model | None = None

    @property
    def advice(self) -> list[str]:
        """What to do, one line each; empty when all is well."""
        found = [self.compute.advice] if self.compute.advice else []
        if self.machine.nvidia and self.compute.kind == "CPU":
            found.append("An NVIDIA GPU is here and MLX does not use it; pip install 'svm-tui[cuda]' in a new venv.")
        if self.terminal.interactive and self.terminal.colors < 256 and "NO_COLOR" not in self.variables:
            found.append("This terminal shows few colours and pictures need many; set TERM=xterm-256color if it can.")
        if self.terminal.interactive and (self.terminal.columns < 80 or self.terminal.lines < 24):
            found.append("This terminal is small; the player wants 80 columns and 24 lines.")
        return found


def diagnose(environ: Mapping[str, str], clock: Callable[[], float]) -> Diagnosis:
    """Look at this machine; `clock` returns seconds and times the matrix product."""
    return Diagnosis(
        compute=_compute(clock),
        machine=_machine(),
        terminal=_terminal(),
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        variables={name: environ[name] for name in VARIABLES if name in environ},
        checkpoints=str(CHECKPOINTS.resolve()),
        state=str(state_folder(environ, Path.home())),
    )


def weigh(name: str, settings: Path | None, limit: int | None = None) -> Model:
    """Add up what checkpoint `name` takes under its own stream settings, those in the file `settings` laid over them.

    Args:
        name: a folder, a name below checkpoints/, or a hub id.
        settings: YAML, or None.
        limit: bytes that it may take; None for what this machine has for it.

    Raises:
        SvmError: the checkpoint or the settings can not be used.
    """
    from streaming_vlm_mlx import backend
    from streaming_vlm_mlx.config import read_yaml
    from streaming_vlm_mlx.locate import locate, read_stream_config

    machine = backend.prepare()
    from streaming_vlm_mlx.checkpoints.budget import budget_of, memory_limit, ways_out

    folder = locate(name)
    stream = read_stream_config(folder)
    if settings:
        stream = stream.merged(read_yaml(settings))
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
    )


def _compute(clock: Callable[[], float]) -> Compute:
    from streaming_vlm_mlx import backend

    try:
        found = backend.prepare()
    except SvmError as error:
        return Compute(advice=str(error))
    # A GPU is only busy with a large product, a reference BLAS only soon done with a small one.
    size = 512 if found.device == "cpu" else 4096
    return Compute(
        kind=found.kind,
        dtype=str(found.dtype).rsplit(".", 1)[-1],
        blas=found.blas.name if found.blas else None,
        blas_path=str(found.blas.path) if found.blas else None,
        gflops=round(backend.matmul_gflops(clock, found.dtype, size), 1),
        advice=found.advice,
    )


def _machine() -> Machine:
    from streaming_vlm_mlx.measure.memory import available_memory, machine_memory

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory=machine_memory(),
        available=available_memory(),
        nvidia=NVIDIA_DRIVER.exists(),
    )


def _terminal() -> Terminal:
    from rich.console import Console

    console = Console()
    depths = {"standard": 16, "windows": 16, "256": 256, "truecolor": 1 << 24}
    shown = None if console.no_color else console.color_system
    return Terminal(console.width, console.height, depths.get(shown or "", 0), console.is_terminal)
