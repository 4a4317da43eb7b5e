"""The clip's picture, in half blocks.

Kitty graphics and sixel are not used: textual-image, the library for them, is made for still images. For every picture
it encodes a PNG and allocates a new id in the terminal, bypassing Textual's writer. On import it queries the terminal,
which delays the first picture and may swallow a key.
"""

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.player.clip import Frame, fit
from tui.player.widgets.half_blocks import BlockStrip, block_rows


class Picture(Widget):
    """Shows one picture in the centre, as large as fits; a cell shows two pixels, one above the other.

    Attributes:
        exact: draw as styled text, which is slower, but works behind another screen and in a screenshot.
    """

    class Resized(Message):
        """The size that a picture is shown at changed."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.exact = False
        self._frame: Frame | None = None
        self._rows: list[BlockStrip] = []

    def pixels_for(self, clip: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) in pixels at which a clip of size `clip` is shown; (0, 0) when hidden."""
        columns, rows = self.size
        return fit(clip, (columns, 2 * rows)) if columns and rows else (0, 0)

    def show(self, frame: Frame) -> None:
        """Show `frame`, whose pixels have the size that `pixels_for` returned."""
        self._frame = frame
        self._lay()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the rows of `crop`, bypassing Textual's cache, which would split the rows into segments."""
        if self.exact:
            return super().render_lines(crop)
        rows = [self.render_line(y) for y in crop.line_range]
        for line_filter in self.get_line_filters():
            rows = [row.apply_filter(line_filter, self.background_colors[1]) for row in rows]
        return [row.crop(crop.x, crop.right) for row in rows]

    def render_line(self, y: int) -> Strip:
        """Return row `y`."""
        top = (self.size.height - len(self._rows)) // 2
        if not 0 <= y - top < len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        row = self._rows[y - top]
        return row.plain() if self.exact else row

    def on_resize(self, _: events.Resize) -> None:
        """Centre the old picture, and post that there is a new size."""
        self._lay()
        self.post_message(self.Resized())

    def _lay(self) -> None:
        if self._frame:
            self._rows = block_rows(self._frame.pixels, self.size.width, self.background_colors[1].rgb)
            self.refresh()
