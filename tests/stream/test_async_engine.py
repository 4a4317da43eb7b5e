"""The engine's public interface: the order of events, pace, questions and control between tokens."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.stream.events import Event, GenerationResult, Loading, Ready, SecondStarted, SpanMap, TextPiece
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.video.chunk import Chunk
from tests.stream.engines import (
    CONFIG,
    PATIENCE,
    SCRIPT,
    TEXT,
    Script,
    as_they_come,
    done_texts,
    finish_submitted,
    gather,
    gather_rest,
    make_chunk,
    make_chunks,
    make_loader,
    next_of,
    plain,
    rounds,
    views,
)


def previous_tokens(event: Event) -> int:
    return sum(view.tokens for view in views(event) if view.kind == "previous")


async def test_events_come_in_order_and_are_plain(engine: Engine) -> None:
    events = await gather(engine, make_chunks(3))
    kinds = [type(e) for e in events if not isinstance(e, TextPiece)]
    assert kinds == [Loading, Ready, *[SecondStarted, SpanMap, GenerationResult] * 3]
    assert all(map(plain, events))
    for index in range(3):
        (done,) = (e for e in events if isinstance(e, GenerationResult) and e.index == index)
        pieces = [e.text for e in events if isinstance(e, TextPiece) and e.index == index]
        assert "".join(pieces) == done.text == TEXT
        assert (done.start, done.end, done.tokens, done.video_tokens) == (index, index + 1.0, len(SCRIPT), 2)
        assert done.cache_tokens > 0
        assert done.cache_bytes > 0
        assert done.memory.process > 0
        assert done.timings.total_ms > done.timings.first_text_ms > 0
        started = events.index(next(e for e in events if isinstance(e, SecondStarted) and e.index == index))
        first_piece = events.index(next(e for e in events if isinstance(e, TextPiece) and e.index == index))
        assert started < first_piece < events.index(done)


async def test_ready_has_name_and_size(engine: Engine, tokenizer: Tokenizer, script: Script) -> None:
    (ready,) = (e for e in await gather(engine, []) if isinstance(e, Ready))
    _, bundle = make_loader(tokenizer, script)(lambda _: None)
    assert ready == Ready("small", bundle.model.parameter_count())


async def test_words_come_before_their_second_is_done(engine: Engine, script: Script) -> None:
    script.hold_at(3)
    events = engine.play(make_chunks(1))
    piece = await next_of(events, TextPiece)
    await script.held()
    assert (piece, script.said) == (TextPiece(0, "one"), 3)
    script.go()
    assert isinstance(await next_of(events, GenerationResult), GenerationResult)


async def test_the_next_second_is_read_during_generation(engine: Engine, script: Script) -> None:
    read = threading.Event()

    def chunks() -> Iterator[Chunk]:
        yield make_chunk(0)
        read.set()
        yield make_chunk(1)

    script.hold_at(0)
    events = engine.play(chunks())
    await next_of(events, SpanMap)
    await script.held()
    assert await asyncio.to_thread(read.wait, PATIENCE)
    assert script.said == 0
    script.go()
    assert len(done_texts([e async for e in events])) == 2


@pytest.mark.parametrize("skips", [False, True])
async def test_the_video_of_the_next_second_is_encoded_beside_the_decode_where_none_is_skipped(
    engine: Engine, script: Script, monkeypatch: pytest.MonkeyPatch, skips: bool
) -> None:
    started: list[int | None] = []
    monkeypatch.setattr(
        Session, "encode_beside", lambda _, second: started.append(None if second is None else second.index)
    )
    # With one thread, the work below ends after the patches of the second that is read ahead.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    script.hold_at(1)
    events = engine.play(as_they_come(make_chunks(2)), skips=skips)
    await next_of(events, TextPiece)
    for _ in range(10):
        await asyncio.sleep(0)
    await asyncio.to_thread(int)
    await asyncio.sleep(0)
    script.go()
    assert len(done_texts([e async for e in events])) == 2
    assert started[1] == (None if skips else 1)


async def test_cancel_ends_the_second_at_its_next_word(engine: Engine, script: Script) -> None:
    script.hold_at(2)
    events = engine.play(make_chunks(9))
    await next_of(events, TextPiece)
    await script.held()
    engine.cancel()
    script.go()
    rest = [e async for e in events]
    (done,) = (e for e in rest if isinstance(e, GenerationResult))
    assert (done.index, done.tokens) == (0, 3)
    assert not [e for e in rest if isinstance(e, SecondStarted)]


async def test_a_second_cancelled_before_the_thread_is_free_does_not_start(engine: Engine) -> None:
    asked, free = asyncio.Event(), threading.Event()

    async def due(start: float, end: float) -> bool:
        asked.set()
        return True

    events = engine.play(make_chunks(1), due)
    await next_of(events, Ready)
    engine.submit(lambda: None if free.wait(PATIENCE) else pytest.fail("the thread was not released"))
    rest = asyncio.ensure_future(gather_rest(events))
    await asked.wait()
    engine.cancel()
    free.set()
    assert await rest == []


async def test_pause_takes_no_further_second_until_resume(engine: Engine, script: Script) -> None:
    asked: list[int] = []
    third = threading.Event()

    def chunks() -> Iterator[Chunk]:
        for index in range(4):
            asked.append(index)
            if index == 2:
                third.set()
            yield make_chunk(index)

    events = engine.play(chunks())
    await next_of(events, SecondStarted)
    engine.pause()
    assert done_texts([await next_of(events, GenerationResult)]) == [TEXT]
    following = asyncio.ensure_future(anext(events))
    assert await asyncio.to_thread(third.wait, PATIENCE)
    await finish_submitted(engine)
    assert not following.done()
    assert script.said == len(SCRIPT)
    engine.resume()
    assert await following == SecondStarted(1, 1.0, 2.0)
    assert done_texts([e async for e in events]) == [TEXT] * 3


async def test_cancel_frees_a_paused_play(engine: Engine) -> None:
    engine.pause()
    events = engine.play(make_chunks(3))
    await next_of(events, Ready)
    following = asyncio.ensure_future(gather_rest(events))
    await finish_submitted(engine)
    engine.cancel()
    assert await following == []
    paused = asyncio.ensure_future(anext(engine.play(make_chunks(1))))
    await finish_submitted(engine)
    assert not paused.done()
    engine.resume()
    assert await paused == SecondStarted(0, 0.0, 1.0)


async def test_cancel_frees_a_play_that_waits_for_its_turn(engine: Engine) -> None:
    asked = asyncio.Event()

    async def due(start: float, end: float) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    events = engine.play(make_chunks(3), due)
    await next_of(events, Ready)
    rest = asyncio.ensure_future(gather_rest(events))
    await asked.wait()
    engine.cancel()
    async with asyncio.timeout(PATIENCE):
        assert await rest == []


async def test_reanchor_during_play_keeps_words_and_drops_video(engine: Engine, script: Script) -> None:
    script.hold_at(len(SCRIPT) + 2)
    events = engine.play(make_chunks(9))
    await next_of(events, GenerationResult)
    await next_of(events, TextPiece)
    await script.held()
    anchored = asyncio.ensure_future(engine.reanchor())
    rest = asyncio.ensure_future(gather_rest(events))
    await asyncio.sleep(0)
    script.go()
    await anchored
    assert [e.tokens for e in await rest if isinstance(e, GenerationResult)] == [3]
    again = await gather(engine, make_chunks(1, start=50))
    (spans,) = (e for e in again if isinstance(e, SpanMap))
    assert rounds(spans, "video") == [0]
    # All of the first second but its last word, and all but the last of the three that the second came to.
    assert previous_tokens(spans) == (len(SCRIPT) - 2) + 2
    assert isinstance(again[0], SecondStarted)


async def test_reset_forgets_and_takes_new_settings(engine: Engine) -> None:
    await gather(engine, make_chunks(3))
    engine.configure(replace(CONFIG, previous=" one two"))
    await engine.reset()
    (spans,) = (e for e in await gather(engine, make_chunks(1)) if isinstance(e, SpanMap))
    assert (rounds(spans, "text"), previous_tokens(spans)) == ([0], 2)


async def test_changes_before_loading_have_no_effect(engine: Engine) -> None:
    await engine.reanchor()
    await engine.reset()
    assert done_texts(await gather(engine, make_chunks(1))) == [TEXT]


async def test_a_question_goes_into_the_next_second_once(engine: Engine) -> None:
    engine.ask("Who has the ball?")
    events = await gather(engine, make_chunks(3))
    assert [e.query for e in events if isinstance(e, GenerationResult)] == ["Who has the ball?", "", ""]
    users = [
        sum(v.tokens for v in views(e) if v.kind == "user" and v.round == e.index)
        for e in events
        if isinstance(e, SpanMap)
    ]
    assert users[0] > users[1] == users[2]


async def test_settings_change_between_seconds(engine: Engine) -> None:
    events = engine.play(make_chunks(3))
    counts = []
    async for event in events:
        if isinstance(event, GenerationResult):
            counts.append(event.tokens)
            engine.configure(replace(CONFIG, sampling=SamplingConfig(max_new_tokens=2)))
    assert counts == [len(SCRIPT), 2, 2]
    assert engine.config.sampling.max_new_tokens == 2


async def test_a_play_continues_where_the_last_one_ended(engine: Engine) -> None:
    first, second = [await gather(engine, make_chunks(2, start)) for start in (0, 2)]
    assert [type(e) for e in first[:2]] == [Loading, Ready]
    assert not [e for e in second if isinstance(e, Loading | Ready)]
    assert rounds(next(e for e in second if isinstance(e, SpanMap)), "video") == [1, 2]
    assert done_texts(first + second) == [TEXT] * 4


async def test_due_is_awaited_for_every_second_and_may_skip_it(engine: Engine) -> None:
    asked: list[tuple[float, float]] = []

    async def due(start: float, end: float) -> bool:
        asked.append((start, end))
        return start != 1

    events = [e async for e in engine.play(make_chunks(4), due)]
    assert asked == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [e.index for e in events if isinstance(e, SecondStarted)] == [0, 2, 3]
    assert done_texts(events) == [TEXT] * 3


async def test_a_question_waits_for_a_second_that_is_not_skipped(engine: Engine) -> None:
    async def due(start: float, end: float) -> bool:
        return start > 0

    engine.ask("Who has the ball?")
    events = [e async for e in engine.play(make_chunks(3), due)]
    assert [e.query for e in events if isinstance(e, GenerationResult)] == ["Who has the ball?", ""]


async def test_the_vision_tower_runs_while_a_second_waits_for_its_turn(engine: Engine) -> None:
    """The bundle's clock advances by a second at each reading, and encoding ahead reads it twice."""
    asked, turn = asyncio.Event(), asyncio.Event()

    async def due(start: float, end: float) -> bool:
        asked.set()
        return await turn.wait()

    events = engine.play(make_chunks(1), due)
    await next_of(events, Ready)
    done = asyncio.ensure_future(next_of(events, GenerationResult))
    await asked.wait()
    await finish_submitted(engine)
    turn.set()
    second = await done
    assert isinstance(second, GenerationResult)
    assert second.timings.vision_ms == 2e3
    assert await gather_rest(events) == []


