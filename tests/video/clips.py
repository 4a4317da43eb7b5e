"""Generated clips: the grey level of a frame encodes its number."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.video_file import open_video

LEVELS = 40
DARKEST = 25
STEP = 5

# MPEG-4's default rate blurs one grey into the next; VP9's default care takes seconds.
OPTIONS = {"mpeg4": {"b": "4M"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}

Picture = npt.NDArray[np.uint8]


def grey(number: int, size: tuple[int, int]) -> Picture:
    """Paint frame `number`; 40 of them in a row can be reported apart after coding."""
    return np.full((size[1], size[0], 3), DARKEST + STEP * (number % LEVELS), np.uint8)


def number_of(picture: Picture) -> int:
    """The number, modulo 40, of the frame that `grey` painted."""
    return round((float(picture.mean()) - DARKEST) / STEP)


def make_clip(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 90,
    rate: int = 30,
    ticks: Sequence[int] | None = None,
    tick: Fraction | None = None,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    turn: dict[str, Any] | None = None,
    paint: Callable[[int, tuple[int, int]], Picture] = grey,
    options: dict[str, str] | None = None,
    **container: Any,
) -> Path:
    """Write a clip of `count` frames at `rate`, or one frame at each of `ticks`, counted in `tick` seconds."""
    with av.open(str(path), "w", **container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or OPTIONS.get(codec, {}))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if tick:
            stream.codec_context.time_base = tick
        if turn:
            stream.set_display_rotation(**turn)
        for number, pts in enumerate(range(count) if ticks is None else ticks):
            frame = av.VideoFrame.from_ndarray(paint(number, size), format="rgb24")
            frame.pts, frame.time_base = pts, tick or Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def make_sound(path: Path, codec: str = "aac", cover: bool = False) -> Path:
    """Write a second of silence, with a picture on the sleeve if `cover`."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=44100)
        if cover:
            sleeve = out.add_stream("mjpeg", rate=1)
            sleeve.width, sleeve.height, sleeve.pix_fmt = 64, 48, "yuvj420p"
            sleeve.disposition = av.stream.Disposition.attached_pic
            out.mux(sleeve.encode(av.VideoFrame.from_ndarray(grey(3, (64, 48)), format="rgb24")))
        for number in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def damage(path: Path, start: float, length: int) -> Path:
    """Overwrite `length` bytes of `path` with noise, from the fraction `start` of it on."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * start)
    data[at : at + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(data)
    return path


def read(path: Path, fps: float = 2.0, by_end: bool = False, **span: Any) -> list[Chunk]:
    """Play the stretch `span` of a clip."""
    with open_video(path, fps, by_end) as source:
        return list(source.chunks(**span))


def numbers(chunks: list[Chunk]) -> list[int]:
    """The numbers of all frames of `chunks`."""
    return [number_of(frame) for chunk in chunks for frame in chunk.frames]


def times(chunks: list[Chunk]) -> list[float]:
    """The times of all frames of `chunks`."""
    return [time for chunk in chunks for time in chunk.times]
