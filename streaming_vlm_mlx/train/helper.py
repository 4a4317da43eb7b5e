"""A process that works on shards for another. Nothing here imports MLX before its BLAS is in place."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.train.jobs import Blueprint, Done, Job


class Helper:
    """The process as its master sees it.

    Attributes:
        version: of the weights that it was sent last; None before the first.
    """

    def __init__(self, blueprint: "Blueprint") -> None:
        """Start it, to build its learner from `blueprint`."""
        context = multiprocessing.get_context("spawn")
        self.version: int | None = None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="svm-helper", daemon=True)
        self._process.start()
        theirs.close()
        self._connection.send(blueprint)

    def send(self, job: "Job") -> None:
        """Give it work.

        Raises:
            SvmError: the process died.
        """
        try:
            self._connection.send(job)
        except OSError as error:
            raise self._dead() from error

    def receive(self) -> "Done":
        """Wait for what became of the job.

        Raises:
            SvmError: the process died.
        """
        try:
            done: Done = self._connection.recv()
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
        blueprint: Blueprint = connection.recv()
        from streaming_vlm_mlx.train.gradients import Work
        from streaming_vlm_mlx.train.jobs import do

        learner, work = blueprint.build(), Work(recompute=blueprint.recompute)
        while True:
            connection.send(do(learner, connection.recv(), work))
    except (EOFError, OSError):
        return
