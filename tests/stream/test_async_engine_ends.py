"""The end of a play: left early, cancelled, failed or closed, with a blocked source, and the play after it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import mlx.core as mx
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.stream.events import Failed, GenerationResult, Loading, SpanMap, TextPiece
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.video.chunk import Chunk
from tests.stream.engines import (
    CONFIG,
    PATIENCE,
    TEXT,
    Script,
    done_texts,
    engine_threads,
    finish_submitted,
    gather,
    gather_rest,
    make_chunk,
    make_chunks,
    make_loader,
    next_of,
    rounds,
)


async def test_leaving_ends_the_wait_for_a_turn(engine: Engine) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def due(start: float, end: float) -> bool:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    play = asyncio.ensure_future(gather_rest(engine.play(make_chunks(1), due)))
    await asked.wait()
    play.cancel()
    with pytest.raises(asyncio.CancelledError):
        await play
    await ended.wait()
    assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]


async def test_leaving_early_ends_the_second_and_the_next_play_continues(engine: Engine, script: Script) -> None:
    script.hold_at(2)
    events = engine.play(make_chunks(9))
    await next_of(events, TextPiece)
    await script.held()
    await events.aclose()
    script.go()
    await finish_submitted(engine)
    assert script.said == 3
    again = await gather(engine, make_chunks(1))
    assert rounds(next(e for e in again if isinstance(e, SpanMap)), "text") == [0, 1]


async def test_a_loader_that_fails_is_reported_and_called_again(tokenizer: Tokenizer, script: Script) -> None:
    failures = [SvmError("run1 lacks model.safetensors.")]

    def load(report: Callable[[Loading], None]) -> tuple[str, ModelBundle]:
        if failures:
            raise failures.pop()
        return make_loader(tokenizer, script)(report)

    engine = Engine(load, CONFIG)
    try:
        assert await gather(engine, make_chunks(1)) == [Failed("run1 lacks model.safetensors.")]
        assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]
    finally:
        engine.close()


async def test_a_source_that_fails_midway_is_reported_after_the_commentary(engine: Engine) -> None:
    def chunks() -> Iterator[Chunk]:
        yield from make_chunks(2)
        raise SvmError("the feed broke off.")

    events = await gather(engine, chunks())
    assert done_texts(events) == [TEXT] * 2
    assert events[-1] == Failed("the feed broke off.")


async def test_a_frame_that_cannot_be_processed_is_reported(engine: Engine) -> None:
    events = await gather(engine, [make_chunk(0), make_chunk(1, height=4, width=1000)])
    assert done_texts(events) == [TEXT]
    assert isinstance(events[-1], Failed)
    assert "1000x4" in events[-1].message


async def test_a_defect_of_the_source_reaches_the_caller(engine: Engine) -> None:
    def chunks() -> Iterator[Chunk]:
        yield make_chunk(0)
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        await gather(engine, chunks())
    assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]


async def test_a_defect_on_the_thread_reaches_the_caller(
    engine: Engine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: int) -> int:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(script, "to_id", stumble)
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await gather(engine, make_chunks(1))
    assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]


async def test_a_cancelled_reanchor_leaves_the_thread_alive(engine: Engine, script: Script) -> None:
    script.hold_at(1)
    events = engine.play(make_chunks(1))
    await next_of(events, SpanMap)
    await script.held()
    anchoring = asyncio.ensure_future(engine.reanchor())
    await asyncio.sleep(0)
    anchoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anchoring
    script.go()
    await events.aclose()
    assert done_texts(await gather(engine, make_chunks(2))) == ["three", TEXT]


async def test_close_ends_a_play_and_leaves_no_thread(engine: Engine, script: Script) -> None:
    script.hold_at(2)
    events = engine.play(make_chunks(9))
    await next_of(events, TextPiece)
    await script.held()
    script.go()
    engine.close()
    assert not engine_threads()
    assert len(done_texts(await gather_rest(events))) == 1


async def test_a_closed_engine_refuses_work(engine: Engine) -> None:
    engine.close()
    engine.close()
    for work in (gather(engine, make_chunks(1)), engine.reanchor(), engine.reset()):
        with pytest.raises(RuntimeError, match="the engine is closed"):
            await work


def test_a_loop_that_ends_early_leaves_engine_and_log_clean(
    engine: Engine, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        script.hold_at(1)
        events = engine.play(make_chunks(9))
        await next_of(events, SpanMap)
        await script.held()

    with caplog.at_level(logging.WARNING):
        asyncio.run(leave())
        script.go()
        assert done_texts(asyncio.run(gather(engine, make_chunks(2))))
    assert caplog.records == []


class BlockedCamera:
    """A source whose second chunk comes when the test lets it.

    Attributes:
        reading: set while the second chunk is read.
        go: lets the second chunk come.
        read: set when the second chunk came, or the wait for it ended.
    """

    def __init__(self) -> None:
        self.reading, self.go, self.read = threading.Event(), threading.Event(), threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """Yield two seconds."""
        yield make_chunk(0)
        self.reading.set()
        self.go.wait(PATIENCE)
        self.read.set()
        yield make_chunk(1)


@pytest.fixture
def camera() -> Iterator[BlockedCamera]:
    camera = BlockedCamera()
    yield camera
    camera.go.set()


@pytest.mark.parametrize("way", ["cancel", "leave"])
async def test_a_blocked_read_does_not_delay_the_end_of_a_play(engine: Engine, camera: BlockedCamera, way: str) -> None:
    events = engine.play(camera.chunks())
    await next_of(events, GenerationResult)
    assert await asyncio.to_thread(camera.reading.wait, PATIENCE)
    if way == "cancel":
        rest = asyncio.ensure_future(gather_rest(events))
        await finish_submitted(engine)
        engine.cancel()
        assert await rest == []
    else:
        await events.aclose()
    assert not camera.read.is_set()


async def test_two_plays_never_read_at_once(engine: Engine, camera: BlockedCamera) -> None:
    """The second play's read waits for the one that the first play left behind."""
    order: list[str] = []

    def first() -> Iterator[Chunk]:
        for chunk in camera.chunks():
            order.append(f"first {chunk.index}")
            yield chunk

    def second() -> Iterator[Chunk]:
        order.append("second")
        yield make_chunk(5)

    events = engine.play(first())
    await next_of(events, GenerationResult)
    assert await asyncio.to_thread(camera.reading.wait, PATIENCE)
    await events.aclose()
    again = asyncio.ensure_future(gather(engine, second()))
    await finish_submitted(engine)
    camera.go.set()
    assert done_texts(await again) == [TEXT]
    assert order == ["first 0", "first 1", "second"]


def test_a_blocked_read_does_not_keep_the_program(engine: Engine, camera: BlockedCamera) -> None:
    async def leave_early() -> None:
        async for event in engine.play(camera.chunks()):
            if isinstance(event, GenerationResult):
                return

    # The end of the loop waits for the threads of its own executor.
    asyncio.run(leave_early())
    assert not camera.read.is_set()


async def test_metal_keeps_the_model_resident_until_the_engine_is_closed(
    tokenizer: Tokenizer, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [5]
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 7})
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: (limits[-1], limits.append(limit))[0])
    engine = Engine(make_loader(tokenizer, script), CONFIG)
    assert len(done_texts(await gather(engine, make_chunks(2)))) == 2
    assert limits == [5, 7]
    engine.close()
    assert limits == [5, 7, 5]
