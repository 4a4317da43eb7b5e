import ctypes
import mmap
import os
import resource
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from streaming_vlm_mlx import memory


def test_mlx_counts_what_an_array_takes() -> None:
    before = memory.read_memory()
    held = mx.ones((1 << 20,), dtype=mx.float32)
    mx.eval(held)
    during = memory.read_memory()
    assert during.active - before.active >= held.nbytes
    assert during.peak >= during.active
    del held
    assert memory.read_memory().active <= during.active - (4 << 20)


def test_the_process_grows_by_what_it_touches() -> None:
    before = memory.process_memory()
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * len(block))
        assert memory.process_memory() - before >= 60 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_the_process_is_no_larger_than_its_own_peak() -> None:
    now = memory.process_memory()
    assert 0 < now <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (8 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_machine_and_available_memory_are_the_kernels() -> None:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert memory.machine_memory() == int(fields["MemTotal"].split()[0]) * 1024
    available = memory.available_memory()
    assert available is not None
    assert 0 < available < memory.machine_memory()


def test_the_process_fits_in_the_machine() -> None:
    now = memory.read_memory()
    assert 0 < now.process < now.machine


def test_darwins_footprint_lies_where_its_header_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``rusage_info_v0`` is 16 bytes of uuid and ten 64-bit numbers, of which the footprint is the eighth."""
    asked, sizes = [], []

    class System:
        @staticmethod
        def proc_pid_rusage(pid: int, flavor: int, buffer: object) -> int:
            asked.append((pid, flavor))
            sizes.append(ctypes.sizeof(buffer._obj))  # type: ignore[attr-defined]
            numbers = (ctypes.c_uint64 * 10)(*range(1, 11))
            ctypes.memmove(ctypes.addressof(buffer._obj) + 16, numbers, 80)  # type: ignore[attr-defined]
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _: System)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.process_memory() == 8
    assert sizes == [96]
    assert asked == [(os.getpid(), 0)]