async def test_a_live_feed_is_played(engine: Engine) -> None:
    assert done_texts(await gather(engine, as_they_come(make_chunks(3)))) == [TEXT] * 3


async def test_every_question_gets_a_second_of_its_own(engine: Engine) -> None:
    for question in ("Who leads?", "Who serves?", "Who has the ball?"):
        engine.ask(question)
    events = await gather(engine, make_chunks(4))
    assert [e.query for e in events if isinstance(e, GenerationResult)] == [
        "Who leads?",
        "Who serves?",
        "Who has the ball?",
        "",
    ]


async def test_a_cancel_before_its_second_runs_keeps_a_question(engine: Engine) -> None:
    asked, free = asyncio.Event(), threading.Event()

    async def due(start: float, end: float) -> bool:
        asked.set()
        return True

    events = engine.play(make_chunks(1), due)
    await next_of(events, Ready)
    engine.ask("Who has the ball?")
    engine.submit(lambda: None if free.wait(PATIENCE) else pytest.fail("the thread was not released"))
    rest = asyncio.ensure_future(gather_rest(events))
    await asked.wait()
    # The second is handed to the thread within a few turns of the loop.
    for _ in range(20):
        await asyncio.sleep(0)
    engine.cancel()
    free.set()
    assert await rest == []
    again = await gather(engine, make_chunks(2))
    assert [e.query for e in again if isinstance(e, GenerationResult)] == ["Who has the ball?", ""]


