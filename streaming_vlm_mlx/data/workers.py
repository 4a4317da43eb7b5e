"""Processes that decode, and look with a vision tower that stands still, while the model computes."""

import multiprocessing
import signal
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from streaming_vlm_mlx.data.loading import Encoder, FrameJob, FrameLoader, PixelValues
from streaming_vlm_mlx.errors import SvmError

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
            self._loads = [FrameLoader(cache_bytes, make_encoder and make_encoder()).load]
        # A thread each waits for its worker, so that results are taken out of its way at once.
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="frames") for _ in self._loads]

    def submit(self, job: FrameJob) -> Future[PixelValues]:
        """Have `job` decoded; the future raises `SvmError` where the video can not be read."""
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
    """A process with a `FrameLoader` in it; where it dies, another takes its place for the next job."""

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
        """Return what `FrameLoader.load` gives.

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
    loader = FrameLoader(cache_bytes, make_encoder and make_encoder())
    try:
        while True:
            job = connection.recv()
            try:
                connection.send(loader.load(job))
            except SvmError as error:
                connection.send(SvmError(str(error)))
    except (EOFError, OSError):
        return
