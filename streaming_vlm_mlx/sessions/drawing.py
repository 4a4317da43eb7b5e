"""Commentary in pictures: below a still picture, or over the picture of a video."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.fonts import Font, load_font

Pixels = npt.NDArray[np.uint8]

# Colours of the paper, of text and of what is less important.
PAPER, INK, MUTED = (13, 17, 23), (216, 222, 233), (139, 148, 158)
# Sizes of the text, the footer and the margins, as shares of the picture's height, and the smallest text in pixels.
TEXT, FOOTER, MARGIN, SMALLEST = 1 / 18, 1 / 28, 1 / 30, 12
# From line to line, as a share of the size of the text.
LEADING = 1.4
# How much of the picture a caption's paper hides, and the most of its height that a caption takes.
OPACITY, MOST_HEIGHT = 0.7, 0.5


def draw_still(pixels: Pixels, text: str, footer: str) -> Image.Image:
    """Return the picture `pixels`, uint8 [height, width, 3], above `text` and a `footer` in smaller letters.

    Raises:
        SvmError: no font has the letters of `text`.
    """
    height, width = pixels.shape[:2]
    margin, size = text_sizes(height)
    small_size = max(round(height * FOOTER), SMALLEST)
    large = load_font(text, size)
    try:
        small = load_font(footer, small_size)
    except SvmError:
        # A clip's name is not worth the picture.
        small = load_font("", small_size)
    lines = wrap(text, large, width - 2 * margin)
    steps = [round(LEADING * size)] * len(lines)
    image = Image.new("RGB", (width, height + 2 * margin + sum(steps) + round(LEADING * small_size)), PAPER)
    image.paste(Image.fromarray(pixels), (0, 0))
    top = _draw_lines(image, lines, large, (margin, height + margin), round(LEADING * size))
    ImageDraw.Draw(image).text((margin, top), footer, MUTED, small)
    return image


def draw_caption(text: str, width: int, height: int) -> Image.Image:
    """Return a caption with `text` for the bottom of a picture of `width` × `height`: RGBA, of the same width.

    It takes at most half of the height; what does not fit is left out.

    Raises:
        SvmError: no font has the letters.
    """
    margin, size = text_sizes(height)
    step = round(LEADING * size)
    font = load_font(text, size)
    lines = wrap(text, font, width - 2 * margin)[: max(int((height * MOST_HEIGHT - margin) // step), 1)]
    # Colour may have half the resolution, which needs an even number of rows.
    rows = 2 * math.ceil((step * len(lines) + margin) / 2)
    image = Image.new("RGBA", (width, min(rows, height)), (*PAPER, round(255 * OPACITY)))
    _draw_lines(image, lines, font, (margin, margin // 2), step)
    return image


def text_sizes(height: int) -> tuple[int, int]:
    """Return the margin and the size of the text in pixels, for a picture of `height`."""
    return max(round(height * MARGIN), SMALLEST // 2), max(round(height * TEXT), SMALLEST)


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Return `text` in lines of at most `width` pixels; a longer word, or text without spaces, is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.extend(_cut(word, font, width))
    return lines


def _cut(word: str, font: Font, width: float) -> list[str]:
    """Return `word` in parts of at most `width` pixels, or of one character."""
    parts = [""]
    for character in word:
        if parts[-1] and font.getlength(parts[-1] + character) > width:
            parts.append("")
        parts[-1] += character
    return parts


def _draw_lines(image: Image.Image, lines: Sequence[str], font: Font, corner: tuple[int, int], step: int) -> int:
    """Draw `lines` below each other from `corner`, and return where the next one would be."""
    pen, (left, top) = ImageDraw.Draw(image), corner
    for line in lines:
        pen.text((left, top), line, INK, font)
        top += step
    return top
