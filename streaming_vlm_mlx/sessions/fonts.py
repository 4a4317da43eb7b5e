"""Fonts for commentary in pictures: Pillow's own for Latin letters, else one of the system that has the letters."""

import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

from streaming_vlm_mlx.errors import SvmError

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# The last letter that Pillow's own font has.
_LATIN = 0x24F
# Fields of a font, as fontconfig names them.
_FIELDS = "%{file}\t%{index}\t%{style}\t%{charset}\n"
# Where a Mac, which has no fontconfig, keeps a font with most of Unicode.
_MAC_FONTS = (Path("/System/Library/Fonts/Supplemental/Arial Unicode.ttf"), Path("/Library/Fonts/Arial Unicode.ttf"))


@dataclass(frozen=True)
class SystemFont:
    """A font that is installed.

    Attributes:
        path: its file.
        index: its number in that file.
        style: such as ``Regular``.
        ranges: the first and the last character of each stretch that it has.
    """

    path: Path
    index: int
    style: str
    ranges: tuple[tuple[int, int], ...]

    def has(self, letters: Iterable[str]) -> bool:
        """Return whether it has all `letters`."""
        return all(any(first <= ord(letter) <= last for first, last in self.ranges) for letter in letters)


def load_font(text: str, size: int, fonts: "Callable[[], tuple[SystemFont, ...]] | None" = None) -> Font:
    """Return a font of `size` pixels with all letters and digits of `text`.

    Args:
        text: what is to be drawn; symbols may be missing.
        size: in pixels.
        fonts: returns the fonts that are installed, the best first; None for those of this system.

    Raises:
        SvmError: no font has them.
    """
    letters = sorted({letter for letter in text if ord(letter) > _LATIN and unicodedata.category(letter)[0] in "LMN"})
    if not letters:
        return ImageFont.load_default(size)
    known = (fonts or system_fonts)()
    found = next((font for font in known if font.has(letters)), None)
    if found is None:
        absent = next((one for one in letters if not any(font.has(one) for font in known)), letters[0])
        raise SvmError(
            f"no font here has {absent} ({unicodedata.name(absent, 'a letter')}); install one, such as Noto."
        )
    return _open(found.path, found.index, size)


@cache
def system_fonts() -> tuple[SystemFont, ...]:
    """Return the fonts of this system, plain ones without serifs first."""
    if shutil.which("fc-list") is None:
        return tuple(SystemFont(path, 0, "Regular", ((0, 0x10FFFF),)) for path in _MAC_FONTS if path.is_file())
    listed = subprocess.run(
        ["fc-list", "--format", _FIELDS, ":scalable=true"], capture_output=True, text=True, check=False
    )
    return parse_fonts(listed.stdout)


def parse_fonts(listed: str) -> tuple[SystemFont, ...]:
    """Return the fonts that fontconfig `listed`, one in each line, plain ones without serifs first."""
    fonts = []
    # A file's name may hold anything.
    for path, index, style, charset in (found for line in listed.splitlines() if len(found := line.split("\t")) == 4):
        ranges = (stretch.partition("-") for stretch in charset.split())
        pairs = tuple((int(first, 16), int(last or first, 16)) for first, _, last in ranges)
        fonts.append(SystemFont(Path(path), int(index), style, pairs))
    return tuple(sorted(fonts, key=lambda font: ("Regular" not in font.style, "Sans" not in font.path.name)))


@cache
def _open(path: Path, index: int, size: int) -> Font:
    try:
        return ImageFont.truetype(str(path), size, index)
    except OSError as error:
        raise SvmError(f"the font {path} cannot be read; install another one.") from error
