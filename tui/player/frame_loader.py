"""The clip's pictures for the eye, on a thread of their own, as many as there is time for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from streaming_vlm_mlx.errors import SvmError
from tui.player.clip import Frame, FrameGrabber
from tui.player.threads import BackgroundThread

# Pictures a second at most, while the model computes, and when it is behind.
RATE, RATE_BUSY, RATE_BEHIND = 8.0, 5.0, 2.0


class FrameLoader:
    """Shows the picture that was wished for last; wishes that come while it is busy replace one another."""

    def __init__(
        self, open_grabber: Callable[[], FrameGrabber], show: Callable[[Frame], None], fail: Callable[[str], None]
    ) -> None:
        """Prepare; `open_grabber` runs on the projector's thread, `show` and `fail` on the event loop.

        `open_grabber` and what it opens may raise `SvmError`: `fail` is told, and no picture comes before `retry`.
        """
        self._open, self._show, self._fail = open_grabber, show, fail
        self._worker = BackgroundThread("svm-picture")
        self._grabber: FrameGrabber | None = None
        self._request: tuple[float, tuple[int, int]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._shown: tuple[float, tuple[int, int]] | None = None
        self._failed = False

    @property
    def busy(self) -> bool:
        """Whether a picture is being made."""
        return self._task is not None and not self._task.done()

    def prepare(self, time: float) -> None:
        """Open the clip and find its picture at `time`, before anything is wished for; what fails then fails again."""
        self._worker.put(partial(self._find, time))

    async def wait(self, seconds: float) -> None:
        """Wait for the picture that is being made, at most `seconds`."""
        if self._task:
            await asyncio.wait([self._task], timeout=seconds)

    def request(self, time: float, size: tuple[int, int]) -> None:
        """Ask for the picture at `time` seconds, `size` (width, height) pixels."""
        self._request = time, size
        if not self.busy and not self._failed:
            self._task = asyncio.create_task(self._project())

    def retry(self) -> None:
        """Try again to open what could not be shown."""
        self._failed = False

    def close(self) -> None:
        """End the thread and free the clip."""
        self._request = None
        self._worker.close(self._free)

    async def _project(self) -> None:
        while self._request:
            (time, size), self._request = self._request, None
            try:
                frame = await self._worker.run(partial(self._make, time, size))
            except SvmError as error:
                self._failed, self._shown = True, None
                self._fail(str(error))
                return
            if frame and (frame.time, size) != self._shown:
                self._shown = frame.time, size
                self._show(frame)

    def _make(self, time: float, size: tuple[int, int]) -> Frame | None:
        self._grabber = self._grabber or self._open()
        try:
            return self._grabber.at(time, size)
        except SvmError:
            self._free()
            raise

    def _find(self, time: float) -> None:
        with suppress(SvmError):
            self._grabber = self._grabber or self._open()
            self._grabber.find(time)

    def _free(self) -> None:
        grabber, self._grabber = self._grabber, None
        if grabber:
            grabber.close()


class RateLimiter:
    """Opens so many times a second and no more, by a clock that is handed in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, float("-inf")

    def allows(self, rate: float) -> bool:
        """Tell whether it opens now, when it may `rate` times a second."""
        now = self._clock()
        if now - self._last < 1.0 / rate and now >= self._last:
            return False
        self._last = now
        return True
