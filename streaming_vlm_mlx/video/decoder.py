"""Packets to frames, damaged packets passed over."""

import time
import weakref
from collections.abc import Iterator

import av
from av import Packet, VideoFrame

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.opening import Opened, is_file, open_stream

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
            SvmError: see `opening.open_stream`.
        """
        self.name = name
        self.skipped = 0
        self._opened: Opened | None = None
        self._open()

    @property
    def opened(self) -> Opened:
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
        opened = open_stream(self.name)
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
