"""What a run tells whoever watches it; plain Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Began:
    """The run is ready to compute.

    Attributes:
        step: updates that were made before.
        steps: updates in all.
        windows: to learn from.
        parameters: numbers that move, and all of them.
    """

    step: int
    steps: int
    windows: int
    parameters: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stepped:
    """One update was made.

    Attributes:
        step: its number, counted from 1.
        losses: the mean loss of the words (``text``) and of each vision head.
        learning_rate: that it was made with.
        grad_norm: the gradient's length before it was cut.
        video_seconds: of video in it.
        tokens: in it, padding included.
        epoch: how often all windows were seen before.
        begun: when its frames were there, by the run's clock, in seconds.
        ended: when the weights had moved.
    """

    step: int
    losses: Mapping[str, float]
    learning_rate: float
    grad_norm: float
    video_seconds: int
    tokens: int
    epoch: int
    begun: float
    ended: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What is not learnt from was looked at after update `step`; `is_best` if the words' loss was never lower."""

    step: int
    losses: Mapping[str, float]
    is_best: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """All that the run needs to go on from update `step` is in `folder`, which can also be played."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know, in one line."""

    text: str


Event = Began | Stepped | Evaluated | Saved | Note
