"""The thread that owns MLX, and its async face: chunks in, plain events out."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeVar

import mlx.core as mx

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import read_memory
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult, Loading, Ready, SecondStarted
from streaming_vlm_mlx.stream.session import SecondRequest, Session
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.image_processor import patchify

Emit = Callable[[Event], None]
# Given a second's start and end, returns when it is its turn: whether it shall be spoken, or is passed over.
Due = Callable[[float, float], Awaitable[bool]]
Loader = Callable[[Callable[[Loading], None]], tuple[str, ModelBundle]]
T = TypeVar("T")


async def _at_once(*_: float) -> bool:
    return True


class _Stop:
    """Says to the thread and to the event loop that a play is to end."""

    def __init__(self) -> None:
        """Belong to the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._flag, self._seen = threading.Event(), asyncio.Event()

    def is_set(self) -> bool:
        return self._flag.is_set()

    def set(self) -> None:
        """End the play; from any thread."""
        self._flag.set()
        # Whoever left early may have closed the loop meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._seen.set)

    async def unless(self, waiting: Awaitable[T]) -> T | None:
        """Return what `waiting` does, or None as soon as the play is to end."""
        waited, stopped = asyncio.ensure_future(waiting), asyncio.ensure_future(self._seen.wait())
        try:
            await asyncio.wait((waited, stopped), return_when=asyncio.FIRST_COMPLETED)
            return waited.result() if waited.done() and not self.is_set() else None
        finally:
            waited.cancel()
            stopped.cancel()


