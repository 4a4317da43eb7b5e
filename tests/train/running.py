"""Runs of a model that a test can afford."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import mlx.core as mx

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.train.checkpointing import Progress
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.metrics import Event, StepDone
from streaming_vlm_mlx.train.setup import train
from streaming_vlm_mlx.train.trainer import Callbacks
from tests.data.making import write_clip
from tests.small import small_config

WORDS = ("red", "serves", "wide", "blue", "returns", "short", "left", "wins", "it", "and", "blue", "is", "standing")


def small_sizes() -> dict[str, Any]:
    """The settings of a small model that do not follow from its vocabulary."""
    sizes = small_config(1).to_dict()
    text = {k: v for k, v in sizes["text_config"].items() if k != "vocab_size"}
    return {"text_config": text, "vision_config": sizes["vision_config"]}


BASE = TrainConfig.from_dict(
    {
        "model": {"config": small_sizes(), "vocab_size": 400},
        "data": {
            "seconds": 3,
            "stride": 2,
            "pixels": {"min_pixels": 784},
            "batches": {"batch_size": 2, "workers": 0, "pool": 4},
        },
        "optimizer": {"learning_rate": 0.01, "weight_decay": 0.01},
        "schedule": {"steps": 6, "warmup_steps": 2},
        "checkpointing": {"every": 3},
    }
)


def write_records(folder: Path, name: str = "train", clips: int = 2, seconds: int = 6) -> Path:
    """Film clips of a moving grey, comment on them, and return the file of their records."""
    lines = []
    for number in range(clips):
        clip = folder / f"{name}{number}.mp4"
        write_clip(clip, range(10 * seconds), rate=10)
        words = [WORDS[(number * 5 + second) % len(WORDS)] for second in range(seconds)]
        turns = tuple(
            Turn(float(s), s + 1.0, f"Time={s}.0-{s + 1}.0s{' ' if s else ''}", f"\n {words[s]} ...")
            for s in range(seconds)
        )
        lines.append(StreamingRecord(clip.name, 0.0, float(seconds), turns, width=64, height=48).to_line())
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


@dataclass
class Heard:
    """Keeps a run's events, and stops it after update `stop`."""

    stop: int | None = None
    events: list[Event] = field(default_factory=list)

    def callbacks(self) -> Callbacks:
        """Return the callbacks of a run."""
        ticks = count()
        return Callbacks(self.events.append, lambda: float(next(ticks)), self.stopped)

    def stopped(self) -> bool:
        """Whether to stop the run."""
        return self.stop is not None and len(self.steps) >= self.stop

    def of(self, kind: type) -> Sequence[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def steps(self) -> Sequence[StepDone]:
        """The updates."""
        return self.of(StepDone)

    @property
    def losses(self) -> list[float]:
        """The words' loss of each update."""
        return [step.losses["text"] for step in self.steps]


Run = Callable[..., tuple[Heard, Progress]]


def run(
    records: Path, out: Path, *, stop: int | None = None, resume: bool = False, **over: Any
) -> tuple[Heard, Progress]:
    """Train `BASE` with `over` laid over it."""
    heard = Heard(stop)
    config = BASE.merged({"data": {"records": [str(records)]}}).merged(over)
    return heard, train(config, out, resume, mx.float32, 1, heard.callbacks())
