"""Several processes on this machine, as ``mlx.launch`` would start them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# A process of a test that hangs is a failure; a busy machine is none.
PATIENCE = 240
# Seconds within which a process ends that another one was lost to.
REPORT_WITHIN = 30


@dataclass(frozen=True)
class Ended:
    """What became of one process, and when, on a clock in seconds that all of a test's processes share."""

    status: int
    out: str
    err: str
    at: float

    @property
    def result(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out.splitlines()[-1])


def start(folder: Path, count: int, command: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Start `count` processes of Python with the arguments `command`, ranks 0 and up, that find one another."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]), encoding="utf-8")
    here = {"MLX_HOSTFILE": str(hosts), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **here, "MLX_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def wait(processes: Sequence[subprocess.Popen[str]]) -> list[Ended]:
    """Return what became of `processes`; none is left behind."""
    try:
        with ThreadPoolExecutor(len(processes)) as threads:
            return list(threads.map(_wait, processes))
    finally:
        for process in processes:
            process.kill()


def _wait(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, out, err, time.monotonic())


def run(folder: Path, count: int, command: Sequence[str]) -> list[Ended]:
    """Start processes as `start` does, and return what became of them."""
    return wait(start(folder, count, command))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
