"""Fakes for the player: a clock, a clip, a feed and a commentator; and a harness that drives the player on them."""

import asyncio
import queue
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import (
    Event,
    Failed,
    GenerationResult,
    Loading,
    Ready,
    SecondStarted,
    SpanMap,
    SpanView,
    TextPiece,
    Timings,
)
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.reconnect import FeedStatus
from tui.player.app import PlayerApp
from tui.player.controller import Commentator
from tui.player.playhead import Playhead
from tui.player.screens.player import PlayerScreen
from tui.player.spec import Note, PlayerSpec
from tui.player.transcript import Timed, TranscriptRow
from tui.player.widgets.title import Title
from tui.player.widgets.transcript_view import TranscriptView

RECORD = SessionRecord(created="2026-01-02T03:04:05+00:00", clip="match.mp4", model="run1", settings={})
TRUTH: tuple[Timed, ...] = ((0.2, 0.5, "second"), (0.6, 0.9, "nil"), (1.2, 1.5, "second"), (1.6, 1.9, "1"))
MB = 1_000_000
# A safety limit in seconds; what a test waits for comes much sooner.
TIMEOUT = 60.0
# Widgets that a message passes at most: from the app down to a widget, up again, and on to what it leads to.
MAX_HOPS = 10
# What keys write, where that is not their name.
CHARACTERS = {"space": " ", "question_mark": "?", "minus": "-"}
NAMES = {" ": "space", ">": "greater_than_sign", "<": "less_than_sign", "-": "minus"}


# Seconds of the clip that a playhead is tested on.
DURATION = 20.5


class Clock:
    """A clock that only moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(head: Playhead, clock: Clock, seconds: float) -> float:
    """Let `seconds` pass, in ticks of a quarter."""
    for _ in range(round(4 * seconds)):
        clock.now += 0.25
        head.tick()
    return head.position


class Blank:
    """Seconds of a clip without pictures, which cannot be read from second `vanishes` on."""

    def __init__(self, duration: float | None = 60.0, vanishes: float = float("inf")) -> None:
        self.duration, self.vanishes = duration, vanishes
        self.read_numbers: list[int] = []
        self.closed = False

    def read(self, number: int) -> Chunk | None:
        assert self.duration is not None
        self.read_numbers.append(number)
        if number >= self.vanishes:
            raise SvmError("match.mp4 is gone; copy it back.")
        if number >= self.duration:
            return None
        return Chunk(number, float(number), min(number + 1.0, self.duration), np.zeros((2, 4, 4, 3), np.uint8), ())

    def close(self) -> None:
        self.closed = True


class Feed(Blank):
    """A feed whose seconds come when the test lets them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.coming: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def read(self, number: int) -> Chunk | None:
        index = self.coming.get()
        if index is None:
            return None
        return Chunk(index, float(index), index + 1.0, np.zeros((2, 4, 4, 3), np.uint8), ())


class Link:
    """The connection of a feed, in the state that the test says."""

    def __init__(self) -> None:
        self.status = FeedStatus("live")
        self.reconnects = self.stops = 0

    def reconnect(self) -> None:
        self.reconnects += 1
        self.status = FeedStatus("reconnecting", 12.0, 1)

    def stop(self) -> None:
        self.stops += 1


class Scripted:
    """A commentator that says the given line in each second, word by word, and can be paused.

    Attributes:
        free: while it is not set, a second that has started does not go on.
        fails: when set, the message that the second under way fails with, once.
        questions: the questions, each with the second that it went into.
        anchors: how often it was reanchored.
    """

    def __init__(
        self,
        lines: Mapping[int, str] | None = None,
        failure: str = "",
        loading: int = 0,
        notes: Mapping[int, str] | None = None,
    ) -> None:
        self.notes = notes or {}
        self.config = StreamConfig()
        self.lines = {} if lines is None else lines
        self.failure, self.loading = failure, loading
        self.fails = ""
        self.free, self.loaded = asyncio.Event(), asyncio.Event()
        self.free.set()
        self.loaded.set()
        self.questions: list[tuple[int, str]] = []
        self.anchors = 0
        self.closed = False
        self._ready = False
        self._question = ""
        self._cancelled = False
        self._news = asyncio.Event()
        self.begun: list[int] = []
        self.spoken: list[int] = []
        self.played: list[int] = []

    async def play(
        self, chunks: AsyncIterable[Chunk], due: Callable[[float, float], Awaitable[bool]]
    ) -> AsyncGenerator[Event]:
        self._cancelled = False
        if not self._ready:
            for step in range(self.loading):
                yield Loading("weights", step, self.loading)
            await self.loaded.wait()
            if self.failure:
                yield Failed(self.failure)
                return
            self._ready = True
            yield Ready("run1", 12)
        try:
            async for chunk in chunks:
                wanted = await due(chunk.start, chunk.end)
                if self._cancelled:
                    return
                if wanted:
                    async for event in self._speak(chunk):
                        yield event
                        if self._cancelled:
                            return
        except SvmError as error:
            yield Failed(str(error))

    async def _speak(self, chunk: Chunk) -> AsyncGenerator[Event]:
        question, self._question = self._question, ""
        number = chunk.index
        if question:
            self.questions.append((number, question))
        self._tell(self.begun, number)
        yield SecondStarted(number, chunk.start, chunk.end)
        yield span_map(number)
        text = self.lines.get(number, f"second {number}")
        for word in text.split(" "):
            await self.free.wait()
            if self.fails:
                message, self.fails = self.fails, ""
                raise SvmError(message)
            yield TextPiece(number, f"{word} ")
        yield replace(second_done(number, text, question), notes=self.notes.get(number, ""))
        self._tell(self.spoken, number)

    def _tell(self, numbers: list[int], number: int) -> None:
        numbers.append(number)
        self._news.set()
        self._news.clear()

    async def until_begun(self, number: int, times: int = 1) -> None:
        """Wait until second `number` has started."""
        await self._until(lambda: self.begun.count(number) >= times)

    async def until_spoken(self, number: int, times: int = 1) -> None:
        """Wait until second `number` is done and handled."""
        await self._until(lambda: self.spoken.count(number) >= times)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await self._news.wait()

    def ask(self, question: str) -> None:
        self._question = question

    def configure(self, config: StreamConfig) -> None:
        self.config = config

    def cancel(self) -> None:
        self._cancelled = True

    async def reanchor(self) -> None:
        self.cancel()
        self.anchors += 1

    def close(self, timeout: float) -> None:
        self.cancel()
        self.closed = True


