"""Where MLX computes: device, dtype and, on a Linux CPU, the BLAS under it.

MLX's CPU wheel brings the reference BLAS, which is more than twenty times slower than a real one. A library that is
loaded with global names before ``mlx.core`` takes its place; so `prepare` comes before the first import of MLX.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    import mlx.core as mx

BLAS_VARIABLE = "SVM_TUI_BLAS"

# The order is measured: MKL is what pip can bring; OpenBLAS is as quick as the MKL in torch and loads in a hundredth of
# the time. Fedora's threaded OpenBLAS ends in p, its plain name is the serial one.
_LIBRARIES = (
    ("Intel MKL", "libmkl_rt.so*"),
    ("OpenBLAS", "libopenblasp.so*"),
    ("OpenBLAS", "libopenblas.so*"),
)


@dataclass(frozen=True, slots=True)
class Blas:
    """A BLAS library on disk: the name to show, and the file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Backend:
    """What MLX computes on.

    Attributes:
        device: MLX's default device.
        kind: what drives it.
        dtype: what to compute in: bfloat16 on a GPU; float32 on a CPU, whatever the checkpoint's dtype, because
            half-precision products do not reach BLAS there.
        blas: the library that took the place of the wheel's reference BLAS; None where nothing had to or could.
        advice: one line on how to make it faster, or None.
    """

    device: Literal["gpu", "cpu"]
    kind: Literal["Metal", "CUDA", "CPU"]
    dtype: "mx.Dtype"
    blas: Blas | None = None
    advice: str | None = None


@functools.cache
def prepare() -> Backend:
    """Put a real BLAS under MLX where that helps, import MLX, and say what it computes on.

    A process can do this once; later calls return the first answer. ``SVM_TUI_BLAS`` names a library to take, or
    ``none``. Thread counts are the libraries' own (``OMP_NUM_THREADS``, ``MKL_NUM_THREADS``).

    Raises:
        SvmError: MLX or its device library is not installed, or the library in ``SVM_TUI_BLAS`` does not fit.
    """
    blas, advice = _put_blas_under_mlx() if _has_reference_blas() else (None, None)
    try:
        import mlx.core as mx
    except ImportError as error:
        raise SvmError(
            "MLX cannot be loaded: pip install 'svm-tui[cpu]', or 'svm-tui[cuda]' on a machine with an NVIDIA GPU."
        ) from error
    if mx.default_device().type == mx.DeviceType.cpu:
        return Backend("cpu", "CPU", mx.float32, blas, advice)
    return Backend("gpu", "Metal" if mx.metal.is_available() else "CUDA", mx.bfloat16)


def find_blas(folders: Iterable[Path], torch: Path | None) -> Iterator[Blas]:
    """Yield the BLAS libraries of `folders`, best first, then the one inside the torch package at `torch`."""
    folders = list(folders)
    for name, pattern in _LIBRARIES:
        for folder in folders:
            yield from (Blas(name, path) for path in sorted(folder.glob(pattern), reverse=True))
    if torch and (path := torch / "lib" / "libtorch_cpu.so").is_file():
        yield Blas("torch", path)


def load_blas(path: Path) -> None:
    """Load the library at `path` so that what is loaded later finds its BLAS.

    Raises:
        SvmError: it cannot be loaded, is no BLAS, or counts in 64-bit integers (ILP64).
    """
    try:
        # Local names first: a library that does not fit must not get in anybody's way.
        library = ctypes.CDLL(str(path))
        _choose_lp64(library)
        fits = _counts_in_32_bits(library)
        if fits:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise SvmError(f"{path} cannot be loaded: {reason}.") from error
    except AttributeError as error:
        raise SvmError(f"{path} is no BLAS with Fortran's names: {str(error).rsplit(': ', 1)[-1]}.") from error
    if not fits:
        raise SvmError(f"{path} counts in 64-bit integers (ILP64); MLX needs a BLAS with 32-bit ones (LP64).")


