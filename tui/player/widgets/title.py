"""The top line: clip, model and playback."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from streaming_vlm_mlx.plain_text import visible
from tui.player.pace import Pace
from tui.player.playhead import PlaybackState

if TYPE_CHECKING:
    from streaming_vlm_mlx.video.reconnect import FeedState, FeedStatus

Part = Literal["time", "sound", "speed", "state", "pace", "late"]
PARTS: tuple[Part, ...] = get_args(Part)
GAP = Content("  ")
# Cells in which a model's name can be recognized; in fewer it is left out.
MODEL = 12
SIGNS: dict[PlaybackState, str] = {
    "playing": "▶",
    "waiting": "◌ waiting",
    "paused": "‖ paused",
    "ended": "■ end",
}
FEED_SIGNS: dict["FeedState", str] = {
    "live": "",
    "silent": "◌ no signal {0.seconds:.0f} s",
    "reconnecting": "◌ reconnecting ({0.attempt})",
    "ended": "■ feed ended",
}
PACE_NAMES: dict[Pace, str] = {"live": "real time", "every": "wait for model"}


@dataclass(frozen=True, slots=True)
class TitleInfo:
    """What the top line shows.

    Attributes:
        clip: name of the clip.
        model: name of the model.
        time: position and duration.
        state: of the playhead.
        speed: seconds of clip per second of clock.
        pace: how seconds are chosen.
        delay: of the commentary, in seconds.
        skipped: number of skipped seconds.
        signal: what is wrong with a feed, which is all that matters then; empty if nothing is.
        muted: whether the viewer wants to hear nothing.
    """

    clip: str
    model: str
    time: str
    state: PlaybackState
    speed: float
    pace: Pace
    delay: float
    skipped: int
    signal: str = ""
    muted: bool = False

    @property
    def parts(self) -> list[tuple[Part, str]]:
        """The right side; the most important part comes last, so that a narrow line can leave out the first."""
        if self.signal:
            return [("time", self.time), ("state", self.signal)]
        delay = f"{self.delay:.1f}"
        late = [f"{delay} s late"] if delay != "0.0" else []
        late += [f"{self.skipped} skipped"] if self.skipped else []
        sound: list[tuple[Part, str]] = [("sound", "muted")] if self.muted else []
        parts: list[tuple[Part, str]] = [
            ("time", self.time),
            *sound,
            ("speed", f"{self.speed:g}×"),
            ("state", SIGNS[self.state]),
            ("pace", PACE_NAMES[self.pace]),
        ]
        return [*parts, ("late", " · ".join(late))] if late else parts


def feed_sign(status: "FeedStatus | None") -> str:
    """Return what is wrong with a feed; empty if nothing is, and for a clip."""
    return FEED_SIGNS[status.state].format(status) if status else ""


class Title(Widget):
    """One line: clip and model on the left; time, speed, state, pace and delay on the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title--clip", "title--model", *(f"title--{part}" for part in PARTS)}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._info: TitleInfo | None = None

    def show(self, info: TitleInfo) -> None:
        """Show `info`."""
        if info != self._info:
            self._info = info
            self.refresh()

    def render(self) -> Content:
        """Return the line, with names shortened where it is narrow."""
        info, width = self._info, self.size.width
        if info is None:
            return Content("")
        clip = Content(visible(info.clip)).stylize(self._style("clip"))
        model = Content(f" · {visible(info.model)}").stylize(self._style("model"))
        parts = info.parts
        # The timeline shows the time as well, so the time alone makes room for the clip's name.
        if clip.cell_length + len(GAP) + _width(parts) > width:
            parts.pop(0)
        room = width - len(GAP) - _width(parts) - clip.cell_length
        left = clip + (model.truncate(room, ellipsis=True) if room >= min(model.cell_length, MODEL) else "")
        while len(parts) > 1 and _width(parts) > width:
            parts.pop(0)
        right = GAP.join(Content(text).stylize(self._style(part)) for part, text in parts)
        left = left.truncate(max(width - right.cell_length - len(GAP), 0), ellipsis=True)
        return left.pad_right(width - left.cell_length - right.cell_length) + right

    def _style(self, part: str) -> Style:
        return self.get_visual_style(f"title--{part}", partial=True)


def _width(parts: Sequence[tuple[Part, str]]) -> int:
    return sum(len(text) + len(GAP) for _, text in parts) - len(GAP)
