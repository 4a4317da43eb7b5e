"""Fonts for commentary in any script."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.drawing import draw_caption, draw_still, wrap
from streaming_vlm_mlx.sessions.fonts import SystemFont, load_font, parse_fonts

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
LISTED = f"""/fonts/NotoSerifCJK.ttc\t3\tRegular\t20-7e 4e00-9fff
/fonts/NotoSansCJK.ttc\t1\tBold\t20-7e 4e00-9fff
/fonts/NotoSansCJK-Regular.ttc\t2\tRegular\t20-7e 4e00-9fff ac00-d7a3
/fonts/in\ttwo.ttf\t0\tRegular\t20-7e
{DEJAVU}\t0\tBook,Regular\t20-7e 401-45f 5d0
"""


def installed() -> tuple[SystemFont, ...]:
    return parse_fonts(LISTED)


def drawn(text: str) -> bytes:
    image = Image.new("L", (60, 60))
    ImageDraw.Draw(image).text((5, 5), text, 255, load_font(text, 40, installed))
    return image.tobytes()


def test_plain_fonts_without_serifs_come_first() -> None:
    assert [font.path.name for font in installed()] == [
        "NotoSansCJK-Regular.ttc",
        "DejaVuSans.ttf",
        "NotoSerifCJK.ttc",
        "NotoSansCJK.ttc",
    ]
    assert installed()[0] == SystemFont(
        Path("/fonts/NotoSansCJK-Regular.ttc"), 2, "Regular", ((0x20, 0x7E), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
    )
    assert installed()[1].ranges[-1] == (0x5D0, 0x5D0)


def test_letters_beyond_latin_are_drawn_not_boxed() -> None:
    assert len({drawn(letter) for letter in "ШЩЖא"}) == 4


@pytest.mark.parametrize("text", ["He scores — 15–0!", "Zażółć gęślą jaźń", "ãéîøü", "", "⚽ ● …"])
def test_latin_letters_need_no_font_of_the_system(text: str) -> None:
    font = load_font(text, 20, tuple)
    assert font.getlength("word") == ImageFont.load_default(20).getlength("word")


def test_a_letter_that_no_font_has_is_named() -> None:
    with pytest.raises(SvmError, match="no font here has ก \\(THAI CHARACTER KO KAI\\); install one, such as Noto"):
        load_font("Ш ก", 20, installed)


def test_a_font_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"no font")
    broken = SystemFont(tmp_path / "font.ttf", 0, "Regular", ((0x400, 0x4FF),))
    with pytest.raises(SvmError, match=r"the font .*font\.ttf cannot be read"):
        load_font("Ш", 20, lambda: (broken,))


def test_text_without_spaces_is_cut_into_lines() -> None:
    font = load_font("Ш", 20, installed)
    lines = wrap("Ш" * 100, font, 300)
    assert "".join(lines) == "Ш" * 100
    assert len(lines) > 3
    assert max(font.getlength(line) for line in lines) <= 300


def test_a_picture_is_saved_whatever_the_name_of_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_vlm_mlx.sessions.fonts.system_fonts", installed)
    pixels = np.zeros((90, 160, 3), np.uint8)
    assert draw_still(pixels, "Гол", "ก.mp4").width == 160
    with pytest.raises(SvmError, match="no font here has ก"):
        draw_still(pixels, "ก", "match.mp4")


def test_a_caption_in_cyrillic_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_vlm_mlx.sessions.fonts.system_fonts", installed)
    first, second = (np.asarray(draw_caption(text, 320, 180)) for text in ("Гол", "Мяч"))
    assert (first != second).any()
