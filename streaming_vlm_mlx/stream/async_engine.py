"""The thread that owns MLX, and its asynchronous interface: chunks in, plain events out."""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeVar

import mlx.core as mx

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import read_memory, wired_memory
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult, Loading, Ready, SecondStarted, TextPiece
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.image_processor import patchify

Emit = Callable[[Event], None]
# Given a second's start and end, returns at its turn: True to comment on it, False to skip it.
Due = Callable[[float, float], Awaitable[bool]]
Loader = Callable[[Callable[[Loading], None]], tuple[str, ModelBundle]]
T = TypeVar("T")


async def _at_once(*_: float) -> bool:
    return True


class Engine:
    """Loads a model and comments with it, on one daemon thread; every method is safe to call from the event loop.

    MLX's streams belong to threads: the model, the session and every array live and die on that thread.
    """

    def __init__(self, load: Loader, config: StreamConfig) -> None:
        """Start the threads; `load` runs on the model's, reports its progress, and returns the checkpoint and parts."""
        self._load, self._config = load, config
        self._session: Session | None = None
        self._questions: deque[str] = deque()
        # The question of the second under way, or of one whose result nobody got.
        self._unanswered = ""
        self._closed = False
        self._stop: _Stop | None = None
        self._running = asyncio.Event()
        self._running.set()
        # One reader for all plays: a read that a play left behind ends before the next play reads.
        self._reader = BackgroundThread("svm-chunks")
        self._inbox: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_jobs, name="svm-engine", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._session is not None

    @property
    def config(self) -> StreamConfig:
        """The settings that the next second runs under."""
        return self._config

    async def play(
        self, chunks: Iterable[Chunk] | AsyncIterable[Chunk], due: Due = _at_once, skips: bool = True
    ) -> AsyncGenerator[Event]:
        """Comment on `chunks` in order and yield events; meanwhile the next chunk is read and cut into patches.

        Leaving the iteration early, or `cancel`, ends the second under way at its next token and does not wait for a
        read under way: that goes on, its chunk is dropped, and a later play of this engine reads after it. An error
        that a user can mend comes as a `Failed` event and ends the iteration.

        Args:
            chunks: the seconds of video. A plain iterable is advanced on a thread of its own.
            due: sets the pace. It is awaited for each second in turn; while it waits, the vision tower runs.
            skips: whether `due` may skip seconds. Where none is skipped, a GPU encodes the video of the next second
                while it decodes.

        Raises:
            RuntimeError: the engine is closed.
        """
        outbox = _Outbox()
        stop = self._stop = _Stop()
        seconds = _SecondReader(self._read(chunks), lambda: self._config)
        try:
            async for event in self._follow(partial(self._ready, outbox.put), outbox):
                yield event
            while (second := await stop.unless(seconds.next())) is not None:
                await stop.unless(self._running.wait())
                wanted = await stop.unless(self._turn_of(second, due))
                if stop.is_set():
                    return
                if wanted:
                    following = (lambda: None) if skips else seconds.ahead
                    job = partial(self._generate, second, following, outbox.put, stop.is_set)
                    async for event in self._follow(job, outbox):
                        self._note_answer(event, stop)
                        yield event
            if not stop.is_set():
                async for event in self._follow(partial(self._finish, outbox.put, stop.is_set), outbox):
                    self._note_answer(event, stop)
                    yield event
        except SvmError as error:
            yield Failed(str(error))
        finally:
            stop.set()
            await seconds.close()

    def ask(self, question: str) -> None:
        """Queue a viewer's question: each goes into a second of its own, in order.

        A question whose second is cut short is asked again in the next one.
        """
        self._questions.append(question)

    def configure(self, config: StreamConfig) -> None:
        """Change the standing query, sampling or windows from the next second on."""
        self._config = config

    def pause(self) -> None:
        """Start no further second; the one under way goes on to its end."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running.set()

    def cancel(self) -> None:
        """End the play under way at its next token; a pause stays in effect for the next one."""
        if self._stop:
            self._stop.set()

    async def reanchor(self) -> None:
        """End the play under way; empty the windows and keep the previous text, for a seek."""
        self.cancel()
        await asyncio.wrap_future(self.submit(self._change(Session.reanchor)))

    async def reset(self) -> None:
        """End the play under way and forget everything: video, commentary and waiting questions."""
        self.cancel()
        await asyncio.wrap_future(self.submit(self._change(Session.reset)))
        self._questions.clear()
        self._unanswered = ""

    def close(self, timeout: float = 5.0) -> None:
        """End the play under way and the threads; wait for the model's at most `timeout` seconds."""
        self.cancel()
        if not self._closed:
            self._closed = True
            self._reader.close()
            self._inbox.put(None)
        self._thread.join(timeout)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run `work` on the model's thread, after the work that it has.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("the engine is closed")
        done: Future[None] = Future()
        self._inbox.put((work, done))
        return done

    def _run_jobs(self) -> None:
        """Run jobs one after another; an error is raised where the job is waited for."""
        with wired_memory():
            for work, done in iter(self._inbox.get, None):
                if not done.set_running_or_notify_cancel():
                    continue
                try:
                    work()
                except BaseException as error:  # noqa: BLE001 - raised where the job is waited for
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

    async def _follow(self, work: Callable[[], None], outbox: "_Outbox") -> AsyncIterator[Event]:
        """Run `work` on the thread and yield what it emits; raise what it raises."""
        done = self.submit(work)
        done.add_done_callback(lambda _: outbox.put(None))
        while (event := await outbox.get()) is not None:
            yield event
        done.result()

    async def _read(self, chunks: Iterable[Chunk] | AsyncIterable[Chunk]) -> AsyncGenerator[Chunk]:
        """Yield from either kind; a plain iterable is advanced on the reader's thread, since reading video blocks."""
        if isinstance(chunks, AsyncIterable):
            async for chunk in chunks:
                yield chunk
            return
        iterator = iter(chunks)
        while (read := await self._reader.run(partial(next, iterator, None))) is not None:
            yield read

    async def _turn_of(self, second: SecondRequest, due: Due) -> bool:
        """Wait for the second's turn, with the vision tower at work; return whether to comment on it."""
        turn = asyncio.ensure_future(due(second.start, second.end))
        try:
            # `due` may return at once. Only where it waits is there time to encode ahead.
            await asyncio.sleep(0)
            if not turn.done():
                self.submit(self._change(partial(Session.encode_ahead, second=second)))
            return await turn
        finally:
            turn.cancel()

    def _ready(self, emit: Emit) -> None:
        """Load the model, once; on the thread."""
        if self._session is None:
            name, bundle = self._load(emit)
            self._session = Session(bundle, self._config)
            emit(Ready(name, bundle.model.parameter_count()))

    def _change(self, change: Callable[[Session], None]) -> Callable[[], None]:
        """Return work that changes the session, if it exists by then, under the settings of that moment."""

        def work() -> None:
            if self._session:
                self._session.configure(self._config)
                change(self._session)

        return work

    def _generate(
        self,
        second: SecondRequest,
        following: Callable[[], SecondRequest | None],
        emit: Emit,
        stopped: Callable[[], bool],
    ) -> None:
        """Comment on `second`, with the first question that waits, and start on the `following` one; on the thread."""
        session = self._session
        assert session is not None
        if stopped():
            return
        session.configure(self._config)
        # A second that only shows a part of a turn has no reply to a question.
        question = self._next_question() if session.completes_turn else ""
        events = session.generate(replace(second, question=question), stopped=stopped)

        def emit_and_start(event: Event) -> None:
            emit(event)
            # Not before the first words, which a viewer waits for.
            if isinstance(event, TextPiece):
                session.encode_beside(following())

        self._emit(second, events, emit_and_start)

    def _finish(self, emit: Emit, stopped: Callable[[], bool]) -> None:
        """Comment on the seconds of a first turn that the end of the chunks left waiting; on the thread."""
        session = self._session
        assert session is not None
        if session.waiting is None or stopped():
            return
        session.configure(self._config)
        self._emit(session.waiting, session.generate_rest(self._next_question(), stopped=stopped), emit)

    def _next_question(self) -> str:
        """Return the question that still has no answer, or the first one that waits; on the thread."""
        if not self._unanswered and self._questions:
            self._unanswered = self._questions.popleft()
        return self._unanswered

    def _note_answer(self, event: Event, stop: "_Stop") -> None:
        """Forget the question that `event` answers, just before the caller gets it; on the event loop."""
        # A caller that ended the play before this result drops it, even when the answer is complete.
        if isinstance(event, GenerationResult) and not stop.is_set():
            self._unanswered = ""

    @staticmethod
    def _emit(second: SecondRequest, events: Iterable[Event], emit: Emit) -> None:
        """Emit the `events` of `second`."""
        emit(SecondStarted(second.index, second.start, second.end))
        for event in events:
            emit(replace(event, memory=read_memory()) if isinstance(event, GenerationResult) else event)


