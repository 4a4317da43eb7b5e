"""Chooses what MLX computes on: device, dtype and, on a Linux CPU, the BLAS library.

MLX's CPU wheel ships the reference BLAS, which is more than twenty times slower than an optimised one. A library that
is loaded with global symbols before ``mlx.core`` takes its place, so call `prepare` before the first import of MLX.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    import mlx.core as mx

BLAS_VARIABLE = "SVM_TUI_BLAS"

# Best first, as measured. pip can install MKL. OpenBLAS is as fast as the MKL in torch and loads in a hundredth of the
# time. On Fedora the name of the threaded OpenBLAS ends in p; the plain name is the serial one.
_LIBRARIES = (
    ("Intel MKL", "libmkl_rt.so*"),
    ("OpenBLAS", "libopenblasp.so*"),
    ("OpenBLAS", "libopenblas.so*"),
)


@dataclass(frozen=True, slots=True)
class Blas:
    """A BLAS library on disk: its display name and its file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Backend:
    """The device that MLX computes on.

    Attributes:
        device: MLX's default device.
        kind: the API that drives it.
        dtype: what to compute in: bfloat16 on a GPU; float32 on a CPU, whatever the checkpoint's dtype, because
            half-precision products do not use BLAS there.
        blas: the library that replaces the wheel's reference BLAS; None where none is needed or found.
        advice: one line on how to make it faster, or None.
    """

    device: Literal["gpu", "cpu"]
    kind: Literal["Metal", "CUDA", "CPU"]
    dtype: "mx.Dtype"
    blas: Blas | None = None
    advice: str | None = None


@functools.cache
def prepare() -> Backend:
    """Load a fast BLAS where MLX needs one, import MLX, and return what it computes on.

    This happens once a process; later calls return the same answer. ``SVM_TUI_BLAS`` names the library to load, or
    ``none``. The libraries choose their thread counts (``OMP_NUM_THREADS``, ``MKL_NUM_THREADS``).

    Raises:
        SvmError: MLX or its device library is not installed, or the library in ``SVM_TUI_BLAS`` cannot be used.
    """
    blas, advice = _put_blas_under_mlx() if has_reference_blas() else (None, None)
    try:
        import mlx.core as mx
    except ImportError as error:
        raise SvmError(
            "MLX cannot be loaded: pip install 'svm-tui[cpu]', or 'svm-tui[cuda]' on a machine with an NVIDIA GPU."
        ) from error
    if mx.default_device().type == mx.DeviceType.cpu:
        keep_freed_memory()
        return Backend("cpu", "CPU", mx.float32, blas, advice)
    return Backend("gpu", "Metal" if mx.metal.is_available() else "CUDA", mx.bfloat16)


# Parameters of glibc's mallopt, from malloc.h: blocks above the first go back to the system when they are freed, and
# so does free memory above the second.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_KEPT_BLOCK, _KEPT_BYTES = 64 << 20, 256 << 20


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed arrays for the next ones; other C libraries are left alone.

    MLX on a CPU frees an array as soon as it is used. New pages for the next one take longer than its arithmetic.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def find_blas(folders: Iterable[Path], torch: Path | None) -> Iterator[Blas]:
    """Yield the BLAS libraries of `folders`, best first, then the one inside the torch package at `torch`."""
    folders = list(folders)
    for name, pattern in _LIBRARIES:
        for folder in folders:
            yield from (Blas(name, path) for path in sorted(folder.glob(pattern), reverse=True))
    if torch and (path := torch / "lib" / "libtorch_cpu.so").is_file():
        yield Blas("torch", path)


def load_blas(path: Path) -> None:
    """Load the library at `path` with global symbols, so that MLX, which is loaded later, calls its BLAS.

    Raises:
        SvmError: it cannot be loaded, is not a BLAS, or uses 64-bit integers (ILP64).
    """
    try:
        # Local symbols first: a library that cannot be used must not shadow other libraries.
        library = ctypes.CDLL(str(path))
        _choose_lp64(library)
        fits = counts_in_32_bits(library)
        if fits:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise SvmError(f"{path} cannot be loaded: {reason}.") from error
    except AttributeError as error:
        raise SvmError(f"{path} is not a BLAS with Fortran symbols: {str(error).rsplit(': ', 1)[-1]}.") from error
    if not fits:
        raise SvmError(f"{path} uses 64-bit integers (ILP64); MLX needs a BLAS with 32-bit integers (LP64).")


def matmul_gflops(clock: Callable[[], float], dtype: "mx.Dtype", size: int = 512, rounds: int = 5) -> float:
    """Return the best speed of `rounds` square matrix products, in 1e9 floating-point operations a second.

    Args:
        clock: returns seconds.
        dtype: of both matrices.
        size: rows and columns.
        rounds: timed products, after one that is not timed.
    """
    import mlx.core as mx

    a = mx.random.uniform(shape=(size, size), key=mx.random.key(0)).astype(dtype)
    mx.eval(a @ a)
    seconds = []
    for _ in range(rounds):
        begin = clock()
        mx.eval(a @ a)
        seconds.append(clock() - begin)
    return 2e-9 * size**3 / min(seconds)


