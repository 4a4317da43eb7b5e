"""The frame loader and its rate limiter."""

import asyncio
import threading

import pytest

from streaming_vlm_mlx.errors import SvmError
from tests.player.fakes import Clock, until
from tui.player.clip import Frame, FrameGrabber
from tui.player.frame_loader import FrameLoader, RateLimiter

RATE = 4


class Slow(FrameGrabber):
    """Stills that are made when the test lets them."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.made: list[float] = []
        self.freed = threading.Event()

    def at(self, time: float, size: tuple[int, int]) -> Frame | None:
        self.let.wait()
        self.made.append(time)
        return Frame(time, None)  # type: ignore[arg-type]

    def close(self) -> None:
        self.freed.set()


async def test_requests_that_come_too_fast_replace_one_another() -> None:
    slow, shown, last = Slow(), list[float](), asyncio.Event()

    def show(frame: Frame) -> None:
        shown.append(frame.time)
        if frame.time == 9.0:
            last.set()

    frame_loader = FrameLoader(lambda: slow, show, pytest.fail)
    frame_loader.request(0.0, (8, 6))
    await asyncio.sleep(0)
    for time in range(1, 10):
        frame_loader.request(float(time), (8, 6))
    slow.let.set()
    await last.wait()
    assert shown == slow.made == [0.0, 9.0]
    frame_loader.close()
    assert await asyncio.to_thread(slow.freed.wait, 5)


async def test_the_same_picture_is_shown_once() -> None:
    slow, shown = Slow(), list[float]()
    slow.let.set()
    frame_loader = FrameLoader(lambda: slow, lambda frame: shown.append(frame.time), pytest.fail)
    for size in [(8, 6), (8, 6), (4, 3)]:
        frame_loader.request(1.0, size)
        await until(lambda: not frame_loader.busy)
    assert shown == [1.0, 1.0]
    frame_loader.close()


async def test_a_clip_without_pictures_is_reported_and_left_alone() -> None:
    opened = []

    def open_grabber() -> FrameGrabber:
        opened.append(1)
        raise SvmError("match.mp4 is gone.")

    messages = list[str]()
    frame_loader = FrameLoader(open_grabber, lambda frame: None, messages.append)
    for count in (1, 2):
        for _ in range(3):
            frame_loader.request(0.0, (8, 6))
            await until(lambda: not frame_loader.busy)
        assert messages == ["match.mp4 is gone."] * count
        assert len(opened) == count
        frame_loader.retry()
    frame_loader.close()


async def test_a_clip_that_breaks_while_it_is_shown_is_closed_and_opened_again() -> None:
    class Breaking(Slow):
        def at(self, time: float, size: tuple[int, int]) -> Frame | None:
            if time == 1.0:
                raise SvmError("match.mp4 is cut short.")
            return super().at(time, size)

    made, shown, messages = list[Breaking](), list[float](), list[str]()

    def open_grabber() -> FrameGrabber:
        made.append(Breaking())
        made[-1].let.set()
        return made[-1]

    frame_loader = FrameLoader(open_grabber, lambda frame: shown.append(frame.time), messages.append)
    for time in (0.0, 1.0, 0.0):
        frame_loader.request(time, (8, 6))
        await until(lambda: not frame_loader.busy)
        frame_loader.retry()
    assert (shown, messages) == ([0.0, 0.0], ["match.mp4 is cut short."])
    assert [grabber.freed.is_set() for grabber in made] == [True, False]
    frame_loader.close()


def test_the_limit_holds_whatever_the_clock_does() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)

    def opened(rate: float) -> int:
        count = 0
        for _ in range(160):
            clock.now += 1 / 16
            count += limiter.allows(rate)
        return count

    assert opened(8.0) == 80
    assert opened(2.0) == pytest.approx(20, abs=1)
    clock.now -= 1000
    assert limiter.allows(2.0)
