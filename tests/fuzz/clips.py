"""Damaged and odd clips: what plays, converts and exports a clip reads them."""

import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from streaming_vlm_mlx.audio.voice import Utterance
from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.clip_metadata import probe_clip
from streaming_vlm_mlx.sessions.mp4 import Mp4Settings, write_mp4
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.image_processor import patchify
from streaming_vlm_mlx.video.video_file import open_video
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import mutate_bytes, odd_name
from tests.video.clips import damage, grey, make_clip, make_sound

# Seconds of a clip that a case reads.
SECONDS = 12
PIXELS = PixelConfig()

# Ending, codec, and arguments of `make_clip` of the clips that are damaged.
BASES = (
    ("h264.mp4", "libx264", {}),
    ("moov.mov", "libx264", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("h264.mkv", "libx264", {"gop": 90}),
    ("h264.ts", "libx264", {}),
    ("vp9.webm", "libvpx-vp9", {}),
    ("mpeg4.avi", "mpeg4", {}),
    ("flv1.flv", "flv1", {}),
    ("mjpeg.mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("gif.gif", "gif", {"pix_fmt": "rgb8", "count": 20, "rate": 10}),
    ("still.png", "png", {"pix_fmt": "rgb24", "count": 1, "format": "image2"}),
    ("ffv1.mkv", "ffv1", {"count": 30}),
    ("raw.y4m", "rawvideo", {"count": 10, "format": "yuv4mpegpipe"}),
)


def run(case: Case) -> None:
    """Make a clip and read it in each way that the product does."""
    make = case.rng.choices((_damaged, _timed, _sized, _crowded, _bomb), (5, 2, 2, 1, 1))[0]
    path = make(case)
    rng = case.rng
    fps, start = rng.choice((1, 2, 2, 2, 4, 30, 1000)), rng.choice((0.0, 0.0, 0.0, 0.4, 2.0, 1e6))
    case.attempt(lambda: _play(path, fps, start, rng.random() < 0.2))
    case.attempt(lambda: _probe(path))
    if rng.random() < 0.15:
        words = case.folder / "words.srt"
        words.write_text("1\n00:00:00,500 --> 00:00:01,500\na goal\n", encoding="utf-8")
        case.run("convert", path, words, "--out", case.folder / "out.jsonl")
    if rng.random() < 0.2:
        seconds = [GenerationResult(n, float(n), n + 1.0, "a goal") for n in range(3)]
        # What is drawn or lowered has to be decoded, too.
        settings = Mp4Settings(speak=rng.choice((None, _speak)), burn=rng.random() < 0.5)
        case.attempt(lambda: write_mp4(case.folder / "out.mp4", str(path), seconds, settings))


def _speak(text: str) -> Utterance:
    return Utterance(np.full((12_000 * len(text.split()), 2), 0.1, np.float32), (12_000,))


def _play(path: Path, fps: int, start: float, by_end: bool) -> int:
    """Read the first seconds from `start` on; return how many there were."""
    with open_video(path, fps, by_end) as source:
        last = start
        for count, chunk in enumerate(islice(source.chunks(start), SECONDS)):
            _check_chunk(chunk, fps, last)
            last = chunk.start
            if not count:
                patchify(chunk.frames[:2], PIXELS)
    return round(last)


def _check_chunk(chunk: Chunk, fps: int, last: float) -> None:
    check(last <= chunk.start < chunk.end <= chunk.start + 1 + 1e-6, "a chunk is a second, after the one before it")
    check(chunk.frames.dtype == np.uint8 and chunk.frames.ndim == 4, "frames are bytes")
    check(1 <= len(chunk.frames) == len(chunk.times) <= fps, "each frame has a time")
    check(all(np.isfinite(chunk.times)), "times are numbers")
    check(list(chunk.times) == sorted(chunk.times), "times ascend")


def _probe(path: Path) -> None:
    clip = probe_clip(path)
    check(clip.width > 0 and clip.height > 0, "a picture has a size")
    check(np.isfinite(clip.duration) and clip.duration >= 0, "a duration is a number")
    check(bool(np.all(np.diff(clip.times) >= 0)), "times ascend")


def _damaged(case: Case) -> Path:
    """Change bytes of a whole clip, or cut it."""
    rng = case.rng
    name, codec, options = rng.choice(BASES)
    data = case.base(name, lambda path: make_clip(path, codec, **options))
    path = case.folder / odd_name(rng, Path(name).suffix)
    match rng.randrange(4):
        case 0:
            path.write_bytes(data[: rng.randrange(len(data) + 1)])
        case 1:
            path.write_bytes(data)
            damage(path, rng.random(), rng.choice((1, 50, 2000)))
        case 2:
            # Headers decide the most.
            head = rng.choice((60, 800))
            path.write_bytes(mutate_bytes(rng, data[:head]) + data[head:])
        case _:
            tail = rng.choice((800, 2000))
            path.write_bytes(data[:-tail] + mutate_bytes(rng, data[-tail:]))
    if rng.random() < 0.2:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    return path


def _timed(case: Case) -> Path:
    """Write a clip with wild timestamps, rates and time bases."""
    rng = case.rng
    ending, codec = rng.choice(((".mkv", "libx264"), (".mp4", "libx264"), (".mov", "mpeg4"), (".ts", "libx264")))
    tick = rng.choice((Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 30), Fraction(1, 1), Fraction(1, 1_000_000)))
    count = rng.choice((1, 2, 8, 40))
    step = rng.choice((0, 1, 33, 1000, 10**5, 10**7, 10**9, 10**12, 2**40))
    ticks = [number * step for number in range(count)]
    match rng.randrange(5):
        case 0:
            ticks = [tick + rng.choice((2**31, 2**33 - 10, 10**9)) for tick in ticks]
        case 1:
            ticks[-1] += rng.choice((10**6, 10**9, 10**12, 2**50))
        case 2:
            ticks = sorted(rng.randrange(rng.choice((100, 10**6, 10**13))) for _ in ticks)
        case 3:
            ticks = [tick - 10**6 for tick in ticks]
        case _:
            pass
    rate = rng.choice((1, 24, 25, 30, 60, 240, 1000))
    path = case.folder / odd_name(rng, ending)
    try:
        make_clip(path, codec, ticks=ticks, tick=tick, rate=rate)
    except (av.error.FFmpegError, ValueError, OverflowError):
        # What the encoder refuses: its file ends somewhere.
        path.touch()
    return path


SIZES = (
    *((1, 1), (1, 2), (2, 2), (1, 400), (400, 1), (16, 4000), (4000, 16), (17, 19), (639, 361), (1920, 1080)),
    *((3840, 2160), (4096, 4096), (7680, 4320), (8192, 4320), (16, 16), (2, 16000), (16000, 2)),
)
FORMATS = {
    "rawvideo": ("rgb24", "gray", "gray16le", "yuv444p", "yuv420p10le", "bgra", "pal8", "yuyv422", "rgb48le", "nv12"),
    "ffv1": ("gray", "yuv410p", "yuva420p", "yuv444p16le", "gbrp12le", "bgr0", "gray10le"),
    "png": ("rgba", "gray16be", "ya8", "monob", "rgb48be", "pal8"),
    "mjpeg": ("yuvj420p", "yuvj444p", "yuvj422p"),
    "libx264": ("yuv420p", "yuv444p", "yuv422p10le", "gray"),
    "prores_ks": ("yuv422p10le", "yuva444p10le"),
}


FAST = {"libx264": {"preset": "ultrafast", "tune": "zerolatency"}}


def _sized(case: Case) -> Path:
    """Write a clip of an odd size and pixel format, or one that changes its size."""
    rng = case.rng
    codec = rng.choice(sorted(FORMATS))
    size, pixels = rng.choice(SIZES), rng.choice(FORMATS[codec])
    if size[0] * size[1] > 4096 * 2160:
        codec, pixels = rng.choice((("mjpeg", "yuvj420p"), ("libx264", "yuv420p")))
    path = case.folder / odd_name(rng, rng.choice((".mkv", ".mov", ".avi", ".nut")))
    count = rng.choice((3, 12)) if size[0] * size[1] > 10**6 else rng.choice((1, 3, 60))
    turn = rng.choice((None, None, {"rotation": 90}, {"rotation": 180, "hflip": True}))
    try:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=rng.choice((2, 30, 1000)), options=FAST.get(codec, {}))
            stream.width, stream.height, stream.pix_fmt = *size, pixels
            if turn and rng.random() < 0.5:
                stream.set_display_rotation(**turn)
            for number in range(count):
                frame = av.VideoFrame(*size, pixels)
                for plane in frame.planes:
                    plane.update(bytes([(40 * number + 90) % 256]) * plane.buffer_size)
                frame.pts = number
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    except (av.error.FFmpegError, ValueError, TypeError):
        make_clip(path.with_suffix(".mkv"), "mpeg4", size=(max(size[0] % 64, 16), 16), count=5)
        path = path.with_suffix(".mkv")
    return path


