"""Keeps clip, model and playhead together: which second is spoken next, and what a seek does to it."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult, Loading, Ready, Skipped
from tui.player.clip import Seconds
from tui.player.playhead import Delay, Pace, Pacer, Playhead
from tui.player.session_log import SessionLog
from tui.player.threads import BackgroundThread

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.video.chunk import Chunk

# Seconds that quitting waits for the model's thread; what it computes then is lost anyway.
PATIENCE = 0.1
# Seconds of clip before a second begins in which it is read even while the model computes, which that slows down.
READ_AHEAD = 0.4


class Commentator(Protocol):
    """What the player needs of an engine."""

    @property
    def config(self) -> "StreamConfig":
        """The settings that the next second runs under."""

    def play(
        self, chunks: "AsyncIterable[Chunk]", due: Callable[[float, float], Awaitable[bool]]
    ) -> "AsyncGenerator[Event]":
        """Speak about `chunks`, each when `due` lets it, and yield what happens."""

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""

    def configure(self, config: "StreamConfig") -> None:
        """Change settings from the next second on."""

    def cancel(self) -> None:
        """End the play under way at its next token."""

    async def reanchor(self) -> None:
        """Empty the windows, keep what was said."""

    def close(self, timeout: float) -> None:
        """End the thread, wait for it at most `timeout` seconds."""


@dataclass(frozen=True, slots=True)
class Seeked:
    """The clip was wound to `position`; what the model was saying is cut off."""

    position: float


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    """A feed's second came, with the pictures in it."""

    chunk: "Chunk"


PlayerEvent = Event | Seeked | ChunkArrived


