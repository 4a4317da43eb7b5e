"""Work off the event loop that may take long, or forever, and never delays quitting."""

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
    """One daemon thread that runs the work it is given, in order.

    The event loop's own executor would keep the program from ending while a camera is silent or weights are downloaded.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises; cancelling the wait does not stop the work."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                settle, result = _succeed, work()
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                settle, result = _fail, error  # type: ignore[assignment]
            # The loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, done, result)

        self._jobs.put(job)
        return await done

    def put(self, work: Callable[[], None]) -> None:
        """Run `work`, which must not raise, without waiting for it."""
        self._jobs.put(work)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """End the thread after the work that is queued and `last`."""
        self._jobs.put(last)
        self._jobs.put(None)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            job()


def leave(status: int) -> NoReturn:
    """End the process with `status` at once.

    Python's regular exit takes longer, and it stops a thread that still computes inside C++ code, which aborts.
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