def matmul_gflops(clock: Callable[[], float], dtype: "mx.Dtype", size: int = 512, rounds: int = 5) -> float:
    """Return the best speed of `rounds` square matrix products, in 1e9 multiplications and additions a second.

    Args:
        clock: returns seconds.
        dtype: of both matrices.
        size: rows and columns.
        rounds: products that are timed, after one that is not.
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


def _has_reference_blas() -> bool:
    """Only the wheel ``mlx-cpu`` brings it; Metal, CUDA and builds from source have their own."""
    try:
        importlib.metadata.version("mlx-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return sys.platform == "linux"


def _put_blas_under_mlx() -> tuple[Blas | None, str | None]:
    wanted = os.environ.get(BLAS_VARIABLE, "")
    if wanted == "none":
        return None, f"{BLAS_VARIABLE} is 'none': MLX computes on its slow reference BLAS; unset it."
    if "mlx.core" in sys.modules:
        return None, (
            "mlx.core was imported before a faster BLAS could take its BLAS's place; "
            "call streaming_vlm_mlx.backend.prepare() first."
        )
    if wanted:
        return _named_by_user(Path(wanted).expanduser()), None
    blas = _first_that_loads(find_blas(_library_folders(), _torch_folder()))
    return blas, None if blas else f"MLX computes on its slow reference BLAS; {_remedy(platform.machine())}."


def _named_by_user(path: Path) -> Blas:
    try:
        load_blas(path)
    except SvmError as error:
        raise SvmError(f"{error} Set {BLAS_VARIABLE} to another library or to 'none', or unset it.") from error
    return Blas(path.name, path)


def _first_that_loads(found: Iterable[Blas]) -> Blas | None:
    for blas in found:
        try:
            load_blas(blas.path)
        except SvmError:
            continue
        return blas
    return None


def _remedy(machine: str) -> str:
    return "pip install 'svm-tui[cpu]'" if machine == "x86_64" else "install OpenBLAS (apt install libopenblas0)"


def _library_folders() -> Sequence[Path]:
    system = Path("/usr/lib")
    return (
        Path(sys.prefix, "lib"),
        Path("/usr/local/lib"),
        system / (sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"),
        Path("/usr/lib64"),
        system,
        Path("/opt/intel/oneapi/mkl/latest/lib"),
    )


def _torch_folder() -> Path | None:
    """Where torch is installed, found without importing it."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _choose_lp64(library: ctypes.CDLL) -> None:
    """Tell MKL's dispatcher which integers to use, whatever ``MKL_INTERFACE_LAYER`` says.

    At its first call it loads its chosen half with global names, so asking it first would be too late.
    """
    if hasattr(library, "MKL_Set_Interface_Layer"):
        library.MKL_Set_Interface_Layer(0)


def _counts_in_32_bits(library: ctypes.CDLL) -> bool:
    """Whether `library`'s integers are 32 bits wide.

    Its ``scopy`` is given a count that is 1 in its lower half and negative as a whole, as libblastrampoline does with
    ``isamax``: who reads 64 bits copies nothing.

    Raises:
        AttributeError: `library` has no BLAS by Fortran's names.
    """
    _ = library.sgemm_
    count, step = (ctypes.c_int32 * 2)(1, -1), (ctypes.c_int32 * 2)(1, 0)
    source, target = ctypes.c_float(1.0), ctypes.c_float(0.0)
    library.scopy_(count, ctypes.byref(source), step, ctypes.byref(target), step)
    return target.value == source.value


# What a session's result can depend on.
ENGINE = ("svm-tui", "mlx", "numpy", "av")


def installed_version(package: str) -> str | None:
    """Return the version of `package` as it is installed, None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, of this program and of what it computes and decodes with."""
    found = {name: installed_version(name) for name in ENGINE}
    return {"python": platform.python_version()} | {name: number for name, number in found.items() if number}