class Controller:
    """One session of watching; everything happens on the event loop.

    Attributes:
        playhead: where the clip stands; its speed may be changed on it directly.
        pacer: decides whose turn it is.
        delay: how far the commentary is behind.
        log: the session's record.
    """

    def __init__(
        self,
        make: Callable[[], Commentator],
        seconds: Seconds,
        playhead: Playhead,
        pacer: Pacer,
        log: SessionLog,
        tell: Callable[[PlayerEvent], None],
        loop: bool = False,
    ) -> None:
        """Prepare a session; nothing starts before `run`.

        Args:
            make: returns the model's face; may block, and raise `SvmError`.
            seconds: the clip.
            playhead: stands where the session begins.
            pacer: of that playhead.
            log: told of every second.
            tell: told of everything that happens, in order.
            loop: begin again at the clip's end.
        """
        self.playhead, self.pacer, self.log, self.delay = playhead, pacer, log, Delay()
        self._make, self._seconds, self._tell, self._loop = make, seconds, tell, loop
        self._maker, self._reader = BackgroundThread("svm-maker"), BackgroundThread("svm-reader")
        self._engine: Commentator | None = None
        self._orders: list[Callable[[Commentator], None]] = []
        self._beat = asyncio.Event()
        self._newest: Chunk | None = None
        self._wanted: int | None = math.floor(playhead.position)
        # The first second that is neither spoken nor passed over.
        self._next = self._wanted
        # The model: not there yet; never to be had; not heard for now; has nothing to do.
        self._loading, self._gone, self._silent, self._idle = True, False, False, False
        # The last second that was read came too late.
        self._late = False
        self._hold()

    @property
    def loading(self) -> bool:
        """Whether the model is still on its way."""
        return self._loading and not self._gone

    @property
    def gone(self) -> bool:
        """Whether there is no model to be had."""
        return self._gone

    @property
    def _left(self) -> bool:
        """Whether the second under way was left for another one."""
        return self._wanted is not None

    async def run(self) -> None:
        """Have the model speak for as long as the session lasts; return only when there is no model to be had."""
        feed = asyncio.create_task(self._follow_feed()) if self._seconds.duration is None else None
        try:
            self._engine = await self._maker.run(self._make)
            for order in self._orders:
                order(self._engine)
            while not self._gone:
                await self._play(self._engine)
                self._idle = True
                await self._until(lambda: self._left)
                self._idle = False
        except SvmError as error:
            self._fail(str(error))
        finally:
            if feed:
                feed.cancel()

    def close(self) -> None:
        """End all threads, after `run` ended or was cancelled; those that do not end at once are left to the system."""
        if self._engine:
            self._engine.close(PATIENCE)
        self._maker.close()
        self._reader.close(self._seconds.close)

    def tick(self) -> float:
        """Let time go on, and return the position; to be called many times a second."""
        position = self.playhead.tick()
        if self._loop and (self._idle or self._gone) and self.playhead.state == "ended":
            self.seek(0.0)
        self._wake()
        return position

    def toggle(self) -> None:
        """Pause, play on, or play again from the beginning; while the model is loading, play without it."""
        if self.playhead.state == "ended":
            self.seek(0.0)
        elif self.playhead.state == "waiting" and self.loading:
            self._silent = True
        elif self.playhead.playing:
            self.playhead.pause()
        else:
            self.playhead.play()
        self._hold()
        self._wake()

    def step(self) -> None:
        """Play to the end of the second, then pause."""
        if self.playhead.state != "ended":
            self.playhead.step()
            self._wake()

    def seek(self, position: float) -> None:
        """Go to the second that `position` lies in; the model empties its windows and goes on there. Feeds stay."""
        if self.playhead.duration is None:
            return
        position = self.playhead.seek(position)
        self._wanted = self._next = math.floor(position)
        self._silent = False
        self.delay.forget()
        if self._engine:
            self._engine.cancel()
        self._hold()
        self._wake()
        self._tell(Seeked(position))

    def change_pace(self, pace: Pace) -> None:
        """Keep to the clock, or wait for the model."""
        self.pacer.pace = pace
        self._hold()
        self._wake()

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""
        self._order(lambda engine: engine.ask(question))

    def configure(self, config: "StreamConfig") -> None:
        """Change the model's settings from the next second on."""
        self.log.configure(config.to_dict())
        self._order(lambda engine: engine.configure(config))

    def _order(self, order: Callable[[Commentator], None]) -> None:
        if self._engine:
            order(self._engine)
        else:
            self._orders.append(order)

    async def _play(self, engine: Commentator) -> None:
        """Have `engine` speak from the wanted second on, until another one is wanted or the clip ends."""
        if not self._loading:
            await engine.reanchor()
        assert self._wanted is not None
        self._next, self._wanted = self._wanted, None
        async with aclosing(self._chunks()) as chunks, aclosing(engine.play(chunks, self._due)) as events:
            try:
                async for event in events:
                    # What is still said of a second that was left is nobody's.
                    if not self._left or isinstance(event, Loading | Ready | Failed):
                        self._take(event)
            except Exception as error:  # noqa: BLE001 - whatever befalls the model, the clip goes on
                self._fail(f"the model stopped: {type(error).__name__}: {error}")

    async def _chunks(self) -> "AsyncGenerator[Chunk]":
        """Yield seconds as they are asked for; in a hurry, only those that still have a chance."""
        number = self._next
        while not self._left:
            chunk = await self._read_in_time(number)
            if chunk is None or self._left:
                return
            for missed in range(number, chunk.index):
                self._pass(Skipped(missed, float(missed), missed + 1.0))
            yield chunk
            number = chunk.index + 1

    async def _read_in_time(self, number: int) -> "Chunk | None":
        """Return second `number` or the one that has a chance, None past the end or when another one is wanted."""
        await self._until(partial(self._may_read, number))
        return None if self._left else await self._read(self.pacer.following(number))

    def _may_read(self, number: int) -> bool:
        done = self._next >= number or self._left
        return done or self._seconds.duration is None or self.playhead.position >= number - READ_AHEAD

    async def _read(self, number: int) -> "Chunk | None":
        if self._seconds.duration is not None:
            return await self._reader.run(partial(self._seconds.read, number))
        await self._until(lambda: self._newest is not None and self._newest.index >= number)
        return self._newest

    async def _follow_feed(self) -> None:
        """Read a feed as it comes; nobody waits for the model here."""
        try:
            while chunk := await self._reader.run(partial(self._seconds.read, 0)):
                self._newest = chunk
                self.playhead.follow(chunk.end)
                self._tell(ChunkArrived(chunk))
                self._wake()
        except SvmError as error:
            self._fail(str(error))

    async def _due(self, start: float, end: float) -> bool:
        """Wait for the turn of the second from `start` to `end`; tell whether it is to be spoken."""
        while not self._left:
            verdict = self.pacer.judge(start)
            # Where even reading takes a second, one would be late after the other, and nothing ever be said.
            if verdict == "speak" or (verdict == "pass" and self._late):
                self._late = False
                self.delay.begin(start)
                # Nothing may be said of it, and the picture must not wait for that.
                self._next = max(self._next, math.floor(start))
                self._hold()
                return True
            if verdict == "pass":
                self._late = True
                self._pass(Skipped(math.floor(start), start, end))
                return False
            await self._beat.wait()
        return False

    def _take(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._fail(event.message)
            return
        if isinstance(event, Skipped):
            self._pass(event)
            return
        if isinstance(event, Ready):
            if self._silent:
                # The viewer did not wait.
                self._next = math.floor(self.playhead.position)
            self._loading = self._silent = False
        elif isinstance(event, GenerationResult):
            self.delay.finish(self.playhead.position)
            self.log.add(event)
            self._next = event.index + 1
            self._wake()
        self._hold()
        self._tell(event)

    def _pass(self, second: Skipped) -> None:
        self.log.skip(second)
        self._next = second.index + 1
        self._hold()
        self._tell(second)

    def _fail(self, message: str) -> None:
        """Go on without the model: until the next seek, or for good when it never came."""
        self._silent, self._gone = True, self._gone or self._loading
        self.log.fail(message)
        self._hold()
        self._tell(Failed(message))

    def _hold(self) -> None:
        """Let the picture wait where it has to."""
        if self._silent or self._gone or self.playhead.duration is None:
            self.playhead.hold = None
        elif self._loading:
            self.playhead.hold = self.playhead.position
        else:
            self.playhead.hold = self._next + 1.0 if self.pacer.pace == "every" else None

    def _wake(self) -> None:
        self._beat.set()
        self._beat.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._beat.wait()
