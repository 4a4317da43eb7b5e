"""Frames are upright, in their colors and of one size."""

from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame
from PIL import Image

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.frame_converter import FrameConverter
from streaming_vlm_mlx.video.pyav_reader import probe
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import grey, make_clip, numbers, read


def corner(number: int, size: tuple[int, int]) -> np.ndarray:
    """Light above on the left, half light above on the right, so that every turn looks different."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[: size[1] // 2, : size[0] // 2] = 240
    picture[: size[1] // 2, size[0] // 2 :] = 120
    return picture


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [{}, {"hflip": True}, {"vflip": True}])
def test_pictures_stand_upright(tmp_path: Path, degrees: int, mirror: dict[str, bool]) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=5, paint=corner, turn={"degrees": degrees, **mirror})
    # What set_display_rotation promises: first a turn counterclockwise, then the mirror.
    expected = np.rot90(corner(0, (64, 48)), degrees // 90)
    expected = expected[:, ::-1] if "hflip" in mirror else expected
    expected = expected[::-1] if "vflip" in mirror else expected

    frame = read(path)[0].frames[0]

    info = probe(path)
    assert frame.shape == expected.shape == (info.height, info.width, 3)
    assert np.abs(frame.astype(int) - expected).mean() < 5


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("clip.mkv", "ffv1", "yuv444p10le", (67, 45)),
        ("clip.mkv", "libx265", "yuv420p10le", (64, 48)),
        ("clip.mkv", "ffv1", "gray", (33, 31)),
        ("clip.mkv", "ffv1", "bgra", (64, 48)),
        ("clip.mov", "prores_ks", "yuv422p10le", (64, 48)),
        ("clip.gif", "gif", "rgb8", (41, 23)),
    ],
)
def test_odd_sizes_and_formats(tmp_path: Path, name: str, codec: str, pix_fmt: str, size: tuple[int, int]) -> None:
    chunks = read(make_clip(tmp_path / name, codec, pix_fmt=pix_fmt, size=size, count=60, rate=25))
    assert chunks[0].frames.shape == (2, size[1], size[0], 3)
    painted = [float(grey(n, size).mean()) for n in (0, 13, 25, 38)]
    seen = [float(frame.mean()) for chunk in chunks[:2] for frame in chunk.frames]
    # A GIF of 8 bits knows few greys.
    assert seen == pytest.approx(painted, abs=20 if codec == "gif" else 3)


def test_colours_that_ffmpeg_cannot_convert_are_taken_for_usual_ones(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=30, options={"x264-params": "colormatrix=YCgCo"})
    assert numbers(read(path)) == [0, 15]


def test_formats_that_ffmpeg_cannot_convert_are_named() -> None:
    with pytest.raises(SvmError, match=r"^clip.mkv has frames of format rgb96le"):
        FrameConverter("clip.mkv", av.VideoFrame(64, 48, "rgb96le"))


def test_a_change_of_size_is_scaled_to_the_first_one(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.h264", count=30).read_bytes()
    large = make_clip(tmp_path / "large.h264", count=30, size=(128, 96)).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    chunks = read(path)
    assert {c.frames.shape for c in chunks} == {(2, 48, 64, 3)}
    assert numbers(chunks) == [0, 15, 0, 15]


def test_a_picture_with_unknown_side_data_is_upright(tmp_path: Path) -> None:
    """A TIFF's EXIF data are of a kind that PyAV does not know."""
    Image.new("RGB", (64, 48), (9, 99, 9)).save(tmp_path / "p.tiff")
    with open_video(tmp_path / "p.tiff") as source:
        (chunk,) = source.chunks()
    assert chunk.frames.shape[1:] == (48, 64, 3)


def test_pictures_larger_than_4k_are_halved() -> None:
    frame = VideoFrame(7680, 4320, "gray")
    converter = FrameConverter("big.mp4", frame)
    assert converter.size == (3840, 2160)
    assert converter.rgb(frame).shape == (2160, 3840, 3)


def test_a_picture_that_no_memory_holds_is_refused_unread(tmp_path: Path) -> None:
    """A PNG that says that it is 12,000 pixels wide and 12,000 high."""
    path = tmp_path / "huge.png"
    Image.new("L", (12_000, 12_000)).save(path)
    with pytest.raises(SvmError, match=r"has pictures of 12000x12000, too large to decode; scale it down"):
        open_video(path)
