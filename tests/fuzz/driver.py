"""Runs cases in worker processes, a new one after each failure, and judges what became of them."""

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.fuzz.case import MOST_BYTES, MOST_SECONDS

# Characters of a dead process's stderr.
MOST_ERRORS = 4000
ROOT = Path(__file__).parents[2]
# Seconds after which a case that does not compute hangs. A machine with other work takes many times as long as an idle
# one; the limit on processor time does not change with that.
PATIENCE = 180.0


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        kind: its kind.
        number: its number.
        failure: what is wrong; "" where nothing is.
        trace: the traceback of the failure, if Python raised it.
        refused: the last named error; "" where the product refused nothing.
        seconds: processor time of the product.
        peak: the most bytes of the process.
    """

    kind: str
    number: int
    failure: str = ""
    trace: str = ""
    refused: str = ""
    seconds: float = 0.0
    peak: int = 0


class Worker:
    """A process for cases, which is replaced when a case has broken it.

    Attributes:
        seed: of all cases.
    """

    def __init__(self, seed: int, keep: str = "", patience: float = PATIENCE, seconds: float = MOST_SECONDS) -> None:
        """Run cases of `seed`.

        Args:
            seed: of all cases.
            keep: a folder in which the files of each case stay; "" for none.
            patience: seconds to wait for a case.
            seconds: processor time that a case may take.
        """
        self.seed, self._keep, self._patience, self._seconds = seed, keep, patience, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        # A process that dies cannot remove its files.
        self._folder = tempfile.TemporaryDirectory(prefix="svm-fuzz-")

    def run(self, kind: str, number: int) -> Outcome:
        """Run a case and return what became of it."""
        is_new = self._process is None
        outcome = self._try(kind, number)
        # The C library keeps memory that earlier cases have freed; a command of svm-tui begins without it.
        if outcome.peak > MOST_BYTES and not is_new:
            self._stop()
            outcome = self._try(kind, number)
        return outcome

    def _try(self, kind: str, number: int) -> Outcome:
        process = self._process = self._process or self._start()
        stdin, stdout = _pipes(process)
        # A process that has died is noticed at the answer.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{kind}\t{self.seed}\t{number}\t{self._keep}\n".encode())
            stdin.flush()
        line = _read_line(stdout, self._patience)
        if line is None:
            process.kill()
            self._stop()
            return Outcome(kind, number, f"hangs: no end after {self._patience:g} s", seconds=self._patience)
        if not line:
            return Outcome(kind, number, *self._why_it_died())
        values: dict[str, Any] = json.loads(line)
        if not values.pop("fresh"):
            self._stop()
        values.pop("results")
        return Outcome(kind, number, **values)

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._errors.close()
        self._folder.cleanup()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": self._folder.name},
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        stdin, stdout = _pipes(process)
        # At the end of its stdin the process removes its files and ends.
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stdout.close()

    def _why_it_died(self) -> tuple[str, str]:
        """Return what ended the process, and what it wrote on stderr."""
        assert self._process is not None
        status = self._process.wait()
        self._stop()
        if status == -signal.SIGXCPU:
            return f"took more than {self._seconds:g} s of processor time", self._last_errors()
        return f"ended the process with {signal.Signals(-status).name if status < 0 else status}", self._last_errors()

    def _last_errors(self) -> str:
        self._errors.seek(0)
        written = self._errors.read().decode("utf-8", "replace")
        self._errors.truncate(0)
        return written[-MOST_ERRORS:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _read_line(stream: IO[bytes], patience: float) -> bytes | None:
    """Return the next line of `stream`, empty at its end; None when none comes within `patience` seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return stream.readline() if selector.select(patience) else None


def run_cases(
    cases: Iterable[tuple[str, int]], seed: int, jobs: int, report: Callable[[Outcome], None], keep: str = ""
) -> None:
    """Run `cases`, kinds and numbers, in `jobs` processes at a time, and `report` each outcome from this thread."""
    pending: Iterator[tuple[str, int]] = iter(cases)
    lock, outcomes = threading.Lock(), queue.SimpleQueue[Outcome | None]()
    stopped = threading.Event()

    def work() -> None:
        try:
            with Worker(seed, keep) as worker:
                while not stopped.is_set():
                    with lock:
                        case = next(pending, None)
                    if case is None:
                        return
                    outcomes.put(worker.run(*case))
        finally:
            outcomes.put(None)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        ended = 0
        while ended < jobs:
            outcome = outcomes.get()
            if outcome is None:
                ended += 1
            else:
                report(outcome)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
