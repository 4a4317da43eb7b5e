"""The clip's picture, as sharp as the terminal can show it.

textual-image is not used: it is under the LGPL, and made for still images. For every picture it encodes a PNG and takes
a new id in the terminal, bypassing Textual's writer. On import it asks the terminal, which may swallow a key.
"""

from collections.abc import Sequence

from rich.segment import Segment
from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from streaming_vlm_mlx.plain_text import harmless
from tui.player.clip import Frame
from tui.player.graphics.display import Display, Layout, lay_out
from tui.player.graphics.drawing import Drawing, character_rows, draw, image_rows
from tui.player.graphics.half_blocks import BlockStrip
from tui.player.graphics.strips import JoinedStrip

# Rows of a subtitle, rows below it, and its width in cells at most.
SUBTITLE_ROWS, SUBTITLE_MARGIN, SUBTITLE_WIDTH = 2, 1, 72


class Picture(Widget):
    """Shows one picture in the centre, as large as fits, and a subtitle on it."""

    COMPONENT_CLASSES = {"picture--subtitle"}  # noqa: RUF012 - typed by Textual

    class Resized(Message):
        """The size that a picture is shown at changed."""

    def __init__(self, display: Display | None = None, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._display = display or Display()
        self._exact = False
        # Whether something lies on an image that covers text.
        self._is_covered = False
        self._clip = (1, 1)
        self._layout: Layout | None = None
        self._drawing: Drawing | None = None
        self._rows: Sequence[Strip] = ()
        # Lines of the subtitle; None where there is no place for one.
        self._subtitle: list[str] | None = None

    @property
    def exact(self) -> bool:
        """Whether it is drawn as styled text, which is slower, but works behind another screen and in a screenshot."""
        return self._exact

    @exact.setter
    def exact(self, exact: bool) -> None:
        self._exact = exact
        self._lay()

    @property
    def bytes_a_picture(self) -> int:
        """What the terminal gets for the image that is shown; 0 for characters."""
        return len(self._drawing.data) if self._drawing else 0

    def pixels_for(self, clip: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) in pixels at which a clip of size `clip` is shown; (0, 0) when hidden."""
        columns, rows = self.size.width, self.size.height - self._reserved
        self._clip = clip
        self._layout = lay_out(self._display, clip, (columns, rows)) if columns and rows > 0 else None
        return (self._layout.width, self._layout.height) if self._layout else (0, 0)

    def draw(self, frame: Frame) -> Drawing | None:
        """Return `frame`, of the size that `pixels_for` returned, as it is to be shown; for any thread.

        None where another size is wanted meanwhile.
        """
        layout, before = self._layout, self._drawing
        if layout is None or frame.pixels.shape[:2] != (layout.height, layout.width):
            return None
        if before and before.time == frame.time and before.layout == layout:
            return before
        return draw(frame, layout, self._display, before.number if before else 0)

    def show(self, drawing: Drawing) -> None:
        """Show `drawing`."""
        self._drawing = drawing
        self._lay()

    def caption(self, text: str | None) -> None:
        """Write `text` on the picture, or below it where images cover text; None takes its place away."""
        before, had_place = self._subtitle, self._reserved
        self._subtitle = None if text is None else self._wrap(text)
        if self._reserved != had_place:
            self.post_message(self.Resized())
        elif self._subtitle != before:
            height = SUBTITLE_ROWS + SUBTITLE_MARGIN
            self.refresh(Region(0, max(self.size.height - height, 0), self.size.width, height))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the rows of `crop`, bypassing Textual's cache, which would split the rows into segments."""
        self._look_for_cover()
        if self.exact:
            return super().render_lines(crop)
        rows = [self.render_line(y) for y in crop.line_range]
        for line_filter in self.get_line_filters():
            rows = [row.apply_filter(line_filter, self.background_colors[1]) for row in rows]
        return [row.crop(crop.x, crop.right) for row in rows]

    def render_line(self, y: int) -> Strip:
        """Return row `y`."""
        top = (self.size.height - self._reserved - len(self._rows)) // 2
        if 0 <= y - top < len(self._rows):
            row = self._rows[y - top]
            row = row.plain() if self.exact and isinstance(row, BlockStrip) else row
        else:
            row = Strip.blank(self.size.width, self.rich_style)
        line = y - self.size.height + SUBTITLE_MARGIN + len(self._subtitle or ())
        return self._with_text(row, self._subtitle[line]) if self._subtitle and 0 <= line < len(self._subtitle) else row

    def on_resize(self, _: events.Resize) -> None:
        """Centre the old picture, and post that there is a new size."""
        self.pixels_for(self._clip)
        self._lay()
        self.post_message(self.Resized())

    @property
    def _reserved(self) -> int:
        """Rows at the bottom that are kept for a subtitle."""
        return SUBTITLE_ROWS if self._subtitle is not None and self._display.covers_text else 0

    def _lay(self) -> None:
        """Make the rows of the picture; an image has one size only."""
        drawing, display, width = self._drawing, self._display, self.size.width
        if not drawing or (display.is_image and drawing.layout != self._layout):
            self._rows = ()
        else:
            as_image = display.is_image and not self._exact and not self._is_covered
            make = image_rows if as_image else character_rows
            self._rows = make(drawing, display, width, self.background_colors[1].rgb)
        self.refresh()

    def _look_for_cover(self) -> None:
        """Draw characters while something lies on an image that covers text, and the image again afterwards."""
        if not self._display.covers_text:
            return
        above = (widget for widget in self.screen.children if widget.display and widget.layer == "above")
        is_covered = any(widget.region.overlaps(self.region) for widget in above)
        if is_covered != self._is_covered:
            self._is_covered = is_covered
            # Now part of the picture is drawn; then all of it.
            self.call_later(self._lay)

    def _wrap(self, text: str) -> list[str]:
        """Return the last lines of `text`."""
        width = max(min(SUBTITLE_WIDTH, self.size.width - 4), 1)
        lines = Content(harmless(text)).wrap(width) if text else []
        return [line.plain for line in lines[-SUBTITLE_ROWS:]]

    def _with_text(self, row: Strip, text: str) -> Strip:
        """Return `row` with `text` in the middle."""
        words = Strip([Segment(f" {text} ", self.get_component_rich_style("picture--subtitle"))])
        left = max((self.size.width - words.cell_length) // 2, 0)
        return JoinedStrip([row.crop(0, left), words, row.crop(left + words.cell_length, self.size.width)])
