"""Runs ``svm-tui`` on a camera that stops after two seconds: reads and `close` block, as PyAV's do."""

import signal
import sys
import threading
from collections.abc import Iterator

from streaming_vlm_mlx.video import video_file
from streaming_vlm_mlx.video.chunk import Chunk
from tests.stream.engines import make_chunk
from tui import cli

BLOCKED = "the camera has stopped"


class Camera:
    duration, size, frame_rate, skipped = None, (56, 28), 2.0, 0

    def __init__(self, name: str, fps: float, *_: object) -> None:
        self._never = threading.Event()

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self, start: float | None = None, duration: float | None = None) -> Iterator[Chunk]:
        yield make_chunk(0)
        yield make_chunk(1)
        print(BLOCKED, file=sys.stderr, flush=True)
        self._never.wait()

    def close(self) -> None:
        self._never.wait()


if __name__ == "__main__":
    # A job that a shell runs in the background starts with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    video_file.open_video = Camera
    sys.exit(cli.main(sys.argv[1:]))
