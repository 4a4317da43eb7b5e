"""Runs the rows of a comparison side by side: workers start together, then take turns in blocks of seconds."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from streaming_vlm_mlx.backend import installed_version, installed_versions, usable_cores
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.bench import BenchConfig, SecondCost, forced_tokens, prompt_tokens
from streaming_vlm_mlx.eval.peers.figures import OURS
from streaming_vlm_mlx.eval.peers.worker import ROWS, WARM_UP, Who, WorkerSpec

# Seconds of video that a worker generates before the next takes its turn.
BLOCK = 5
# Prefills of a prompt of text that each program makes, with so many tokens.
PREFILL_ROUNDS, PREFILL_TOKENS = 5, 1_000
# Threads of a BLAS spin for up to 0.2 s after their last product; they would slow the next worker.
PAUSE_S = 0.25
# The largest difference of two log-probabilities that rounding explains.
TOLERANCE = {"float32": 2e-3, "float16": 0.1, "bfloat16": 0.5}
INSTALL = "pip install 'svm-tui[bench]'"
# Those with a turn a second.
STYLES = ("inference", "training")
_PACKAGES = {"transformers": ("torch", "transformers"), "mlx-vlm": ("mlx_vlm",)}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Progress = Callable[[str, int], None]


class Peer(Protocol):
    """A worker, as the comparison sees it."""

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request."""

    def receive(self) -> dict[str, Any]:
        """Wait for the answer to the request.

        Raises:
            PeerError: the program failed or exited.
        """

    def close(self) -> None:
        """End the process."""


class PeerError(Exception):
    """A program of the comparison failed; the text says how."""


class WorkerProcess:
    """A worker in a process of its own, out of reach of the terminal's Ctrl-C."""

    def __init__(
        self, log: Path, module: str = "streaming_vlm_mlx.eval.peers.worker", threads: int | None = None
    ) -> None:
        """Start the process.

        Args:
            log: the file for what it prints.
            module: what it runs; see `worker.serve`.
            threads: as in `thread_counts`.
        """
        self._log = log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **thread_counts(threads)},
                start_new_session=True,
            )

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; see `Peer.send`."""
        try:
            pipe = _opened(self._process.stdin)
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        except OSError:
            # `receive` says how it ended.
            return

    def receive(self) -> dict[str, Any]:
        """Wait for the answer to the request; see `Peer.receive`."""
        line = _opened(self._process.stdout).readline()
        if not line:
            printed = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((text.strip() for text in reversed(printed) if text.strip()), "perhaps out of memory")
            raise PeerError(f"it exited with status {self._process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # What the process did not read cannot be written any more.
            with suppress(OSError):
                _opened(pipe).close()


def _opened(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def thread_counts(threads: int | None = None) -> dict[str, str]:
    """Return the variables that set a program's threads: `threads` or the cores, unless the environment sets them."""
    return {name: os.environ.get(name, str(threads or usable_cores())) for name in THREADS}