def copy_bandwidth(clock: Callable[[], float], size: int = 1 << 29, rounds: int = 7) -> float:
    """Return the bytes a second that a copy reads and writes, the median of `rounds`; on a CPU with all cores.

    Args:
        clock: returns seconds.
        size: bytes that are copied.
        rounds: timed copies, after one that is not timed.
    """
    import mlx.core as mx
    import numpy as np

    seconds = []
    if mx.default_device().type == mx.DeviceType.cpu:
        sources = np.array_split(np.ones(size // 4, np.float32), usable_cores())
        targets = [np.zeros_like(source) for source in sources]
        with ThreadPoolExecutor(len(sources)) as threads:
            for _ in range(rounds + 1):
                begin = clock()
                list(threads.map(np.copyto, targets, sources))
                seconds.append(clock() - begin)
    else:
        source = mx.ones((size // 4,), mx.float32)
        for _ in range(rounds + 1):
            begin = clock()
            mx.eval(source + 0.0)
            seconds.append(clock() - begin)
    return 2 * size / statistics.median(seconds[1:])


def has_reference_blas() -> bool:
    """Return whether MLX here uses the reference BLAS: only the wheel ``mlx-cpu`` ships it."""
    try:
        importlib.metadata.version("mlx-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return sys.platform == "linux"


def _put_blas_under_mlx() -> tuple[Blas | None, str | None]:
    wanted = os.environ.get(BLAS_VARIABLE, "")
    if wanted == "none":
        return None, f"{BLAS_VARIABLE} is 'none', so MLX uses its slow reference BLAS; unset it."
    if "mlx.core" in sys.modules:
        return None, (
            "mlx.core was imported before a faster BLAS could be loaded; "
            "call streaming_vlm_mlx.backend.prepare() first."
        )
    if wanted:
        return _named_by_user(Path(wanted).expanduser()), None
    blas = first_that_loads(find_blas(library_folders(), torch_folder()))
    return blas, None if blas else f"MLX uses its slow reference BLAS; {_remedy(platform.machine())}."


def _named_by_user(path: Path) -> Blas:
    try:
        load_blas(path)
    except SvmError as error:
        raise SvmError(f"{error} Set {BLAS_VARIABLE} to another library or to 'none', or unset it.") from error
    return Blas(path.name, path)


def first_that_loads(found: Iterable[Blas]) -> Blas | None:
    """Load the first of the libraries `found` that can be used, and return it; None if none can."""
    for blas in found:
        try:
            load_blas(blas.path)
        except SvmError:
            continue
        return blas
    return None


def _remedy(machine: str) -> str:
    return "pip install 'svm-tui[cpu]'" if machine == "x86_64" else "install OpenBLAS (apt install libopenblas0)"


def library_folders() -> Sequence[Path]:
    """Return the folders in which BLAS libraries are looked for, in order."""
    system = Path("/usr/lib")
    return (
        Path(sys.prefix, "lib"),
        Path("/usr/local/lib"),
        system / (sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"),
        Path("/usr/lib64"),
        system,
        Path("/opt/intel/oneapi/mkl/latest/lib"),
    )


def torch_folder() -> Path | None:
    """Return where torch is installed, without importing it; None where it is not."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _choose_lp64(library: ctypes.CDLL) -> None:
    """Make MKL's dispatcher use 32-bit integers, whatever ``MKL_INTERFACE_LAYER`` says.

    Its first call loads the chosen interface with global symbols, so the choice must come before any call.
    """
    if hasattr(library, "MKL_Set_Interface_Layer"):
        library.MKL_Set_Interface_Layer(0)


def counts_in_32_bits(library: ctypes.CDLL) -> bool:
    """Return whether the integers of `library` are 32 bits wide.

    Its ``scopy`` gets a count whose lower half is 1 and which is negative as a whole (libblastrampoline does the same
    with ``isamax``): a library that reads 64 bits copies nothing.

    Raises:
        AttributeError: `library` has no BLAS with Fortran symbols.
    """
    _ = library.sgemm_
    count, step = (ctypes.c_int32 * 2)(1, -1), (ctypes.c_int32 * 2)(1, 0)
    source, target = ctypes.c_float(1.0), ctypes.c_float(0.0)
    library.scopy_(count, ctypes.byref(source), step, ctypes.byref(target), step)
    return target.value == source.value


# Packages that a session's result can depend on.
ENGINE = ("svm-tui", "mlx", "numpy", "av")


def installed_version(package: str) -> str | None:
    """Return the version of the installed `package`; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, of this program and of the packages that it computes and decodes with."""
    found = {name: installed_version(name) for name in ENGINE}
    return {"python": platform.python_version()} | {name: number for name, number in found.items() if number}
