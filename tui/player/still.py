"""A picture of the clip with its commentary, as an image file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import free_names

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from tui.player.clip import Pixels

# Colours of the strip below the picture.
PAPER, INK, MUTED = (13, 17, 23), (216, 222, 233), (139, 148, 158)
# Sizes of the text, the footer and the margins, as shares of the picture's height, and the smallest text in pixels.
TEXT, FOOTER, MARGIN, SMALLEST = 1 / 18, 1 / 28, 1 / 30, 12
# From line to line, as a share of the size of the text.
LEADING = 1.4


def draw_still(pixels: "Pixels", text: str, footer: str) -> "Image.Image":
    """Return the picture `pixels`, uint8 [height, width, 3], above `text` and a `footer` in smaller letters."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = pixels.shape[:2]
    margin = max(round(height * MARGIN), SMALLEST // 2)
    sizes = [max(round(height * share), SMALLEST) for share in (TEXT, FOOTER)]
    large, small = map(ImageFont.load_default, sizes)
    lines = [(line, large, INK) for line in wrap(text, large, width - 2 * margin)] + [(footer, small, MUTED)]
    steps = [round(LEADING * sizes[font is small]) for _, font, _ in lines]
    image = Image.new("RGB", (width, height + 2 * margin + sum(steps)), PAPER)
    image.paste(Image.fromarray(pixels), (0, 0))
    pen, top = ImageDraw.Draw(image), height + margin
    for (line, font, colour), step in zip(lines, steps, strict=True):
        pen.text((margin, top), line, colour, font)
        top += step
    return image


def wrap(text: str, font: "ImageFont.ImageFont | ImageFont.FreeTypeFont", width: float) -> list[str]:
    """Return `text` in lines of at most `width` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save_image(image: "Image.Image", path: Path) -> None:
    """Replace `path` with `image` as PNG, atomically.

    Raises:
        SvmError: it cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        image.save(file, "PNG")


def save_beside(base_paths: Iterable[Path], ending: str, write: Callable[[Path], None]) -> Path:
    """Call `write` with a new path at the first of `base_paths` that can be written, and return the path.

    Args:
        base_paths: places without endings, the best first; at least one.
        ending: of the file.
        write: writes the file, and raises `SvmError` where it cannot.

    Raises:
        SvmError: none can be written; it is that of the first.
    """
    failure: SvmError | None = None
    for base_path in base_paths:
        (path,) = free_names(base_path, [ending])
        try:
            write(path)
        except SvmError as error:
            failure = failure or error
        else:
            return path
    assert failure is not None
    raise failure
