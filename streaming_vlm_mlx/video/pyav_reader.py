"""Packets to frames, damaged packets passed over."""

import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import numpy.typing as npt
from av import Packet, VideoFrame

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import ClipInfo
from streaming_vlm_mlx.video.container import InputVideo, is_file, open_video_stream
from streaming_vlm_mlx.video.frame_converter import FrameConverter
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP, TOLERANCE, Pace, Timed, Timeline

# Failed reads in a row after which a damaged file counts as ended.
MAX_FAILURES = 100

# Seconds between two questions to a camera that has no new frame yet.
CAMERA_PAUSE = 0.005


class Decoder:
    """The frames of one video stream, from where it stands.

    Attributes:
        name: what was opened.
        skipped: packets that could not be read or decoded, so far.
    """

    def __init__(self, name: str) -> None:
        """Open `name`.

        Raises:
            SvmError: see `opening.open_video_stream`.
        """
        self.name = name
        self.skipped = 0
        self._opened: InputVideo | None = None
        self._open()

    @property
    def opened(self) -> InputVideo:
        """The container and its video stream."""
        if self._opened is None:
            raise ValueError(f"{self.name} is closed.")
        return self._opened

    def frames(self) -> Iterator[VideoFrame]:
        """Decode on.

        Raises:
            SvmError: the connection to a URL or camera was lost.
        """
        for packet in self.packets():
            yield from self._decoded(packet)

    def packets(self) -> Iterator[Packet]:
        """Yield packets to the last, an empty one, which brings out what the decoder holds back.

        Raises:
            SvmError: the connection to a URL or camera was lost.
        """
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in self.opened.container.demux(self.opened.stream):
                    failures = 0
                    last = not packet.size and packet.dts is None
                    # A frame that a recorder left out is empty too, and would put an end to decoding.
                    if packet.size or last:
                        yield packet
                    # PyAV goes on to flush other streams, and stumbles over those that came up on the way.
                    if last:
                        return
                return
            except av.error.InvalidDataError:
                failures += 1
                self.skipped += 1
            except av.error.BlockingIOError:
                time.sleep(CAMERA_PAUSE)
            except av.error.FFmpegError as error:
                if not is_file(self.name):
                    raise SvmError(f"{self.name} broke off: {error.strerror}. Open it again.") from error
                failures = MAX_FAILURES
        yield Packet()

    def seek(self, pts: int) -> bool:
        """Go to a key picture near the timestamp `pts`; tell whether the container can."""
        try:
            self.opened.container.seek(pts, stream=self.opened.stream)
        except av.error.FFmpegError:
            return False
        return True

    def rewind(self) -> None:
        """Go back to the first packet, by opening the file again: not every container can seek.

        Raises:
            SvmError: the file is gone.
        """
        self.close()
        self._open()

    def close(self) -> None:
        """Free the file, and the decoder with its threads."""
        self._closing()
        # The decoder's threads live as long as its stream is held.
        self._opened = None

    def _open(self) -> None:
        opened = open_video_stream(self.name)
        # Threads by frame are the fastest, but hold back one frame a thread: a feed would lag.
        opened.stream.thread_type = "AUTO" if is_file(self.name) else "SLICE"
        # A container and its streams hold one another until it is closed, so see to that when this reader is dropped;
        # but not at exit, when another thread may still be reading.
        self._closing = weakref.finalize(self, opened.container.close)
        self._closing.atexit = False
        self._opened = opened

    def _decoded(self, packet: Packet) -> list[VideoFrame]:
        try:
            frames: list[VideoFrame] = self.opened.stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.skipped += 1
            return []
        return frames


# For a stream that names no rate; FFmpeg's own assumption for raw video.
DEFAULT_RATE = 25

# Ticks in which a container (not its streams) counts.
MICROSECOND = Fraction(1, 1_000_000)

# AVFMT_NOTIMESTAMPS in FFmpeg's avformat.h: what the demuxer of such a format tells of time is made up.
NO_TIMESTAMPS = 0x80


def clip_pace(name: str, opened: InputVideo, first: VideoFrame) -> Pace:
    """Return how the stream counts time; 0 seconds is its first presentable timestamp."""
    stream = opened.stream
    starts = [first.pts]
    # A file whose first pictures are damaged keeps its clock; what a feed says of its start is seldom true.
    if is_file(name):
        starts.append(stream.start_time)
    origin = min((pts for pts in starts if pts is not None), default=0)
    counted = first.pts is None or bool(opened.container.format.flags & NO_TIMESTAMPS)
    return Pace(stream.time_base or MICROSECOND, _rate(stream.guessed_rate, stream.average_rate), origin, counted)


