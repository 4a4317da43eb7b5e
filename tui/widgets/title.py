"""The top line: what is played by whom, and how it stands."""

from dataclasses import dataclass
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from tui.player import Pace, State

SIGNS: dict[State, str] = {"playing": "▶", "waiting": "◌ waits for the model", "paused": "‖ paused", "ended": "■ end"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What the top line tells; `lag` in seconds, `passed` in seconds that the model had no time for."""

    clip: str
    model: str
    state: State
    speed: float
    pace: Pace
    lag: float
    passed: int

    @property
    def parts(self) -> list[str]:
        """How it stands, the most telling last, so that a narrow line can leave out the first."""
        behind = f"−{self.lag:.1f} s"
        missed = f" {self.passed} passed over" if self.passed else ""
        return [
            f"{self.speed:g}×",
            SIGNS[self.state],
            f"{'live' if self.pace == 'live' else 'every second'} {behind}{missed}",
        ]


class Title(Widget):
    """One line: clip and model on the left, state, speed, pace and lag on the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title--clip", "title--model", "title--state"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._standing: Standing | None = None

    def show(self, standing: Standing) -> None:
        """Show `standing`."""
        if standing != self._standing:
            self._standing = standing
            self.refresh()

    def render(self) -> Content:
        """Return the line, names shortened where it is narrow."""
        standing, width = self._standing, self.size.width
        if standing is None:
            return Content("")
        parts = standing.parts
        while len(parts) > 1 and len("  ".join(parts)) > width:
            parts.pop(0)
        right = Content("  ".join(parts)).stylize(self.get_visual_style("title--state", partial=True))
        room = max(width - right.cell_length - 2, 0)
        clip = Content(standing.clip).stylize(self.get_visual_style("title--clip", partial=True))
        model = Content(f" · {standing.model}").stylize(self.get_visual_style("title--model", partial=True))
        left = (clip + model).truncate(room, ellipsis=True)
        return left.pad_right(width - left.cell_length - right.cell_length) + right