def _crowded(case: Case) -> Path:
    """Write a file with covers, many streams, or no picture; or two clips in one file."""
    rng = case.rng
    path = case.folder / odd_name(rng, ".mkv")
    match rng.randrange(4):
        case 0:
            make_sound(path.with_suffix(".mp4"), cover=True)
            return path.with_suffix(".mp4")
        case 1:
            make_sound(path, "aac")
        case 2:
            with av.open(str(path), "w") as out:
                streams = [out.add_stream("mpeg4", rate=10) for _ in range(rng.choice((2, 20, 100)))]
                for stream in streams:
                    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
                    stream.disposition = rng.choice((0, int(av.stream.Disposition.attached_pic)))
                for stream in streams:
                    for number in range(3):
                        frame = av.VideoFrame.from_ndarray(grey(number, (32, 32)), format="rgb24")
                        frame.pts = number
                        out.mux(stream.encode(frame))
                    out.mux(stream.encode())
        case _:
            parts = [case.base(f"part{n}.ts", _part(n)) for n in range(3)]
            path = path.with_suffix(".ts")
            path.write_bytes(b"".join(rng.choice(parts) for _ in range(4)))
    return path


def _part(number: int) -> Callable[[Path], object]:
    """Return what writes a part of a stream, each of another size."""
    return lambda path: make_clip(path, "libx264", count=20, size=(64 + 32 * number, 48))