class _Stop:
    """Tells the thread and the event loop that a play is to end."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._flag, self._seen = threading.Event(), asyncio.Event()

    def is_set(self) -> bool:
        return self._flag.is_set()

    def set(self) -> None:
        """End the play; from any thread."""
        self._flag.set()
        # The loop is closed if the caller left early.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._seen.set)

    async def unless(self, waiting: Awaitable[T]) -> T | None:
        """Return what `waiting` returns, or None as soon as the play is to end."""
        waited, stopped = asyncio.ensure_future(waiting), asyncio.ensure_future(self._seen.wait())
        try:
            await asyncio.wait((waited, stopped), return_when=asyncio.FIRST_COMPLETED)
            return waited.result() if waited.done() and not self.is_set() else None
        finally:
            waited.cancel()
            stopped.cancel()
            await asyncio.gather(waited, stopped, return_exceptions=True)


class _Outbox:
    """Carries events from the thread to the event loop that runs when this is made; None ends a job's events."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        """Add an event; from any thread."""
        # The loop is closed if the caller left early.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def get(self) -> Event | None:
        """Return the next event."""
        return await self._events.get()


class _SecondReader:
    """Turns chunks into requests, one ahead of the caller."""

    def __init__(self, chunks: AsyncGenerator[Chunk], config: Callable[[], StreamConfig]) -> None:
        """Read nothing yet; `config` returns the settings of the moment."""
        self._chunks, self._config = chunks, config
        self._ahead: asyncio.Task[SecondRequest | None] | None = None
        self._read_ahead: SecondRequest | None = None

    def ahead(self) -> SecondRequest | None:
        """Return the second that the next `next` returns, if it is read by now; from any thread."""
        return self._read_ahead

    async def next(self) -> SecondRequest | None:
        """Return the next second, None at the end, and start to read the one after it."""
        second = await (self._ahead or self._read())
        self._read_ahead = None
        if second is not None:
            self._ahead = asyncio.create_task(self._read())
        return second

    async def close(self) -> None:
        """Give up the read under way."""
        if self._ahead:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        await self._chunks.aclose()

    async def _read(self) -> SecondRequest | None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            return None
        patches = await asyncio.to_thread(patchify, chunk.frames, self._config().pixels)
        self._read_ahead = SecondRequest(chunk.index, chunk.start, chunk.end, patches)
        return self._read_ahead
