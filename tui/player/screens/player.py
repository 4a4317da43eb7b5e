"""The player's screen: its layout and its keys."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.validation import Integer, Number
from textual.widgets import Static

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.stream.events import GenerationResult, SecondStarted
from tui.player import gc_tuning as gc_tuning
from tui.player.clip import Frame, scale
from tui.player.controller import ChunkArrived, Controller, PlayerEvent, Seeked
from tui.player.frame_loader import RATE, RATE_BEHIND, RATE_BUSY, FrameLoader, RateLimiter
from tui.player.pace import PACES
from tui.player.playhead import Playhead
from tui.player.presenter import Presenter
from tui.player.screens.help import HelpScreen
from tui.player.spec import Note, PlayerSpec
from tui.player.threads import BackgroundThread
from tui.player.widgets.cache_strip import CacheStrip
from tui.player.widgets.gauges import Gauges
from tui.player.widgets.key_bar import Hint, KeyBar
from tui.player.widgets.picture import Picture
from tui.player.widgets.prompt import Field, Prompt
from tui.player.widgets.timeline import Timeline
from tui.player.widgets.title import Title
from tui.player.widgets.transcript_view import TRUTH_MODES, Heading, TranscriptView

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig

# Times a second that time goes on, that new words are drawn, and that all lines are; each costs what a picture does.
TICKS = 20
WORDS = 8
DRAWN, DRAWN_BUSY = 5, 2.5
# Seconds behind a second's last word that the model may look ahead undisturbed, at most.
LOOK = 0.1
# Seconds that the model may speak undisturbed, at most: a small one is done by then, and nothing is drawn meanwhile.
CALM = 0.15
# Seconds that the model waits for the first picture at most.
FIRST_PICTURE = 0.5
# Seconds of lag from which pictures come less often, as they do behind another screen.
BEHIND = 1.0

HINTS = (
    Hint("space", "pause", "screen.play"),
    Hint("←→", "seek", "screen.seek_by(5)"),
    Hint("[ ]", "speed", "screen.speed(1)"),
    Hint("g", "truth", "screen.truth"),
    Hint("/", "ask", "screen.ask"),
    Hint("?", "help", "screen.help"),
    Hint("p", "picture", "screen.picture"),
    Hint("e", "save", "screen.save"),
    Hint("l", "pace", "screen.pace"),
    Hint("q", "quit", "app.quit"),
)


class PlayerScreen(Screen[None]):
    """Picture, commentary, truth, gauges and the model's memory, and the keys that play them."""

    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-thin"), (40, "-narrow"), (76, "-normal"), (110, "-wide"), (150, "-vast")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-low"), (22, "-medium"), (34, "-high")]  # noqa: RUF012 - typed by Textual

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "pause, play"),
        Binding("left", "seek_by(-5)", "5 seconds back"),
        Binding("right", "seek_by(5)", "5 seconds on"),
        Binding("shift+left", "seek_by(-30)", "30 seconds back"),
        Binding("shift+right", "seek_by(30)", "30 seconds on"),
        Binding("home", "seek_to(0.0)", "to the beginning"),
        Binding("end", "seek_to(1.0)", "to the end"),
        *(Binding(str(n), f"seek_to({n / 10})", "to that tenth of it", show=not n) for n in range(10)),
        Binding("full_stop", "step", "play one second"),
        Binding("left_square_bracket", "speed(-1)", "slower"),
        Binding("right_square_bracket", "speed(1)", "faster"),
        Binding("l", "pace", "live, or every second"),
        Binding("g", "truth", "cycle the true transcript"),
        Binding("slash", "ask", "ask about the next second"),
        Binding("i", "query", "standing request"),
        Binding("t", "sampling", "temperature, tokens"),
        Binding("p", "picture", "picture on, off"),
        Binding("e", "save", "save the session now"),
        Binding("up,k", "scroll(-1)", "scroll back"),
        Binding("down,j", "scroll(1)", "scroll on"),
        Binding("pageup", "scroll(-10)", "scroll back a page", show=False),
        Binding("pagedown", "scroll(10)", "scroll on a page", show=False),
        Binding("question_mark,f1", "help", "this help"),
        Binding("q,ctrl+c", "app.quit", "save and quit"),
    ]

    def __init__(self, spec: PlayerSpec, session: SessionLog, clock: Callable[[], float] = time.perf_counter) -> None:
        """Prepare to show `spec`; `session` is told of every second, `clock` returns seconds."""
        super().__init__()
        self.spec, self._session, self._clock = spec, session, clock
        self._config = spec.config
        self._picture = Picture(id="picture")
        self._pictured = spec.with_picture
        self._looking = self._calm = float("-inf")

    def compose(self) -> ComposeResult:
        """Lay out the screen: a line, two columns, three lines."""
        yield Title(id="title")
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield self._picture
                yield Gauges(id="gauges")
            with Vertical(id="right"):
                yield Static(id="notice", markup=False)
                yield Heading(id="heading")
                yield TranscriptView(id="transcript")
        yield Timeline(id="timeline")
        yield CacheStrip(id="cache")
        yield KeyBar(HINTS, id="keys")
        yield Prompt(id="prompt")

    def on_mount(self) -> None:
        """Start the clock, the pictures, the truth and the model, each on its own."""
        spec = self.spec
        playhead = Playhead(self._clock, spec.seconds.duration, spec.start)
        make = partial(spec.make, self._remarks_from_thread())
        self.controller = Controller(make, spec.seconds, playhead, self._session, self._told, spec.pace, spec.loop)
        self.presenter = Presenter(self, spec, self.controller, self._clock)
        self._picture_limiter, self._drawing, self._words = (RateLimiter(self._clock) for _ in range(3))
        opened = spec.open_grabber
        self._frame_loader = FrameLoader(opened, self._picture.show, self._without_picture) if opened else None
        if self._frame_loader:
            # While the screen is laid out.
            self._frame_loader.prepare(spec.start)
        self._set_picture()
        self.call_after_refresh(self._begin)

    def on_picture_resized(self) -> None:
        """Ask for a picture of the size that there is room for now, the first time before the rest is laid out."""
        self._request_frame(self.controller.playhead.position)

    def _begin(self) -> None:
        """Let begin what the screen is not to wait for."""
        self.run_worker(self._watch(), name="conductor")
        self.run_worker(self._read_truth(), name="truth")
        self.set_interval(1 / TICKS, self.tick)

    async def _watch(self) -> None:
        """Have the model speak, from when there is something to see: its libraries take their time to load."""
        if self._frame_loader:
            await self._frame_loader.wait(FIRST_PICTURE)
        gc_tuning.end()
        await self.controller.run()

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        self.controller.close()
        if self._frame_loader:
            self._frame_loader.close()

    def on_screen_suspend(self) -> None:
        """Draw the picture so that another screen may lie over it."""
        self._picture.exact = True

    def on_screen_resume(self) -> None:
        """Draw the picture the quick way again."""
        self._picture.exact = False

    def tick(self) -> None:
        """Let time go on, and show it."""
        position = self.controller.tick()
        if self.controller.generating and self._clock() < self._calm:
            return
        behind = self.controller.delay > BEHIND
        # Behind another screen every change draws all anew; while the model computes the processors are its own.
        busy = self.controller.generating or self._clock() < self._looking
        drawn = DRAWN_BUSY if busy else DRAWN
        if self._drawing.allows(drawn if self.is_current else RATE_BEHIND):
            self.presenter.tick()
        elif self._words.allows(WORDS if self.is_current else RATE_BEHIND):
            self.presenter.flush()
        pictures = RATE_BUSY if busy else RATE
        if self._picture_limiter.allows(pictures if self.is_current and not behind else RATE_BEHIND):
            self._request_frame(position)

    # Keys.

    def action_play(self) -> None:
        """Pause, or play on."""
        self.controller.toggle()
        self.presenter.tick()

    def action_seek_by(self, seconds: float) -> None:
        """Go `seconds` on, or back."""
        self.controller.seek(self.controller.playhead.position + seconds)

    def action_seek_to(self, share: float) -> None:
        """Go to a share of the clip, 0 to 1."""
        self.controller.seek(share * (self.controller.playhead.duration or 0.0))

    def on_timeline_seeked(self, event: Timeline.Seeked) -> None:
        """Go where the viewer clicked."""
        self.controller.seek(event.position)

    def action_step(self) -> None:
        """Play one second."""
        self.controller.step()

    def action_speed(self, steps: int) -> None:
        """Play faster, or slower."""
        self.controller.change_speed(steps)
        self.presenter.tick()

    def action_pace(self) -> None:
        """Take the other pace."""
        self.controller.change_pace(PACES[self.controller.pace == "live"])
        self.presenter.tick()

    def action_truth(self) -> None:
        """Show the truth in the next way."""
        if not self.presenter.transcript.truth:
            self.remark("no true transcript: put one beside the clip under its name, or name it with --truth.")
            return
        at = TRUTH_MODES.index(self.presenter.mode)
        self.presenter.show_truth(TRUTH_MODES[(at + 1) % len(TRUTH_MODES)])

    def action_picture(self) -> None:
        """Show the picture, or hide it."""
        self._pictured = not self._pictured
        self._set_picture()

    def action_scroll(self, lines: int) -> None:
        """Scroll the commentary."""
        self.query_one(TranscriptView).scroll_relative(y=lines, animate=False)

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(self.BINDINGS))

    def action_ask(self) -> None:
        """Ask the model about the next second."""
        if self._config:
            self.query_one(Prompt).ask([Field("ask about what comes next")], self._ask)

    def action_query(self) -> None:
        """Change what the model is asked to do all along."""
        if self._config:
            self.query_one(Prompt).ask([Field("standing request", self._config.query)], self._request)

    def action_sampling(self) -> None:
        """Change how words are chosen."""
        if self._config:
            sampling = self._config.sampling
            temperature = Field("temperature", f"{sampling.temperature:g}", "number", (Number(0.0, 5.0),))
            tokens = Field("tokens a second", str(sampling.max_new_tokens), "integer", (Integer(1, 1000),))
            self.query_one(Prompt).ask([temperature, tokens], self._sample)

    def action_save(self) -> None:
        """Save the session as it stands."""
        try:
            paths = self._session.save()
        except SvmError as error:
            self.remark(str(error))
        else:
            self.remark("saved as " + " and ".join(map(str, paths)) if paths else "nothing was said yet.")

    # What comes back from the prompt.

    def _ask(self, lines: Sequence[str]) -> None:
        (question,) = lines
        if question:
            self.controller.ask(question)
            self.remark(f"asked: {question}")

    def _request(self, lines: Sequence[str]) -> None:
        (query,) = lines
        if query and self._config:
            self._configure(replace(self._config, query=query))

    def _sample(self, lines: Sequence[str]) -> None:
        temperature, tokens = lines
        if self._config:
            sampling = replace(self._config.sampling, temperature=float(temperature), max_new_tokens=int(tokens))
            self._configure(replace(self._config, sampling=sampling))

    def _configure(self, config: "StreamConfig") -> None:
        self._config = config
        self.controller.configure(config)

    # Pictures, truth, remarks.

    def remark(self, text: str) -> None:
        """Tell the viewer something, for a while."""
        self.presenter.remark(text)

    def _told(self, event: PlayerEvent) -> None:
        if isinstance(event, ChunkArrived):
            self._show_feed(event)
            return
        self.presenter.tell(event)
        if isinstance(event, SecondStarted) and self._config:
            # A session that is played again computes nothing.
            self._calm = self._clock() + CALM
        elif isinstance(event, GenerationResult):
            # It reads and sees the next second as soon as the last one is spoken, and takes as long as it took.
            self._looking = self._clock() + min(event.timings.vision_ms / 1e3, LOOK)
        elif isinstance(event, Seeked):
            if self._frame_loader:
                self._frame_loader.retry()
            self._request_frame(event.position)

    def _request_frame(self, position: float) -> None:
        """Ask for the picture at `position`, if it is shown."""
        size = self._picture.pixels_for(self.spec.size)
        if self._frame_loader and all(size) and self._picture.display:
            self._frame_loader.request(position, size)

    def _without_picture(self, reason: str) -> None:
        self.remark(f"no picture: {reason}")

    def _show_feed(self, event: ChunkArrived) -> None:
        """Show the newest picture of a feed: only the model's reader may read it."""
        size = self._picture.pixels_for(self.spec.size)
        if all(size) and self._picture.display:
            self._picture.show(Frame(event.chunk.start, scale(event.chunk.frames[-1], size)))

    def _set_picture(self) -> None:
        shown = self._pictured and (self._frame_loader is not None or self.spec.seconds.duration is None)
        self.set_class(not shown, "-no-picture")
        if shown:
            self._picture_limiter = RateLimiter(self._clock)

    async def _read_truth(self) -> None:
        """Read the true transcript on a thread of its own."""
        read = self.spec.read_truth
        if read is None:
            return
        worker = BackgroundThread("svm-truth")
        try:
            if words := await worker.run(partial(read, self._remarks_from_thread())):
                self.presenter.set_truth(words)
        except SvmError as error:
            self.remark(f"no truth: {error}")
        finally:
            worker.close()

    def _remarks_from_thread(self) -> Note:
        loop, context = asyncio.get_running_loop(), copy_context()

        def remark(text: str) -> None:
            # In a thread's own context Textual would not know its app.
            loop.call_soon_threadsafe(self.presenter.remark, text, context=context)

        return remark
