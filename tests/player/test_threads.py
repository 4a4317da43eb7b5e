"""Work off the loop."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tui.player.threads import BackgroundThread

ROOT = Path(__file__).parents[2]


async def test_work_is_done_in_order_on_one_thread_that_ends() -> None:
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


async def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    worker = BackgroundThread("svm-test")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: "still there") == "still there"
    worker.close()


async def test_giving_up_the_waiting_leaves_the_work() -> None:
    worker, go = BackgroundThread("svm-test"), threading.Event()
    waiting = asyncio.create_task(worker.run(go.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go.set()
    assert await worker.run(lambda: 1) == 1
    worker.close()


def test_work_that_never_ends_does_not_keep_the_program() -> None:
    code = """
import asyncio, threading
from tui.player.threads import BackgroundThread, leave

async def main():
    worker = BackgroundThread("svm-test")
    waiting = asyncio.create_task(worker.run(threading.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()

asyncio.run(main())
print("kept")
leave(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "kept\n", "")
