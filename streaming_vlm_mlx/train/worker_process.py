"""A data-parallel worker process, seen from both sides. MLX is imported only after `backend.prepare` set its BLAS."""

import multiprocessing
import os
import pickle
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.data.frame_workers import Encoder, Features, PixelValues
from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.train.gradients import Request, Result, WorkerSpec


class Worker:
    """A worker process, seen from the process that started it.

    Attributes:
        version: the version of the weights that it received last; None before the first request.
    """

    def __init__(self, spec: "WorkerSpec") -> None:
        """Start the process; it builds its model from `spec`."""
        context = multiprocessing.get_context("spawn")
        self.version: int | None = None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="svm-worker", daemon=True)
        self._process.start()
        theirs.close()
        self._connection.send(spec)

    def send(self, request: "Request") -> None:
        """Send a request.

        Raises:
            SvmError: the process exited.
        """
        try:
            send(self._connection, request)
        except OSError as error:
            raise self._exited() from error

    def receive(self) -> "Result":
        """Wait for the result of the request.

        Raises:
            SvmError: the process exited.
        """
        try:
            result: Result = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._exited() from error
        return result

    def _exited(self) -> SvmError:
        self._process.join(1.0)
        return SvmError(
            f"A worker process exited with status {self._process.exitcode}, perhaps out of memory: continue with "
            "--resume and a smaller data.batches.batch_size."
        )

    def close(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()


def send(connection: Connection, message: object) -> None:
    """Send `message`; the numbers of its NumPy arrays go from where they are, without a copy of their own.

    Raises:
        OSError: the other process exited.
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(message, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send((pickled, [view.nbytes for view in views]))
    for view in views:
        left = view
        while left:
            left = left[os.write(connection.fileno(), left) :]


def receive(connection: Connection) -> Any:
    """Wait for the message of `send`.

    Raises:
        EOFError: the other process exited.
        OSError: the other process exited.
    """
    pickled, sizes = connection.recv()
    buffers = [np.empty(size, np.uint8) for size in sizes]
    for buffer in buffers:
        left = buffer.data
        while left:
            count = os.readv(connection.fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
    return pickle.loads(pickled, buffers=buffers)


def serve(connection: Connection) -> None:
    """Answer requests until `connection` is closed. The parent handles Ctrl-C: it writes a checkpoint and closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    try:
        spec: WorkerSpec = connection.recv()
        from streaming_vlm_mlx.train.gradients import Compute, handle_request

        train_model, compute = spec.build(), Compute(grad_checkpoint=spec.grad_checkpoint)
        while True:
            send(connection, handle_request(train_model, receive(connection), compute))
    except (EOFError, OSError):
        return


@dataclass(frozen=True)
class Tower:
    """A vision tower that can be sent to another process.

    Attributes:
        config: the model that it belongs to.
        weights: float32 parameters by name.
    """

    config: ModelConfig
    weights: dict[str, npt.NDArray[np.float32]]

    def __call__(self) -> Encoder:
        """Build the tower in this process; return a function from patches and grid to float16 features."""
        prepare()
        import mlx.core as mx

        from streaming_vlm_mlx.models.families import family_of

        assert self.config.vision_config is not None
        tower = family_of(self.config).VisionTower(self.config.vision_config)
        tower.load_weights([(name, mx.array(array)) for name, array in self.weights.items()])

        def encode(pixel_values: PixelValues, grid_thw: tuple[int, int, int]) -> Features:
            return np.array(tower(mx.array(pixel_values), grid_thw).astype(mx.float16))

        return encode
