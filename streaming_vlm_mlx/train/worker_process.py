"""A process that works on shards for another. Nothing here imports MLX before its BLAS is in place."""

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.config import VisionConfig
from streaming_vlm_mlx.data.frame_workers import Encoder, Features, PixelValues
from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.train.gradients import Request, Result, WorkerSpec


class Worker:
    """The process as its master sees it.

    Attributes:
        version: of the weights that it was sent last; None before the first.
    """

    def __init__(self, spec: "WorkerSpec") -> None:
        """Start it, to build its learner from `spec`."""
        context = multiprocessing.get_context("spawn")
        self.version: int | None = None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="svm-helper", daemon=True)
        self._process.start()
        theirs.close()
        self._connection.send(spec)

    def send(self, job: "Request") -> None:
        """Give it work.

        Raises:
            SvmError: the process died.
        """
        try:
            self._connection.send(job)
        except OSError as error:
            raise self._dead() from error

    def receive(self) -> "Result":
        """Wait for what became of the job.

        Raises:
            SvmError: the process died.
        """
        try:
            done: Result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._dead() from error
        return done

    def _dead(self) -> SvmError:
        self._process.join(1.0)
        return SvmError(
            f"A helper process died (exit status {self._process.exitcode}), perhaps for want of memory: go on with "
            "--resume, and smaller batches."
        )

    def close(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()


def serve(connection: Connection) -> None:
    """Do jobs until the other end is closed; a Ctrl-C is for the master, which saves and then closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    try:
        spec: WorkerSpec = connection.recv()
        from streaming_vlm_mlx.train.gradients import Work, handle_request

        train_model, work = spec.build(), Work(grad_checkpoint=spec.grad_checkpoint)
        while True:
            connection.send(handle_request(train_model, connection.recv(), work))
    except (EOFError, OSError):
        return


@dataclass(frozen=True)
class Tower:
    """A tower as it travels to another process.

    Attributes:
        config: its sizes.
        weights: its parameters by name, float32.
    """

    config: VisionConfig
    weights: dict[str, npt.NDArray[np.float32]]

    def __call__(self) -> Encoder:
        """Build the tower in this process; return what looks with it."""
        prepare()
        import mlx.core as mx

        from streaming_vlm_mlx.models.vision import VisionTower

        tower = VisionTower(self.config)
        tower.load_weights([(name, mx.array(array)) for name, array in self.weights.items()])

        def encode(pixel_values: PixelValues, grid_thw: tuple[int, int, int]) -> Features:
            return np.array(tower(mx.array(pixel_values), grid_thw).astype(mx.float16))

        return encode