async def wait(pilot: Pilot[None]) -> None:
    """Wait until every message that was posted, and every message that those led to, is handled and drawn.

    `Pilot.pause` without a delay waits until the process is idle, which depends on how busy the machine is.
    """
    for _ in range(MAX_HOPS):
        await pilot.pause(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, which another thread or task brings about."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0)


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press `keys`, each after the effect of the one before."""
    for key in keys:
        name = NAMES.get(key, key)
        pilot.app.post_message(events.Key(name, CHARACTERS.get(name, name if len(name) == 1 else None)))
        await wait(pilot)


def second_done(
    number: int, text: str = "he scores", question: str = "", milliseconds: float = 250.0
) -> GenerationResult:
    """Return the end of a second that cost `milliseconds`."""
    return GenerationResult(
        index=number,
        start=float(number),
        end=number + 1.0,
        text=text,
        tokens=len(text.split()),
        video_tokens=299,
        cache_tokens=400 + 40 * number,
        cache_bytes=34 * MB,
        query=question,
        timings=Timings(100.0, 50.0, milliseconds - 150.0, 160.0, milliseconds),
        memory=Memory(active=1200 * MB, cache=300 * MB, peak=2000 * MB, process=4100 * MB, machine=16000 * MB),
    )


def span_map(number: int) -> SpanMap:
    """Return what a model of a window of four seconds remembers in second `number`."""
    kept = range(max(number - 3, 0), number + 1)
    spans = [SpanView("system", -1, 40), SpanView("previous", -1, 60 * max(number - 3, 0))]
    spans += [SpanView(kind, n, tokens) for n in kept for kind, tokens in (("user", 12), ("video", 299), ("text", 20))]
    dropped = (SpanView("video", number - 4, 299),) if number >= 4 else ()
    return SpanMap(number, tuple(span for span in spans if span.tokens), dropped)


def spec(
    engine: Callable[[Note], Commentator], folder: Path, seconds: Blank | None = None, **changes: object
) -> PlayerSpec:
    """Return the spec of a session on `engine` without a picture, which is saved in `folder`."""
    made = PlayerSpec(
        clip="match.mp4",
        model="run1",
        size=(640, 360),
        seconds=seconds or Blank(),
        open_grabber=None,
        make=engine,
        config=StreamConfig(),
        read_truth=None,
        record=RECORD,
        base_paths=(folder / "match.session",),
        endings=(".vtt", ".json"),
        per_second=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def truth(note: Note) -> tuple[Timed, ...]:
    return TRUTH


class Player:
    """The player under test, with its clock and its commentator."""

    def __init__(self, app: PlayerApp, pilot: Pilot[None], clock: Clock, engine: Scripted) -> None:
        self.app, self.pilot, self.clock, self.engine = app, pilot, clock, engine

    @property
    def screen(self) -> PlayerScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, PlayerScreen)
        return screen

    @property
    def position(self) -> float:
        return self.screen.controller.playhead.position

    @property
    def rows(self) -> list[TranscriptRow]:
        """The rows as they would be drawn next."""
        self.screen.presenter.flush()
        return list(self.screen.query_one(TranscriptView).rows)

    @property
    def title(self) -> str:
        return self.screen.query_one(Title).render().plain

    @property
    def notice(self) -> str:
        """What is told: the model's status, and the notes, the newest first."""
        shown = [self.screen.query_one(name, Static) for name in ("#notice", "#toast")]
        return "\n".join(str(part.content) for part in shown if part.display)

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, in ticks of a quarter."""
        for _ in range(round(4 * seconds)):
            self.clock.now += 0.25
            self.screen.tick()
        await wait(self.pilot)

    async def press(self, *keys: str) -> None:
        await press(self.pilot, *keys)

    async def read_truth(self) -> None:
        """Wait until the true transcript is read, which is done on a thread."""
        await until(lambda: self.screen.presenter.transcript.truth)

    async def speak(self, count: int) -> None:
        """StartPlayer the first `count` seconds, each spoken."""
        for number in range(count):
            await self.engine.until_spoken(number)
            if number + 1 < count:
                await self.pass_time(1)
        self.screen.presenter.tick()
        await wait(self.pilot)


# Starts a player; the keywords change its spec.
StartPlayer = Callable[..., AbstractAsyncContextManager[Player]]
