"""The timeline: the position in the clip, and which seconds were generated, skipped or marked; a click seeks."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.player.transcript import time_label

MARKS = {"head": "●", "bookmark": "◆", "generated": "━", "skipped": "╍", "rest": "─"}


class Timeline(Widget):
    """A bar between the position and the time that is left."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*(f"timeline--{mark}" for mark in MARKS), "timeline--time"}

    @dataclass
    class Seeked(Message):
        """The viewer wants to go to `position` seconds."""

        position: float

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._position = 0.0
        self._duration: float | None = None
        self._generated: Set[int] = frozenset()
        self._skipped: Set[int] = frozenset()
        self._bookmarks: Sequence[float] = ()

    def show(self, position: float, duration: float | None) -> None:
        """Show the position in seconds; a `duration` of None is that of a feed."""
        changed = self._marks_at(position) != self._marks_at(self._position) or duration != self._duration
        self._position, self._duration = position, duration
        if changed:
            self.refresh()

    def mark(self, generated: Set[int], skipped: Set[int]) -> None:
        """Show which seconds were generated, and which were skipped."""
        self._generated, self._skipped = generated, skipped
        self.refresh()

    def bookmark(self, positions: Sequence[float]) -> None:
        """Show bookmarks at `positions`, in seconds."""
        self._bookmarks = positions
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
        """Seek, and capture the mouse to follow a drag."""
        self.capture_mouse()
        self._seek_to(event.x)

    def on_mouse_up(self, _: events.MouseUp) -> None:
        """Release the mouse."""
        self.release_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Seek during a drag; otherwise show the time under the pointer."""
        if self.app.mouse_captured is self:
            self._seek_to(event.x)
        elif (position := self._position_at(event.x)) is not None:
            self.tooltip = time_label(position)

    def _seek_to(self, x: int) -> None:
        if (position := self._position_at(x)) is not None:
            self.post_message(self.Seeked(position))

    def _position_at(self, x: int) -> float | None:
        """Return the position in seconds of column `x`; None for a feed, which cannot seek."""
        if not (self._duration and self._room):
            return None
        cell = min(max(x - len(self._times()[0]), 0), self._room - 1)
        return cell * self._duration / self._room

    @property
    def _room(self) -> int:
        return max(self.size.width - sum(map(len, self._times())), 0)

    def _times(self) -> tuple[str, str]:
        """Return the texts left and right of the bar, empty where there is no room."""
        left = f"{time_label(self._position)} "
        right = " live" if self._duration is None else self._time_left(self._duration)
        return (left, right) if self.size.width >= 3 * len(left + right) // 2 else ("", "")

    def _time_left(self, duration: float) -> str:
        left = max(int(duration) - int(self._position), 0)
        return f" {'−' if left else ' '}{time_label(left)}"

    def _marks_at(self, position: float) -> tuple[int, int]:
        cells = 0 if self._duration is None else int(position * self._room / max(self._duration, 1e-9))
        return int(position), cells

    def _mark(self, cell: int, room: int) -> str:
        """Return the mark of one of `room` cells."""
        if self._duration is None:
            return "generated"
        start, end = cell * self._duration / room, (cell + 1) * self._duration / room
        if start <= self._position < end or (cell == room - 1 and self._position >= end):
            return "head"
        if any(start <= position < end for position in self._bookmarks):
            return "bookmark"
        seconds = range(int(start), max(int(end), int(start) + 1))
        if any(number in self._skipped for number in seconds):
            return "skipped"
        return "generated" if any(number in self._generated for number in seconds) else "rest"