class Engine:
    """Loads a model and speaks with it, on one daemon thread; every method is safe to call from the event loop.

    MLX's streams belong to threads: the model, the session and every array live and die on that thread.
    """

    def __init__(self, load: Loader, config: StreamConfig) -> None:
        """Start the thread; `load` runs on it, reports its progress, and returns the checkpoint's name and parts."""
        self._load, self._config = load, config
        self._session: Session | None = None
        self._question = ""
        self._closed = False
        self._stop: _Stop | None = None
        self._running = asyncio.Event()
        self._running.set()
        self._inbox: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="svm-engine", daemon=True)
        self._thread.start()

    @property
    def config(self) -> StreamConfig:
        """The settings that the next second runs under."""
        return self._config

    async def play(self, chunks: Iterable[Chunk] | AsyncIterable[Chunk], due: Due = _at_once) -> AsyncGenerator[Event]:
        """Speak about `chunks` in order and yield what happens; the next chunk is read and patched meanwhile.

        `due` keeps the pace: it is asked for each second in turn, and the vision tower runs while it lets one wait.
        Leaving the iteration early, or `cancel`, ends the second under way at its next token. An error that a user can
        mend comes as a `Failed` event and ends the iteration. Once it has ended, nothing reads `chunks` any more.

        Raises:
            RuntimeError: the engine is closed.
        """
        loop = asyncio.get_running_loop()
        outbox: asyncio.Queue[Event | None] = asyncio.Queue()

        def emit(event: Event | None) -> None:
            # Whoever left early may have closed the loop meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(outbox.put_nowait, event)

        stop = self._stop = _Stop()
        seconds = self._prepare(chunks)
        try:
            async for event in self._follow(partial(self._ready, emit), outbox, emit):
                yield event
            async for second in seconds:
                await stop.unless(self._running.wait())
                wanted = await stop.unless(self._turn_of(second, due))
                if stop.is_set():
                    return
                if not wanted:
                    continue
                job = partial(self._generate, self._with_question(second), emit, stop.is_set)
                async for event in self._follow(job, outbox, emit):
                    yield event
        except SvmError as error:
            yield Failed(str(error))
        finally:
            stop.set()
            await seconds.aclose()

    def ask(self, question: str) -> None:
        """Put `question` into the next second, in the form that models are trained on."""
        self._question = question

    def configure(self, config: StreamConfig) -> None:
        """Change the standing query, sampling or windows from the next second on."""
        self._config = config

    def pause(self) -> None:
        """Take no further second; the one under way is spoken to its end."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running.set()

    def cancel(self) -> None:
        """End the play under way at the next token; a pause goes on for the next one."""
        if self._stop:
            self._stop.set()

    async def reanchor(self) -> None:
        """End the play under way; empty the windows and keep the previous text, for a seek."""
        self.cancel()
        await asyncio.wrap_future(self._submit(self._change(Session.reanchor)))

    async def reset(self) -> None:
        """End the play under way and forget all that was seen and said."""
        self.cancel()
        await asyncio.wrap_future(self._submit(self._change(Session.reset)))

    def close(self, timeout: float = 5.0) -> None:
        """End the play under way and the thread; wait for it at most `timeout` seconds."""
        self.cancel()
        self._closed = True
        self._inbox.put(None)
        self._thread.join(timeout)

    def _submit(self, work: Callable[[], None]) -> Future[None]:
        if self._closed:
            raise RuntimeError("the engine is closed")
        done: Future[None] = Future()
        self._inbox.put((work, done))
        return done

    def _change(self, change: Callable[[Session], None]) -> Callable[[], None]:
        """Return work that changes the session, if there is one by then, under the settings of the day."""

        def work() -> None:
            if self._session:
                self._session.configure(self._config)
                change(self._session)

        return work

    def _work(self) -> None:
        """Run jobs one after another; what they raise belongs to whoever waits for them."""
        for job in iter(self._inbox.get, None):
            work, done = job
            if not done.set_running_or_notify_cancel():
                continue
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed on to the waiting side
                done.set_exception(error)
            else:
                done.set_result(None)
        if self._session:
            with contextlib.suppress(SvmError):
                self._session.close()
        self._session = None
        # A thread that ends with streams of its own takes the process down when that exits.
        mx.synchronize()
        mx.clear_streams()

    async def _follow(
        self, work: Callable[[], None], outbox: asyncio.Queue[Event | None], emit: Callable[[Event | None], None]
    ) -> AsyncIterator[Event]:
        """Run `work` on the thread and yield what it emits; raise what it raises."""
        done = self._submit(work)
        done.add_done_callback(lambda _: emit(None))
        while (event := await outbox.get()) is not None:
            yield event
        done.result()

    async def _prepare(self, chunks: Iterable[Chunk] | AsyncIterable[Chunk]) -> AsyncGenerator[SecondRequest]:
        """Yield each chunk with its patches; the next one is read while the caller is busy."""
        source = _asynchronous(chunks)
        task = asyncio.create_task(self._next_second(source))
        try:
            while (second := await task) is not None:
                task = asyncio.create_task(self._next_second(source))
                yield second
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await source.aclose()

    async def _next_second(self, source: AsyncGenerator[Chunk]) -> SecondRequest | None:
        chunk = await anext(source, None)
        if chunk is None:
            return None
        patches = await asyncio.to_thread(patchify, chunk.frames, self._config.pixels)
        return SecondRequest(chunk.index, chunk.start, chunk.end, patches)

    async def _turn_of(self, second: SecondRequest, due: Due) -> bool:
        turn = asyncio.ensure_future(due(second.start, second.end))
        try:
            # A turn that has come, or is over, shows at once; only a wait leaves time to look ahead.
            await asyncio.sleep(0)
            if not turn.done():
                self._submit(self._change(partial(Session.encode_ahead, second=second)))
            return await turn
        finally:
            turn.cancel()

    def _with_question(self, second: SecondRequest) -> SecondRequest:
        question, self._question = self._question, ""
        return replace(second, question=question) if question else second

    def _ready(self, emit: Emit) -> None:
        """Load the model, once."""
        if self._session is None:
            name, bundle = self._load(emit)
            self._session = Session(bundle, self._config)
            emit(Ready(name, bundle.model.parameter_count()))

    def _generate(self, second: SecondRequest, emit: Emit, stopped: Callable[[], bool]) -> None:
        session = self._session
        assert session is not None
        if stopped():
            return
        session.configure(self._config)
        emit(SecondStarted(second.index, second.start, second.end))
        for event in session.generate(second, stopped=stopped):
            emit(replace(event, memory=read_memory()) if isinstance(event, GenerationResult) else event)


async def _asynchronous(chunks: Iterable[Chunk] | AsyncIterable[Chunk]) -> AsyncGenerator[Chunk]:
    """Yield from either kind; a plain iterator is advanced on a thread of its own, since reading video blocks."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator = iter(chunks)
    while (following := await _read(iterator)) is not None:
        yield following


async def _read(chunks: Iterator[Chunk]) -> Chunk | None:
    """Advance `chunks` on a thread; a read that is cancelled is waited for, so that no two ever read one source."""
    reading = asyncio.get_running_loop().run_in_executor(None, next, chunks, None)
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise
