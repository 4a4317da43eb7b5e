"""The end of a process beside a thread that never ends."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_work_that_never_ends_does_not_keep_the_program() -> None:
    code = """
import asyncio, threading
from streaming_vlm_mlx.background import BackgroundThread
from tui.player.exit import leave

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
