"""The BLAS that MLX uses. It is loaded once a process, so most tests start processes of their own."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from streaming_vlm_mlx import backend
from streaming_vlm_mlx.errors import SvmError

LINUX_WHEEL = pytest.mark.skipif(not backend.has_reference_blas(), reason="MLX has a BLAS of its own here")
INSTALLED = {blas.name: blas for blas in backend.find_blas(backend.library_folders(), backend.torch_folder())}
MKL = pytest.mark.skipif("Intel MKL" not in INSTALLED, reason="MKL is not installed")

REPORT = """
import json
found = backend.prepare()
print(json.dumps([found.kind, found.blas and str(found.blas.path), found.advice]))
"""

PRODUCT = """
import numpy as np
backend.prepare()
import mlx.core as mx
a, b = (np.random.default_rng(0).standard_normal(shape).astype("f4") for shape in ((66, 512), (512, 200)))
error = np.abs(np.array(mx.array(a) @ mx.array(b)) - a.astype("f8") @ b.astype("f8")).max()
assert error < 1e-4, error
"""

INVERSE = """
n = mx.array(a[:60, :60])
assert np.abs(np.array(mx.linalg.inv(n, stream=mx.cpu) @ n) - np.eye(60)).max() < 1e-3
"""

TORCH = """
import torch
assert np.abs((torch.tensor(a) @ torch.tensor(b)).numpy() - a.astype("f8") @ b.astype("f8")).max() < 1e-4
u, s, v = torch.linalg.svd(torch.tensor(a))
assert (u * s @ v[:66] - torch.tensor(a)).abs().max() < 1e-4
again = np.array(mx.array(a) @ mx.array(b))
assert np.abs(again - a.astype("f8") @ b.astype("f8")).max() < 1e-4
"""


def run_python(code: str, **variables: str) -> str:
    """Return what `code` prints in a new interpreter that has imported `backend`."""
    environ = {k: v for k, v in os.environ.items() if k != backend.BLAS_VARIABLE} | variables
    done = subprocess.run(
        [sys.executable, "-c", f"from streaming_vlm_mlx import backend\n{code}"],
        env=environ,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_blas(integer: type[Any]) -> SimpleNamespace:
    """A library whose scopy reads its count as `integer`."""

    def scopy_(count: Any, source: Any, _step: Any, target: Any, _other: Any) -> None:
        if integer.from_buffer(count).value > 0:
            target._obj.value = source._obj.value

    return SimpleNamespace(sgemm_=None, scopy_=scopy_)


def bound_to(name: str, folder: Path) -> list[str]:
    """Return the files in which the dynamic linker found `name` for MLX's own libraries, by its log in `folder`."""
    lines = "\n".join(log.read_text(errors="replace") for log in folder.iterdir()).splitlines()
    hits = [line for line in lines if f"symbol `{name}'" in line and "mlx" in line.split(" to ")[0]]
    return [line.split(" to ")[1].split(" [")[0] for line in hits]


@LINUX_WHEEL
@pytest.mark.parametrize("blas", INSTALLED.values(), ids=INSTALLED.keys())
def test_every_library_found_here_takes_the_wheels_place_and_is_right(blas: backend.Blas, tmp_path: Path) -> None:
    log = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "ld")}
    run_python(PRODUCT + INVERSE, SVM_TUI_BLAS=str(blas.path), **log)
    family = "libmkl_" if blas.name == "Intel MKL" else blas.path.name
    assert any(family in path for path in bound_to("cblas_sgemm", tmp_path) + bound_to("sgemm_", tmp_path))


@LINUX_WHEEL
@pytest.mark.skipif(not INSTALLED, reason="no BLAS is installed")
def test_the_best_library_is_taken_unasked() -> None:
    kind, path, advice = json.loads(run_python(REPORT))
    assert (kind, path, advice) == ("CPU", str(next(iter(INSTALLED.values())).path), None)


@LINUX_WHEEL
@pytest.mark.skipif("torch" not in INSTALLED, reason="torch is not installed")
def test_torch_works_beside_it() -> None:
    run_python(PRODUCT + TORCH)


@LINUX_WHEEL
@MKL
def test_mkl_told_to_count_in_64_bits_still_serves_mlx(tmp_path: Path) -> None:
    log = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "ld")}
    run_python(PRODUCT, MKL_INTERFACE_LAYER="ILP64", **log)
    assert [path for path in bound_to("cblas_sgemm", tmp_path) if "_lp64" in path]
    assert not [path for path in bound_to("cblas_sgemm", tmp_path) if "ilp64" in path]


