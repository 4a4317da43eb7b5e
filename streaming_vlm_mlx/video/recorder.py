"""Keeps a feed in a file while it is watched: packets are copied, not encoded again."""

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
from av import Packet
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.stream import Stream

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.source import UNCOMPRESSED
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP

# Each ending's format, and the options with which a file that was not finished is whole up to its last second.
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    ".ts": ("mpegts", {}),
    ".mkv": ("matroska", {"cluster_time_limit": "1000"}),
    ".mp4": ("mp4", {"movflags": "frag_keyframe+delay_moov+default_base_moof", "frag_duration": "1000000"}),
}
# Written at once, and a stream without packets holds the others up for a second at most.
COMMON_OPTIONS = {"flush_packets": "1", "max_interleave_delta": "1000000"}
# Seconds that quitting waits for the disk.
CLOSE_TIMEOUT = 0.2


class Recorder:
    """Copies the packets of a feed into a file, and goes on with it at each new connection.

    Times go on where they were. When a connection has other codecs or another size, a new file is begun: ``game.mp4``,
    ``game-2.mp4``. A file begins, and goes on after a loss, with a picture that needs no earlier one.

    Attributes:
        paths: the files so far.
    """

    def __init__(self, path: Path) -> None:
        """Record to `path`, which is made with the first packet.

        Raises:
            SvmError: the ending names no format, or the file exists.
        """
        if path.suffix not in FORMATS:
            raise SvmError(f"{path} cannot keep a feed; name a file that ends in {', '.join(FORMATS)}.")
        if path.exists():
            raise SvmError(f"{path} exists; name a file that does not, so that no recording is lost.")
        self.paths: list[Path] = []
        self._path = path
        self._failures: list[str] = []
        self._listener: Callable[[str], None] = self._failures.append
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._connection = 0
        self._closed = False

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called with the reason when nothing is kept any more, and with what went wrong before."""
        with self._lock:
            self._listener = listener
            for failure in self._failures:
                listener(failure)

    def begin(self, video: Stream, others: tuple[Stream, ...]) -> Callable[[Packet], None]:
        """Return what keeps a packet of a new connection with these streams.

        What was returned for an earlier connection does nothing from then on.
        """
        with self._lock:
            self._connection += 1
            number = self._connection
            if self._file:
                self._file.interrupt()

        def keep(packet: Packet) -> None:
            with self._lock:
                if number == self._connection and not self._closed:
                    self._keep(packet, video, others)

        return keep

    def close(self) -> list[Path]:
        """Finish the file and return the paths of all; nothing is kept after that.

        On a disk that hangs, the file is left as it is after `CLOSE_TIMEOUT`.
        """
        if self._lock.acquire(timeout=CLOSE_TIMEOUT):
            self._closed = True
            if self._file:
                self._finish(self._file)
                self._file = None
            self._lock.release()
        return self.paths

    def _keep(self, packet: Packet, video: Stream, others: tuple[Stream, ...]) -> None:
        kind = tuple(_kind(stream) for stream in (video, *others))
        try:
            if self._file and self._file.kind != kind:
                self._finish(self._file)
                self._file = None
            if self._file is None:
                if video.codec_context.name == UNCOMPRESSED:
                    raise ValueError("this device's pictures are not encoded, and cannot be copied")
                if not (packet.is_keyframe and packet.stream is video):
                    return
                self._file = _File(self._free_path(), video, others, kind)
                self.paths.append(self._file.path)
            self._file.write(packet, video, others)
        except (av.error.FFmpegError, ValueError) as error:
            self._closed = True
            reason = error.strerror if isinstance(error, av.error.FFmpegError) else str(error)
            if self._file and not self._file.is_begun:
                # FFmpeg has made the file, and put nothing into it.
                self.paths.remove(self._file.path)
                self._file.path.unlink(missing_ok=True)
                self._file = None
            self._listener(f"the feed is not kept any more: {self._path}: {reason}.")

    def _finish(self, file: "_File") -> None:
        try:
            file.close()
        except av.error.FFmpegError as error:
            self._listener(f"{file.path} was not finished: {error.strerror}; what was written can be played.")

    def _free_path(self) -> Path:
        path, number = self._path, 1
        while path in self.paths or path.exists():
            number += 1
            path = self._path.with_stem(f"{self._path.stem}-{number}")
        return path


def _kind(stream: Stream) -> tuple[object, ...]:
    """Return what two streams have in common whose packets can follow each other in a file."""
    context = stream.codec_context
    size = (context.width, context.height) if stream.type == "video" else (context.sample_rate, context.channels)
    return context.name, size, stream.time_base


class _File:
    """One file: its streams, and how times of the feed become times in it."""

    def __init__(self, path: Path, video: Stream, others: tuple[Stream, ...], kind: tuple[object, ...]) -> None:
        name, options = FORMATS[path.suffix]
        self.path, self.kind = path, kind
        # With the prefix, FFmpeg does not take a colon in a file name for a protocol.
        self._container: OutputContainer = av.open(
            f"file:{path.absolute()}", "w", format=name, options=COMMON_OPTIONS | options
        )
        self._streams = [self._container.add_stream_from_template(s, opaque=True) for s in (video, *others)]
        # FFmpeg does not add this filter by itself to an MP4 of fragments.
        self._filters = {
            index: BitStreamFilterContext("aac_adtstoasc", stream)
            for index, stream in enumerate((video, *others))
            if name == "mp4" and stream.codec_context.name == "aac" and not stream.codec_context.extradata
        }
        # Seconds that are added to the feed's, for the connection under way; None until it has a picture to begin with.
        self._offset: Fraction | None = None
        # The last decoding time of the feed's video, and the end of what is written, in seconds.
        self._last: Fraction | None = None
        self._end = Fraction(0)
        # The last decoding time of each stream in the file, in its ticks.
        self._ticks = [-1 for _ in self._streams]
        # Whether the format took a packet.
        self.is_begun = False

    def interrupt(self) -> None:
        """Wait for the next picture that needs no earlier one."""
        self._offset = None

    def write(self, packet: Packet, video: Stream, others: tuple[Stream, ...]) -> None:
        """Write `packet` at its place, unless it comes before what is written."""
        index = 0 if packet.stream is video else 1 + others.index(packet.stream)
        base = packet.time_base
        time = None if packet.dts is None else packet.dts * base
        if index == 0 and time is not None:
            if self._last is not None and not 0 <= time - self._last <= LONGEST_STEP:
                # The feed's clock was set anew.
                self.interrupt()
            self._last = time
        if self._offset is None:
            if index or not packet.is_keyframe:
                return
            self._offset = self._end - (time or 0)
        place = self._end if time is None else time + self._offset
        ticks = round(place / base)
        if ticks <= self._ticks[index]:
            return
        self._ticks[index] = ticks
        self._end = max(self._end, place + (packet.duration * base if packet.duration else _frame_time(video)))
        # The packet itself is still to be decoded.
        copy = Packet(bytes(packet))
        copy.time_base, copy.duration, copy.is_keyframe = base, packet.duration, packet.is_keyframe
        copy.dts = ticks
        copy.pts = ticks if packet.pts is None or packet.dts is None else ticks + packet.pts - packet.dts
        for filtered in self._filters[index].filter(copy) if index in self._filters else [copy]:
            filtered.stream = self._streams[index]
            self._container.mux(filtered)
        self.is_begun = True

    def close(self) -> None:
        """Write the end of the file."""
        self._container.close()


def _frame_time(video: Stream) -> Fraction:
    rate = video.guessed_rate or video.average_rate
    return 1 / rate if rate else Fraction(1, 25)
