"""Sources of video: the `Source` interface, and the opening of files, URLs and cameras with failures in one line."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import check_name
from streaming_vlm_mlx.video.chunk import Chunk

# Input devices of FFmpeg that are named `device:input`, such as `avfoundation:0`.
DEVICES = ("avfoundation", "dshow", "v4l2", "lavfi")

# A codec of FFmpeg's own devices, whose packets hold a pointer to a frame.
UNCOMPRESSED = "wrapped_avframe"

# The most pixels of a picture that is decoded, twice those of 8K, and its most bytes. A pixel takes up to 8 bytes, and
# two pictures are in memory while a file is opened.
MOST_PIXELS, _MOST_BYTES = 1 << 26, 1 << 28
# FFmpeg decodes a picture to open a file, and a stream may change its size later: both refuse more pixels.
_LIMITS = {"max_pixels": str(MOST_PIXELS)}

# The head of an HLS playlist.
_PLAYLIST = b"#EXTM3U"

# Seconds after which an address that does not answer is given up, and one that sends nothing more. A playlist sends
# nothing between two of its segments.
URL_TIMEOUT, PLAYLIST_TIMEOUT = 10.0, 30.0

# AVFMT_NOTIMESTAMPS in FFmpeg's avformat.h: the demuxer of such a format invents its timestamps.
NO_TIMESTAMPS = 0x80

# Options of FFmpeg's protocols. RTP over the connection of RTSP loses no packets. UDP goes on when
# its buffer was full, and a port can be opened again while a connection that is given up still has it.
PROTOCOL_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},
    "udp": {"overrun_nonfatal": "1", "fifo_size": "50000", "reuse": "1"},
}


class Source(Protocol):
    """A clip or feed as one-second chunks.

    One thread at a time reads. `seek` and `close` may be called from another and wait for the current chunk.
    """

    @property
    def duration(self) -> float | None:
        """Seconds; None for a live feed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, in pixels."""

    @property
    def frame_rate(self) -> float:
        """Frames per second as stated or guessed; only the timestamps are reliable."""

    @property
    def skipped(self) -> int:
        """Damaged packets skipped so far."""

    def seek(self, seconds: float) -> None:
        """Make the next chunk start at `seconds` from the start of the clip, also in a running iteration.

        Raises:
            SvmError: the time is outside the clip, or the source is live.
        """

    def chunks(self, start: float | None = None, duration: float | None = None) -> Iterator[Chunk]:
        """Yield chunks from `start` (default: the current position) for `duration` seconds or to the end.

        A new iteration ends the previous one.

        Raises:
            SvmError: the range is empty or has no frame, or a feed was interrupted.
        """

    def close(self) -> None:
        """Release all resources; running iterations end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class InputVideo:
    """An open container, its video stream, and whether it is a feed: without an end, and not to be opened again."""

    container: InputContainer
    stream: VideoStream
    is_feed: bool

    @property
    def is_live(self) -> bool:
        """Whether it is a feed that states no duration."""
        return self.is_feed and (self.is_untimed or not (self.stream.duration or self.container.duration))

    @property
    def is_untimed(self) -> bool:
        """Whether the format has no timestamps, and FFmpeg counts frames instead."""
        return bool(self.container.format.flags & NO_TIMESTAMPS)

    @property
    def sound(self) -> AudioStream | None:
        """The sound that belongs to the video, of a codec that can be decoded; None without any."""
        streams = self.container.streams
        best = streams.best("audio", related=self.stream)
        sounds = (stream for stream in (best, *streams.audio) if isinstance(stream, AudioStream))
        return next((sound for sound in sounds if sound.codec_context), None)


def open_video_stream(name: str) -> InputVideo:
    """Open a path, a URL (``https://``, ``rtsp://``), ``/dev/video0`` or a device such as ``avfoundation:0``.

    Raises:
        SvmError: it is missing, damaged, not a video, or unreachable.
    """
    where, options = _address(name)
    options["options"] = _LIMITS | options.get("options", {})
    try:
        # Titles in an old encoding must not prevent opening.
        container = av.open(where, metadata_errors="replace", **options)
    except av.error.FFmpegError as error:
        raise SvmError(_open_failure(name, error)) from error
    stream = _video_stream(container)
    if stream is None or stream.codec_context is None:
        problem = _no_stream(name, container, stream)
        container.close()
        raise SvmError(problem)
    if _is_too_large(stream.codec_context):
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        container.close()
        raise SvmError(f"{name} has pictures of {size}, too large to decode; scale it down.")
    stream.codec_context.options = _LIMITS
    return InputVideo(container, stream, not _is_file(name) or _is_endless(container))


