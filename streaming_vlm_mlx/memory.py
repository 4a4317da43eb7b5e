"""Reads the memory in use; cheap enough to call every second."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from streaming_vlm_mlx.config_io import FromDict


# A session keeps one for each of its seconds.
@dataclass(frozen=True, slots=True)
class Memory(FromDict):
    """Bytes in use: MLX's active and cached memory and its peak, the process's memory; and the machine's total."""

    active: int = 0
    cache: int = 0
    peak: int = 0
    process: int = 0
    machine: int = 0


def read_memory() -> Memory:
    """Return the bytes in use now; `Memory.peak` is MLX's since the process started."""
    import mlx.core as mx

    return Memory(
        active=mx.get_active_memory(),
        cache=mx.get_cache_memory(),
        peak=mx.get_peak_memory(),
        process=process_memory(),
        machine=machine_memory(),
    )


@contextmanager
def wired_memory() -> Iterator[None]:
    """Let Metal keep what MLX holds in memory resident, as much as it recommends; elsewhere do nothing.

    Otherwise macOS may page weights out between two seconds.
    """
    import mlx.core as mx

    if not mx.metal.is_available():
        yield
        return
    before = mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    try:
        yield
    finally:
        mx.synchronize()
        mx.set_wired_limit(before)


def process_memory() -> int:
    """Return the bytes of this process: resident memory on Linux, the footprint of Activity Monitor on macOS."""
    return _darwin_footprint() if sys.platform == "darwin" else _linux_resident()


def peak_memory(pid: int | None = None) -> int:
    """Return the most bytes that this process held until now; on Linux, also of another process by its `pid`."""
    status = Path("/proc", str(pid or "self"), "status")
    if status.exists():
        # Unlike getrusage, this does not count the process that started this one.
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_memory())


@cache
def machine_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def mac_gpu_memory(machine: int) -> int:
    """Return the bytes that macOS recommends for the GPU on a Mac with `machine` bytes, where nothing was changed.

    Metal's ``recommendedMaxWorkingSetSize`` is two thirds of the memory up to 32 GiB, and three quarters above.
    """
    return machine * 3 // 4 if machine > 32 << 30 else machine * 2 // 3


def available_memory() -> int | None:
    """Return the bytes that a new program could use without swapping; None where the system does not report it."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _linux_resident() -> int:
    pages = Path("/proc/self/statm").read_bytes().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class _Rusage(ctypes.Structure):
    """``rusage_info_v0`` of macOS's ``sys/resource.h``."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("user_time", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("pkg_idle_wkups", ctypes.c_uint64),
        ("interrupt_wkups", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("proc_start_abstime", ctypes.c_uint64),
        ("proc_exit_abstime", ctypes.c_uint64),
    )


def _darwin_footprint() -> int:
    usage = _Rusage()
    ctypes.CDLL(None).proc_pid_rusage(os.getpid(), 0, ctypes.byref(usage))
    return int(usage.phys_footprint)