def versions_beside(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of this program, of what it computes with, and of the other programs' `packages`."""
    others = {name: installed_version(name) for name in packages}
    return installed_versions() | {name: number for name, number in others.items() if number}


def installed_rows() -> tuple[list[Who], list[str]]:
    """Return the rows whose programs are installed, and a remark on each program that is not.

    Raises:
        SvmError: there is no other program than this one.
    """
    missing = {
        program: [package for package in packages if importlib.util.find_spec(package) is None]
        for program, packages in _PACKAGES.items()
    }
    rows = [who for who in ROWS if not missing.get(_program(who))]
    if len(missing) == sum(map(bool, missing.values())):
        raise SvmError(f"--peers needs transformers with torch, or mlx-vlm; neither is installed: {INSTALL}.")
    remarks = [
        f"{program} is left out: {' and '.join(packages)} cannot be found; {INSTALL}."
        for program, packages in missing.items()
        if packages
    ]
    return rows, remarks


def save_seeded_checkpoint(folder: Path, config: BenchConfig) -> str:
    """Write the checkpoint that all programs open to `folder`; return the dtype of its weights.

    Raises:
        SvmError: the model has no vision tower or stamps its video, its vocabulary is smaller than the tokenizer's, or
            the stream has a style with other turns.
    """
    from streaming_vlm_mlx.backend import prepare

    dtype = prepare().dtype
    from streaming_vlm_mlx.models.families import family_of
    from streaming_vlm_mlx.models.loading import save_checkpoint
    from streaming_vlm_mlx.stream.bundle_loader import random_checkpoint

    if family_of(config.model).HAS_STAMPS or config.stream.style not in STYLES:
        raise SvmError(f"--peers runs streams of style {' or '.join(STYLES)} on Qwen2-VL and Qwen2.5-VL only.")
    if config.model.vision_config is None:
        raise SvmError("--peers needs a model with a vision_config; configs/bench holds examples.")
    save_checkpoint(folder, random_checkpoint(config.model, dtype, config.stream, config.seed))
    return str(dtype).rpartition(".")[2]


@dataclass
class Comparison:
    """The seconds of every row so far.

    Attributes:
        config: of the benchmark.
        seconds: of video.
        costs: what each second cost, by row; a row that failed keeps its seconds.
        prefills: seconds of work of each prefill of `PREFILL_TOKENS` tokens, by the first row of each program.
        differences: the largest difference of a log-probability from this program's, by row.
        remarks: sentences on rows that are left out or failed.
        complete: no second is left to measure.
        tolerance: the largest difference that is taken for rounding.
    """

    config: BenchConfig
    seconds: int
    costs: dict[Who, list[SecondCost]] = field(default_factory=dict)
    prefills: dict[Who, list[float]] = field(default_factory=dict)
    differences: dict[Who, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    complete: bool = False
    tolerance: float = 0.0
    _peers: dict[Who, Peer] = field(default_factory=dict)

    @property
    def measured(self) -> int:
        """The number of seconds that every row has which did not fail."""
        return min((len(self.costs.get(who, ())) for who in self._peers), default=0)

    def run(
        self, start: Callable[[Path], Peer], rows: Iterable[Who], pause: Callable[[float], None], on: Progress
    ) -> None:
        """Measure all rows; what was measured before an error or an interrupt is kept.

        Args:
            start: starts a worker that prints to a file.
            rows: who takes part.
            pause: waits for some seconds.
            on: called with what is done and the number of seconds that are measured, of all rows together.

        Raises:
            SvmError: this program failed, or all others did.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svm-tui-peers-")))
            checkpoint = folder / "checkpoint"
            on("writing a checkpoint", 0)
            dtype = save_seeded_checkpoint(checkpoint, self.config)
            self.tolerance = TOLERANCE[dtype]
            for who in rows:
                peer = self._peers[who] = start(folder / f"{who}.log")
                stack.callback(peer.close)
                spec = WorkerSpec(who, str(checkpoint), self.config, dtype)
                peer.send({"who": who, "do": "load", "spec": spec.to_dict()})
            on("loading", 0)
            for who in list(self._peers):
                self._receive(who)
            on("warming up", 0)
            self._warm_up(checkpoint)
            on("prefilling", 0)
            self._prefill(pause)
            self._take_turns(pause, on)
        self.complete = True

    def _ask(self, who: Who, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer of a row to `request`; see `_receive`."""
        self._peers[who].send({"who": who, **request})
        return self._receive(who)

    def _receive(self, who: Who) -> dict[str, Any] | None:
        """Return the answer of a row to its request; None if it failed, which drops the row.

        Raises:
            SvmError: it was this program, or the last of the others.
        """
        try:
            return self._peers[who].receive()
        except PeerError as error:
            self._drop(who, f"{str(error).rstrip('.')}.")
            return None

    def _drop(self, who: Who, reason: str) -> None:
        """Leave a row out from now on; raise as `_receive`."""
        if who == OURS:
            raise SvmError(f"{who} failed: {reason}")
        hint = f" {INSTALL} installs it." if "ModuleNotFoundError" in reason or "ImportError" in reason else ""
        self.remarks.append(f"{who} is left out: {reason}{hint}")
        self._peers.pop(who).close()
        if not any(_program(who) in _PACKAGES for who in self._peers):
            raise SvmError(f"no other program could be measured; the last: {self.remarks[-1]}")

    def _warm_up(self, folder: Path) -> None:
        """Let every row generate two seconds, and drop those that compute something else."""
        request = {"do": "warm-up", "tokens": [forced_tokens(self.config, index) for index in range(WARM_UP)]}
        stream = self.config.stream
        # Prompts of a shorter window differ from the second second on.
        same = min(WARM_UP, stream.window, stream.text_round)
        own = None
        for who in list(self._peers):
            if self._ask(who, request) is None:
                continue
            scores = np.load(WorkerSpec(who, str(folder)).scores)[:same]
            own = scores if own is None else own
            differences = [float(np.abs(one - other).max()) for one, other in zip(scores, own, strict=True)]
            self.differences[who] = max(differences)
            if not self.differences[who] <= self.tolerance:
                self._drop(who, self._describe(who, differences))

    def _describe(self, who: Who, differences: Sequence[float]) -> str:
        """Return a sentence on a row whose log-probabilities have `differences` from this program's, by second."""
        if who.endswith("cache") and differences[0] <= self.tolerance:
            program = _program(who)
            return (
                f"{program} {installed_version(program)} does not go on from a cache with new video; log-probabilities "
                f"of the second second differ by {differences[1]:.2g} from those of {OURS}."
            )
        return f"it computes something else; log-probabilities differ by {max(differences):.2g} from those of {OURS}."

    def _prefill(self, pause: Callable[[float], None]) -> None:
        """Let each program prefill the same prompts in turns; the first of `PREFILL_ROUNDS` warms it up."""
        for number in range(PREFILL_ROUNDS + 1):
            tokens = prompt_tokens(self.config, number, PREFILL_TOKENS)
            for who in list({_program(who): who for who in reversed(self._peers)}.values())[::-1]:
                pause(PAUSE_S)
                answer = self._ask(who, {"do": "prefill", "tokens": tokens})
                if answer is not None and number > 0:
                    self.prefills.setdefault(who, []).append(answer["seconds"])

    def _take_turns(self, pause: Callable[[float], None], on: Progress) -> None:
        """Measure all seconds in blocks; who begins changes with each block."""
        for number, first in enumerate(range(0, self.seconds, BLOCK)):
            order = list(self._peers)
            for who in (*order[number % len(order) :], *order[: number % len(order)]):
                if who not in self._peers:
                    continue
                pause(PAUSE_S)
                for index in range(first, min(first + BLOCK, self.seconds)):
                    request = {"do": "second", "index": index, "tokens": forced_tokens(self.config, index)}
                    answer = self._ask(who, request)
                    if answer is None:
                        break
                    self.costs.setdefault(who, []).append(SecondCost(**answer))
                    on(who, sum(map(len, self.costs.values())))


def _program(who: Who) -> str:
    return who.partition(" ")[0]
