"""Cases that break each promise, to test the suite itself; no kind of its own."""

import os
import time

from streaming_vlm_mlx.errors import SvmError
from tests.fuzz.case import Case


def run(case: Case) -> None:
    """Break the promise that the case's number stands for; 6 and 7 break none, and 8 none in a new process."""
    number = int(case.folder.name.split("-")[1])
    calls = (_divide, _compute, _fill, os.abort, _say_nothing, _sleep, lambda: _refuse(case), lambda: None, _keep)
    case.attempt(calls[number])


def _divide() -> None:
    raise ZeroDivisionError


def _compute() -> None:
    while True:
        pass


def _fill() -> None:
    bytearray(os.urandom(1 << 20) * 1100)


# What each case of `_keep` leaves.
_KEPT: list[bytes] = []


def _keep() -> None:
    _KEPT.append(b"x" * (300 << 20))
    bytearray(b"x" * (250 << 20))


def _say_nothing() -> None:
    raise SvmError("")


def _sleep() -> None:
    time.sleep(99)


def _refuse(case: Case) -> None:
    raise SvmError(f"the number {case.rng.random()} is refused; take another.")
