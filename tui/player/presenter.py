"""What a session looks like: events of the conductor become words, gauges and marks on the screen."""

import math
from collections.abc import Callable

from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from streaming_vlm_mlx.stream.events import (
    Failed,
    GenerationResult,
    Loading,
    Ready,
    SecondStarted,
    Skipped,
    SpanMap,
    TextPiece,
)
from tui.player.controller import Controller, PlayerEvent, Seeked
from tui.player.frame_loader import RateLimiter
from tui.player.metrics import PlayerMetrics, bar, compare
from tui.player.spec import PlayerSpec
from tui.player.transcript import Timed, Transcript, by_second, harmless, position_label
from tui.player.widgets.cache_strip import CacheStrip
from tui.player.widgets.gauges import Gauges
from tui.player.widgets.timeline import Timeline
from tui.player.widgets.title import Title, TitleState
from tui.player.widgets.transcript_view import LIMIT, Heading, TranscriptView, TruthMode

# Cells of the bar that shows how far the weights are read.
LOADING_BAR = 20
# Times a second that gauges are drawn at most.
GAUGED = 2.0
# Seconds that a remark stays.
REMARK = 12.0


class Presenter:
    """Shows one session on the widgets of a screen.

    Attributes:
        transcript: all that was said, and the truth.
        metrics: what the gauges show.
        mode: how the truth is shown.
    """

    def __init__(
        self, screen: Screen[None], spec: PlayerSpec, controller: Controller, clock: Callable[[], float]
    ) -> None:
        """Show on `screen`'s widgets; `clock` returns seconds, and tells when a remark has stayed long enough."""
        self._clock = clock
        self.transcript, self.metrics = Transcript(), PlayerMetrics()
        self.mode: TruthMode = "off"
        self._clip, self._model, self._controller = spec.clip, spec.model, controller
        self._title, self._timeline = screen.query_one(Title), screen.query_one(Timeline)
        self._view, self._notice = screen.query_one(TranscriptView), screen.query_one("#notice", Static)
        self._heading = screen.query_one(Heading)
        self._gauges, self._cache = screen.query_one(Gauges), screen.query_one(CacheStrip)
        self._spoken: set[int] = set()
        self._skipped: set[int] = set()
        self._number = 0
        # What changed since it was last drawn: rows, the model's memory, the gauges.
        self._stale: set[int] = set()
        self._remembered: SpanMap | None = None
        self._gauging, self._gauged = RateLimiter(clock), False
        self._remarks: list[tuple[float, str]] = []
        self.say("◌ loading the model")

    @property
    def _position(self) -> float:
        return self._controller.playhead.position

    def tick(self) -> None:
        """Show that time went on, and all that came since the last time."""
        self.flush()
        if self._remarks and self._remarks[0][0] <= self._clock():
            self._remarks.pop(0)
            self._show_notice()
        head, delay = self._controller.playhead, self._controller.delay
        pace, skipped = self._controller.pace, self.metrics.skipped
        time = position_label(head.position, head.duration)
        self._title.show(TitleState(self._clip, self._model, time, head.state, head.speed, pace, delay, skipped))
        self._timeline.show(head.position, head.duration)
        self._show_gauges(delay)
        self._show_memory()
        number = math.floor(head.position)
        if self._with_truth:
            # Word by word, as it is heard.
            for heard in range(max(self._number, number - LIMIT), number + 1):
                self._put(heard)
        self._number = number

    def tell(self, event: PlayerEvent) -> None:
        """Show what the conductor tells."""
        match event:
            case Loading(presenter, done, total):
                self._show_loading(presenter, done, total)
            case Ready(checkpoint):
                self._model = checkpoint
                self.say("")
            case SecondStarted(index):
                self.transcript.begin(index)
                self._stale.add(index)
            case TextPiece(index, text):
                self.transcript.add(index, text, self._position)
                self._stale.add(index)
            case SpanMap():
                self._remembered = event
            case GenerationResult():
                self._finish(event)
            case Skipped(index=index):
                self._pass(index)
            case Seeked(position):
                self._go_to(position)
            case Failed(message):
                self._fail(message)

    def set_truth(self, words: tuple[Timed, ...]) -> None:
        """Take the true transcript, and show it."""
        self.transcript.truth = by_second(words)
        self.show_truth("beside")

    def show_truth(self, mode: TruthMode) -> None:
        """Show the truth as `mode` says."""
        self.mode = mode
        self._heading.show(mode)
        self._compare()
        self._show_rows()
        self._gauges.show(self.metrics.meters(self._controller.delay))
        self.tick()

    def say(self, text: str, failure: bool = False) -> None:
        """Show a line above the commentary, how the model is; or none."""
        self._line = text
        self._notice.set_class(failure, "-failure")
        self._show_notice()

    def remark(self, text: str) -> None:
        """Show a line above the commentary for a while."""
        self._remarks.append((self._clock() + REMARK, text))
        self._show_notice()

    def flush(self) -> None:
        """Show the words that came since the last time; drawing each at once would take the model's time."""
        for number in sorted(self._stale):
            self._put(number)
        self._stale.clear()

    def _finish(self, done: GenerationResult) -> None:
        self.transcript.finish(done.index, done.text, done.query)
        self._stale.add(done.index)
        self._spoken.add(done.index)
        self._skipped.discard(done.index)
        self._timeline.mark(self._spoken, self._skipped)
        self.metrics.add(done, self._controller.delay)
        self._gauged = False
        self._compare()

    def _pass(self, number: int) -> None:
        self.metrics.skipped += 1
        self._gauged = False
        if number in self._spoken:
            return
        self.transcript.skip(number)
        self._skipped.add(number)
        self._timeline.mark(self._spoken, self._skipped)
        self._stale.add(self.transcript.leader(number, self._with_truth))

    def _go_to(self, position: float) -> None:
        """Show the transcript up to `position`, where the model begins anew."""
        self.transcript.cut()
        self._number = math.floor(position)
        self._show_rows()
        self._view.follow()
        self.tick()

    def _fail(self, message: str) -> None:
        self.transcript.cut()
        self._show_rows()
        self.say(f"✗ {message} The clip plays on without commentary.", failure=True)

    def _show_loading(self, presenter: str, done: int, total: int) -> None:
        progress = f"  {bar(done / total, LOADING_BAR)}" if total > 1 else ""
        self.say(f"◌ loading {presenter}{progress}")

    def _show_notice(self) -> None:
        # The newest first: there may be room for one line only.
        lines = [line for line in (self._line, *(text for _, text in reversed(self._remarks))) if line]
        self._notice.update(Content("\n".join(map(harmless, lines))))
        self._notice.display = bool(lines)

    @property
    def _with_truth(self) -> bool:
        return self.mode != "off"

    def _put(self, number: int) -> None:
        """Show second `number` as it stands, once the picture has come to it."""
        self._view.put(self.transcript.row(number, self._position, self._with_truth))

    def _show_gauges(self, delay: float) -> None:
        """Draw the gauges when a figure changed: they take as long as all the rest."""
        if not self._gauged and self._gauging.allows(GAUGED):
            self._gauges.show(self.metrics.meters(delay))
            self._gauged = True

    def _show_memory(self) -> None:
        if self._remembered:
            self._cache.show(self._remembered, self._clock())
            self._remembered = None
        self._cache.tick(self._clock())

    def _show_rows(self) -> None:
        self._view.set_rows(self.transcript.rows(self._position, self._with_truth, LIMIT), self.mode)

    def _compare(self) -> None:
        """Mark what differs from the truth, where that is asked for."""
        if self.mode == "differences":
            found = self.metrics.comparison = compare(self.transcript)
            self.transcript.said_off, self.transcript.truth_off = found.said_off, found.truth_off
            self._show_rows()
        elif self.metrics.comparison:
            self.metrics.comparison = None
            self.transcript.said_off = self.transcript.truth_off = {}
