"""One training step in this program and in plain PyTorch, each in a process of its own, taking turns.

The processes speak as those of `eval.peers`. That of PyTorch imports no MLX, so what needs it is imported late.
"""

import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.peers.run import INSTALL, PAUSE_S, Peer, PeerError, Progress, WorkerProcess
from streaming_vlm_mlx.eval.peers.worker import serve
from streaming_vlm_mlx.memory import peak_memory

if TYPE_CHECKING:
    from streaming_vlm_mlx.train.config import TrainConfig

Who = Literal["svm-tui", "PyTorch"]
ROWS: tuple[Who, ...] = get_args(Who)
PACKAGES = ("torch", "transformers")
# The largest relative difference of two losses that rounding explains; AdamW's first steps enlarge it.
TOLERANCE = 1e-2
# Of the first loss, before the weights moved.
FIRST_TOLERANCE = 1e-4
_RENAMED = {"model.language_model.": "model.", "model.visual.": "visual."}


@dataclass(frozen=True)
class StepCost(FromDict):
    """What a training step cost a program.

    Attributes:
        seconds: on the clock.
        cpu_seconds: of all its processes, in user and in system mode.
        loss: before the step.
        peak_rss: the most bytes that its processes held until now.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loss: float = 0.0
    peak_rss: int = 0


@dataclass(frozen=True)
class StepSpec(FromDict):
    """What a process trains.

    Attributes:
        who: the program.
        folder: holds the checkpoint, and the batch of PyTorch.
        config: the settings of the run, as plain values.
        cores: the number of microbatches that this program computes at once.
    """

    who: Who = "svm-tui"
    folder: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    cores: int = 1

    @property
    def checkpoint(self) -> Path:
        """The folder of the weights that all programs start from."""
        return Path(self.folder) / "checkpoint"

    @property
    def batch(self) -> Path:
        """The file of the batch."""
        return Path(self.folder) / "batch.npz"


class TrainStep(Protocol):
    """A program that trains on one batch again and again."""

    def __call__(self) -> float:
        """Train for a step and return the loss before it."""


class TorchStep:
    """A step of transformers' model in PyTorch: its own loss, gradient clipping, and AdamW in two groups."""

    def __init__(self, spec: StepSpec) -> None:
        """Load the checkpoint and the batch."""
        import torch
        import transformers

        self._torch, optimizer = torch, spec.config["optimizer"]
        self.device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        model = transformers.AutoModelForImageTextToText.from_pretrained(spec.checkpoint, dtype=torch.float32)
        arrays = np.load(spec.batch)
        model.config.video_token_id = int(arrays["video_row"])
        self._model = model.to(self.device).train()
        if spec.config["grad_checkpoint"]:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
        for name, parameter in self._model.named_parameters():
            start = next((old for old in _RENAMED if name.startswith(old)), "")
            own = _RENAMED.get(start, "") + name.removeprefix(start)
            parameter.requires_grad_(not any(fnmatchcase(own, pattern) for pattern in spec.config["freeze"]))
        trained = [p for p in self._model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": optimizer["weight_decay"]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        rate, betas = optimizer["learning_rate"], tuple(optimizer["betas"])
        self._optimizer = torch.optim.AdamW(groups, rate, betas, optimizer["eps"])
        self._trained, self._max_norm = trained, optimizer["max_grad_norm"]
        self._inputs = {
            name: torch.from_numpy(arrays[name]).to(self.device) for name in arrays.files if name != "video_row"
        }

    def __call__(self) -> float:
        """Train for a step; see `TrainStep`."""
        self._optimizer.zero_grad()
        loss = self._model(**self._inputs, use_cache=False).loss
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._trained, self._max_norm)
        self._optimizer.step()
        return float(loss.detach())


def _open_own(spec: StepSpec, stack: ExitStack) -> TrainStep:
    from streaming_vlm_mlx.backend import prepare

    prepare()
    import mlx.core as mx

    from streaming_vlm_mlx.train.benchmark import make_standard_batch, open_step
    from streaming_vlm_mlx.train.config import TrainConfig
    from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint

    config = TrainConfig.from_dict(spec.config).merged({"model": {"checkpoint": str(spec.checkpoint)}})
    checkpoint = load_initial_checkpoint(config, [])
    batch = make_standard_batch(checkpoint, config)
    return stack.enter_context(open_step(checkpoint, batch, config, mx.float32, spec.cores))


