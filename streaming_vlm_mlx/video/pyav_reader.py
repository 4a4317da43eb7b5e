"""Decoding with PyAV: packets to frames with times; damaged packets are skipped."""

import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from os import PathLike, fspath

import av
import numpy as np
import numpy.typing as npt
from av import Packet, VideoFrame
from av.stream import Stream

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import ClipInfo
from streaming_vlm_mlx.video.frame_converter import MOST_PIXELS, FrameConverter
from streaming_vlm_mlx.video.source import InputVideo, describe_failure, no_picture, open_video_stream
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP, TOLERANCE, StreamClock, TimedPicture, TimestampReader

# Consecutive failed reads after which a damaged file counts as ended.
MAX_FAILURES = 100

# Seconds between two polls of a camera that has no new frame yet.
CAMERA_PAUSE = 0.005


class InterruptedFeedError(SvmError):
    """The connection to a URL or a camera was lost.

    Attributes:
        reason: why, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} was interrupted: {reason}. Open it again.")
        self.reason = reason


class Decoder:
    """Decodes one video stream from its current position.

    Attributes:
        name: the file, URL or device.
        skipped: packets that could not be read or decoded so far.
    """

    def __init__(self, name: str) -> None:
        """Open `name`.

        Raises:
            SvmError: see `source.open_video_stream`.
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
        """Yield the next frames.

        Raises:
            InterruptedFeedError: the connection to a URL or camera was lost.
        """
        for packet in self.packets():
            yield from self.decode(packet)

    def packets(self, *others: Stream) -> Iterator[Packet]:
        """Yield the remaining packets, also those of the `others`; the last one is empty and flushes the decoder.

        Raises:
            InterruptedFeedError: the connection to a URL or camera was lost.
        """
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in self.opened.container.demux(self.opened.stream, *others):
                    failures = 0
                    last = not packet.size and packet.dts is None
                    # Recorders write an empty packet for a dropped frame, which would end decoding.
                    if packet.size or last:
                        yield packet
                    # PyAV would then flush the other streams and fails on those that appeared later.
                    if last:
                        return
                return
            except av.error.InvalidDataError:
                failures += 1
                self.skipped += 1
            except av.error.BlockingIOError:
                time.sleep(CAMERA_PAUSE)
            except av.error.FFmpegError as error:
                if self.opened.is_feed:
                    raise InterruptedFeedError(self.name, describe_failure(error)) from error
                failures = MAX_FAILURES
        yield Packet()

    def seek(self, pts: int) -> bool:
        """Seek to a key frame near the timestamp `pts`; return whether the container can seek."""
        try:
            self.opened.container.seek(pts, stream=self.opened.stream)
        except av.error.FFmpegError:
            return False
        return True

    def rewind(self) -> None:
        """Return to the first packet by reopening the file, because some containers cannot seek.

        Raises:
            SvmError: the file no longer exists.
        """
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file and stop the decoder threads."""
        self._closing()
        # The decoder threads live as long as the stream object.
        self._opened = None

    def _open(self) -> None:
        opened = open_video_stream(self.name)
        # Frame threads are the fastest but delay output by one frame each, so a feed would lag.
        # Each of them holds frames, too.
        large = opened.stream.codec_context.width * opened.stream.codec_context.height > MOST_PIXELS
        opened.stream.thread_type = "SLICE" if opened.is_feed or large else "AUTO"
        # A container and its streams reference each other until it is closed, so close it when this object is
        # collected; not at exit, when another thread may still be reading.
        self._closing = weakref.finalize(self, opened.container.close)
        self._closing.atexit = False
        self._opened = opened

    def decode(self, packet: Packet) -> list[VideoFrame]:
        """Return the frames that `packet` completes; a damaged packet counts as skipped and gives none."""
        try:
            frames: list[VideoFrame] = self.opened.stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.skipped += 1
            return []
        return frames


# For a stream that states no rate; FFmpeg's own assumption for raw video.
DEFAULT_RATE = 25

# Time base of a container (not of its streams).
MICROSECOND = Fraction(1, 1_000_000)


def stream_clock(opened: InputVideo, first: VideoFrame) -> StreamClock:
    """Return the clock of the stream; its first presentable timestamp is 0 seconds."""
    stream = opened.stream
    starts = [first.pts]
    # A file whose first frames are damaged keeps its clock; the stated start of a feed is rarely right.
    if not opened.is_feed:
        starts.append(stream.start_time)
    origin = min((pts for pts in starts if pts is not None), default=0)
    counted = first.pts is None or opened.is_untimed
    rate = _plausible_rate(stream.guessed_rate, stream.average_rate)
    return StreamClock(stream.time_base or MICROSECOND, rate, origin, counted)


def _plausible_rate(*rates: Fraction | None) -> float:
    """Return the first plausible rate; damaged headers state rates as low as one frame a day."""
    return float(next((rate for rate in rates if rate and rate * Fraction(LONGEST_STEP) > 1), DEFAULT_RATE))


def stated_duration(opened: InputVideo, clock: StreamClock) -> float | None:
    """Return the duration in seconds that the file states, None if it states none that can be trusted."""
    stream, container = opened.stream, opened.container
    # For a raw stream, FFmpeg guesses the duration from the bit rate, badly.
    if stream.duration and not clock.counted:
        return float(stream.duration * clock.time_base)
    if container.duration and not clock.counted:
        start = container.start_time or 0
        return float((start + container.duration) * MICROSECOND - clock.origin * clock.time_base)
    return None


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """The timing of one packet: timestamp and duration in ticks, and whether its frame is never shown."""

    pts: int | None
    duration: int
    is_discarded: bool


def measured_duration(packets: list[PacketTimes], clock: StreamClock) -> float:
    """Return the duration in seconds from all `packets`, for files without a stated duration (live recordings)."""
    if clock.counted:
        return len(packets) / clock.frame_rate
    ends = (packet.pts + packet.duration for packet in packets if packet.pts is not None)
    end = max(ends, default=clock.origin)
    return float((end - clock.origin) * clock.time_base)


def _packet_times(packet: Packet) -> PacketTimes:
    return PacketTimes(packet.pts, packet.duration or 0, packet.is_discard)


@dataclass(frozen=True, slots=True)
class PacketScan:
    """What the packets of a whole file say.

    Attributes:
        info: properties of the clip.
        clock: the clock of its stream.
        packets: the timing of each packet in file order.
    """

    info: ClipInfo
    clock: StreamClock
    packets: list[PacketTimes]


def scan_packets(name: str) -> PacketScan:
    """Read all packets of the file `name`, opening it once and decoding only the first frame.

    Raises:
        SvmError: it cannot be opened (see `source.open_video_stream`), or has no frame that can be decoded or shown.
    """
    decoder = Decoder(name)
    try:
        first: VideoFrame | None = None
        packets: list[PacketTimes] = []
        for packet in decoder.packets():
            if packet.size:
                packets.append(_packet_times(packet))
            if first is None:
                first = next(iter(decoder.decode(packet)), None)
        if first is None:
            raise no_picture(name, decoder.opened)
        clock = stream_clock(decoder.opened, first)
        duration = stated_duration(decoder.opened, clock) or measured_duration(packets, clock)
        info = _clip_info(decoder.opened, FrameConverter(name, first).size, clock, duration)
    finally:
        decoder.close()
    return PacketScan(info, clock, packets)


def _clip_info(opened: InputVideo, size: tuple[int, int], clock: StreamClock, duration: float | None) -> ClipInfo:
    width, height = size
    return ClipInfo(duration, width, height, clock.frame_rate, opened.stream.codec_context.name)


def _index_at_end(name: str) -> SvmError:
    return SvmError(
        f"{name} cannot be played from its server: the file's index is at its end, and the server does not send files "
        "in parts. Download it and play the file."
    )


# Seconds to step back before a seek target, in turn, while the frames found there are all after the target.
STEPS_BACK = (0.0, 2.0, 8.0, 32.0)

TimedFrame = TimedPicture[VideoFrame]


class FrameReader:
    """Reads the frames of a video with their times, from any position.

    Attributes:
        info: properties of the clip.
    """

    def __init__(self, name: str, most_pixels: int = MOST_PIXELS, decoder: Decoder | None = None) -> None:
        """Open `name`, unless `decoder` just did, and decode its first frame, the only source of the orientation.

        Frames of more than `most_pixels` are scaled down.

        Raises:
            SvmError: it cannot be opened (see `source.open_video_stream`), or has no frame that can be decoded or
                shown.
        """
        self._decoder = decoder or Decoder(name)
        frames = self._decoder.frames()
        try:
            first = next(frames, None)
        except InterruptedFeedError as error:
            is_mp4 = "mp4" in self._decoder.opened.container.format.name.split(",")
            self._decoder.close()
            raise _index_at_end(name) if is_mp4 else error from error
        if first is None:
            problem = no_picture(name, self._decoder.opened)
            self._decoder.close()
            raise problem
        self._clock = stream_clock(self._decoder.opened, first)
        self._converter = FrameConverter(name, first, most_pixels)
        self.info = _clip_info(self._decoder.opened, self._converter.size, self._clock, self._duration())
        self._longest_step = LONGEST_STEP + (self.info.duration or 0.0)
        self._timestamps = self._new_timestamps()
        self._first_frames: Iterator[TimedFrame] | None = self._timed(chain([first], frames))

    @property
    def skipped(self) -> int:
        """Damaged packets skipped so far."""
        return self._decoder.skipped

    def frames_from(self, time: float) -> Iterator[TimedFrame]:
        """Return the frames in order, the first one at or before `time` seconds if there is one.

        A live feed continues from its current position. A call invalidates the iterator of an earlier call.

        Raises:
            SvmError: the file no longer exists, or a feed was interrupted.
        """
        first_frames, self._first_frames = self._first_frames, None
        live = self.info.duration is None
        if first_frames is not None and (live or time <= 0):
            return first_frames
        if live:
            return self._timed(self._decoder.frames())
        return self._sought(time) or self._rewound()

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3], RGB, upright, at the size in `info`."""
        return self._converter.rgb(frame)

    def close(self) -> None:
        """Close the file and stop the decoder threads; call it from the thread that reads."""
        self._first_frames = None
        self._decoder.close()

    def _duration(self) -> float | None:
        name, stated = self._decoder.name, stated_duration(self._decoder.opened, self._clock)
        if stated is not None or self._decoder.opened.is_feed:
            return stated
        decoder = Decoder(name)
        try:
            packets = [_packet_times(packet) for packet in decoder.packets() if packet.size]
        finally:
            decoder.close()
        return measured_duration(packets, self._clock)

    def _sought(self, time: float) -> Iterator[TimedFrame] | None:
        """Seek; None if the container or the server cannot, or it always lands after `time`."""
        for back in STEPS_BACK:
            if self._clock.counted or time <= back or not self._decoder.seek(self._clock.ticks(time - back)):
                return None
            frames = self._decoder.frames()
            try:
                first = next(frames, None)
            except InterruptedFeedError:
                return None
            # Frames without a key frame to refer to are decoded with holes.
            if first is None or first.pts is None or not first.key_frame:
                continue
            if first.pts <= self._clock.ticks(time + TOLERANCE):
                self._timestamps = self._new_timestamps()
                return self._timed(chain([first], frames))
        return None

    def _rewound(self) -> Iterator[TimedFrame]:
        self._decoder.rewind()
        self._timestamps = self._new_timestamps()
        return self._timed(self._decoder.frames())

    def _new_timestamps(self) -> TimestampReader:
        return TimestampReader(self._clock, self._longest_step)

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[TimedFrame]:
        for frame in frames:
            time = self._timestamps.seconds(frame.pts)
            if time is not None:
                yield TimedPicture(time, min(time + self._clock.length(frame.duration), self._latest_end(time)), frame)

    def _latest_end(self, time: float) -> float:
        """Return the latest plausible end of a frame at `time`: a damaged length lasts for hours."""
        if self.info.duration is None:
            return time + self._longest_step
        return max(time, self.info.duration) + 1 / self._clock.frame_rate


def probe(name: str | PathLike[str]) -> ClipInfo:
    """Return the `ClipInfo` of `name`; decodes one frame, the only source of the orientation.

    Raises:
        SvmError: see `FrameReader`.
    """
    reader = FrameReader(fspath(name))
    reader.close()
    return reader.info
