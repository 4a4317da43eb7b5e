"""Reads the sound of a clip with PyAV: from any position, at any speed, with its pitch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.filter import Graph

from streaming_vlm_mlx.audio.clip_track import CHANNELS, RATE, Samples
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.pyav_reader import MICROSECOND, Decoder, stream_clock

# Seconds before a position from which sound is decoded: the first frame behind a seek is often damaged.
PREROLL = 0.2
# Seconds to step further back when the sound that a seek finds is late.
STEP_BACK = 5.0
# Seconds by which timestamps may differ from the count of samples; many containers round them.
LOOSE_TIMES = 0.03
# The range of one atempo filter in which it blends all samples and skips none.
LEAST_TEMPO, MOST_TEMPO = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples, float32 [n, 2] at `RATE`, and the seconds of clip of the first one."""

    time: float
    samples: Samples


class TempoFilter:
    """Converts audio frames of one format to stereo at `RATE`, played `speed` times as fast at the same pitch.

    Times are counted in samples from the first frame.
    """

    def __init__(self, frame: AudioFrame, time: float, speed: float) -> None:
        """Take frames like `frame`, the first of which is at `time` seconds of the clip."""
        self._format = _format_of(frame)
        self._start, self._speed = time, speed
        self._taken = self._made = 0
        self._rate = frame.sample_rate
        graph = self._graph = Graph()
        nodes = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=Fraction(1, frame.sample_rate),
            ),
            graph.add("aformat", f"sample_fmts=flt:sample_rates={RATE}:channel_layouts=stereo"),
            *(graph.add("atempo", f"{tempo:.6f}") for tempo in tempos(speed)),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes)
        graph.configure()

    def continues(self, frame: AudioFrame, time: float) -> bool:
        """Return whether `frame` at `time` follows what was put in, in the same format."""
        return _format_of(frame) == self._format and abs(time - self.end) <= LOOSE_TIMES

    @property
    def end(self) -> float:
        """Seconds of clip at the end of what was put in."""
        return self._start + self._taken / self._rate

    def convert(self, frame: AudioFrame | None) -> Iterator[Sound]:
        """Put in `frame`, None for the end, and yield what is done."""
        if frame is not None:
            frame.pts, frame.time_base = self._taken, Fraction(1, self._rate)
            self._taken += frame.samples
        self._graph.push(frame)
        while True:
            try:
                done = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            samples = done.to_ndarray().reshape(-1, CHANNELS)
            time = self._start + self._made * self._speed / RATE
            self._made += len(samples)
            yield Sound(time, samples.astype(np.float32, copy=False))


class SoundReader:
    """Reads the sound of a clip, on the clock of its pictures; for use by one thread."""

    def __init__(self, decoder: Decoder, origin: float) -> None:
        """Take over `decoder`; `origin` is the time of the clip's beginning in seconds of its container."""
        self._decoder, self._origin = decoder, origin

    def sounds(self, time: float, speed: float = 1.0) -> Iterator[Sound]:
        """Yield the sound from `time` seconds on, `speed` times as fast; times jump where the clip has none.

        A call invalidates the iterator of an earlier call.

        Raises:
            SvmError: the clip is gone, or its connection was lost.
        """
        for sound in self._converted(self._frames_from(time), speed):
            late = math.ceil((time - sound.time) * RATE / speed - 1e-6)
            if late < len(sound.samples):
                skipped = max(late, 0)
                yield Sound(sound.time + skipped * speed / RATE, sound.samples[skipped:])

    def close(self) -> None:
        """Close the clip; call it from the thread that reads."""
        self._decoder.close()

    def _frames_from(self, time: float) -> Iterator[tuple[float, AudioFrame]]:
        """Return the frames with their times, from before `time` on."""
        frames = self._sought(time - PREROLL)
        first = next(frames, None)
        if first is not None and first[0] > time > 0:
            frames = self._sought(time - STEP_BACK)
            first = next(frames, None)
        if first is not None:
            yield first
            yield from frames

    def _sought(self, time: float) -> Iterator[tuple[float, AudioFrame]]:
        stream = self._decoder.opened.sound
        assert stream is not None
        ticks = math.floor((max(time, 0.0) + self._origin) / (stream.time_base or MICROSECOND))
        try:
            self._decoder.opened.container.seek(ticks, stream=stream)
        except av.error.FFmpegError:
            self._decoder.rewind()
        return self._frames()

    def _frames(self) -> Iterator[tuple[float, AudioFrame]]:
        stream = self._decoder.opened.sound
        if stream is None:
            return
        following = -self._origin
        for packet in self._decoder.packets(stream):
            # The last packet is empty, and of the video.
            if packet.size and packet.stream.index != stream.index:
                continue
            for frame in decode(stream, packet if packet.size else None):
                time = (
                    following
                    if frame.pts is None
                    else float(frame.pts * (frame.time_base or MICROSECOND)) - self._origin
                )
                following = time + frame.samples / frame.sample_rate
                yield time, frame

    def _converted(self, frames: Iterator[tuple[float, AudioFrame]], speed: float) -> Iterator[Sound]:
        tempo: TempoFilter | None = None
        for time, frame in frames:
            if tempo is None or not tempo.continues(frame, time):
                if tempo:
                    yield from tempo.convert(None)
                tempo = TempoFilter(frame, time, speed)
            yield from tempo.convert(frame)
        if tempo:
            yield from tempo.convert(None)


def open_sound(name: str) -> SoundReader | None:
    """Open the sound of the clip `name`; None if it has none.

    Raises:
        SvmError: the clip cannot be opened, or has sound that cannot be decoded.
    """
    decoder = Decoder(name)
    try:
        first = next(decoder.frames(), None)
        stream = decoder.opened.sound
        if first is None or stream is None:
            if decoder.opened.container.streams.audio:
                raise SvmError(f"{name} has sound that this FFmpeg cannot decode; convert it to AAC.")
            decoder.close()
            return None
        clock = stream_clock(decoder.opened, first)
        return SoundReader(decoder, float(clock.origin * clock.time_base))
    except BaseException:
        decoder.close()
        raise


def decode(stream: AudioStream, packet: av.Packet | None) -> list[AudioFrame]:
    """Return the frames of `stream` that `packet` completes; a damaged packet gives none."""
    try:
        return list(stream.decode(packet))
    except av.error.FFmpegError:
        return []


def tempos(speed: float) -> list[float]:
    """Return the tempos of as few filters as give `speed` together; none for 1."""
    if speed == 1.0:
        return []
    base = MOST_TEMPO if speed > 1 else LEAST_TEMPO
    count = math.ceil(math.log(speed, base) - 1e-9)
    return [speed ** (1 / count)] * count


def _format_of(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name
