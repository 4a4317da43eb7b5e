"""Clip, model and playhead together: pace, seeks, failures; no screen, and a clock that the test moves."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import Failed, Loading, Ready, SecondDone
from streaming_vlm_mlx.video.chunk import Chunk
from tests.tui.stand_ins import RECORD, Blank, Clock, Scripted, until
from tui.conductor import Arrived, Commentator, Conductor, Passed, Sought, Told
from tui.player import Pace, Pacer, Playhead
from tui.session_log import SessionLog

T = TypeVar("T")


class Watching:
    """A session under test: the conductor, what it told, and the hands on clock and engine."""

    def __init__(self, conductor: Conductor, clock: Clock, told: list[Told], log: SessionLog) -> None:
        self.conductor, self.clock, self.told, self.log = conductor, clock, told, log

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, in ticks of a quarter."""
        for _ in range(round(4 * seconds)):
            self.clock.now += 0.25
            self.conductor.tick()

    async def until(self, kind: type[T], count: int = 1) -> T:
        """Wait until something of `kind` was told `count` times, and return the last."""

        def found() -> list[T]:
            return [event for event in self.told if isinstance(event, kind)]

        await until(lambda: len(found()) >= count)
        return found()[count - 1]

    def done(self) -> list[int]:
        return [event.index for event in self.told if isinstance(event, SecondDone)]

    def passed(self) -> list[int]:
        return [event.index for event in self.told if isinstance(event, Passed)]


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., object]:
    @asynccontextmanager
    async def begin(
        engine: Commentator | Callable[[], Commentator],
        seconds: Blank | None = None,
        pace: Pace = "live",
        start: float = 0.0,
        loop: bool = False,
    ) -> AsyncIterator[Watching]:
        clock, told = Clock(), list[Told]()
        seconds = seconds or Blank()
        head = Playhead(clock, seconds.duration, start)
        log = SessionLog(RECORD, [tmp_path / "game"], lambda text: None)
        make = engine if callable(engine) else lambda: engine
        pacer = Pacer(head, pace, 0.0 if seconds.duration else 1.0)
        conductor = Conductor(make, seconds, head, pacer, log, told.append, loop)
        task = asyncio.create_task(conductor.run())
        try:
            yield Watching(conductor, clock, told, log)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            conductor.close()

    return begin


