"""Ctrl-C and SIGTERM while a file is finished."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_held() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM wait for the end of the block; a second one does not wait.

    In another thread than the main one this does nothing: signals arrive in the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # One that is ignored, or that Python does not know, stays as it is.
    before = {number: handler for number, handler in found.items() if callable(handler)}
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if len(waiting) == 1:
            signal.raise_signal(waiting[0])