def no_picture(name: str, video: InputVideo, reason: str = "") -> SvmError:
    """Return the error of a `video` of which not one frame could be decoded, for `reason` if it is known."""
    if reason:
        return SvmError(f"{name} has no frame that can be decoded: {reason}. Check the address.")
    # The size that the decoder refuses stays unknown.
    if not video.stream.codec_context.width:
        return SvmError(
            f"{name} has no frame that can be decoded, or frames of more than {MOST_PIXELS // 10**6} million pixels; "
            "scale it down, or copy or download it again."
        )
    return SvmError(f"{name} has no frame that can be decoded; copy or download it again.")


def _is_too_large(codec: VideoCodecContext) -> bool:
    pixels = codec.width * codec.height
    # Without a decoded picture the format is not known.
    bits = codec.format.padded_bits_per_pixel if codec.format else 0
    return pixels > MOST_PIXELS or pixels * bits > 8 * _MOST_BYTES


def _is_file(name: str) -> bool:
    return "://" not in name and Path(name).is_file()


def _is_endless(container: InputContainer) -> bool:
    """Return whether FFmpeg waits at the end of this playlist for the segments to come."""
    return container.format.name == "hls" and container.duration is None


def read_comment(path: Path) -> str:
    """Return the comment in the metadata of the media file `path`; empty if it has none."""
    try:
        with av.open(_file_url(path), options=_LIMITS) as container:
            return str(container.metadata.get("comment", ""))
    except av.error.FFmpegError:
        return ""


def _address(name: str) -> tuple[str, dict[str, Any]]:
    if "://" in name:
        protocol, _, place = name.partition("://")
        is_playlist = place.partition("?")[0].endswith(".m3u8")
        timeout = URL_TIMEOUT, PLAYLIST_TIMEOUT if is_playlist else URL_TIMEOUT
        return name, {"timeout": timeout, "options": PROTOCOL_OPTIONS.get(protocol, {})}
    if name.startswith("/dev/video"):
        return name, {"format": "v4l2"}
    device, _, what = name.partition(":")
    if device in DEVICES and not Path(name).exists():
        _check_device(name, device)
        # macOS cameras refuse FFmpeg's default of 29.97 frames a second.
        options = {"framerate": "30"} if device == "avfoundation" else {}
        return what, {"format": device, "options": options}
    _check_path(name)
    return _file_url(name), {"timeout": (URL_TIMEOUT, PLAYLIST_TIMEOUT)} if _is_playlist(name) else {}


def _file_url(path: str | Path) -> str:
    # With the prefix, FFmpeg does not take a colon in a file name for a protocol.
    return f"file:{os.path.abspath(path)}"  # noqa: PTH100 - Path.absolute keeps ".."


def _is_playlist(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return file.read(len(_PLAYLIST)) == _PLAYLIST
    except OSError:
        # FFmpeg reports what is wrong with the file.
        return False


def _check_device(name: str, device: str) -> None:
    try:
        av.ContainerFormat(device, "r")
    except ValueError as error:
        raise SvmError(f"{name} cannot be opened: this FFmpeg has no {device} devices.") from error


def _check_path(name: str) -> None:
    check_name(name, "clip", "a video file")
    path = Path(name)
    if path.is_dir():
        raise SvmError(f"{name} is a folder; give a video file.")
    if not path.exists():
        raise SvmError(f"{name} does not exist; check the path.")
    if not path.is_file():
        raise SvmError(f"{name} is not a regular file; give a video file.")
    if path.stat().st_size == 0:
        raise SvmError(f"{name} is empty (0 bytes); copy or download it again.")


def describe_failure(error: av.error.FFmpegError) -> str:
    """Return why a connection failed, in fewer words than FFmpeg's where those say nothing."""
    if isinstance(error, av.error.ExitError):
        return "nothing came"
    return "the connection broke off" if error.errno == errno.EIO else error.strerror or str(error)


def _open_failure(name: str, error: av.error.FFmpegError) -> str:
    if not isinstance(error, av.error.InvalidDataError | av.error.EOFError) or not _is_file(name):
        return f"{name} cannot be opened: {describe_failure(error)}. Check the address and the read permission."
    with Path(name).open("rb") as file:
        head = file.read(8)
    if head[4:] == b"ftyp":
        return f"{name} is incomplete: its index (moov) is missing; copy, download or record it again."
    return f"{name} is not a video that FFmpeg can read; give a video file, or convert it to MP4."


def _video_stream(container: InputContainer) -> VideoStream | None:
    # FFmpeg opens text files as pictures of a terminal, and the cover art of a song as a video stream.
    if container.format.name == "tty":
        return None
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _no_stream(name: str, container: InputContainer, stream: VideoStream | None) -> str:
    if stream is not None:
        return f"{name} has video that this FFmpeg build cannot decode; convert it to H.264 in MP4."
    if container.streams.audio:
        return f"{name} has audio but no video; give a video file."
    return f"{name} is not a video; give a video file."
