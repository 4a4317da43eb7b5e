"""The top line: what is played by whom, and how it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from tui.player.pace import Pace
from tui.player.playhead import PlaybackState

Part = Literal["time", "speed", "state", "pace", "passed"]
PARTS: tuple[Part, ...] = get_args(Part)
GAP = Content("  ")
SIGNS: dict[PlaybackState, str] = {
    "playing": "▶",
    "waiting": "◌ waits for the model",
    "paused": "‖ paused",
    "ended": "■ end",
}


@dataclass(frozen=True, slots=True)
class TitleState:
    """What the top line tells; `delay` in seconds, `skipped` in seconds that the model had no time for."""

    clip: str
    model: str
    time: str
    state: PlaybackState
    speed: float
    pace: Pace
    delay: float
    skipped: int

    @property
    def parts(self) -> list[tuple[Part, str]]:
        """How it stands, the most telling last, so that a narrow line can leave out the first."""
        parts: list[tuple[Part, str]] = [
            ("time", self.time),
            ("speed", f"{self.speed:g}×"),
            ("state", SIGNS[self.state]),
            ("pace", f"{'live' if self.pace == 'live' else 'every second'} −{self.delay:.1f} s"),
        ]
        return [*parts, ("passed", f"{self.skipped} passed over")] if self.skipped else parts


class Title(Widget):
    """One line: clip and model on the left, state, speed, pace and lag on the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title--clip", "title--model", *(f"title--{part}" for part in PARTS)}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._standing: TitleState | None = None

    def show(self, standing: TitleState) -> None:
        """Show `standing`."""
        if standing != self._standing:
            self._standing = standing
            self.refresh()

    def render(self) -> Content:
        """Return the line, names shortened where it is narrow."""
        standing, width = self._standing, self.size.width
        if standing is None:
            return Content("")
        left = Content(standing.clip).stylize(self._style("clip"))
        left += Content(f" · {standing.model}").stylize(self._style("model"))
        parts = standing.parts
        # The time stands below too: it is the only part that gives way to a name.
        if left.cell_length + len(GAP) + _width(parts) > width:
            parts.pop(0)
        while len(parts) > 1 and _width(parts) > width:
            parts.pop(0)
        right = GAP.join(Content(text).stylize(self._style(part)) for part, text in parts)
        left = left.truncate(max(width - right.cell_length - len(GAP), 0), ellipsis=True)
        return left.pad_right(width - left.cell_length - right.cell_length) + right

    def _style(self, part: str) -> Style:
        return self.get_visual_style(f"title--{part}", partial=True)


def _width(parts: Sequence[tuple[Part, str]]) -> int:
    return sum(len(text) + len(GAP) for _, text in parts) - len(GAP)
