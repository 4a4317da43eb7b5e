"""The controller: which second is generated when, at each pace; no screen, and a clock that the test moves."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing

import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.stream.events import Event, Loading, Ready, Skipped
from streaming_vlm_mlx.video.chunk import Chunk
from tests.player.controller_harness import StartController
from tests.player.fakes import Blank, Feed, Scripted, until
from tui.player.controller import ChunkArrived
from tui.player.states import State


async def test_seconds_are_spoken_as_they_come(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await w.until(Ready)
        await engine.until_spoken(0)
        for number in range(1, 5):
            assert w.done() == list(range(number))
            w.pass_time(1)
            await engine.until_spoken(number)
        assert w.done() == [0, 1, 2, 3, 4]
        assert w.skipped() == []
        assert [s.text for s in w.log.record.seconds] == [f"second {n}" for n in range(5)]


async def test_the_picture_waits_at_its_beginning_for_the_model(start_controller: StartController) -> None:
    engine = Scripted(loading=2)
    engine.loaded.clear()
    async with start_controller(engine, start=7.0) as w:
        await w.until(Loading, 2)
        w.pass_time(5)
        assert (w.controller.playhead.position, w.controller.playhead.state) == (7, "waiting")
        engine.loaded.set()
        await engine.until_spoken(7)
        w.pass_time(1)
        assert w.controller.playhead.position == 8
        assert w.controller.state is State.GENERATING


async def test_a_viewer_who_does_not_wait_watches_without_the_model(start_controller: StartController) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_controller(engine) as w:
        w.controller.toggle()
        w.pass_time(5.5)
        assert w.controller.playhead.position == 5.5
        engine.loaded.set()
        await engine.until_spoken(5)
        assert w.done() == [5]


async def test_live_passes_over_what_the_model_is_too_slow_for(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.pass_time(4.5)
        assert w.controller.delay == pytest.approx(4.5)
        engine.free.set()
        await engine.until_spoken(5)
        assert w.done() == [0, 1, 5]
        assert w.skipped() == [2, 3, 4]
        assert [s.index for s in w.log.record.skipped] == [2, 3, 4]


async def test_live_speaks_late_where_every_second_is_read_too_late(start_controller: StartController) -> None:
    class Slow(Blank):
        let = threading.Semaphore(0)

        def read(self, number: int) -> Chunk | None:
            self.let.acquire()
            return super().read(number)

    engine, clip = Scripted(), Slow()
    async with start_controller(engine, clip) as w:
        clip.let.release()
        await engine.until_spoken(0)
        w.pass_time(2.5)
        clip.let.release()
        await w.until(Skipped)
        w.pass_time(2)
        clip.let.release()
        await engine.until_spoken(2)
        assert (w.done(), w.skipped()) == ([0, 2], [1])
        clip.let.release(99)


class Ahead(Scripted):
    """Asks for the next second while it speaks and, as the engine, has it before it sees that it is to stop."""

    async def play(
        self, chunks: AsyncIterable[Chunk], due: Callable[[float, float], Awaitable[bool]]
    ) -> AsyncGenerator[Event]:
        async with aclosing(self._ahead(chunks)) as ahead, aclosing(super().play(ahead, due)) as events:
            async for event in events:
                yield event

    async def _ahead(self, chunks: AsyncIterable[Chunk]) -> AsyncGenerator[Chunk]:
        source = aiter(chunks)
        task = asyncio.ensure_future(anext(source, None))
        try:
            while (chunk := await task) is not None:
                task = asyncio.ensure_future(anext(source, None))
                yield chunk
        finally:
            if not self._cancelled:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_next_second_is_read_when_the_model_is_done_with_this_one(start_controller: StartController) -> None:
    engine, clip = Ahead(), Blank()
    async with start_controller(engine, clip) as w:
        await engine.until_spoken(0)
        await until(lambda: clip.read_numbers == [0, 1])
        engine.free.clear()
        w.pass_time(1.25)
        await engine.until_begun(1)
        assert clip.read_numbers == [0, 1]
        engine.free.set()
        await engine.until_spoken(1)
        await until(lambda: clip.read_numbers == [0, 1, 2])
        assert w.controller.playhead.position == 1.25


async def test_the_next_second_is_read_before_its_turn_though_the_model_is_slow(
    start_controller: StartController,
) -> None:
    engine, clip = Ahead(), Blank()
    async with start_controller(engine, clip) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1.5)
        await engine.until_begun(1)
        assert clip.read_numbers == [0, 1]
        w.pass_time(0.25)
        await until(lambda: clip.read_numbers == [0, 1, 2])


async def test_a_seek_does_not_wait_for_the_next_second_to_be_read(start_controller: StartController) -> None:
    engine, clip = Ahead(), Blank()
    async with start_controller(engine, clip, start=7.0) as w:
        await engine.until_spoken(7)
        engine.free.clear()
        w.pass_time(1.25)
        await engine.until_begun(8)
        w.controller.seek(3)
        engine.free.set()
        await engine.until_spoken(3)
        assert clip.read_numbers[:3] == [7, 8, 3]


async def test_at_every_second_the_picture_waits_for_the_model(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine, pace="every") as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(9)
        await engine.until_begun(1)
        assert (w.controller.playhead.position, w.controller.playhead.state) == (2, "waiting")
        engine.free.set()
        for number in range(1, 6):
            await engine.until_spoken(number)
            w.pass_time(1)
        assert w.done() == [0, 1, 2, 3, 4, 5]
        assert w.skipped() == []


async def test_the_pace_can_be_changed_while_the_model_is_late(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1.5)
        await engine.until_begun(1)
        w.controller.change_pace("every")
        w.pass_time(9)
        assert w.controller.playhead.position == 2
        w.controller.change_pace("live")
        w.pass_time(1)
        assert w.controller.playhead.position == 3


async def test_a_question_goes_into_the_next_second(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.ask("who leads?")
        w.pass_time(1)
        await engine.until_spoken(1)
        assert engine.questions == [(1, "who leads?")]
        assert [s.query for s in w.log.record.seconds] == ["", "who leads?"]


async def test_what_is_asked_before_the_model_is_there_waits_for_it(start_controller: StartController) -> None:
    engine, config = Scripted(), StreamConfig(sampling=SamplingConfig(temperature=0.7))
    async with start_controller(engine) as w:
        w.controller.ask("who leads?")
        w.controller.configure(config)
        await engine.until_spoken(0)
        assert engine.questions == [(0, "who leads?")]
        assert engine.config == config
        assert w.log.record.settings["sampling"]["temperature"] == 0.7


async def test_a_feed_is_spoken_as_it_comes_and_never_gets_late(start_controller: StartController) -> None:
    engine, feed = Scripted(), Feed()
    async with start_controller(engine, feed) as w:
        for number in range(2):
            feed.coming.put(number)
            await w.until(ChunkArrived, number + 1)
            w.controller.tick()
            await engine.until_spoken(number)
        engine.free.clear()
        for number in range(2, 9):
            feed.coming.put(number)
            await w.until(ChunkArrived, number + 1)
            w.controller.tick()
            await engine.until_begun(2)
        assert w.controller.playhead.position == 9
        engine.free.set()
        await engine.until_spoken(8)
        assert w.done() == [0, 1, 2, 8]
        assert w.skipped() == [3, 4, 5, 6, 7]
        w.controller.seek(0)
        assert w.controller.playhead.position == 9
        feed.coming.put(None)