def _rate(*rates: Fraction | None) -> float:
    """Return the first rate that can be true; damage makes some of a frame a day."""
    return float(next((rate for rate in rates if rate and rate * Fraction(LONGEST_STEP) > 1), DEFAULT_RATE))


def clip_info(name: str, opened: InputVideo, size: tuple[int, int], pace: Pace) -> ClipInfo:
    """Return what is known of the clip, whose upright pictures have `size`, without reading on."""
    width, height = size
    return ClipInfo(
        duration=_duration(name, opened, pace),
        width=width,
        height=height,
        frame_rate=pace.frame_rate,
        codec=opened.stream.codec_context.name,
    )


def _duration(name: str, opened: InputVideo, pace: Pace) -> float | None:
    stream, container = opened.stream, opened.container
    # Of a raw stream FFmpeg guesses the duration from the bit rate, and badly.
    if stream.duration and not pace.counted:
        return float(stream.duration * pace.time_base)
    if container.duration and not pace.counted:
        start = container.start_time or 0
        return float((start + container.duration) * MICROSECOND - pace.origin * pace.time_base)
    return _measured(name, pace) if is_file(name) else None


def _measured(name: str, pace: Pace) -> float:
    """Read the packets to the end, none decoded: browsers and recorders that broke off write no duration."""
    decoder = Decoder(name)
    try:
        spans = [(p.pts, p.duration or 0) for p in decoder.packets() if p.size]
    finally:
        decoder.close()
    if pace.counted:
        return len(spans) / pace.frame_rate
    end = max(pts + length for pts, length in spans if pts is not None)
    return float((end - pace.origin) * pace.time_base)


# Seconds to step back from a moment, one after the other, while the frames found there all lie behind it.
STEPS_BACK = (0.0, 2.0, 8.0, 32.0)

TimedFrame = Timed[VideoFrame]


class FrameReader:
    """An open video.

    Attributes:
        info: what is known without reading on.
    """

    def __init__(self, name: str) -> None:
        """Open `name` and decode its first frame, which alone tells how the picture is turned.

        Raises:
            SvmError: it cannot be opened (see `opening.open_video_stream`), or no frame of it can be decoded or shown.
        """
        self._decoder = Decoder(name)
        frames = self._decoder.frames()
        first = next(frames, None)
        if first is None:
            self._decoder.close()
            raise SvmError(f"{name} holds no picture that can be decoded; copy or download it again.")
        self._pace = clip_pace(name, self._decoder.opened, first)
        self._converter = FrameConverter(name, first)
        self.info = clip_info(name, self._decoder.opened, self._converter.size, self._pace)
        self._longest_step = LONGEST_STEP + (self.info.duration or 0.0)
        self._timeline = self._new_timeline()
        self._opening: Iterator[TimedFrame] | None = self._timed(chain([first], frames))

    @property
    def skipped(self) -> int:
        """Damaged packets that were passed over so far."""
        return self._decoder.skipped

    def frames_from(self, time: float) -> Iterator[TimedFrame]:
        """Return the frames in order; the first is at or before `time` seconds, or the very first.

        A live feed goes on from where it stands. What an earlier call returned is void.

        Raises:
            SvmError: the file is gone meanwhile, or a feed broke off.
        """
        opening, self._opening = self._opening, None
        live = self.info.duration is None
        if opening is not None and (live or time <= 0):
            return opening
        if live:
            return self._timed(self._decoder.frames())
        return self._sought(time) or self._rewound()

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3] of the size that `info` names, RGB, upright."""
        return self._converter.rgb(frame)

    def close(self) -> None:
        """Free the file, and the decoder with its threads; call it from the thread that reads."""
        self._opening = None
        self._decoder.close()

    def _sought(self, time: float) -> Iterator[TimedFrame] | None:
        """Seek; None where the container cannot, or always lands behind `time`."""
        for back in STEPS_BACK:
            if self._pace.counted or time <= back or not self._decoder.seek(self._pace.ticks(time - back)):
                return None
            frames = self._decoder.frames()
            first = next(frames, None)
            # Without a key picture to lean on, pictures are full of holes.
            if first is None or first.pts is None or not first.key_frame:
                continue
            if first.pts <= self._pace.ticks(time + TOLERANCE):
                self._timeline = self._new_timeline()
                return self._timed(chain([first], frames))
        return None

    def _rewound(self) -> Iterator[TimedFrame]:
        self._decoder.rewind()
        self._timeline = self._new_timeline()
        return self._timed(self._decoder.frames())

    def _new_timeline(self) -> Timeline:
        return Timeline(self._pace, self._longest_step)

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[TimedFrame]:
        for frame in frames:
            time = self._timeline.seconds(frame.pts)
            if time is not None:
                yield Timed(time, time + min(self._pace.length(frame.duration), self._longest_step), frame)
