"""The frames of a record, sampled as StreamingVLM's ``LMMDataset`` does, and worker processes that decode them.

The first frame of a stretch starts a grid of ``1 / fps`` seconds; each grid point takes the first frame at or after it.
The grid of the player's chunks starts at whole seconds instead; the two differ by less than a frame.
"""

import math
import multiprocessing
import signal
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.image_processor import to_patches
from streaming_vlm_mlx.video.timestamps import TOLERANCE, FrameCursor, TimedPicture

if TYPE_CHECKING:
    from av import VideoFrame

Times = npt.NDArray[np.float64]


def count_seconds(times: Times, start: float, end: float, fps: int, max_frames: int | None = None) -> int:
    """Return the number of seconds of conversation that the frames between `start` and `end` give.

    Args:
        times: float64 [frames], time of each frame in seconds, ascending.
        start: start of the stretch in seconds, inclusive.
        end: end of the stretch in seconds, inclusive: a frame at `end` may add one more second.
        fps: frames per second; the last second is padded with its last frame.
        max_frames: maximum number of frames.
    """
    first, stop = np.searchsorted(times, [start - TOLERANCE, end + TOLERANCE])
    if first == stop:
        return 0
    frames = math.ceil((float(times[stop - 1]) - float(times[first]) + TOLERANCE) * fps)
    return math.ceil(min(frames, max_frames or frames) / fps)


def read_frames(
    video: Path, start: float, end: float, count: int, fps: int, pixels: PixelConfig
) -> tuple[npt.NDArray[np.uint8], Times]:
    """Decode `count` frames of `video` from `start` on; the last frame before `end` is repeated if there are too few.

    Returns:
        uint8 [count, height, width, 3], RGB, resized by `pixels`; float64 [count], time of each frame in seconds.

    Raises:
        SvmError: the video cannot be read, or has no frame between `start` and `end`.
    """
    # Importing PyAV takes 0.2 s, and counting seconds does not need it.
    from streaming_vlm_mlx.video.image_processor import resize_frames
    from streaming_vlm_mlx.video.pyav_reader import FrameReader

    with closing(FrameReader(str(video))) as reader:
        frames: list[npt.NDArray[np.uint8]] = []
        times: list[float] = []
        for chosen in _choose(reader.frames_from(start), start, end, count, fps):
            if not times or chosen.time > times[-1]:
                picture = resize_frames(reader.rgb(chosen.picture)[None], pixels)
            frames.append(picture)
            times.append(chosen.time)
    if not frames:
        raise SvmError(f"{video} has no frame between {start:g} and {end:g} s; convert its dataset again.")
    return np.concatenate(frames), np.array(times)


def _choose(
    frames: "Iterator[TimedPicture[VideoFrame]]", start: float, end: float, count: int, fps: int
) -> "Iterator[TimedPicture[VideoFrame]]":
    cursor = FrameCursor((frame for frame in frames if frame.time >= start - TOLERANCE), end + 2 * TOLERANCE)
    first = last = cursor.at(start)
    for number in range(count):
        if first is None or last is None:
            return
        point = first.time + number / fps
        chosen = cursor.at(point)
        # At the end the cursor returns the last frame of the clip, but the frame to repeat is the last chosen one.
        last = chosen if chosen and chosen.time >= point - TOLERANCE else last
        yield last


PixelValues = npt.NDArray[np.float32]
Features = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class FrameJob:
    """A request to decode `count` frames of `video`, `fps` per second, between `start` and `end` seconds."""

    video: str
    start: float
    end: float
    count: int
    fps: int
    pixels: PixelConfig


# Maps patches and their grid (time, height, width) to features [units, width].
Encoder = Callable[[PixelValues, tuple[int, int, int]], Features]


