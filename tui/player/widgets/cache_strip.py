"""The cache strip: what the model's cache holds, to scale, and what was just dropped."""

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

# From this width in cells on there is room for the name and the number of tokens.
ROOMY = 60
# Seconds for which dropped spans are shown.
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
class CacheCell:
    """One cell of the strip: its part of the cache, whether its second is odd, and whether it was just dropped."""

    part: Part
    odd: bool = False
    dropped: bool = False


def lay_strip(spans: Iterable[SpanView], dropped: Iterable[SpanView], width: int) -> list[CacheCell]:
    """Return `width` cells, shared among the parts of the cache by their tokens; dropped spans come first in a part.

    Every part that holds tokens has at least one cell, where `width` allows it.
    """
    stretches = [(PARTS[s.kind], s.round, True, s.tokens) for s in dropped]
    stretches += [(PARTS[s.kind], s.round, False, s.tokens) for s in spans]
    parts = [[s for s in stretches if s[0] == part] for part in ORDER]
    parts = [part for part in parts if part]
    shares = share(width, [sum(tokens for *_, tokens in part) for part in parts])
    return [
        CacheCell(kind, kind in ("text", "video") and bool(number % 2), lit)
        for part, cells in zip(parts, shares, strict=True)
        for kind, number, lit in _spread(part, cells)
    ]


def share(width: int, weights: Sequence[int]) -> list[int]:
    """Return integers that sum to `width`, in proportion to `weights`, each at least 1 where `width` allows it."""
    if not weights:
        return []
    least = int(width >= len(weights))
    rest, total = width - least * len(weights), sum(weights)
    ends = [round(rest * end / total) for end in accumulate(weights)]
    return [least + end - start for start, end in zip([0, *ends], ends, strict=False)]


def _spread(part: Sequence[tuple[Part, int, bool, int]], cells: int) -> list[tuple[Part, int, bool]]:
    """Return the stretch under the middle of each of `cells` cells."""
    ends = list(accumulate(tokens for *_, tokens in part))
    middles = ((cell + 0.5) / cells * ends[-1] for cell in range(cells))
    return [part[next(i for i, end in enumerate(ends) if middle < end)][:3] for middle in middles]


class CacheStrip(Widget):
    """One line: attention sink, previous text, kept text, kept video; odd and even seconds differ in shade."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"cache--{part}" for part in ORDER),
        "cache--text-odd",
        "cache--video-odd",
        "cache--dropped",
        "cache--empty",
        "cache--name",
    }

    def __init__(self, empty: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        """Show the text `empty` until there are spans."""
        super().__init__(id=id)
        self._empty = empty
        self._map: SpanMap | None = None
        self._lit = False
        self._shown = 0.0

    def show(self, spans: SpanMap, now: float) -> None:
        """Show `spans`, and what was dropped for a moment from `now` on, in seconds of any clock."""
        self._map, self._lit, self._shown = spans, bool(spans.dropped), now
        self.refresh()

    def tick(self, now: float) -> None:
        """Hide what was dropped, once it was shown for long enough."""
        if self._lit and not self._shown <= now < self._shown + FLASH:
            self._lit = False
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return line `y`: the strip, with labels in the first line."""
        left, right = self._sides() if y == 0 else ("", "")
        width = self.size.width - len(left) - len(right)
        name = self.get_component_rich_style("cache--name")
        return Strip([Segment(left, name), *self._bar(y, width), Segment(right, name)], self.size.width)

    def _sides(self) -> tuple[str, str]:
        """Return the texts left and right of the bar, as wide as the times beside the timeline above."""
        if self.size.width < ROOMY:
            return "", ""
        tokens = sum(span.tokens for span in self._map.spans) if self._map else 0
        return "cache ", f" {tokens if tokens < 1000 else f'{tokens / 1000:.1f}k':>6}"

    def _bar(self, y: int, width: int) -> list[Segment]:
        if self._map is None:
            return [Segment(self._empty.center(width)[:width], self.get_component_rich_style("cache--empty"))]
        cells = lay_strip(self._map.spans, self._map.dropped if self._lit else (), width)
        labels = iter(self._labels(cells) if y == 0 else " " * width)
        segments = []
        for cell, group in groupby(cells):
            text = "".join(next(labels) for _ in group)
            segments.append(Segment("×" * len(text) if cell.dropped else text, self._style(cell)))
        return segments

    def _style(self, cell: CacheCell) -> Style:
        if cell.dropped:
            return self.get_component_rich_style("cache--dropped")
        return self.get_component_rich_style(f"cache--{cell.part}{'-odd' if cell.odd else ''}")

    def _labels(self, cells: Sequence[CacheCell]) -> str:
        """Return the names of the parts, each centred in its cells, with as much about it as fits.

        That is its number of seconds, and for video the share of its tokens that were left out as still.
        """
        assert self._map is not None
        left_out = sum(span.left_out for span in self._map.spans)
        whole = left_out + sum(span.tokens for span in self._map.spans if span.kind == "video")
        rounds = {part: len({s.round for s in self._map.spans if PARTS[s.kind] == part}) for part in ORDER}
        line = ""
        for part, group in groupby(cells, key=lambda cell: cell.part):
            room = len(list(group))
            name = LABELS[part]
            count = f"{name} {rounds[part]} s" if part in ("text", "video") else name
            still = f"{count}, {left_out / whole:.0%} still" if part == "video" and left_out else count
            label = next((text for text in (still, count, name) if len(text) <= room - 2), "")
            line += label.center(room)
        return line
