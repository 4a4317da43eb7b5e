"""Where chunks come from: the face that every source wears, and the door to them."""

from collections.abc import Iterator
from os import PathLike, fspath
from types import TracebackType
from typing import Protocol, Self

from streaming_vlm_mlx.video.chunk import Chunk, ClipInfo


class Source(Protocol):
    """What the player and the engine ask of a clip or feed.

    One thread at a time reads; `seek` and `close` may come from another, and wait for the chunk in hand.
    """

    @property
    def duration(self) -> float | None:
        """Seconds, as far as is known; None for a live feed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""

    @property
    def frame_rate(self) -> float:
        """Frames a second as stated or guessed; only timestamps tell the truth."""

    @property
    def skipped(self) -> int:
        """Damaged packets that were passed over so far."""

    def seek(self, seconds: float) -> None:
        """Let the next chunk start at `seconds` from the clip's beginning, in an iteration under way too.

        Raises:
            SvmError: the clip ends before, or a live feed cannot be wound.
        """

    def chunks(self, start: float | None = None, duration: float | None = None) -> Iterator[Chunk]:
        """Yield second by second from `start` (where the source stands, if None) for `duration` seconds or to the end.

        One iteration at a time: a new one ends the one before.

        Raises:
            SvmError: the range is empty or holds no frame, or a feed broke off.
        """

    def close(self) -> None:
        """Free all that the source holds; its iterations end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(name: str | PathLike[str], fps: float = 2.0) -> Source:
    """Open a file, a URL (``https://``, ``rtsp://``), ``/dev/video0`` or a device as ``avfoundation:0``.

    Args:
        name: what to open.
        fps: frames that a chunk takes from its second, a whole number.

    Raises:
        SvmError: it is absent, damaged, no video, or cannot be reached; or `fps` is no whole number above 0.
    """
    # PyAV takes a while to import, which a command that opens nothing need not wait for.
    from streaming_vlm_mlx.video.video_file import VideoFile

    return VideoFile(fspath(name), fps)


def probe(name: str | PathLike[str]) -> ClipInfo:
    """Return what is known of `name` at a glance; one frame is decoded, for only it tells how the picture is turned.

    Raises:
        SvmError: as `open_video`.
    """
    from streaming_vlm_mlx.video.pyav_reader import FrameReader

    reader = FrameReader(fspath(name))
    reader.close()
    return reader.info
