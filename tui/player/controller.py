"""The controller: keeps clip, model and playhead together, and decides which second is generated when."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult, Ready, Skipped
from tui.player.clip import Seconds
from tui.player.feed import LiveFeed
from tui.player.pace import Delay, Pace, Pacer
from tui.player.playhead import Playhead
from tui.player.states import State, Trigger, next_state

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.video.chunk import Chunk
    from streaming_vlm_mlx.video.reconnect import FeedStatus

# Seconds that quitting waits for the model's thread, whose result is lost anyway.
CLOSE_TIMEOUT = 0.1
# Seconds by which a feed's seconds arrive late: each is delivered when it is over.
FEED_LATENCY = 1.0


class Commentator(Protocol):
    """What the player needs of an engine."""

    @property
    def config(self) -> "StreamConfig":
        """The settings that the next second runs under."""

    def play(
        self, chunks: "AsyncIterable[Chunk]", due: Callable[[float, float], Awaitable[bool]]
    ) -> "AsyncGenerator[Event]":
        """Generate commentary on `chunks`, each when `due` returns, and yield what happens.

        `Ready` comes before the first chunk is read.
        """

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""

    def configure(self, config: "StreamConfig") -> None:
        """Change the settings from the next second on."""

    def cancel(self) -> None:
        """End the current `play` at its next token."""

    async def reanchor(self) -> None:
        """Empty the windows and keep the previous text."""

    def close(self, timeout: float) -> None:
        """End the thread and wait for it at most `timeout` seconds."""


@dataclass(frozen=True, slots=True)
class Seeked:
    """The playhead went to `position`; the second under way is abandoned."""

    position: float


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    """A feed delivered a second, with its frames."""

    chunk: "Chunk"


@dataclass(frozen=True, slots=True)
class FeedEnded:
    """A feed brings no more seconds, for `reason`, unless the viewer reconnects."""

    reason: str


PlayerEvent = Event | Seeked | ChunkArrived | FeedEnded


class Controller:
    """One session of the player; everything happens on the event loop.

    Its state and the transitions are in `tui.player.states`, the rules of pace in `tui.player.pace`; the controller
    is the only object that applies them.

    Attributes:
        playhead: where the clip stands; only to be read.
        log: the session's record.
        feed_has_failed: whether a live feed ended with an error.
    """

    def __init__(
        self,
        make: Callable[[], Commentator],
        seconds: Seconds,
        playhead: Playhead,
        log: SessionLog,
        tell: Callable[[PlayerEvent], None],
        pace: Pace = "live",
        loop: bool = False,
        feed: LiveFeed | None = None,
    ) -> None:
        """Prepare a session; nothing starts before `run`.

        Args:
            make: returns the commentator; may block, and raise `SvmError`.
            seconds: the clip.
            playhead: at the position that the session begins at.
            log: gets every second.
            tell: called with every event, in order.
            pace: how seconds are chosen.
            loop: start again at the clip's end.
            feed: the connection of a feed; None for a clip.
        """
        self.playhead, self.log, self.feed_has_failed = playhead, log, False
        self._make, self._seconds, self._tell, self._loop = make, seconds, tell, loop
        self._feed = feed
        self._loader, self._reader = BackgroundThread("svm-loader"), BackgroundThread("svm-reader")
        self._pacer = Pacer(playhead, pace, 0.0 if seconds.duration is not None else FEED_LATENCY)
        self._delay = Delay()
        self._state = State.LOADING
        # The first second that is neither generated nor skipped.
        self._next = math.floor(playhead.position)
        self._newest: Chunk | None = None
        self._engine: Commentator | None = None
        self._waiting_orders: list[Callable[[Commentator], None]] = []
        self._change = asyncio.Event()
        self._limit_playhead()

    @property
    def state(self) -> State:
        """What the model does."""
        return self._state

    @property
    def pace(self) -> Pace:
        """How seconds are chosen."""
        return self._pacer.pace

    @property
    def delay(self) -> float:
        """Seconds of clip from a second's beginning to its last word, now."""
        return self._delay.at(self.playhead.position)

    @property
    def feed_status(self) -> "FeedStatus | None":
        """How the feed is doing; None for a clip."""
        return self._feed.status if self._feed else None

    @property
    def generating(self) -> bool:
        """Whether a second is being generated at this moment."""
        return self._delay.pending

    @property
    def ended(self) -> bool:
        """Whether the clip is at its end, and the model has no more to say."""
        resting = self._state in (State.FINISHED, State.FAILED, State.UNAVAILABLE)
        return resting and self.playhead.state == "ended"

    async def run(self) -> None:
        """Run the session; return only when there is no model, and no feed to follow."""
        if self._seconds.duration is not None:
            await self._run_model()
            return
        # A feed plays on without a model.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_model())
            tasks.create_task(self._follow_feed())

    def close(self) -> None:
        """End all threads, after `run` has ended or was cancelled; a thread that is busy is left to the system."""
        if self._engine:
            self._engine.close(CLOSE_TIMEOUT)
        if self._feed:
            self._feed.stop()
        self._loader.close()
        self._reader.close(self._seconds.close)

    def tick(self) -> float:
        """Move the playhead to where the clock says and return its position; to be called many times a second."""
        position = self.playhead.tick()
        if self._loop and self.ended:
            self.seek(0.0)
        self._notify()
        return position

    def toggle(self) -> None:
        """Pause, play on, or play again from the beginning; while the model is being loaded, play without it."""
        if self.playhead.state == "ended":
            self.seek(0.0)
        elif self.playhead.state == "waiting" and self._state is State.LOADING:
            self._move(Trigger.PLAY_WITHOUT_MODEL)
        elif self.playhead.playing:
            self.pause()
        else:
            self.playhead.play()
        self._notify()

    def pause(self) -> None:
        """Stop here, also while the model is being loaded."""
        self.playhead.pause()
        self._notify()

    def step(self) -> None:
        """Play to the end of the second, then pause."""
        if self.playhead.state != "ended":
            self.playhead.step()
            self._notify()

    def seek(self, position: float) -> None:
        """Go to the second that contains `position`; the model empties its windows and goes on there.

        Does nothing in a feed, which has no other positions.
        """
        if self.playhead.duration is None:
            return
        position = self.playhead.seek(position)
        self._next = math.floor(position)
        self._delay.reset()
        self._move(Trigger.SEEK)
        if self._engine and self._state is State.SEEKING:
            self._engine.cancel()
        self._tell(Seeked(position))

    def reconnect(self) -> bool:
        """Connect to the feed again, or go on in a clip that could not be read; return whether there is one."""
        if self._feed:
            self._feed.reconnect()
            self._notify()
        elif self._state is State.FAILED:
            self.seek(self.playhead.position)
        else:
            return False
        return True

    def change_speed(self, steps: int) -> None:
        """Play `steps` speeds faster, or slower for a negative number."""
        self.playhead.change_speed(steps)

    def change_pace(self, pace: Pace) -> None:
        """Keep to the clock, or wait for the model."""
        self._pacer.pace = pace
        self._limit_playhead()
        self._notify()

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""
        self._order(lambda engine: engine.ask(question))

    def configure(self, config: "StreamConfig") -> None:
        """Change the model's settings from the next second on."""
        self.log.configure(config.to_dict())
        self._order(lambda engine: engine.configure(config))

    def _order(self, order: Callable[[Commentator], None]) -> None:
        """Give `order` to the engine, as soon as there is one."""
        if self._engine:
            order(self._engine)
        else:
            self._waiting_orders.append(order)

    async def _run_model(self) -> None:
        try:
            engine = self._engine = await self._loader.run(self._make)
        except SvmError as error:
            self._fail(str(error))
            return
        for order in self._waiting_orders:
            order(engine)
        await self._generate(engine)
        while self._state is not State.UNAVAILABLE:
            await self._until(lambda: self._abandoned)
            if await self._restart(engine):
                await self._generate(engine)

    async def _restart(self, engine: Commentator) -> bool:
        """Get `engine` ready to generate elsewhere, and return whether it is."""
        try:
            await engine.reanchor()
        except Exception as error:  # noqa: BLE001 - whatever happens to the model, the clip plays on
            self._fail(_describe(error))
            return False
        self._move(Trigger.RESTARTED)
        return True

    async def _generate(self, engine: Commentator) -> None:
        """Have `engine` generate from the next second on, until the viewer seeks or the clip ends."""
        async with aclosing(self._chunks()) as chunks, aclosing(engine.play(chunks, self._is_due)) as events:
            try:
                async for event in events:
                    # What else comes of an abandoned second is dropped.
                    if not self._abandoned:
                        self._handle(event)
            except Exception as error:  # noqa: BLE001 - whatever happens to the model, the clip plays on
                if not self._abandoned:
                    self._fail(_describe(error))
        self._move(Trigger.END_REACHED)

    @property
    def _abandoned(self) -> bool:
        """Whether the generation under way was left for a seek."""
        return self._state is State.SEEKING

    async def _chunks(self) -> "AsyncGenerator[Chunk]":
        """Yield seconds as the engine asks for them; seconds that are over by then are skipped unread."""
        number = self._next
        while not self._abandoned:
            chunk = await self._read_in_time(number)
            if chunk is None or self._abandoned:
                return
            for missed in range(number, chunk.index):
                self._skip(Skipped(missed, float(missed), missed + 1.0))
            yield chunk
            number = chunk.index + 1

    async def _read_in_time(self, number: int) -> "Chunk | None":
        """Return second `number` or the later one to read; None past the end or when the generation is abandoned."""
        await self._until(lambda: self._abandoned or self._pacer.may_read(number, self._next))
        return None if self._abandoned else await self._read(self._pacer.second_to_read(number))

    async def _read(self, number: int) -> "Chunk | None":
        if self._seconds.duration is not None:
            return await self._reader.run(partial(self._seconds.read, number))
        await self._until(lambda: self._newest is not None and self._newest.index >= number)
        return self._newest

    async def _follow_feed(self) -> None:
        """Read a feed as it comes, however slow the model is, and again when it is back after its end."""
        try:
            while True:
                while chunk := await self._reader.run(partial(self._seconds.read, 0)):
                    self._newest = chunk
                    self.playhead.follow(chunk.start, chunk.end)
                    self._tell(ChunkArrived(chunk))
                    self._notify()
                status = self.feed_status
                self._tell(FeedEnded(status.reason if status else ""))
                await self._until(lambda: self._feed is not None and self._feed.status.state != "ended")
        except SvmError as error:
            self.feed_has_failed = True
            self._fail(str(error))

    async def _is_due(self, start: float, end: float) -> bool:
        """Wait for the turn of the second from `start` to `end`; return whether it is to be generated."""
        while not self._abandoned:
            decision = self._pacer.decide(start)
            if decision == "generate":
                self._delay.begin(start)
                # The playhead may go on to the end of this second, even if nothing is said in it.
                self._next = max(self._next, math.floor(start))
                self._limit_playhead()
                return True
            if decision == "skip":
                self._skip(Skipped(math.floor(start), start, end))
                return False
            await self._change.wait()
        return False

    def _handle(self, event: Event) -> None:
        match event:
            case Failed(message):
                self._fail(message)
                return
            case Skipped():
                self._skip(event)
                return
            case Ready():
                if self._state is State.LOADING_IN_BACKGROUND:
                    self._next = math.floor(self.playhead.position)
                self._move(Trigger.READY)
            case GenerationResult(index=index):
                self._delay.finish(self.playhead.position)
                self.log.add(event)
                self._next = index + 1
                self._limit_playhead()
                self._notify()
        self._tell(event)

    def _skip(self, second: Skipped) -> None:
        self.log.skip(second)
        self._next = second.index + 1
        self._limit_playhead()
        self._tell(second)

    def _fail(self, message: str) -> None:
        """Go on without the model: until the next seek, or for good when it was never loaded."""
        self._delay.reset()
        self._move(Trigger.FAILURE)
        self.log.fail(message)
        self._tell(Failed(message))

    def _move(self, trigger: Trigger) -> None:
        """Go to the state that `trigger` leads to."""
        self._state = next_state(self._state, trigger)
        self._limit_playhead()
        self._notify()

    def _limit_playhead(self) -> None:
        self.playhead.limit = self._pacer.limit(self._state, self._next)

    def _notify(self) -> None:
        """Let everything that waits check its condition."""
        self._change.set()
        self._change.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._change.wait()


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SvmError) else f"the model stopped: {type(error).__name__}: {error}"
