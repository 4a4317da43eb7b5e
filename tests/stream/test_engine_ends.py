"""How plays of the engine end: left early, broken off, failed, closed; and that the next one goes on."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.engine import Engine
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
    gather,
    gather_rest,
    make_chunk,
    make_chunks,
    make_loader,
    next_of,
    resolve_quantization,
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
        raise AssertionError("it never comes")

    play = asyncio.ensure_future(gather_rest(engine.play(make_chunks(1), due)))
    await asked.wait()
    play.cancel()
    with pytest.raises(asyncio.CancelledError):
        await play
    await ended.wait()
    assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]


async def test_leaving_early_ends_the_second_and_the_next_play_goes_on(engine: Engine, script: Script) -> None:
    script.hold_at(2)
    events = engine.play(make_chunks(9))
    await next_of(events, TextPiece)
    await script.held()
    await events.aclose()
    script.go()
    await resolve_quantization(engine)
    assert script.said == 3
    again = await gather(engine, make_chunks(1))
    assert rounds(next(e for e in again if isinstance(e, SpanMap)), "text") == [0, 1]


async def test_leaving_waits_for_the_read_under_way(engine: Engine) -> None:
    """Or a source would be read by two plays at once."""
    reading, go, order = threading.Event(), threading.Event(), list[str]()

    def chunks() -> Iterator[Chunk]:
        yield make_chunk(0)
        reading.set()
        assert go.wait(PATIENCE)
        order.append("read")
        yield make_chunk(1)

    events = engine.play(chunks())
    await next_of(events, GenerationResult)
    assert await asyncio.to_thread(reading.wait, PATIENCE)
    leaving = asyncio.ensure_future(events.aclose())
    leaving.add_done_callback(lambda _: order.append("left"))
    await resolve_quantization(engine)
    go.set()
    await leaving
    assert order == ["read", "left"]


async def test_a_loader_that_fails_is_told_and_asked_again(tokenizer: Tokenizer, script: Script) -> None:
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


async def test_a_source_that_fails_midway_is_told_behind_what_was_said(engine: Engine) -> None:
    def chunks() -> Iterator[Chunk]:
        yield from make_chunks(2)
        raise SvmError("the feed broke off.")

    events = await gather(engine, chunks())
    assert done_texts(events) == [TEXT] * 2
    assert events[-1] == Failed("the feed broke off.")


async def test_a_picture_that_can_not_be_read_is_told(engine: Engine) -> None:
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


async def test_a_reanchor_that_nobody_waits_for_leaves_the_thread_alive(engine: Engine, script: Script) -> None:
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
