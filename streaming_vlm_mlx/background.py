"""Work on a daemon thread, off the event loop, and an event loop for one coroutine."""

import asyncio
import queue
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import closing, suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on an event loop of its own, and return what it returns.

    The first SIGTERM cancels it, as asyncio does with Ctrl-C; what the process does on SIGTERM follows once it has
    ended. A second one does not wait.
    """
    # A signal may come before the loop has begun; without being closed, the coroutine would then warn on stderr.
    with closing(coroutine), closing(main := _cancelled_by_sigterm(coroutine)):
        return asyncio.run(main)


async def _cancelled_by_sigterm(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what `coroutine` returns.

    An exception that a handler raises anywhere in the loop's callbacks may end in any of them.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return await coroutine
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    arrived: list[int] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if len(arrived) > 1:
            handler(number, frame)
        # Wakes a loop that waits for its sockets.
        loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGTERM, cancel)
    try:
        return await coroutine
    finally:
        signal.signal(signal.SIGTERM, handler)
        if len(arrived) == 1:
            handler(signal.SIGTERM, None)


class BackgroundThread:
    """One daemon thread that runs what it is given, in order.

    The loop's own executor would keep the program from ending while a camera is silent or weights download.
    """

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run_jobs, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        When the caller is cancelled, work under way goes on and its result is dropped; work that has not begun is
        skipped.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            if done.cancelled():
                return
            try:
                report, result = _succeed, work()
            except BaseException as error:  # noqa: BLE001 - raised where the caller waits
                report, result = _fail, error  # type: ignore[assignment]
            # The program may have ended by now, and the loop with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(report, done, result)

        self._jobs.put(job)
        return await done

    def put(self, work: Callable[[], None]) -> None:
        """Run `work`, which must not raise; nobody waits for it."""
        self._jobs.put(work)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """End the thread after the work that it has, and after `last`."""
        self._jobs.put(last)
        self._jobs.put(None)

    def _run_jobs(self) -> None:
        for job in iter(self._jobs.get, None):
            job()
            # A job holds what it reads from; idle, the thread holds nothing.
            del job


def run_interruptibly(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises; it runs on a daemon thread, so that Ctrl-C ends the wait.

    After a signal `work` goes on, and its result is dropped.
    """
    done: Future[T] = Future()

    def job() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            done.set_exception(error)

    threading.Thread(target=job, name="svm-opener", daemon=True).start()
    return done.result()


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
