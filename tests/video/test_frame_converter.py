"""Frames are upright, in their colors and of one size."""

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame
from PIL import Image

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import peak_memory
from streaming_vlm_mlx.video.frame_converter import FrameConverter
from streaming_vlm_mlx.video.pyav_reader import probe
from streaming_vlm_mlx.video.video_file import open_video
from tests.fuzz.case import forget_peak
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


def black_png(width: int, height: int) -> bytes:
    """Return a black PNG of 8 bits a pixel."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": rows, b"IEND": b""}
    made = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts.items():
        made += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return made


def test_a_picture_that_no_memory_holds_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(black_png(12_000, 12_000))
    forget_peak()
    before = peak_memory()
    with pytest.raises(SvmError, match=r"or frames of more than 67 million pixels; scale it down"):
        open_video(path)
    assert peak_memory() - before < 50 << 20


def mux(path: Path, codec: str, pix_fmt: str, size: tuple[int, int], packets: Sequence[bytes]) -> Path:
    """Write a stream that states `pix_fmt` and `size`, with these packets, two a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=2)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number, content in enumerate(packets):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 2)
            packet.is_keyframe = True
            out.mux(packet)
    return path


def test_a_picture_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    """6,000 by 6,000 pixels of 16 bits for each of four channels are 288 MB."""
    path = mux(tmp_path / "deep.nut", "rawvideo", "rgba64be", (6000, 6000), [bytes(100)])
    with pytest.raises(SvmError, match=r"has pictures of 6000x6000, too large to decode; scale it down"):
        open_video(path)


def test_a_stream_that_states_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path, frame = tmp_path / "huge.ts", VideoFrame(9000, 9000, "gray")
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.pts = 0
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=2, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 9000, 9000, "gray"
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(SvmError, match=r"has pictures of 9000x9000, too large to decode; scale it down"):
        open_video(path)


def test_a_stream_that_becomes_too_large_is_read_without_that_picture(tmp_path: Path) -> None:
    small, large = black_png(64, 48), black_png(12_000, 12_000)
    path = mux(tmp_path / "grows.nut", "png", "gray", (64, 48), [small, small, small, large, *[small] * 4])
    with open_video(path) as source:
        chunks = list(source.chunks())
        assert source.skipped == 1
    assert [chunk.times for chunk in chunks] == [(0.0, 0.5), (1.0, 2.0), (2.0, 2.5), (3.0, 3.5)]
    assert {chunk.frames.shape[1:3] for chunk in chunks} == {(48, 64)}
