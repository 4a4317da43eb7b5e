"""The player's screen: its layout and its keys."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Static

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.stream.events import GenerationResult, SecondStarted
from tui.player import gc_tuning
from tui.player.controller import ChunkArrived, Controller, PlayerEvent, Seeked
from tui.player.frame_loader import RATE, RATE_BUSY, RATE_DELAYED, RateLimiter
from tui.player.keymap import remap
from tui.player.pace import PACES
from tui.player.playhead import Playhead
from tui.player.presenter import Presenter
from tui.player.screens.asking import Asking
from tui.player.screens.finding import Finding
from tui.player.screens.help import HelpScreen
from tui.player.screens.saving import Saving
from tui.player.screens.speaking import Speaking
from tui.player.screens.switching import Switching
from tui.player.screens.viewing import Viewing
from tui.player.sound import PlayerSound
from tui.player.spec import PlayerSpec
from tui.player.widgets.cache_strip import CacheStrip
from tui.player.widgets.gauges import Gauges
from tui.player.widgets.key_bar import KeyBar, KeyHint
from tui.player.widgets.prompt import Prompt
from tui.player.widgets.stats import Stats
from tui.player.widgets.timeline import Timeline
from tui.player.widgets.title import Title
from tui.player.widgets.transcript_view import TRUTH_MODES, Heading, TranscriptView

# Times a second that the playhead moves, that new words are drawn, and that all lines are drawn, also while the model
# computes; drawing all lines costs what a picture does.
TICK_RATE = 20
WORD_RATE = 8
DRAW_RATE, DRAW_RATE_BUSY = 5, 2.5
# Seconds after a second is done for which the model may encode the next one undisturbed, at most.
ENCODING_TIME = 0.1
# Seconds for which nothing is drawn while the model generates: a small model is done by then.
QUIET_TIME = 0.15
# Most seconds that the model waits for the first picture.
FIRST_PICTURE_TIMEOUT = 0.5
# Delay in seconds from which pictures are drawn less often, as they are behind another screen.
LONG_DELAY = 1.0

HINTS = (
    KeyHint("space", "pause", "screen.play", "play"),
    KeyHint("?", "help", "screen.help", "help"),
    KeyHint("←→", "seek", "screen.seek_by(5)", "seek-back seek-forward"),
    KeyHint("/", "ask", "screen.ask", "ask"),
    KeyHint("g", "truth", "screen.truth", "truth"),
    KeyHint("[ ]", "speed", "screen.speed(1)", "slower faster"),
    KeyHint("p", "picture", "screen.picture", "picture"),
    KeyHint("e", "save", "screen.save", "save"),
    KeyHint("l", "pace", "screen.pace", "pace"),
    KeyHint("q", "quit", "app.quit", "quit"),
)


# Ids of the bindings that do nothing in a replay.
NOT_IN_REPLAY = {"ask", "query", "sampling", "save", "reconnect", "next", "previous"}


class PlayerScreen(Viewing, Asking, Finding, Saving, Speaking, Switching):
    """Picture, commentary, truth, gauges and the model's cache, and the keys that control them."""

    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-thin"), (40, "-narrow"), (76, "-normal"), (110, "-wide"), (150, "-vast")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-low"), (22, "-medium"), (34, "-high")]  # noqa: RUF012 - typed by Textual

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "pause, play", id="play"),
        Binding("left", "seek_by(-5)", "5 seconds back", id="seek-back"),
        Binding("right", "seek_by(5)", "5 seconds forward", id="seek-forward"),
        Binding("shift+left", "seek_by(-30)", "30 seconds back", id="seek-far-back"),
        Binding("shift+right", "seek_by(30)", "30 seconds forward", id="seek-far-forward"),
        Binding("home", "seek_to(0.0)", "to the beginning", id="start"),
        Binding("end", "seek_to(1.0)", "to the end", id="end"),
        *(Binding(str(n), f"seek_to({n / 10})", "to 0 %, 10 % … 90 %", show=not n, id=f"seek-{n}0") for n in range(10)),
        Binding("greater_than_sign", "go(1)", "next clip", id="next"),
        Binding("less_than_sign", "go(-1)", "clip before", id="previous"),
        Binding("full_stop", "step", "play one second", id="step"),
        Binding("left_square_bracket", "speed(-1)", "slower", id="slower"),
        Binding("right_square_bracket", "speed(1)", "faster", id="faster"),
        Binding("r", "reconnect", "connect to the feed again", id="reconnect"),
        Binding("m", "mute", "sound off, on", id="mute"),
        Binding("minus", "volume(-1)", "quieter", id="quieter"),
        Binding("equals_sign", "volume(1)", "louder", id="louder"),
        Binding("v", "voice", "speak the commentary, or not", id="voice"),
        Binding("l", "pace", "real time, or wait for the model", id="pace"),
        Binding("g", "truth", "cycle the true transcript", id="truth"),
        Binding("slash", "ask", "ask about the next second", id="ask"),
        Binding("i", "query", "change the query", id="query"),
        Binding("t", "sampling", "temperature, tokens", id="sampling"),
        Binding("ctrl+f", "find", "find in commentary and truth", id="find"),
        Binding("n", "find_next(1)", "next match", id="find-next"),
        Binding("N", "find_next(-1)", "match before", id="find-previous"),
        Binding("enter", "play_found", "play from the match, or where you left", id="play-found"),
        Binding("escape", "end_search", "close, end the search", id="end-search"),
        Binding("p", "picture", "picture on, off", id="picture"),
        Binding("f", "picture_alone", "picture alone, with subtitles", id="picture-alone"),
        Binding("w", "scratchpad", "the model's notes", id="notes"),
        Binding("o", "stats", "stats of the stream", id="stats"),
        Binding("e", "save", "save the session now", id="save"),
        Binding("y", "copy_line", "copy the current line", id="copy"),
        Binding("s", "save_still", "save the picture as PNG", id="still"),
        Binding("b", "bookmark", "bookmark on, off", id="bookmark"),
        Binding("B", "bookmarks", "list the bookmarks", id="bookmarks"),
        Binding("up,k", "scroll(-1)", "scroll up", id="scroll-up"),
        Binding("down,j", "scroll(1)", "scroll down", id="scroll-down"),
        Binding("pageup", "scroll(-10)", "scroll up a page", show=False, id="page-up"),
        Binding("pagedown", "scroll(10)", "scroll down a page", show=False, id="page-down"),
        Binding("question_mark,f1", "help", "this help", id="help"),
        Binding("ctrl+z", "app.suspend_process", "suspend; fg goes on", id="suspend"),
        Binding("q,ctrl+c", "app.quit", "save and quit", id="quit"),
    ]

    @dataclass
    class Noted(Message):
        """A thread has something to tell the viewer."""

        text: str

    def __init__(
        self,
        spec: PlayerSpec,
        session: SessionLog,
        clock: Callable[[], float] = time.perf_counter,
        auto_tick: bool = True,
    ) -> None:
        """Prepare to show `spec`.

        Args:
            spec: the session.
            session: gets every second.
            clock: returns seconds.
            auto_tick: call `tick` regularly; without it the owner of the clock does.
        """
        super().__init__(spec, session, clock)
        self._auto_tick = auto_tick
        # Times until which the model encodes the next second, and until which nothing is drawn.
        self._encoding_until = self._quiet_until = float("-inf")
        # What else is told of each event.
        self.listeners: list[Callable[[PlayerEvent], None]] = []

    @property
    def offered(self) -> list[Binding]:
        """The bindings that do something in this session, with the viewer's keys."""
        bindings = remap(self.BINDINGS, self.spec.keymap)
        return [b for b in bindings if not (self.spec.is_replay and b.id in NOT_IN_REPLAY)]

    def compose(self) -> ComposeResult:
        """Yield a line, two columns, and three lines."""
        yield Title(id="title")
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield self._picture
                yield Gauges(id="gauges")
            with Vertical(id="right"):
                yield Static(id="notice", markup=False)
                yield Heading(id="heading")
                yield TranscriptView(id="transcript")
                yield Static(id="scratchpad", markup=False)
        yield Timeline(id="timeline")
        yield CacheStrip("nothing yet" if self.spec.config else "a recording has no cache", id="cache")
        ids = {binding.id for binding in self.offered}
        hints = [hint.remapped(self.BINDINGS, self.spec.keymap) for hint in HINTS if ids.issuperset(hint.ids.split())]
        yield KeyBar(hints, id="keys")
        yield Prompt(id="prompt")
        yield Stats(id="stats")
        yield Static(id="toast", markup=False)

    def on_mount(self) -> None:
        """Start the clock, the pictures, the reference and the model."""
        spec = self.spec
        playhead = Playhead(self._clock, spec.seconds.duration, spec.start)
        make = partial(spec.make, self._note_from_thread)
        session = make, spec.seconds, playhead, self.session, self._handle
        self.controller = Controller(*session, spec.pace, spec.loop, spec.feed)
        self.presenter = Presenter(self, spec, self.controller, self._clock)
        if spec.sound:
            self.sound = PlayerSound(spec.sound, self._clock, self._note_from_thread)
        self.prepare_voice(self._clock, self._note_from_thread)
        if spec.recording:
            spec.recording.listen(self._note_from_thread)
        self._draw_limiter, self._word_limiter = RateLimiter(self._clock), RateLimiter(self._clock)
        self.open_pictures()
        self.query_one(Timeline).bookmark(self.session.record.bookmarks)
        if spec.left_at is not None:
            self.offer(spec.left_at)
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        """Start what the first draw does not wait for."""
        self.run_worker(self._run(), name="controller")
        self.start_sound()
        self.run_worker(self._read_truth(), name="truth")
        if self._auto_tick:
            self.set_interval(1 / TICK_RATE, self.tick)

    async def _run(self) -> None:
        """Run the controller once there is a picture, since loading the model's libraries takes time."""
        if self.frame_loader:
            await self.frame_loader.wait(FIRST_PICTURE_TIMEOUT)
        gc_tuning.end()
        await self.controller.run()

    def on_unmount(self) -> None:
        """Keep the position, and end all threads."""
        if self.spec.remember:
            self.spec.remember(self.controller.playhead.position)
        self.close_sound()
        self.controller.close()
        if self.frame_loader:
            self.frame_loader.close()

    def on_screen_suspend(self) -> None:
        """Draw the picture in a way that works behind another screen."""
        self._picture.exact = True

    def on_screen_resume(self) -> None:
        """Draw the picture the fast way again."""
        self._picture.exact = False

    def tick(self) -> None:
        """Move the playhead, and draw what is due."""
        position = self.controller.tick()
        self.go_on()
        self.follow_playhead()
        if self.controller.generating and self._clock() < self._quiet_until:
            return
        # Behind another screen every change redraws everything; while the model computes it needs the processors.
        busy = self.controller.generating or self._clock() < self._encoding_until
        draw_rate = DRAW_RATE_BUSY if busy else DRAW_RATE
        if self._draw_limiter.allows(draw_rate if self.is_current else RATE_DELAYED):
            self.presenter.tick()
        elif self._word_limiter.allows(WORD_RATE if self.is_current else RATE_DELAYED):
            self.presenter.flush()
        picture_rate = RATE_BUSY if busy else RATE
        often = self.is_current and self.controller.delay <= LONG_DELAY
        self.request_frame_at_rate(position, picture_rate if often else RATE_DELAYED)

    # Keys and clicks.

    def action_play(self) -> None:
        """Pause, or play on."""
        if not self.presenter.refuses("be paused"):
            self.controller.toggle()
            self.follow_playhead()
            self.presenter.tick()

    def action_seek_by(self, seconds: float) -> None:
        """Go `seconds` forward, or back for a negative number."""
        if not self.presenter.refuses("go back" if seconds < 0 else "go forward"):
            self.controller.seek(self.controller.playhead.position + seconds)

    def action_seek_to(self, share: float) -> None:
        """Seek to a fraction of the clip, 0 to 1."""
        if not self.presenter.refuses("go back or forward"):
            self.controller.seek(share * (self.controller.playhead.duration or 0.0))

    def on_timeline_seeked(self, event: Timeline.Seeked) -> None:
        """Seek to the clicked position."""
        self.controller.seek(event.position)

    def action_reconnect(self) -> None:
        """Connect to the feed again, at once."""
        if not self.controller.reconnect():
            self.note("this is a clip: r connects again to a live feed.")
        self.presenter.tick()

    def on_transcript_view_clicked(self, event: TranscriptView.Clicked) -> None:
        """Seek to the clicked line of the commentary."""
        self.controller.seek(event.position)

    async def on_key_bar_pressed(self, event: KeyBar.Pressed) -> None:
        """Do what the clicked key does."""
        await self.run_action(event.hint.action)

    def action_step(self) -> None:
        """Play one second."""
        if not self.presenter.refuses("be paused"):
            self.controller.step()

    def action_speed(self, steps: int) -> None:
        """Play faster, or slower."""
        if not self.presenter.refuses("change its speed"):
            self.controller.change_speed(steps)
            self.follow_playhead()
            self.presenter.tick()

    def action_pace(self) -> None:
        """Switch to the other pace."""
        if self.presenter.refuses("wait for the model"):
            return
        self.controller.change_pace(PACES[self.controller.pace == "live"])
        self.presenter.tick()

    def action_truth(self) -> None:
        """Show the truth in the next mode."""
        if not self.presenter.transcript.truth:
            self.note("no true transcript: put one beside the clip under its name, or name it with --truth.")
            return
        index = TRUTH_MODES.index(self.presenter.mode)
        self.presenter.show_truth(TRUTH_MODES[(index + 1) % len(TRUTH_MODES)])

    def action_end_search(self) -> None:
        """Show everything again where the picture is alone, else hide the stats, else end the search."""
        if self.is_alone:
            self.action_picture_alone()
        elif self.presenter.with_stats:
            self.action_stats()
        else:
            super().action_end_search()

    def action_scratchpad(self) -> None:
        """Show the model's notes, or hide them."""
        self.presenter.toggle_scratchpad()

    def action_stats(self) -> None:
        """Show the stats overlay, or hide it."""
        self.presenter.toggle_stats()

    def action_scroll(self, lines: int) -> None:
        """Scroll the commentary."""
        self.query_one(TranscriptView).scroll_relative(y=lines, animate=False)

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen(self.offered, self.spec.preset))

    # Events, truth, notes.

    def on_player_screen_noted(self, event: Noted) -> None:
        """Show what a thread noted."""
        self.note(event.text)

    def _note_from_thread(self, text: str) -> None:
        self.post_message(self.Noted(text))

    def _handle(self, event: PlayerEvent) -> None:
        """Show an event of the controller, and decide how much may be drawn after it."""
        for listener in self.listeners:
            listener(event)
        if isinstance(event, ChunkArrived):
            self.follow_playhead()
            self.show_feed(event)
            return
        self.presenter.handle(event)
        self.hear(event)
        if isinstance(event, SecondStarted) and self.spec.config:
            # A session that is replayed computes nothing.
            self._quiet_until = self._clock() + QUIET_TIME
        elif isinstance(event, GenerationResult):
            # The engine encodes the next second at once, which takes as long as it took for this one.
            self._encoding_until = self._clock() + min(event.timings.vision_ms / 1e3, ENCODING_TIME)
        elif isinstance(event, Seeked):
            self.follow_playhead()
            if self.frame_loader:
                self.frame_loader.retry()
            self.request_frame(event.position)

    async def _read_truth(self) -> None:
        """Read the reference transcript on a thread."""
        read = self.spec.read_truth
        if read is None:
            return
        worker = BackgroundThread("svm-truth")
        try:
            if words := await worker.run(partial(read, self._note_from_thread)):
                self.presenter.set_truth(words)
        except SvmError as error:
            self.note(f"no truth: {error}")
        finally:
            worker.close()