async def test_seconds_are_spoken_as_they_come(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await w.until(Ready)
        await engine.until_spoken(0)
        for number in range(1, 5):
            assert w.done() == list(range(number))
            w.pass_time(1)
            await engine.until_spoken(number)
        assert w.done() == [0, 1, 2, 3, 4]
        assert w.passed() == []
        assert [s.text for s in w.log.record.seconds] == [f"second {n}" for n in range(5)]


async def test_the_picture_waits_at_its_beginning_for_the_model(watch: Callable[..., object]) -> None:
    engine = Scripted(loading=2)
    engine.loaded.clear()
    async with watch(engine, start=7.0) as w:
        await w.until(Loading, 2)
        w.pass_time(5)
        assert (w.conductor.playhead.position, w.conductor.playhead.state) == (7, "waiting")
        engine.loaded.set()
        await engine.until_spoken(7)
        w.pass_time(1)
        assert w.conductor.playhead.position == 8
        assert not w.conductor.loading


async def test_who_does_not_want_to_wait_watches_without_the_model(watch: Callable[..., object]) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with watch(engine) as w:
        w.conductor.toggle()
        w.pass_time(5.5)
        assert w.conductor.playhead.position == 5.5
        engine.loaded.set()
        await engine.until_spoken(5)
        assert w.done() == [5]


async def test_live_passes_over_what_the_model_is_too_slow_for(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.pass_time(4.5)
        assert w.conductor.lag.at(w.conductor.playhead.position) == pytest.approx(4.5)
        engine.free.set()
        await engine.until_spoken(5)
        assert w.done() == [0, 1, 5]
        assert w.passed() == [2, 3, 4]
        assert [s.index for s in w.log.record.skipped] == [2, 3, 4]


async def test_live_speaks_late_where_every_second_is_read_too_late(watch: Callable[..., object]) -> None:
    class Slow(Blank):
        let = threading.Semaphore(0)

        def read(self, number: int) -> Chunk | None:
            self.let.acquire()
            return super().read(number)

    engine, clip = Scripted(), Slow()
    async with watch(engine, clip) as w:
        clip.let.release()
        await engine.until_spoken(0)
        w.pass_time(2.5)
        clip.let.release()
        await w.until(Passed)
        w.pass_time(2)
        clip.let.release()
        await engine.until_spoken(2)
        assert (w.done(), w.passed()) == ([0, 2], [1])
        clip.let.release(99)


async def test_at_every_second_the_picture_waits_for_the_model(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine, pace="every") as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(9)
        await engine.until_begun(1)
        assert (w.conductor.playhead.position, w.conductor.playhead.state) == (2, "waiting")
        engine.free.set()
        for number in range(1, 6):
            await engine.until_spoken(number)
            w.pass_time(1)
        assert w.done() == [0, 1, 2, 3, 4, 5]
        assert w.passed() == []


async def test_the_pace_can_be_changed_while_the_model_is_behind(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1.5)
        await engine.until_begun(1)
        w.conductor.change_pace("every")
        w.pass_time(9)
        assert w.conductor.playhead.position == 2
        w.conductor.change_pace("live")
        w.pass_time(1)
        assert w.conductor.playhead.position == 3


async def test_a_seek_anchors_the_model_anew(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.conductor.seek(41.7)
        assert w.conductor.playhead.position == 41
        assert await w.until(Sought) == Sought(41.0)
        await engine.until_spoken(41)
        assert engine.anchors == 1
        assert w.done() == [0, 41]


async def test_what_is_said_of_a_second_that_was_left_is_nobody_s(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.conductor.seek(30)
        engine.free.set()
        await engine.until_spoken(30)
        assert w.done() == [0, 30]
        after = w.told[w.told.index(Sought(30.0)) :]
        assert all(getattr(event, "index", 30) == 30 for event in after)


async def test_a_second_that_is_played_again_replaces_the_older_take(watch: Callable[..., object]) -> None:
    engine = Scripted({0: "first"})
    async with watch(engine) as w:
        await engine.until_spoken(0)
        engine.lines = {0: "again"}
        w.conductor.seek(0)
        await engine.until_spoken(0, times=2)
        assert [s.text for s in w.log.record.seconds] == ["again"]
        assert [s.text for s in w.log.record.takes] == ["first"]


async def test_a_storm_of_seeks_ends_where_the_last_one_went(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        for number in range(1, 50):
            w.conductor.seek(number)
            w.conductor.tick()
        await engine.until_spoken(49)
        assert w.done() == [0, 49]


async def test_seeks_while_the_model_is_loaded_lose_nothing(watch: Callable[..., object]) -> None:
    engine = Scripted(loading=1)
    engine.loaded.clear()
    async with watch(engine) as w:
        await w.until(Loading)
        w.conductor.seek(12)
        w.conductor.seek(20)
        engine.loaded.set()
        await engine.until_spoken(20)
        assert w.done() == [20]


async def test_a_pause_begins_nothing_new(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.conductor.toggle()
        w.pass_time(10)
        assert engine.begun == [0]
        w.conductor.toggle()
        w.pass_time(1)
        await engine.until_spoken(1)


async def test_one_second_is_played_and_spoken(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.conductor.toggle()
        w.conductor.seek(10)
        w.pass_time(3)
        assert engine.begun == [0]
        w.conductor.step()
        w.pass_time(3)
        await engine.until_spoken(10)
        assert (w.conductor.playhead.position, w.conductor.playhead.state) == (11, "paused")
        assert engine.begun == [0, 10]


async def test_the_end_can_be_played_again(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine, Blank(2.0), pace="every") as w:
        await engine.until_spoken(0)
        w.pass_time(1)
        await engine.until_spoken(1)
        w.pass_time(3)
        assert w.conductor.playhead.state == "ended"
        w.conductor.toggle()
        await engine.until_spoken(0, times=2)


async def test_a_looped_clip_begins_again_once_its_last_second_is_spoken(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine, Blank(2.0), loop=True) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.pass_time(5)
        assert w.conductor.playhead.state == "ended"
        engine.free.set()
        await engine.until_spoken(1)
        await until(lambda: w.conductor.tick() < 2)
        await engine.until_spoken(0, times=2)


async def test_a_question_goes_into_the_next_second(watch: Callable[..., object]) -> None:
    engine = Scripted()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.conductor.ask("who leads?")
        w.pass_time(1)
        await engine.until_spoken(1)
        assert engine.questions == [(1, "who leads?")]
        assert [s.query for s in w.log.record.seconds] == ["", "who leads?"]


async def test_what_is_asked_before_the_model_is_there_waits_for_it(watch: Callable[..., object]) -> None:
    engine, config = Scripted(), StreamConfig(sampling=SamplingConfig(temperature=0.7))
    async with watch(engine) as w:
        w.conductor.ask("who leads?")
        w.conductor.configure(config)
        await engine.until_spoken(0)
        assert engine.questions == [(0, "who leads?")]
        assert engine.config == config
        assert w.log.record.settings["sampling"]["temperature"] == 0.7


async def test_without_a_model_the_clip_plays(watch: Callable[..., object]) -> None:
    def make() -> Commentator:
        raise SvmError("no MLX here; install it.")

    async with watch(make) as w:
        assert (await w.until(Failed)).message == "no MLX here; install it."
        w.pass_time(3)
        assert w.conductor.playhead.position == 3
        assert w.conductor.gone
        w.conductor.seek(10)
        w.pass_time(1)
        assert w.conductor.playhead.position == 11
        assert w.log.record.failure == "no MLX here; install it."


async def test_a_model_that_can_not_be_loaded_leaves_a_player(watch: Callable[..., object]) -> None:
    async with watch(Scripted(failure="model.safetensors is cut short."), pace="every") as w:
        assert (await w.until(Failed)).message == "model.safetensors is cut short."
        w.conductor.seek(5)
        w.pass_time(2)
        assert w.conductor.playhead.position == 7


async def test_a_defect_of_the_model_leaves_a_player(watch: Callable[..., object]) -> None:
    class Broken(Scripted):
        def ask(self, question: str) -> None:
            self.lines = None  # type: ignore[assignment]

    engine = Broken()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.conductor.ask("break")
        w.pass_time(1)
        assert (await w.until(Failed)).message.startswith("the model stopped: AttributeError: ")
        w.pass_time(3)
        assert w.conductor.playhead.position == 4
        engine.lines = {}
        w.conductor.seek(9)
        await engine.until_spoken(9)


async def test_a_clip_that_vanishes_is_told_and_tried_again_after_a_seek(watch: Callable[..., object]) -> None:
    engine, clip = Scripted(), Blank(vanishes=2)
    async with watch(engine, clip) as w:
        await engine.until_spoken(0)
        w.pass_time(1)
        await engine.until_spoken(1)
        assert (await w.until(Failed)).message == "match.mp4 is gone; copy it back."
        w.pass_time(2)
        assert w.conductor.playhead.position == 3
        clip.vanishes = float("inf")
        w.conductor.seek(6)
        await engine.until_spoken(6)
        assert w.done() == [0, 1, 6]


async def test_closing_lets_everything_go(watch: Callable[..., object]) -> None:
    engine, clip = Scripted(), Blank()
    async with watch(engine, clip):
        await engine.until_spoken(0)
    assert engine.closed
    await until(lambda: clip.closed)


class Feed(Blank):
    """A feed whose seconds come when the test lets them."""

    def __init__(self) -> None:
        super().__init__(None)
        import queue

        self.coming: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def read(self, number: int) -> Chunk | None:
        index = self.coming.get()
        if index is None:
            return None
        return Chunk(index, float(index), index + 1.0, np.zeros((2, 4, 4, 3), np.uint8), ())


async def test_a_feed_is_spoken_as_it_comes_and_never_falls_behind(watch: Callable[..., object]) -> None:
    engine, feed = Scripted(), Feed()
    async with watch(engine, feed) as w:
        for number in range(2):
            feed.coming.put(number)
            await w.until(Arrived, number + 1)
            w.conductor.tick()
            await engine.until_spoken(number)
        engine.free.clear()
        for number in range(2, 9):
            feed.coming.put(number)
            await w.until(Arrived, number + 1)
            w.conductor.tick()
            await engine.until_begun(2)
        assert w.conductor.playhead.position == 9
        engine.free.set()
        await engine.until_spoken(8)
        assert w.done() == [0, 1, 2, 8]
        assert w.passed() == [3, 4, 5, 6, 7]
        w.conductor.seek(0)
        assert w.conductor.playhead.position == 9
        feed.coming.put(None)
