"""The `Source` interface of clips and feeds, and `open_video`, which opens one."""

from collections.abc import Iterator
from os import PathLike, fspath
from types import TracebackType
from typing import Protocol, Self

from streaming_vlm_mlx.video.chunk import Chunk, ClipInfo


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


def open_video(name: str | PathLike[str], fps: float = 2.0) -> Source:
    """Open a file, a URL (``https://``, ``rtsp://``), ``/dev/video0`` or a device such as ``avfoundation:0``.

    Args:
        name: what to open.
        fps: frames per chunk, a whole number.

    Raises:
        SvmError: it is missing, damaged, not a video, or unreachable; or `fps` is not a whole number from 1 up.
    """
    # Importing PyAV takes 0.2 s, which commands that open nothing do not need.
    from streaming_vlm_mlx.video.video_file import VideoFile

    return VideoFile(fspath(name), fps)


def probe(name: str | PathLike[str]) -> ClipInfo:
    """Return the `ClipInfo` of `name`; decodes one frame, the only source of the orientation.

    Raises:
        SvmError: see `open_video`.
    """
    from streaming_vlm_mlx.video.pyav_reader import FrameReader

    reader = FrameReader(fspath(name))
    reader.close()
    return reader.info
