"""The clip by seconds and by pictures: what is read is what lies at that time."""

import asyncio
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.source import open_video
from tests.player.stand_ins import Clock, until
from tests.video.clips import make_clip, number_of
from tui.player.clip import BlankSeconds, ClipSeconds, Frame, FrameGrabber, fit
from tui.player.frame_loader import FrameLoader, RateLimiter

RATE = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, four frames each, every one of which can be told."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", count=10 * RATE, rate=RATE)


@pytest.fixture(scope="module")
def grabber(clip: Path) -> FrameGrabber:
    return FrameGrabber(str(clip))


def frames(seconds: ClipSeconds, number: int) -> tuple[int, int, list[int]]:
    chunk = seconds.read(number)
    assert chunk is not None
    return chunk.index, int(chunk.start), [number_of(frame) for frame in chunk.frames]


@pytest.mark.parametrize("numbers", [[0, 1, 2], [0, 2, 5], [9, 0], [3, 3], [0, 8, 1, 9]])
def test_seconds_are_read_in_any_order(clip: Path, numbers: list[int]) -> None:
    seconds = ClipSeconds(open_video(clip))
    for number in numbers:
        assert frames(seconds, number) == (number, number, [RATE * number, RATE * number + RATE // 2])
    seconds.close()


def test_there_is_nothing_past_the_end(clip: Path) -> None:
    seconds = ClipSeconds(open_video(clip))
    assert seconds.duration == 10
    assert seconds.read(10) is None
    assert seconds.read(99) is None
    assert frames(seconds, 9)[0] == 9
    assert seconds.read(10) is None
    seconds.close()


def test_blank_seconds_have_the_clip_s_length() -> None:
    seconds = BlankSeconds(2.5)
    chunks = [seconds.read(number) for number in range(4)]
    assert [(c.start, c.end, len(c.frames)) for c in chunks if c] == [(0, 1, 0), (1, 2, 0), (2, 2.5, 0)]
    assert chunks[3] is None


@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.floats(0, 12), max_size=8))
def test_a_still_is_the_frame_that_is_shown_then(grabber: FrameGrabber, times: list[float]) -> None:
    for time in times:
        frame = grabber.at(time, (8, 6))
        assert frame is not None
        assert frame.pixels.shape == (6, 8, 3)
        assert number_of(frame.pixels) == min(int(time * RATE + 1e-6), 10 * RATE - 1)


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), st.tuples(st.integers(1, 300), st.integers(1, 200)))
def test_a_picture_fits_its_box_and_keeps_its_shape(picture: tuple[int, int], box: tuple[int, int]) -> None:
    width, height = fit(picture, box)
    assert 1 <= width <= box[0]
    assert 1 <= height <= box[1]
    assert width == box[0] or height == box[1]
    assert width == pytest.approx(picture[0] * height / picture[1], abs=max(picture[0] / picture[1], 1) + 1)


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


async def test_wishes_that_come_too_fast_replace_one_another() -> None:
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


async def test_a_clip_without_pictures_is_told_and_left_alone() -> None:
    opened = []

    def open_grabber() -> FrameGrabber:
        opened.append(1)
        raise SvmError("match.mp4 is gone.")

    told = list[str]()
    frame_loader = FrameLoader(open_grabber, lambda frame: None, told.append)
    for count in (1, 2):
        for _ in range(3):
            frame_loader.request(0.0, (8, 6))
            await until(lambda: not frame_loader.busy)
        assert told == ["match.mp4 is gone."] * count
        assert len(opened) == count
        frame_loader.retry()
    frame_loader.close()


async def test_a_clip_that_breaks_while_it_is_shown_is_freed_and_opened_anew() -> None:
    class Breaking(Slow):
        def at(self, time: float, size: tuple[int, int]) -> Frame | None:
            if time == 1.0:
                raise SvmError("match.mp4 is cut short.")
            return super().at(time, size)

    made, shown, told = list[Breaking](), list[float](), list[str]()

    def open_grabber() -> FrameGrabber:
        made.append(Breaking())
        made[-1].let.set()
        return made[-1]

    frame_loader = FrameLoader(open_grabber, lambda frame: shown.append(frame.time), told.append)
    for time in (0.0, 1.0, 0.0):
        frame_loader.request(time, (8, 6))
        await until(lambda: not frame_loader.busy)
        frame_loader.retry()
    assert (shown, told) == ([0.0, 0.0], ["match.mp4 is cut short."])
    assert [grabber.freed.is_set() for grabber in made] == [True, False]
    frame_loader.close()


def test_a_shutter_opens_at_its_rate_and_whatever_the_clock_does() -> None:
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