class Worker:
    """Answers requests: ``load``, then ``step`` by ``step``."""

    def __init__(self, clock: Callable[[], float], stack: ExitStack) -> None:
        """Begin without a program; `clock` returns seconds, `stack` ends what the program starts."""
        self._clock, self._stack = clock, stack
        self._step: TrainStep | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        if request["do"] == "load":
            spec = StepSpec.from_dict(request["spec"])
            self._step = TorchStep(spec) if spec.who == "PyTorch" else _open_own(spec, self._stack)
            return {}
        assert self._step is not None
        children = [child.pid for child in multiprocessing.active_children() if child.pid]
        cpu, begun = _cpu_seconds(children), self._clock()
        loss = self._step()
        seconds, cpu = self._clock() - begun, _cpu_seconds(children) - cpu
        return asdict(StepCost(seconds, cpu, loss, peak_memory() + sum(map(peak_memory, children))))


def _cpu_seconds(children: Sequence[int]) -> float:
    """Return the processor time of this process and of its living `children`, which only a Linux CPU needs."""
    ticks = 0
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def check_comparable(config: "TrainConfig") -> None:
    """Check that plain PyTorch can train as `config` says, and that it is installed.

    Raises:
        SvmError: names the setting, or what to install.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise SvmError(f"--peers needs {' and '.join(missing)}: {INSTALL}.")
    for name, used in (
        ("lora", config.lora),
        ("auxiliary.heads", config.auxiliary.heads),
        ("keep_features", config.keep_features),
    ):
        if used:
            raise SvmError(f"--peers trains a whole model on its text alone; remove {name}.")


def save_start(folder: Path, config: "TrainConfig") -> None:
    """Write the checkpoint that both programs start from, and the batch in transformers' names, to `folder`.

    Raises:
        SvmError: the model cannot be loaded or has no vision tower.
    """
    from streaming_vlm_mlx.backend import prepare

    prepare()
    from streaming_vlm_mlx.data.dataset import IGNORED
    from streaming_vlm_mlx.models.loading import save_checkpoint
    from streaming_vlm_mlx.train.benchmark import make_standard_batch
    from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint
    from streaming_vlm_mlx.train.microbatch import make_microbatches

    checkpoint = load_initial_checkpoint(config, [])
    if checkpoint.model.config.vision_config is None:
        raise SvmError("--peers needs a model with a vision_config.")
    spec = StepSpec(folder=str(folder))
    save_checkpoint(spec.checkpoint, checkpoint)
    batch = make_standard_batch(checkpoint, config)
    video = checkpoint.model.config.video_token_id
    (whole,) = make_microbatches(batch, {}, checkpoint.vocabulary, video, 1)
    ids = whole.token_ids.astype(np.int64)
    np.savez(
        spec.batch,
        input_ids=ids,
        labels=np.where(batch.tokens.labels == IGNORED, IGNORED, ids),
        position_ids=whole.position_ids.astype(np.int64),
        pixel_values_videos=whole.pixel_values,
        video_grid_thw=batch.tokens.video_grid_thw.astype(np.int64),
        video_row=ids[whole.is_video][0],
    )


@dataclass
class StepComparison:
    """The steps of both programs so far.

    Attributes:
        config: the settings of the run.
        steps: the number of steps to measure, behind one that warms up.
        cores: the number of microbatches that this program computes at once.
        warm_up: what the first step cost, by program.
        costs: what each step behind it cost, by program.
    """

    config: "TrainConfig"
    steps: int
    cores: int
    warm_up: dict[Who, StepCost] = field(default_factory=dict)
    costs: dict[Who, list[StepCost]] = field(default_factory=dict)

    @property
    def measured(self) -> int:
        """The number of steps that both programs have."""
        return min((len(self.costs.get(who, ())) for who in ROWS), default=0)

    def run(self, start: Callable[[Path, Who], Peer], pause: Callable[[float], None], on: Progress) -> None:
        """Measure both programs; what was measured before an interrupt is kept.

        Args:
            start: starts the process of a program, which prints to a file.
            pause: waits for some seconds.
            on: called with what is done and the number of steps that are measured, of both programs together.

        Raises:
            SvmError: a program failed, or the losses differ.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svm-tui-peers-")))
            on("writing a checkpoint", 0)
            save_start(folder, self.config)
            peers: dict[Who, Peer] = {}
            for who in ROWS:
                peers[who] = start(folder / f"{who}.log", who)
                stack.callback(peers[who].close)
                on(f"loading {who}", 0)
                spec = StepSpec(who, str(folder), self.config.to_dict(), self.cores)
                _ask(who, peers[who], {"do": "load", "spec": spec.to_dict()})
                self.warm_up[who] = StepCost.from_dict(_ask(who, peers[who], {"do": "step"}))
            self._check(FIRST_TOLERANCE)
            for number in range(self.steps):
                for who in ROWS if number % 2 else ROWS[::-1]:
                    # Threads of a BLAS spin after their last product.
                    pause(PAUSE_S)
                    cost = StepCost.from_dict(_ask(who, peers[who], {"do": "step"}))
                    self.costs.setdefault(who, []).append(cost)
                    on(who, sum(map(len, self.costs.values())))
        self._check(TOLERANCE)

    @property
    def loss_difference(self) -> float:
        """The largest relative difference of the losses of a step."""
        own, other = ([cost.loss for cost in (self.warm_up[who], *self.costs.get(who, ()))] for who in ROWS)
        # NumPy's largest of what holds a NaN is NaN.
        return float(np.max([abs(a - b) / abs(b) for a, b in zip(own, other, strict=False)]))

    def _check(self, tolerance: float) -> None:
        if not self.loss_difference <= tolerance:
            raise SvmError(
                f"the programs compute something else: their losses differ by {self.loss_difference:.2g}, relatively."
            )


