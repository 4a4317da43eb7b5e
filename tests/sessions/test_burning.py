"""Commentary that is drawn on the picture."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from PIL.ImageFont import load_default

from streaming_vlm_mlx.sessions.drawing import INK, MOST_HEIGHT, PAPER, draw_caption, wrap
from streaming_vlm_mlx.sessions.mp4 import Mp4Settings, write_mp4
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.video.pyav_reader import FrameReader
from tests.sessions.test_mp4 import read_cues
from tests.video.clips import Picture, make_clip

SIZE = 160, 120
SAID = [GenerationResult(1, 1.0, 2.0, "He scores!"), GenerationResult(2, 2.0, 3.0, "")]
BURN = Mp4Settings(burn=True)


def quarters(number: int, size: tuple[int, int]) -> Picture:
    """Paint a picture whose left upper quarter is red, the right one green, and below blue and grey."""
    width, height = size
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 2, : width // 2] = 200, 30, 30
    picture[: height // 2, width // 2 :] = 30, 200, 30
    picture[height // 2 :, : width // 2] = 30, 30, 200
    return picture


def read(path: Path) -> list[tuple[float, Picture]]:
    """Return the times and the upright pictures of a clip, as the player shows them."""
    reader = FrameReader(str(path))
    try:
        return [(frame.time, reader.rgb(frame.picture).astype(np.int16)) for frame in reader.frames_from(0.0)]
    finally:
        reader.close()


def burn(tmp_path: Path, said: list[GenerationResult] = SAID, ending: str = ".mp4", **clip: Any) -> tuple[Path, Path]:
    clip = {"count": 30, "rate": 10, "size": SIZE, "paint": quarters, **clip}
    source, out = make_clip(tmp_path / f"clip{ending}", **clip), tmp_path / "out.mp4"
    write_mp4(out, str(source), said, BURN)
    return source, out


def check_burnt(source: Path, out: Path) -> None:
    """Check that pictures and times are those of `source`, but for text at the bottom from 1 s to 2 s."""
    before, after = read(source), read(out)
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.002)
    for (time, was), (_, now) in zip(before, after, strict=True):
        assert now.shape == was.shape
        upper = slice(0, was.shape[0] // 2 - 4)
        assert np.abs(was[upper] - now[upper]).mean() < 4
        lower = slice(-was.shape[0] // 6, None)
        has_text = 1.0 <= round(time, 3) < 2.0
        assert (np.abs(was[lower] - now[lower]).mean() > 20) == has_text
        if has_text:
            # Light letters on dark paper.
            assert now[lower].max() > 180
            assert np.median(now[lower]) < 80


def test_text_is_at_the_bottom_while_it_is_a_subtitle(tmp_path: Path) -> None:
    source, out = burn(tmp_path)
    check_burnt(source, out)
    assert [cue[2] for cue in read_cues(out)] == ["He scores!"]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 10


CLIPS: dict[str, dict[str, Any]] = {
    "turned": {"turn": {"degrees": 90}},
    "mirrored": {"turn": {"degrees": 180, "hflip": True}},
    "odd": {"size": (161, 119), "pix_fmt": "yuv444p"},
    "full range": {"pix_fmt": "yuvj420p"},
    "ten bits": {"pix_fmt": "yuv420p10le"},
    "vp9": {"codec": "libvpx-vp9", "ending": ".webm"},
    "uneven": {"ticks": [*range(0, 2000, 70), *range(2000, 3000, 200)], "tick": Fraction(1, 1000)},
    "shifted": {"ticks": range(5000, 8000, 100), "tick": Fraction(1, 1000), "ending": ".mkv"},
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_every_kind_of_clip_keeps_its_pictures(tmp_path: Path, clip: dict[str, Any]) -> None:
    check_burnt(*burn(tmp_path, **clip))


def test_a_clip_without_words_is_only_encoded_again(tmp_path: Path) -> None:
    source, out = burn(tmp_path, [])
    for (_, was), (_, now) in zip(read(source), read(out), strict=True):
        assert np.abs(was - now).mean() < 4


def test_colours_are_named_as_in_the_clip(tmp_path: Path) -> None:
    source, out = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    options = {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}
    make_clip(source, count=10, rate=10, options=options)
    write_mp4(out, str(source), SAID, BURN)
    with av.open(str(source)) as first, av.open(str(out)) as second:
        before, after = (container.streams.video[0].codec_context for container in (first, second))
        for name in ("color_primaries", "color_trc", "colorspace"):
            assert getattr(after, name) == getattr(before, name) == 1


@pytest.mark.parametrize(("width", "height"), [(64, 48), (161, 119), (1920, 1080), (16, 16)])
@pytest.mark.parametrize("text", ["goal", "word " * 100, "incomprehensibilities"])
def test_a_caption_fits_the_picture(width: int, height: int, text: str) -> None:
    caption = draw_caption(text, width, height)
    assert caption.mode == "RGBA"
    assert caption.width == width
    assert caption.height <= max(height * MOST_HEIGHT + 2, 2 * load_default(12).size)


def test_a_caption_is_light_text_on_paper() -> None:
    pixels = np.asarray(draw_caption("He scores!", 640, 360))
    assert tuple(pixels[0, 0, :3]) == PAPER
    assert (pixels[..., :3] == INK).all(axis=2).any()
    assert 0 < pixels[0, 0, 3] < 255


def test_a_caption_has_the_lines_of_a_still() -> None:
    font = load_default(20)
    assert len(wrap("the ball goes wide of the line and the point is lost", font, 200)) > 1
    heights = [draw_caption("word " * count, 640, 360).height for count in (1, 60)]
    assert isinstance(draw_caption("word", 640, 360), Image.Image)
    assert heights[1] > heights[0]