def _bomb(case: Case) -> Path:
    """Write a small file that stands for a huge picture, for other files, or for no end."""
    rng, folder = case.rng, case.folder
    side = rng.choice((16_000, 30_000, 60_000, 2**31 - 1))
    deep = rng.choice((5000, 8000, 11_000))
    named: dict[str, Callable[[], bytes]] = {
        "a.png": lambda: _png(min(side, 30_000), side),
        "deep.png": lambda: _png(deep, deep, 16),
        "a.bmp": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "a.gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
        "a.ppm": lambda: f"P6 {side} {side} 255\n".encode() + bytes(1000),
        "a.y4m": lambda: f"YUV4MPEG2 W{side} H{side} F25:1 C420\nFRAME\n".encode() + bytes(1000),
        "a.qoi": lambda: b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + bytes(1000),
        "a.tga": lambda: (
            struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65_000, 65_000, 24, 0) + b"\xff\0\0\0" * 99
        ),
        "a.m3u8": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + rng.choice(LINKS) + b"\n#EXT-X-ENDLIST\n",
        "a.ffconcat": lambda: b"ffconcat version 1.0\nfile '" + rng.choice(LINKS) + b"'\n",
        "a.txt": lambda: b"commentary\n" * rng.choice((1, 10**6)),
        "a.mp4": lambda: struct.pack(">I4sQ", 1, b"mdat", 2**62) + bytes(100),
        "b.mp4": lambda: struct.pack(">I4s", 0, b"ftyp") + rng.randbytes(5000),
        "a.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9e9" height="9e9"/>',
        "zeros.mpg": lambda: bytes(20 << 20),
        "noise.ts": lambda: b"".join(b"\x47" + rng.randbytes(187) for _ in range(20_000)),
        "noise.mp3": lambda: rng.randbytes(2 << 20),
    }
    name = rng.choice(sorted(named))
    path = folder / name
    path.write_bytes(named[name]())
    return path


LINKS = (
    b"a.m3u8",
    b"a.ffconcat",
    b"/dev/zero",
    b"/etc/passwd",
    b"http://127.0.0.1:9/x.ts",
    b"lavfi:testsrc",
    b"absent.ts",
)


def _png(width: int, height: int, bits: int = 1) -> bytes:
    """Return a whole black PNG of one bit a pixel, or of 16 bits for each of four channels; it takes little room."""
    color, row = (0, bytes(1 + (width + 7) // 8)) if bits == 1 else (6, bytes(1 + 8 * width))
    packer = zlib.compressobj(1)
    # No reader gets to the end of a picture that is larger.
    rows = b"".join(packer.compress(row) for _ in range(min(height, 30_000))) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