def _ask(who: Who, peer: Peer, request: Mapping[str, Any]) -> dict[str, Any]:
    peer.send(request)
    try:
        return peer.receive()
    except PeerError as error:
        raise SvmError(f"{who} failed: {str(error).rstrip('.')}.") from error


def start_worker(log: Path, who: Who, cores: int) -> WorkerProcess:
    """Start the process of a program; this one gives each microbatch a core of its own."""
    return WorkerProcess(log, "streaming_vlm_mlx.train.peers", 1 if who == "svm-tui" and cores > 1 else None)


@dataclass(frozen=True)
class StepRow:
    """What a step costs a program.

    Attributes:
        who: the program.
        steps: that were measured.
        median_s: seconds on the clock, median.
        cpu_s: seconds of processor time, median.
        peak_rss_mb: the most memory of all its processes, 1e6 bytes.
        first_loss: before the first step.
        last_loss: before the last step.
    """

    who: Who
    steps: int
    median_s: float
    cpu_s: float
    peak_rss_mb: float
    first_loss: float
    last_loss: float


@dataclass(frozen=True)
class StepRatios:
    """This program's costs divided by PyTorch's, medians of all steps: below 1 is faster than PyTorch."""

    seconds: float
    cpu_seconds: float
    peak_rss: float


def step_rows(comparison: StepComparison) -> list[StepRow]:
    """Return the figures of both programs, over the steps that both have."""
    count, rows = comparison.measured, []
    for who in ROWS:
        costs = comparison.costs[who][:count]
        wall, cpu = (
            statistics.median(values) for values in zip(*((c.seconds, c.cpu_seconds) for c in costs), strict=True)
        )
        peak = max(cost.peak_rss for cost in costs) / 1e6
        rows.append(StepRow(who, count, wall, cpu, peak, comparison.warm_up[who].loss, costs[-1].loss))
    return rows


def step_ratios(comparison: StepComparison) -> StepRatios:
    """Return this program's costs divided by PyTorch's."""
    pairs = list(zip(*(comparison.costs[who] for who in ROWS), strict=False))
    own, other = step_rows(comparison)
    return StepRatios(
        statistics.median(a.seconds / b.seconds for a, b in pairs),
        statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in pairs),
        own.peak_rss_mb / other.peak_rss_mb,
    )


if __name__ == "__main__":
    with ExitStack() as opened:
        serve(Worker(time.perf_counter, opened).answer)
