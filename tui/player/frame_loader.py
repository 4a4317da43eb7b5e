"""Loads the clip's pictures for the screen on a thread of their own, as many as there is time for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, Protocol, TypeVar

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.errors import SvmError

# Pictures a second at most: usually, while the model computes, and while its delay is long.
RATE, RATE_BUSY, RATE_DELAYED = 8.0, 5.0, 2.0


class Timed(Protocol):
    """A picture."""

    @property
    def time(self) -> float:
        """Of its frame, in seconds."""


PictureT = TypeVar("PictureT", bound=Timed)
PictureT_co = TypeVar("PictureT_co", bound=Timed, covariant=True)


class Grabber(Protocol[PictureT_co]):
    """What pictures come from."""

    def at(self, time: float, size: tuple[int, int], /) -> PictureT_co | None:
        """Return the picture at `time` seconds, of `size` (width, height) in pixels, or None; raises `SvmError`."""

    def find(self, time: float, /) -> object:
        """Prepare the picture at `time` seconds; raises `SvmError`."""

    def close(self) -> None:
        """Close what it comes from."""


class FrameLoader(Generic[PictureT]):
    """Shows the picture that was requested last; a newer request replaces one that waits."""

    def __init__(
        self,
        open_grabber: Callable[[], Grabber[PictureT]],
        show: Callable[[PictureT], None],
        fail: Callable[[str], None],
    ) -> None:
        """Prepare; `open_grabber` runs on the loader's thread, `show` and `fail` on the event loop.

        When `open_grabber`, or the grabber that it returns, raises `SvmError`, `fail` gets the message and no picture
        is loaded before `retry`.
        """
        self._open, self._show, self._fail = open_grabber, show, fail
        self._worker = BackgroundThread("svm-picture")
        self._grabber: Grabber[PictureT] | None = None
        self._request: tuple[float, tuple[int, int]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._shown: tuple[float, tuple[int, int]] | None = None
        self._failed = False

    @property
    def busy(self) -> bool:
        """Whether a picture is being loaded."""
        return self._task is not None and not self._task.done()

    def prepare(self, time: float) -> None:
        """Open the clip and decode its frame at `time` in advance; a failure shows at the first request."""
        self._worker.put(partial(self._find, time))

    async def wait(self, seconds: float) -> None:
        """Wait for the picture that is being loaded, at most `seconds`."""
        if self._task:
            await asyncio.wait([self._task], timeout=seconds)

    def request(self, time: float, size: tuple[int, int]) -> None:
        """Request the picture at `time` seconds, of `size` (width, height) in pixels."""
        self._request = time, size
        if not self.busy and not self._failed:
            self._task = asyncio.create_task(self._load())

    def retry(self) -> None:
        """Allow requests again after a failure."""
        self._failed = False

    def close(self) -> None:
        """End the thread and close the clip."""
        self._request = None
        self._worker.close(self._close_grabber)

    async def _load(self) -> None:
        while self._request:
            (time, size), self._request = self._request, None
            try:
                frame = await self._worker.run(partial(self._grab, time, size))
            except SvmError as error:
                self._failed, self._shown = True, None
                self._fail(str(error))
                return
            if frame and (frame.time, size) != self._shown:
                self._shown = frame.time, size
                self._show(frame)

    def _grab(self, time: float, size: tuple[int, int]) -> PictureT | None:
        self._grabber = self._grabber or self._open()
        try:
            return self._grabber.at(time, size)
        except SvmError:
            self._close_grabber()
            raise

    def _find(self, time: float) -> None:
        with suppress(SvmError):
            self._grabber = self._grabber or self._open()
            self._grabber.find(time)

    def _close_grabber(self) -> None:
        grabber, self._grabber = self._grabber, None
        if grabber:
            grabber.close()


class RateLimiter:
    """Limits how often something happens, by a clock that is passed in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, float("-inf")

    def allows(self, rate: float) -> bool:
        """Return whether it may happen now, at most `rate` times a second."""
        now = self._clock()
        if now - self._last < 1.0 / rate and now >= self._last:
            return False
        self._last = now
        return True