@LINUX_WHEEL
def test_none_leaves_the_reference_blas() -> None:
    kind, path, advice = json.loads(run_python(REPORT, SVM_TUI_BLAS="none"))
    assert (kind, path) == ("CPU", None)
    assert "SVM_TUI_BLAS" in advice


@LINUX_WHEEL
def test_an_early_import_of_mlx_is_found_out() -> None:
    _, path, advice = json.loads(run_python("import mlx.core\n" + REPORT))
    assert path is None
    assert "before" in advice


@LINUX_WHEEL
def test_a_library_that_a_user_names_must_load() -> None:
    code = "try:\n    backend.prepare()\nexcept backend.SvmError as error:\n    print(error)"
    printed = run_python(code, SVM_TUI_BLAS="/nowhere/libblas.so")
    assert printed.startswith("/nowhere/libblas.so cannot be loaded: ")
    assert "SVM_TUI_BLAS" in printed
    assert printed.count("\n") == 1


def test_a_process_is_prepared_once() -> None:
    assert backend.prepare() is backend.prepare()


def test_dtype_follows_the_device() -> None:
    import mlx.core as mx

    found = backend.prepare()
    assert (found.device, found.dtype) in {("cpu", mx.float32), ("gpu", mx.bfloat16)}
    assert (found.device == "cpu") == (found.kind == "CPU") == (mx.default_device().type == mx.DeviceType.cpu)


def test_libraries_come_best_first(tmp_path: Path) -> None:
    here, there, torch = tmp_path / "here", tmp_path / "there", tmp_path / "torch"
    for path in (
        here / "libopenblas.so.0",
        here / "libblas.so.3",
        there / "libmkl_rt.so.2",
        there / "libmkl_rt.so.3",
        there / "libopenblasp.so.0",
        torch / "lib" / "libtorch_cpu.so",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = backend.find_blas([here, there, tmp_path / "absent"], torch)
    assert [blas.path.name for blas in found] == [
        "libmkl_rt.so.3",
        "libmkl_rt.so.2",
        "libopenblasp.so.0",
        "libopenblas.so.0",
        "libtorch_cpu.so",
    ]
    assert list(backend.find_blas([tmp_path], None)) == []


def test_a_library_that_does_not_load_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "libopenblas.so.0").write_text("not a library")
    assert backend.first_that_loads(backend.find_blas([tmp_path], None)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the file is ELF's")
def test_a_library_without_blas_is_refused() -> None:
    import _ctypes

    with pytest.raises(SvmError, match=r"is not a BLAS.*sgemm_"):
        backend.load_blas(Path(_ctypes.__file__))


@pytest.mark.parametrize(("integer", "fits"), [(ctypes.c_int32, True), (ctypes.c_int64, False)])
def test_wide_integers_are_told_from_narrow_ones(integer: type[Any], fits: bool) -> None:
    assert backend.counts_in_32_bits(fake_blas(integer)) is fits


def test_versions_name_what_a_session_ran_on() -> None:
    found = backend.installed_versions()
    assert found["numpy"] == numpy.__version__
    assert {"python", "mlx", "av"} <= set(found)
    assert backend.installed_version("no-such-package") is None


def ticking(*seconds: float) -> Callable[[], float]:
    """A clock that moves on by the next of `seconds` at every second look."""
    looks = iter([0.0, *(look for end in accumulate(seconds) for look in (end, end))])
    return lambda: next(looks)


def test_speed_is_that_of_the_best_round() -> None:
    dtype = backend.prepare().dtype
    gflops = backend.matmul_gflops(ticking(0.5, 0.25, 1.0), dtype, size=10, rounds=3)
    assert gflops == pytest.approx(2 * 10**3 / 0.25 / 1e9)


def test_bandwidth_counts_what_a_copy_reads_and_writes() -> None:
    backend.prepare()
    # The first round is a warm-up.
    assert backend.copy_bandwidth(ticking(9.0, 0.5, 0.25, 1.0), size=1 << 10, rounds=3) == 2 * (1 << 10) / 0.5


FREED = """
backend.prepare()
import resource
import mlx.core as mx
x = mx.zeros(10_000_000)
mx.eval(x + 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    mx.eval(x + 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@LINUX_WHEEL
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_the_memory_of_a_freed_array_is_used_again() -> None:
    # One array has 9,766 pages of 4 KiB; one of the twenty may find its memory taken.
    assert int(run_python(FREED)) < 2 * 9_766
