"""The learning rate over a run: a linear warm-up, then half a cosine (Loshchilov and Hutter, arXiv 1608.03983)."""

from dataclasses import dataclass, field
from typing import Any, Literal

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, StreamConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.collator import BatchConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.lora import LoraConfig
from streaming_vlm_mlx.models.presets import tiny_config


@dataclass(frozen=True)
class ScheduleConfig(FromDict):
    """How long a run is, and how its learning rate goes.

    Attributes:
        steps: updates of the weights in all.
        warmup_steps: over which the rate rises from 0.
        final_fraction: of the highest rate that is left at the end.
    """

    steps: int = 1000
    warmup_steps: int = 50
    final_fraction: float = 0.1

    def of_length(self, steps: int) -> dict[str, int]:
        """Return the settings of a run of `steps`; a shorter one warms up in proportion."""
        return {"steps": steps, "warmup_steps": min(self.warmup_steps, self.warmup_steps * steps // self.steps)}

    def check(self) -> None:
        """Refuse a run of no steps, and fractions that are none.

        Raises:
            SvmError: names the setting.
        """
        if self.steps < 1:
            raise SvmError(f"schedule.steps is {self.steps}; it must be 1 or more.")
        if not 0 <= self.warmup_steps <= self.steps:
            raise SvmError(
                f"schedule.warmup_steps is {self.warmup_steps}; it must be from 0 to {self.steps}, the steps."
            )
        if not 0 <= self.final_fraction <= 1:
            raise SvmError(f"schedule.final_fraction is {self.final_fraction}; it must be from 0 to 1.")


HeadKind = Literal["picture", "patch", "place"]


@dataclass(frozen=True)
class StartConfig(FromDict):
    """The model that a run begins with.

    Attributes:
        checkpoint: a folder, a name below ``checkpoints/`` or a hub id to go on from; null begins with random weights.
        sizes: settings of ``config.json`` laid over the laptop's preset, for random weights.
        vocabulary: rows of the embedding, for random weights; what the records say most has one.
        seed: of the random weights.
    """

    checkpoint: str | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 4096
    seed: int = 0

    @classmethod
    def overlays(cls) -> dict[str, type[FromDict]]:
        """Return what `sizes` is laid over."""
        return {"sizes": ModelConfig}

    def check(self) -> None:
        """Refuse sizes that make no model.

        Raises:
            SvmError: names the setting.
        """
        tiny_config(self.vocabulary).merged(self.sizes)


@dataclass(frozen=True)
class DataConfig(FromDict):
    """What is learnt from.

    Attributes:
        records: files of records, as ``svm-tui convert`` writes them.
        seconds: of a window; all attend to all before them in it.
        stride: seconds from one window's start to the next's.
        drop_context_prob: share of the windows, 0 to 1, that have no previous text, so that a model which could
            continue from its own words learns to look at the video.
        text_sink: tokens kept at the head of the previous text's turn, its opening markup counted.
        text_sliding_window: tokens kept at its tail, its end mark and line feed counted; 0 for both keeps all.
        all_text: positions count up on one axis, video too.
        pixels: how frames become patches.
        batches: how windows become batches.
    """

    records: tuple[str, ...] = ()
    seconds: int = 24
    stride: int = 12
    drop_context_prob: float = 0.0
    text_sink: int = 512
    text_sliding_window: int = 512
    all_text: bool = False
    pixels: PixelConfig = field(default_factory=PixelConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the new names of settings, by the old name."""
        return {"anew": "drop_context_prob"}

    def check(self) -> None:
        """Refuse a share that is none.

        Raises:
            SvmError: names the setting.
        """
        if not 0 <= self.drop_context_prob <= 1:
            raise SvmError(f"data.drop_context_prob is {self.drop_context_prob}; it must be from 0 to 1.")


@dataclass(frozen=True)
class OptimizerConfig(FromDict):
    """AdamW (arXiv 1711.05101).

    Attributes:
        learning_rate: the highest of the schedule.
        betas: how slowly the two running means move.
        eps: keeps the division finite.
        weight_decay: of matrices; norms and biases have none.
        max_grad_norm: a longer gradient is cut to this length.
        accumulate: batches that make one update.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    accumulate: int = 1

    def check(self) -> None:
        """Refuse values that cannot train.

        Raises:
            SvmError: names the setting.
        """
        for name in ("learning_rate", "eps", "max_grad_norm", "accumulate"):
            if getattr(self, name) <= 0:
                raise SvmError(f"optimizer.{name} is {getattr(self, name)}; it must be above 0.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise SvmError(f"optimizer.betas is {list(self.betas)}; it must be two numbers from 0 to below 1.")


@dataclass(frozen=True)
class HeadConfig(FromDict):
    """One thing to tell.

    Attributes:
        name: of the array in a clip's sidecar.
        kind: ``picture`` sorts a whole picture into classes; ``patch`` each merged patch; ``place`` says in which
            merged patch a thing is.
        classes: how many there are; a place has none.
        weight: of this head's loss among the others'.
    """

    name: str = ""
    kind: HeadKind = "picture"
    classes: int = 2
    weight: float = 1.0

    def check(self) -> None:
        """Refuse a head without a name, or with nothing to choose from.

        Raises:
            SvmError: names the setting.
        """
        if not self.name or self.name == "text":
            raise SvmError(f"auxiliary.heads: {self.name!r} cannot be a head's name.")
        if self.classes < 2:
            raise SvmError(f"auxiliary.heads: {self.name} has {self.classes} classes; there must be 2 or more.")


@dataclass(frozen=True)
class AuxiliaryConfig(FromDict):
    """What the vision tower is taught beside the words.

    Attributes:
        heads: what is to be told of each picture.
        weight: of the heads' loss beside that of the words.
        first_steps: updates at the beginning that are made for the heads alone.
    """

    heads: tuple[HeadConfig, ...] = ()
    weight: float = 0.1
    first_steps: int = 0

    def check(self) -> None:
        """Refuse two heads of one name, and steps for heads that are not there.

        Raises:
            SvmError: names the setting.
        """
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise SvmError("auxiliary.heads: two heads have one name.")
        if self.first_steps and not self.heads:
            raise SvmError(f"auxiliary.first_steps is {self.first_steps}, but there are no heads to learn.")


@dataclass(frozen=True)
class ValidationConfig(FromDict):
    """How a run is watched; it happens whenever the run is saved.

    Attributes:
        records: files of records that are not learnt from.
        batches: read at most; null reads all.
        patience: evaluations without a new best before the run ends early; null never does.
    """

    records: tuple[str, ...] = ()
    batches: int | None = None
    patience: int | None = None


@dataclass(frozen=True)
class CheckpointingConfig(FromDict):
    """When a run is saved.

    Attributes:
        every: updates between two savings.
        keep: savings that are kept.
    """

    every: int = 200
    keep: int = 3

    def check(self) -> None:
        """Refuse to save never or nothing.

        Raises:
            SvmError: names the setting.
        """
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise SvmError(f"checkpointing.{name} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class TrainConfig(FromDict):
    """A training run.

    Attributes:
        start: the model that it begins with.
        data: what is learnt from.
        optimizer: how the weights move.
        schedule: how long, and how fast over time.
        auxiliary: heads on the vision tower.
        validation: how the run is watched.
        checkpointing: when it is saved.
        freeze: patterns (``visual.*``) of parameters that do not move.
        lora: learns adapters beside the weights of `start.checkpoint`, none of which moves; null moves the weights.
        keep_features: the vision tower stands still (``freeze: ["visual.*"]``) and has no heads, so look at each window
            once, and keep what was seen in place of its frames, as float16, within ``data.batches.cache_mb``.
        grad_checkpoint: forget what layers held and compute it again for the gradient; slower, with far less memory.
        stream: settings of ``stream.yaml`` laid over those that follow from `data`.
        seed: of the order of the windows, and of the heads' first weights.
    """

    start: StartConfig = field(default_factory=StartConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpointing: CheckpointingConfig = field(default_factory=CheckpointingConfig)
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    keep_features: bool = False
    grad_checkpoint: bool = False
    stream: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the new names of settings, by the old name."""
        return {"evaluation": "validation", "saving": "checkpointing", "recompute": "grad_checkpoint"}

    @classmethod
    def overlays(cls) -> dict[str, type[FromDict]]:
        """Return what `stream` is laid over."""
        return {"stream": StreamConfig}

    def training_stream(self) -> StreamConfig:
        """Return the windows that the model learns in, and their wording, as a stream's settings."""
        data, opening, closing = self.data, 4, 1
        keeps_all = not (data.text_sink or data.text_sliding_window)
        return StreamConfig(
            window=data.seconds,
            text_round=data.seconds,
            sink=None if keeps_all else max(data.text_sink - opening, 0),
            slide=None if keeps_all else max(data.text_sliding_window - closing, 0),
            all_text=data.all_text,
            style="training",
            pixels=data.pixels,
        )

    def check(self) -> None:
        """Refuse settings of the stream that none can run under, and features of a tower that moves.

        Raises:
            SvmError: names the setting.
        """
        if self.keep_features and ("visual.*" not in self.freeze or self.auxiliary.heads or self.lora):
            raise SvmError('keep_features: freeze must hold "visual.*", without auxiliary.heads or lora beside it.')
        self.training_stream().merged(self.stream)
