"""Which frames of a clip a record's seconds show, as StreamingVLM's ``LMMDataset`` chooses them.

The first frame within the stretch starts a grid of ``1 / fps`` seconds, and each point of it takes the first frame at
or after it. A player's chunks start their grid at whole seconds instead; the two differ by less than a frame.
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
from streaming_vlm_mlx.video.timestamps import TOLERANCE, Cursor, Timed

if TYPE_CHECKING:
    from av import VideoFrame

Times = npt.NDArray[np.float64]


def count_seconds(times: Times, start: float, end: float, fps: int, max_frames: int | None = None) -> int:
    """Return how many seconds of conversation the frames at `times` give between `start` and `end`.

    Args:
        times: float64 [frames], seconds, ascending.
        start: of the stretch; a frame at it counts.
        end: of the stretch; a frame at it counts too, and may open one more second.
        fps: frames taken a second; the last second is filled up with its last frame.
        max_frames: what lies behind that many frames is left out.
    """
    first, behind = np.searchsorted(times, [start - TOLERANCE, end + TOLERANCE])
    if first == behind:
        return 0
    frames = math.ceil((float(times[behind - 1]) - float(times[first]) + TOLERANCE) * fps)
    return math.ceil(min(frames, max_frames or frames) / fps)


def read_frames(
    video: Path, start: float, end: float, count: int, fps: int, pixels: PixelConfig
) -> tuple[npt.NDArray[np.uint8], Times]:
    """Decode `count` frames of `video` from `start` on; where none is left before `end`, the last one stands in.

    Returns:
        uint8 [count, height, width, 3], RGB, resized as `pixels` says; float64 [count], each frame's time in seconds.

    Raises:
        SvmError: the video cannot be read, or has no frame between `start` and `end`.
    """
    # PyAV takes its time to import, and who counts seconds decodes nothing.
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
    frames: "Iterator[Timed[VideoFrame]]", start: float, end: float, count: int, fps: int
) -> "Iterator[Timed[VideoFrame]]":
    cursor = Cursor((frame for frame in frames if frame.time >= start - TOLERANCE), end + 2 * TOLERANCE)
    first = last = cursor.at(start)
    for number in range(count):
        if first is None or last is None:
            return
        point = first.time + number / fps
        chosen = cursor.at(point)
        # Where none is left the cursor has the run's last frame, but what stands in is the one chosen last.
        last = chosen if chosen and chosen.time >= point - TOLERANCE else last
        yield last


PixelValues = npt.NDArray[np.float32]
Features = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class FrameJob:
    """Frames to decode: `count` of `video`, `fps` a second, between `start` and `end` seconds."""

    video: str
    start: float
    end: float
    count: int
    fps: int
    pixels: PixelConfig


# Of patches and their grid (steps, rows, columns), features [units, width].
Encoder = Callable[[PixelValues, tuple[int, int, int]], Features]


class FrameDecoder:
    """Decodes in this process, and keeps what came first, as bytes at the model's size, until there is no more room.

    Nothing that is kept makes way: an epoch asks for every window once, so what was used last is what is wanted last.
    """

    def __init__(self, cache_bytes: int, encoder: Encoder | None = None) -> None:
        """Keep at most `cache_bytes` of frames; of what `encoder` makes of them, if there is one."""
        self._limit, self._encoder = cache_bytes, encoder
        self._size = 0
        self._kept: dict[FrameJob, npt.NDArray[np.uint8 | np.float16]] = {}

    @property
    def cached_bytes(self) -> int:
        """Bytes that are kept."""
        return self._size

    def load(self, job: FrameJob) -> PixelValues:
        """Return float32 [patches, 1176], the patches of the frames in order of time; or features [units, width].

        Raises:
            SvmError: the video cannot be read, or has no frame there.
        """
        kept = self._kept.get(job)
        if kept is None:
            kept = self._read(job)
            if self._size + kept.nbytes <= self._limit:
                self._kept[job] = kept
                self._size += kept.nbytes
        return kept.astype(np.float32) if self._encoder else to_patches(kept.astype(np.uint8), job.pixels).pixel_values

    def _read(self, job: FrameJob) -> npt.NDArray[np.uint8 | np.float16]:
        frames, _ = read_frames(Path(job.video), job.start, job.end, job.count, job.fps, job.pixels)
        if self._encoder is None:
            return frames
        patches = to_patches(frames, job.pixels)
        return self._encoder(patches.pixel_values, patches.grid_thw)


# Makes an encoder where it is to be used; travels to another process, so it holds NumPy arrays alone.
MakeEncoder = Callable[[], Encoder]


class FramePool:
    """Decodes windows in the background; the same window always goes to the same worker, which may still have it."""

    def __init__(self, workers: int, cache_bytes: int, make_encoder: MakeEncoder | None = None) -> None:
        """Start `workers` processes that keep `cache_bytes` of frames together; 0 decodes in a thread of this process.

        With `make_encoder` they give, and keep, features in place of pixels. Processes are spawned: a program that
        starts them keeps its own start under ``if __name__ == "__main__"``.
        """
        self._workers = [FrameWorker(cache_bytes // workers, make_encoder) for _ in range(workers)]
        self._loads: list[Callable[[FrameJob], PixelValues]] = [worker.load for worker in self._workers]
        if not workers:
            self._loads = [FrameDecoder(cache_bytes, make_encoder and make_encoder()).load]
        # A thread each waits for its worker, so that results are taken out of its way at once.
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="frames") for _ in self._loads]

    def submit(self, job: FrameJob) -> Future[PixelValues]:
        """Have `job` decoded; the future raises `SvmError` where the video cannot be read."""
        lane = zlib.crc32(f"{job.video} {job.start}".encode("utf-8", "surrogateescape")) % len(self._lanes)
        return self._lanes[lane].submit(self._loads[lane], job)

    def close(self) -> None:
        """Stop the workers; what they had still to do is dropped."""
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
    """A process with a `FrameDecoder` in it; where it dies, another takes its place for the next job."""

    def __init__(self, cache_bytes: int, make_encoder: MakeEncoder | None = None) -> None:
        """Start it."""
        self._settings = cache_bytes, make_encoder
        self._start()

    def _start(self) -> None:
        """Spawn a process, because a fork of one that computes on a GPU does not live long."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._settings), daemon=True)
        self._process.start()
        theirs.close()

    def load(self, job: FrameJob) -> PixelValues:
        """Return what `FrameDecoder.load` gives.

        Raises:
            SvmError: as there; or the process died.
        """
        if not self._process.is_alive():
            self.close()
            self._start()
        try:
            self._connection.send(job)
            reply: PixelValues | SvmError = self._connection.recv()
        except (EOFError, OSError) as error:
            raise SvmError(
                f"A worker that decodes {job.video} died; with 0 workers this process decodes, and shows why."
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
    """Answer jobs until the other end is closed; a Ctrl-C is for the trainer, which saves and then closes."""
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
