"""Work that may take long, or for ever, off the event loop and never in the way of quitting."""

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class BackgroundThread:
    """One daemon thread that does what it is given, in order.

    The loop's own executor would keep the program from ending while a camera is silent or weights are fetched.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises; it goes on when the waiting is given up."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                wait, result = _succeed, work()
            except BaseException as error:  # noqa: BLE001 - handed on to the waiting side
                wait, result = _fail, error  # type: ignore[assignment]
            # The loop is closed when the program has ended meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(wait, done, result)

        self._jobs.put(job)
        return await done

    def put(self, work: Callable[[], None]) -> None:
        """Do `work`, which raises nothing and nobody waits for."""
        self._jobs.put(work)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """End the thread behind the work that it has, and `last`."""
        self._jobs.put(last)
        self._jobs.put(None)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            job()


def leave(status: int) -> NoReturn:
    """End the process with `status`, here and now.

    Python's own end takes its time, and stops a thread that still computes in the middle of C++ code, which aborts.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
