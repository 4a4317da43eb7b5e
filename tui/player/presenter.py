"""Turns the controller's events into words, gauges and marks on the widgets of the player's screen."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from textual.content import Content
from textual.geometry import Spacing
from textual.screen import Screen
from textual.widgets import Static

from streaming_vlm_mlx.plain_text import harmless
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
from tui.player.controller import Controller, FeedEnded, PlayerEvent, Seeked
from tui.player.frame_loader import RateLimiter
from tui.player.metrics import PlayerMetrics, bar, compare
from tui.player.sentence_rows import find_borders, merge_rows
from tui.player.spec import PlayerSpec
from tui.player.states import State
from tui.player.transcript import Timed, Transcript, by_second, position_label
from tui.player.widgets.cache_strip import CacheStrip
from tui.player.widgets.gauges import Gauges
from tui.player.widgets.picture import Picture
from tui.player.widgets.stats import Stats, StatsInfo
from tui.player.widgets.timeline import Timeline
from tui.player.widgets.title import Title, TitleInfo, feed_sign
from tui.player.widgets.transcript_view import MAX_ROWS, Heading, TranscriptView, TruthMode

# Cells of the loading bar.
LOADING_BAR = 20
# Times a second that the gauges are drawn at most.
GAUGE_RATE = 2.0
# Seconds for which a note is shown, and a subtitle after its last second.
NOTE_SECONDS, SUBTITLE_SECONDS = 12.0, 3.0


@dataclass(frozen=True, slots=True)
class Note:
    """A remark, until when it is shown, and what it is on."""

    until: float
    text: str
    topic: str


class Presenter:
    """Shows one session on the widgets of a screen.

    It sets the widgets directly: a posted message costs the event loop 40 to 70 µs and a call 0.1 µs (Textual 8.2, two
    cores), while the model's thread needs the interpreter at every token.

    Attributes:
        transcript: commentary and truth.
        metrics: values of the gauges.
        mode: how the reference is shown.
        muted: whether the viewer has muted the sound.
    """

    muted = False

    def __init__(
        self, screen: Screen[None], spec: PlayerSpec, controller: Controller, clock: Callable[[], float]
    ) -> None:
        """Show on the widgets of `screen`; `clock` returns seconds, for how long notes and dropped spans are shown."""
        self._clock = clock
        self.transcript, self.metrics = Transcript(), PlayerMetrics()
        self.mode: TruthMode = "off"
        self._clip, self._model, self._controller = spec.clip, spec.model, controller
        self._has_preset, self._per_second = bool(spec.preset), spec.per_second
        self._title, self._timeline = screen.query_one(Title), screen.query_one(Timeline)
        self._view = screen.query_one(TranscriptView)
        self._notice, self._toast = screen.query_one("#notice", Static), screen.query_one("#toast", Static)
        self._heading = screen.query_one(Heading)
        self._picture, self._has_subtitles = screen.query_one(Picture), False
        self._stats, self._scratchpad = screen.query_one(Stats), screen.query_one("#scratchpad", Static)
        self._versions = spec.record.versions
        self._machine: Mapping[str, Any] = spec.record.machine
        self._describe_machine = spec.describe_machine
        self._gauges, self._cache = screen.query_one(Gauges), screen.query_one(CacheStrip)
        self._generated: set[int] = set()
        self._skipped: set[int] = set()
        # The second that was current at the last tick.
        self._number = 0
        # What changed since it was last drawn: rows, the cache's spans, the gauges.
        self._changed_rows: set[int] = set()
        self._new_spans: SpanMap | None = None
        self._gauge_limiter, self._gauges_drawn = RateLimiter(clock), False
        # The model's status, whether it is a failure, and notes, each with the time until which it is shown.
        self._status, self._failed = "", False
        self._notes: list[Note] = []
        self._show_status("◌ loading the model")

    @property
    def _position(self) -> float:
        return self._controller.playhead.position

    def tick(self) -> None:
        """Show the time, and everything that came since the last call."""
        self.flush()
        if any(note.until <= self._clock() for note in self._notes):
            self._notes = [note for note in self._notes if note.until > self._clock()]
            self._show_notes()
        self._show_title()
        head = self._controller.playhead
        self._timeline.show(head.position, head.duration)
        self._show_gauges()
        self._show_cache()
        self._show_scratchpad()
        number = math.floor(head.position)
        if self.with_truth or number > self._number:
            # The truth appears word by word, as it is heard, and later lines are reached.
            for heard in range(max(self._number, number - MAX_ROWS), number + 1):
                self._show_row(heard)
        self._number = number

    def handle(self, event: PlayerEvent) -> None:
        """Show `event`, or note it for the next `tick` or `flush`."""
        match event:
            case Loading(stage, done, total) if not self._failed:
                progress = f"  {bar(done / total, LOADING_BAR)}" if total > 1 else ""
                self._show_status(f"◌ loading {stage}{progress}")
            case Ready(checkpoint):
                self._model = checkpoint
                self._machine = self._describe_machine() if self._describe_machine else self._machine
                if not self._failed:
                    self._show_status("")
            case SecondStarted(index):
                # After a feed broke, the model still generates the last second that came.
                if self._failed and self._controller.state is State.GENERATING:
                    self._show_status("")
                self.transcript.begin(index)
                self._changed_rows.add(index)
            case TextPiece(index, text):
                self.transcript.add(index, text, self._position)
                self._changed_rows.add(index)
            case SpanMap():
                self._new_spans = event
            case GenerationResult():
                self._finish(event)
            case Skipped(index=index):
                self._skip(index)
            case Seeked(position):
                self._seek(position)
            case Failed(message):
                self._fail(message)
            case FeedEnded(reason):
                self.note(f"the feed has ended{f': {reason}' if reason else ''}. Press r to connect again.")

    def toggle_stats(self) -> None:
        """Show the stats overlay, or hide it."""
        self._stats.display = not self._stats.display
        # Notes move out of its way.
        self._stats.screen.set_class(self._stats.display, "-stats")
        self._stats.call_after_refresh(self._place_notes)
        self._show_stats()

    def toggle_scratchpad(self) -> None:
        """Show what the model wrote down before it spoke, or hide it."""
        self._scratchpad.display = not self._scratchpad.display
        self._show_scratchpad()

    def _show_scratchpad(self) -> None:
        if self._scratchpad.display:
            notes = self.transcript.notes_at(self._position)
            self._scratchpad.update(Content(notes or "this model has written no notes so far."))

    def set_truth(self, words: tuple[Timed, ...]) -> None:
        """Set the reference transcript and show it."""
        self.transcript.truth = by_second(words)
        self.show_truth("beside")

    def show_truth(self, mode: TruthMode) -> None:
        """Show the reference in `mode`."""
        self.mode = mode
        self._heading.show(mode)
        self._compare()
        self._show_all_rows()
        self._gauges.show(self.metrics.meters(self._controller.delay))
        self.tick()

    def note(self, text: str, seconds: float = NOTE_SECONDS, topic: str = "") -> None:
        """Show `text` over the right top corner for `seconds`, as Textual's toasts, but by the player's clock.

        It replaces the one on the same `topic`, if that is named, and one of the same text.
        """
        topic = topic or text
        self._notes = [note for note in self._notes if note.topic != topic and note.text != text]
        self._notes.append(Note(self._clock() + seconds, text, topic))
        self._show_notes()

    def dismiss(self, topic: str) -> None:
        """Hide the note on `topic`, since what it offers was done."""
        self._notes = [note for note in self._notes if note.topic != topic]
        self._show_notes()

    def refuses(self, verb: str) -> bool:
        """Return whether this is a feed, which cannot `verb`, and tell the viewer so."""
        refusal = self._controller.playhead.refusal(verb)
        if refusal:
            self.note(refusal)
        return bool(refusal)

    def current_line(self) -> str:
        """Return the line of the commentary that is said at the playhead, or was said last; empty without any."""
        self.flush()
        rows = (row for row in reversed(self._view.rows) if row.said and not row.later)
        return next((" ".join(row.said) for row in rows), "")

    def flush(self) -> None:
        """Show the words that came since the last call; drawing each one as it comes would slow the model down."""
        for number in sorted(self._changed_rows):
            self._show_row(number)
        self._changed_rows.clear()
        self._place_notes()
        self._show_subtitle()

    def show_subtitles(self, shown: bool) -> None:
        """Show the commentary on the picture, or end that."""
        self._has_subtitles = shown
        if shown:
            self.flush()
        else:
            self._picture.caption(None)

    def _show_subtitle(self) -> None:
        """Show what the model does or what is wrong with the feed, where that is told, else what was said last."""
        if self._has_subtitles:
            row = next((row for row in reversed(self._view.rows) if row.said and not row.later), None)
            is_over = row is None or self._position > row.number + row.seconds + SUBTITLE_SECONDS
            told = self._status or feed_sign(self._controller.feed_status)
            self._picture.caption(told or ("" if row is None or is_over else " ".join(row.said)))

    def _finish(self, result: GenerationResult) -> None:
        self.transcript.finish(result.index, result.text, result.query, result.notes)
        self._changed_rows.add(result.index)
        self._generated.add(result.index)
        self._skipped.discard(result.index)
        self._timeline.mark(self._generated, self._skipped)
        self.metrics.add(result)
        self._gauges_drawn = False
        self._compare()

    def _skip(self, number: int) -> None:
        self.metrics.skipped += 1
        self._gauges_drawn = False
        if number in self._generated:
            self._changed_rows.add(number)
            return
        self.transcript.skip(number)
        self._skipped.add(number)
        self._timeline.mark(self._generated, self._skipped)
        self._changed_rows.add(self.transcript.first_skipped(number, self.with_truth))

    def _seek(self, position: float) -> None:
        """Show the transcript up to `position`, where the model goes on."""
        self.transcript.discard_unfinished()
        self._number = math.floor(position)
        self._show_all_rows()
        self._view.follow()
        self.tick()

    def _fail(self, message: str) -> None:
        self.transcript.discard_unfinished()
        self._show_all_rows()
        outcome = "The feed has ended." if self._controller.feed_has_failed else "The clip plays on without commentary."
        self._show_status(f"✗ {message} {outcome}", failed=True)

    def _show_status(self, text: str, failed: bool = False) -> None:
        """Show what the model does in a line above the commentary; an empty line is hidden."""
        self._status, self._failed = text, failed
        self._notice.set_class(failed, "-failure")
        self._notice.update(Content(harmless(text)))
        self._notice.display = bool(text)

    def _show_notes(self) -> None:
        # The newest note first, since there may be room for one only.
        self._toast.update(Content("\n".join(harmless(note.text) for note in reversed(self._notes))))
        self._toast.display = bool(self._notes)
        self._place_notes()

    def _place_notes(self) -> None:
        """Show the notes over the foot of the commentary, instead of its head, where the newest line is at the head."""
        styles = self._toast.styles
        height = styles.max_height.cells if styles.max_height else None
        newest, foot = self._view.newest, self._view.region.bottom
        if not self._notes or styles.dock != "right" or height is None:
            styles.clear_rule("margin")
            return
        top = styles.base.margin.top
        if newest.y < top + height and top < newest.bottom <= foot - height:
            margin = styles.base.margin
            styles.margin = Spacing(foot - height, margin.right, margin.bottom, margin.left)
        else:
            styles.clear_rule("margin")

    @property
    def with_stats(self) -> bool:
        """Whether the stats overlay is shown."""
        return bool(self._stats.display)

    @property
    def with_truth(self) -> bool:
        """Whether the reference is shown."""
        return self.mode != "off"

    def _show_title(self) -> None:
        controller, head = self._controller, self._controller.playhead
        self._title.show(
            TitleInfo(
                clip=self._clip,
                model=f"{self._model} (instruct)" if self._has_preset else self._model,
                time=position_label(head.position, head.duration),
                state=head.state,
                speed=head.speed,
                pace=controller.pace,
                delay=controller.delay,
                skipped=self.metrics.skipped,
                signal=feed_sign(controller.feed_status),
                muted=self.muted,
            )
        )

    def _show_row(self, number: int) -> None:
        """Show second `number`, with the sentences that its words are part of."""
        position, with_truth = self._position, self.with_truth
        if self._per_second:
            self._view.put(self.transcript.row(number, position, with_truth))
            return
        first, last = find_borders(self._view.rows, number)
        end = max((math.floor(position), *self.transcript.entries)) + 1 if last is None else last
        if first is None or end - number > MAX_ROWS // 2:
            # Of many later lines only the next ones are shown.
            self._show_all_rows()
            return
        rows = self.transcript.rows_between(first, end, position, with_truth)
        self._view.replace(first, end, merge_rows(rows, math.inf if last is None else last))

    def _show_all_rows(self) -> None:
        rows = self.transcript.rows(self._position, self.with_truth, MAX_ROWS)
        self._view.set_rows(rows if self._per_second else merge_rows(rows, math.inf), self.mode)

    def _show_gauges(self) -> None:
        """Draw the gauges when a value changed, at most `GAUGE_RATE` times a second: they cost as much as the rest."""
        if not self._gauges_drawn and self._gauge_limiter.allows(GAUGE_RATE):
            self._gauges.show(self.metrics.meters(self._controller.delay))
            self._show_stats()
            self._gauges_drawn = True

    def _show_stats(self) -> None:
        if self._stats.display:
            meters, timings = self.metrics.meters(self._controller.delay), self.metrics.timings
            counts = len(self._generated), self.metrics.skipped
            self._stats.show(StatsInfo(timings, meters, *counts, self._versions, self._machine))

    def _show_cache(self) -> None:
        if self._new_spans:
            self._cache.show(self._new_spans, self._clock())
            self._new_spans = None
        self._cache.tick(self._clock())

    def _compare(self) -> None:
        """Mark the differences from the truth, in the mode that shows them."""
        if self.mode == "differences":
            found = self.metrics.comparison = compare(self.transcript)
            self.transcript.added, self.transcript.missed = found.added, found.missed
            self._show_all_rows()
        elif self.metrics.comparison:
            self.metrics.comparison = None
            self.transcript.added = self.transcript.missed = {}