async def test_a_second_that_is_cut_short_keeps_its_question(engine: Engine, script: Script) -> None:
    script.hold_at(1)
    engine.ask("Who has the ball?")
    events = engine.play(make_chunks(9))
    await next_of(events, SpanMap)
    await script.held()
    engine.cancel()
    script.go()
    await gather_rest(events)
    again = await gather(engine, make_chunks(2))
    assert [e.query for e in again if isinstance(e, GenerationResult)] == ["Who has the ball?", ""]


async def test_a_play_that_ends_before_the_result_keeps_its_question(engine: Engine, script: Script) -> None:
    """The answer is complete, and yet the player drops what comes after a seek."""
    script.hold_at(len(SCRIPT) - 1)
    engine.ask("Who has the ball?")
    events = engine.play(make_chunks(9))
    await next_of(events, SpanMap)
    await script.held()
    engine.cancel()
    script.go()
    await gather_rest(events)
    again = await gather(engine, make_chunks(2))
    assert [e.query for e in again if isinstance(e, GenerationResult)] == ["Who has the ball?", ""]


async def test_a_play_that_ends_before_its_caller_sees_the_result_keeps_its_question(
    engine: Engine, script: Script
) -> None:
    script.hold_at(len(SCRIPT) - 1)
    engine.ask("Who has the ball?")
    events = engine.play(make_chunks(9))
    await next_of(events, SpanMap)
    await script.held()
    script.go()
    # The event loop gets nothing from the thread while it waits here.
    engine.submit(lambda: None).result(PATIENCE)
    engine.cancel()
    assert [e.query for e in await gather_rest(events) if isinstance(e, GenerationResult)] == ["Who has the ball?"]
    again = await gather(engine, make_chunks(2))
    assert [e.query for e in again if isinstance(e, GenerationResult)] == ["Who has the ball?", ""]


async def test_a_play_that_ends_after_the_result_does_not_ask_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, generate = threading.Event(), Session.generate

    def hold_after_the_result(*args: Any, **options: Any) -> Iterator[Any]:
        yield from generate(*args, **options)
        assert ended.wait(PATIENCE)

    monkeypatch.setattr(Session, "generate", hold_after_the_result)
    engine.ask("Who has the ball?")
    events = engine.play(make_chunks(9))
    result = await next_of(events, GenerationResult)
    await events.aclose()
    ended.set()
    (again,) = [e for e in await gather(engine, make_chunks(1)) if isinstance(e, GenerationResult)]
    assert isinstance(result, GenerationResult)
    assert (result.query, again.query) == ("Who has the ball?", "")


async def test_reset_forgets_questions(engine: Engine) -> None:
    engine.ask("Who has the ball?")
    await engine.reset()
    events = await gather(engine, make_chunks(1))
    assert [e.query for e in events if isinstance(e, GenerationResult)] == [""]
