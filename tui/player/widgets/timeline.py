"""The clip from end to end: where it stands, what was spoken, what was passed over; a click seeks."""

from collections.abc import Set
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.player.transcript import time_label

MARKS = {"head": "●", "spoken": "━", "passed": "╍", "rest": "─"}


class Timeline(Widget):
    """A bar between the time that has passed and the time that is left."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"timeline--{mark}" for mark in MARKS), "timeline--time"}

    @dataclass
    class Seeked(Message):
        """The viewer wants to go to `position` seconds."""

        position: float

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._position = 0.0
        self._duration: float | None = None
        self._spoken: Set[int] = frozenset()
        self._skipped: Set[int] = frozenset()

    def show(self, position: float, duration: float | None) -> None:
        """Show where the clip stands, in seconds; a `duration` of None is a feed's."""
        changed = self._marks_at(position) != self._marks_at(self._position) or duration != self._duration
        self._position, self._duration = position, duration
        if changed:
            self.refresh()

    def mark(self, spoken: Set[int], skipped: Set[int]) -> None:
        """Show which seconds were spoken, and which were passed over."""
        self._spoken, self._skipped = spoken, skipped
        self.refresh()

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - one line
        """Return the bar."""
        left, right = self._times()
        time, room = self.get_component_rich_style("timeline--time"), self._room
        segments = [Segment(left, time)]
        for mark, group in groupby(self._mark(cell, room) for cell in range(room)):
            style = self.get_component_rich_style(f"timeline--{mark}")
            segments.append(Segment(MARKS[mark] * len(list(group)), style))
        segments.append(Segment(right, time))
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Seek, and go on seeking while the button is held."""
        self.capture_mouse()
        self._seek_to(event.x)

    def on_mouse_up(self, _: events.MouseUp) -> None:
        """Let the mouse go."""
        self.release_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Seek along while the button is held; tell the time under the pointer otherwise."""
        if self.app.mouse_captured is self:
            self._seek_to(event.x)
        elif (position := self._position_at(event.x)) is not None:
            self.tooltip = time_label(position)

    def _seek_to(self, x: int) -> None:
        if (position := self._position_at(x)) is not None:
            self.post_message(self.Seeked(position))

    def _position_at(self, x: int) -> float | None:
        """Return the seconds that column `x` stands for; None for a feed, which cannot be wound."""
        if not (self._duration and self._room):
            return None
        cell = min(max(x - len(self._times()[0]), 0), self._room - 1)
        return cell * self._duration / self._room

    @property
    def _room(self) -> int:
        return max(self.size.width - sum(map(len, self._times())), 0)

    def _times(self) -> tuple[str, str]:
        """Return what stands left and right of the bar, as far as there is room for it."""
        left = f"{time_label(self._position)} "
        right = " live" if self._duration is None else f" −{time_label(int(self._duration) - int(self._position))}"
        return (left, right) if self.size.width >= 3 * len(left + right) // 2 else ("", "")

    def _marks_at(self, position: float) -> tuple[int, int]:
        cells = 0 if self._duration is None else int(position * self._room / max(self._duration, 1e-9))
        return int(position), cells

    def _mark(self, cell: int, room: int) -> str:
        """Return what one of `room` cells shows."""
        if self._duration is None:
            return "spoken"
        start, end = cell * self._duration / room, (cell + 1) * self._duration / room
        if start <= self._position < end or (cell == room - 1 and self._position >= end):
            return "head"
        seconds = range(int(start), max(int(end), int(start) + 1))
        if any(number in self._skipped for number in seconds):
            return "passed"
        return "spoken" if any(number in self._spoken for number in seconds) else "rest"