class FrameDecoder:
    """Decodes windows in this process and caches the resized frames, as bytes, until the cache is full.

    Nothing is evicted: an epoch requests every window once, so the most recently used window is needed last.
    """

    def __init__(self, cache_bytes: int, encoder: Encoder | None = None) -> None:
        """Cache at most `cache_bytes` of frames, or of the features that `encoder` computes."""
        self._limit, self._encoder = cache_bytes, encoder
        self._size = 0
        self._cache: dict[FrameJob, npt.NDArray[np.uint8 | np.float16]] = {}

    @property
    def cached_bytes(self) -> int:
        """Size of the cached arrays in bytes."""
        return self._size

    def load(self, job: FrameJob) -> PixelValues:
        """Return the patches of the frames in order of time, float32 [patches, 1176], or features [units, width].

        Raises:
            SvmError: the video cannot be read, or has no frame there.
        """
        values = self._cache.get(job)
        if values is None:
            values = self._read(job)
            if self._size + values.nbytes <= self._limit:
                self._cache[job] = values
                self._size += values.nbytes
        if self._encoder:
            return values.astype(np.float32)
        return to_patches(values.astype(np.uint8), job.pixels).pixel_values

    def _read(self, job: FrameJob) -> npt.NDArray[np.uint8 | np.float16]:
        frames, _ = read_frames(Path(job.video), job.start, job.end, job.count, job.fps, job.pixels)
        if self._encoder is None:
            return frames
        patches = to_patches(frames, job.pixels)
        return self._encoder(patches.pixel_values, patches.grid_thw)


# Creates an encoder in the process that uses it; it is pickled, so it may hold only NumPy arrays.
MakeEncoder = Callable[[], Encoder]


class FramePool:
    """Decodes windows in the background; a window always goes to the same worker, whose cache may have it."""

    def __init__(self, workers: int, cache_bytes: int, make_encoder: MakeEncoder | None = None) -> None:
        """Start `workers` processes with a cache of `cache_bytes` in total; 0 decodes in a thread of this process.

        With `make_encoder` they return and cache features instead of pixels. Processes are spawned, so the main module
        of the program must be guarded by ``if __name__ == "__main__"``.
        """
        self._workers = [FrameWorker(cache_bytes // workers, make_encoder) for _ in range(workers)]
        self._loads: list[Callable[[FrameJob], PixelValues]] = [worker.load for worker in self._workers]
        if not workers:
            self._loads = [FrameDecoder(cache_bytes, make_encoder and make_encoder()).load]
        # A thread per worker waits for its results, so that a worker never waits for the trainer.
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="frames") for _ in self._loads]

    def submit(self, job: FrameJob) -> Future[PixelValues]:
        """Decode `job`; the future raises `SvmError` if the video cannot be read."""
        lane = zlib.crc32(f"{job.video} {job.start}".encode("utf-8", "surrogateescape")) % len(self._lanes)
        return self._lanes[lane].submit(self._loads[lane], job)

    def close(self) -> None:
        """Stop the workers and cancel pending jobs."""
        for lane in self._lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        for lane in self._lanes:
            lane.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FrameWorker:
    """A process that runs a `FrameDecoder`; if it dies, the next job starts a new one."""

    def __init__(self, cache_bytes: int, make_encoder: MakeEncoder | None = None) -> None:
        """Start the process; see `FrameDecoder`."""
        self._settings = cache_bytes, make_encoder
        self._start()

    def _start(self) -> None:
        """Spawn the process: a fork of a process that uses a GPU crashes."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._settings), daemon=True)
        self._process.start()
        theirs.close()

    def load(self, job: FrameJob) -> PixelValues:
        """Return the result of `FrameDecoder.load`.

        Raises:
            SvmError: the video cannot be read, or the process died.
        """
        if not self._process.is_alive():
            self.close()
            self._start()
        try:
            self._connection.send(job)
            reply: PixelValues | SvmError = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.terminate()
            self._process.join()
            raise SvmError(
                f"The worker that decodes {job.video} died; set workers to 0 to decode in this process and see why."
            ) from error
        if isinstance(reply, SvmError):
            raise reply
        return reply

    def close(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, cache_bytes: int, make_encoder: MakeEncoder | None) -> None:
    """Process jobs until the pipe is closed; Ctrl-C is handled by the trainer, which saves and then closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    decoder = FrameDecoder(cache_bytes, make_encoder and make_encoder())
    try:
        while True:
            job = connection.recv()
            try:
                connection.send(decoder.load(job))
            except SvmError as error:
                connection.send(SvmError(str(error)))
    except (EOFError, OSError):
        return
