"""What the model remembers, drawn to scale, and what it has just let go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import ClassVar, Literal

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from streaming_vlm_mlx.stream.events import SpanKind, SpanMap, SpanView

Part = Literal["sink", "previous", "text", "video"]

# Cells from which there is room for a name and a number.
ROOMY = 60
# Seconds that dropped spans stay lit.
FLASH = 0.6
PARTS: dict[SpanKind, Part] = {
    "system": "sink",
    "previous": "previous",
    "user": "text",
    "text": "text",
    "video": "video",
}
ORDER: tuple[Part, ...] = ("sink", "previous", "text", "video")
LABELS: dict[Part, str] = {"sink": "sink", "previous": "previous text", "text": "text", "video": "video"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the strip: which part of the memory, a second with an odd number or an even one, lit or not."""

    part: Part
    odd: bool = False
    dropped: bool = False


def lay_strip(spans: Iterable[SpanView], dropped: Iterable[SpanView], width: int) -> list[Cell]:
    """Return `width` cells, shared among the parts of the memory by their tokens; dropped spans lead their part.

    A part that holds anything has a cell at least, as far as there are cells.
    """
    stretches = [(PARTS[s.kind], s.round, True, s.tokens) for s in dropped]
    stretches += [(PARTS[s.kind], s.round, False, s.tokens) for s in spans]
    parts = [[s for s in stretches if s[0] == part] for part in ORDER]
    parts = [part for part in parts if part]
    shares = share(width, [sum(tokens for *_, tokens in part) for part in parts])
    return [
        Cell(kind, kind in ("text", "video") and bool(number % 2), lit)
        for part, cells in zip(parts, shares, strict=True)
        for kind, number, lit in _spread(part, cells)
    ]


def share(width: int, weights: Sequence[int]) -> list[int]:
    """Return whole numbers that add up to `width`, in proportion to `weights`, 1 at least where `width` allows it."""
    if not weights:
        return []
    least = int(width >= len(weights))
    rest, total = width - least * len(weights), sum(weights)
    ends = [round(rest * end / total) for end in accumulate(weights)]
    return [least + end - start for start, end in zip([0, *ends], ends, strict=False)]


def _spread(part: Sequence[tuple[Part, int, bool, int]], cells: int) -> list[tuple[Part, int, bool]]:
    """Return what the middle of each of `cells` cells falls on."""
    ends = list(accumulate(tokens for *_, tokens in part))
    middles = ((cell + 0.5) / cells * ends[-1] for cell in range(cells))
    return [part[next(i for i, end in enumerate(ends) if middle < end)][:3] for middle in middles]


class CacheStrip(Widget):
    """A line of the model's memory: sink, previous text, kept text, kept video; seconds alternate in shade."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"cache--{part}" for part in ORDER),
        "cache--text-odd",
        "cache--video-odd",
        "cache--dropped",
        "cache--empty",
        "cache--name",
    }

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._map: SpanMap | None = None
        self._lit = False
        self._shown = 0.0

    def show(self, spans: SpanMap, now: float) -> None:
        """Show `spans`; what was dropped is lit for a moment from `now` on, in seconds of any clock."""
        self._map, self._lit, self._shown = spans, bool(spans.dropped), now
        self.refresh()

    def tick(self, now: float) -> None:
        """Let what was dropped go, once it was lit for long enough."""
        if self._lit and not self._shown <= now < self._shown + FLASH:
            self._lit = False
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return the strip, in every line."""
        left, right = self._sides() if y == 0 else ("", "")
        width = self.size.width - len(left) - len(right)
        name = self.get_component_rich_style("cache--name")
        return Strip([Segment(left, name), *self._bar(y, width), Segment(right, name)], self.size.width)

    def _sides(self) -> tuple[str, str]:
        """Return what stands left and right of the bar, as wide as the times around the timeline above."""
        if self.size.width < ROOMY:
            return "", ""
        tokens = sum(span.tokens for span in self._map.spans) if self._map else 0
        return "cache ", f" {tokens if tokens < 1000 else f'{tokens / 1000:.1f}k':>6}"

    def _bar(self, y: int, width: int) -> list[Segment]:
        if self._map is None:
            return [Segment("nothing yet".center(width)[:width], self.get_component_rich_style("cache--empty"))]
        cells = lay_strip(self._map.spans, self._map.dropped if self._lit else (), width)
        labels = iter(self._labels(cells) if y == 0 else " " * width)
        segments = []
        for cell, group in groupby(cells):
            text = "".join(next(labels) for _ in group)
            segments.append(Segment("×" * len(text) if cell.dropped else text, self._style(cell)))
        return segments

    def _style(self, cell: Cell) -> Style:
        if cell.dropped:
            return self.get_component_rich_style("cache--dropped")
        return self.get_component_rich_style(f"cache--{cell.part}{'-odd' if cell.odd else ''}")

    def _labels(self, cells: Sequence[Cell]) -> str:
        """Return the parts' names, each in the middle of its cells or shortened, with its seconds where these fit."""
        assert self._map is not None
        rounds = {part: len({s.round for s in self._map.spans if PARTS[s.kind] == part}) for part in ORDER}
        line = ""
        for part, group in groupby(cells, key=lambda cell: cell.part):
            room = len(list(group))
            name = LABELS[part]
            count = f"{name} {rounds[part]} s" if part in ("text", "video") else name
            label = next((text for text in (count, name) if len(text) <= room - 2), "")
            line += label.center(room)
        return line
