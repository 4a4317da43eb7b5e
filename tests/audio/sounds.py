"""Clips with sound that says where it is: each second has a tone of its own."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streaming_vlm_mlx.audio.clip_track import RATE, Samples
from tests.video.clips import grey

# The tone of second n, in Hz: whole numbers of waves in a second, far enough apart to be told from each other.
LOWEST, STEP, TONES = 400, 60, 40


def tone_of(second: int) -> int:
    """Return the frequency of the tone in `second`."""
    # Neighbours are far apart.
    return LOWEST + STEP * (second * 7 % TONES)


def second_of(samples: Samples) -> int:
    """Return the second, modulo `TONES`, whose tone `samples` hold."""
    return (round((frequency(samples) - LOWEST) / STEP) * pow(7, -1, TONES)) % TONES


def frequency(samples: Samples) -> float:
    """Return the strongest frequency of `samples` in Hz."""
    mono = samples.mean(axis=1) * np.hanning(len(samples))
    size = 1 << 17
    return float(np.argmax(np.abs(np.fft.rfft(mono, size)))) * RATE / size


def tones(seconds: float, rate: int = RATE) -> Samples:
    """Return the tones of a clip, float32 [n, 2]."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = np.array([tone_of(second) for second in range(math.ceil(seconds))])[time.astype(int)]
    wave = (0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)
    return np.stack([wave, wave], axis=1)


def make_clip_with_sound(
    path: Path,
    seconds: float = 6.0,
    codec: str = "aac",
    rate: int = RATE,
    delay: float = 0.0,
    layout: str = "stereo",
    **container: Any,
) -> Path:
    """Write a clip of `seconds` with tones, of which the sound begins `delay` seconds late."""
    with av.open(str(path), "w", **container) as out:
        video = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 40
        audio = out.add_stream(codec, rate=rate, layout=layout)
        samples = tones(seconds, rate)[round(delay * rate) :]
        resampler = av.AudioResampler(format=audio.codec_context.format, layout=layout, rate=rate)
        fifo, written = av.AudioFifo(), round(delay * rate)
        for begin in range(0, len(samples), rate):
            part = np.ascontiguousarray(samples[begin : begin + rate].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), begin
            for done in resampler.resample(frame):
                fifo.write(done)
        size = audio.codec_context.frame_size or 1024
        for number in range(round(seconds * 10)):
            picture = av.VideoFrame.from_ndarray(grey(number, (64, 48)), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            out.mux(video.encode(picture))
            while written < (number + 1) * rate / 10 and (done := fifo.read(size, partial=True)) is not None:
                done.pts, written = written, written + done.samples
                out.mux(audio.encode(done))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path
