"""Work on a daemon thread: its order, its errors, and callers that give up."""

import asyncio
import inspect
import signal
import threading
from collections.abc import Iterator

import pytest

from streaming_vlm_mlx.background import BackgroundThread, run_coroutine


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_coroutine_is_run_and_closed_also_when_the_loop_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    assert run_coroutine(answer()) == 42
    monkeypatch.setattr(asyncio, "run", interrupted)
    coroutine = answer()
    with pytest.raises(KeyboardInterrupt):
        run_coroutine(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


class Ended(KeyboardInterrupt):
    """What the process does on SIGTERM."""


@pytest.fixture
def sigterm() -> Iterator[None]:
    """SIGTERM raises `Ended`."""

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
def test_sigterm_in_a_callback_of_the_loop_cancels_the_coroutine_before_it_ends_the_process() -> None:
    seen = list[str]()

    async def work() -> None:
        callbacks = asyncio.get_running_loop()

        def callback() -> None:
            signal.raise_signal(signal.SIGTERM)
            seen.append("the callback goes on")

        callbacks.call_soon(callback)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("the coroutine tidies up")
            raise

    with pytest.raises(Ended):
        run_coroutine(work())
    assert seen == ["the callback goes on", "the coroutine tidies up"]


@pytest.mark.usefixtures("sigterm")
def test_a_second_sigterm_does_not_wait() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second one waits")

    with pytest.raises(Ended):
        run_coroutine(work())


async def test_work_runs_in_order_on_one_thread_that_ends() -> None:
    worker, done = BackgroundThread("svm-test"), list[int]()

    def work(number: int) -> threading.Thread:
        done.append(number)
        return threading.current_thread()

    threads = await asyncio.gather(*(worker.run(lambda n=n: work(n)) for n in range(5)))
    assert done == [0, 1, 2, 3, 4]
    (thread,) = set(threads)
    assert thread.daemon
    assert thread.name == "svm-test"
    ended = threading.Event()
    worker.close(ended.set)
    await asyncio.to_thread(thread.join, 5)
    assert ended.is_set()
    assert not thread.is_alive()


async def test_an_error_is_raised_where_the_caller_waits() -> None:
    worker = BackgroundThread("svm-test")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: "still there") == "still there"
    worker.close()


async def test_a_cancelled_caller_leaves_work_under_way_to_end() -> None:
    worker, begun, go, ended = BackgroundThread("svm-test"), *(threading.Event() for _ in range(3))

    def work() -> None:
        begun.set()
        assert go.wait(30)
        ended.set()

    waiting = asyncio.create_task(worker.run(work))
    assert await asyncio.to_thread(begun.wait, 30)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go.set()
    assert await worker.run(ended.is_set)
    worker.close()


async def test_work_whose_caller_is_cancelled_before_it_begins_is_skipped() -> None:
    worker, go, done = BackgroundThread("svm-test"), threading.Event(), list[str]()
    first = asyncio.create_task(worker.run(lambda: go.wait(30)))
    second = asyncio.create_task(worker.run(lambda: done.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go.set()
    assert await first
    assert await worker.run(lambda: list(done)) == []
    worker.close()
