"""Settings of a training run: a frozen dataclass for each part of the YAML file."""

from dataclasses import dataclass, field
from typing import Any, Literal

from streaming_vlm_mlx.config import ModelConfig, PixelConfig, StreamConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.collator import BatchConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.lora import LoraConfig
from streaming_vlm_mlx.models.sizes import tiny_config


@dataclass(frozen=True)
class ScheduleConfig(FromDict):
    """The length of a run and its learning rate: a linear warm-up, then half a cosine (SGDR, arXiv 1608.03983).

    Attributes:
        steps: the total number of optimizer steps.
        warmup_steps: steps over which the rate rises linearly from 0.
        final_fraction: the last step's rate as a fraction of the highest, 0 to 1.
    """

    steps: int = 1000
    warmup_steps: int = 50
    final_fraction: float = 0.1

    def of_length(self, steps: int) -> dict[str, int]:
        """Return the settings of a run of `steps`; a shorter run has a proportionally shorter warm-up."""
        return {"steps": steps, "warmup_steps": min(self.warmup_steps, self.warmup_steps * steps // self.steps)}

    def check(self) -> None:
        """Check that the steps are positive and the fractions lie between 0 and 1.

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
class InitialModelConfig(FromDict):
    """The model that a run starts from.

    Attributes:
        checkpoint: a folder, a name below ``checkpoints/`` or a hub id to fine-tune; null starts from random weights.
        adapter: the folder of an adapter of `checkpoint` whose training goes on, with its settings of `lora`.
        config: settings of ``config.json`` that override the laptop's preset; for random weights only.
        vocab_size: rows of the embedding, given to the most frequent tokens of the records; for random weights only.
        seed: seed of the random weights.
    """

    checkpoint: str | None = None
    adapter: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 4096
    seed: int = 0

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the new names of renamed settings, by the old name."""
        return {"sizes": "config", "vocabulary": "vocab_size"}

    @classmethod
    def overlays(cls) -> dict[str, type[FromDict]]:
        """Return the settings that `config` overrides."""
        return {"config": ModelConfig}

    def check(self) -> None:
        """Check that the sizes fit one another.

        Raises:
            SvmError: names the setting.
        """
        tiny_config(self.vocab_size).merged(self.config)


@dataclass(frozen=True)
class DataConfig(FromDict):
    """The training data.

    Attributes:
        records: JSONL files of records, as ``svm-tui convert`` writes them.
        seconds: seconds of video in a training window; attention is causal within it.
        stride: seconds between the starts of two windows.
        drop_context_prob: fraction of the windows, 0 to 1, whose previous text is left empty. Such a window cannot be
            continued from the text alone, so the model has to use the video.
        text_sink: tokens kept at the start of the previous-text turn, its opening markup included.
        text_sliding_window: tokens kept at the end of that turn, its end mark and line feed included; 0 for both
            settings keeps all of it.
        all_text: use one position axis for all tokens, video included.
        pixels: how frames are resized and cut into patches.
        batches: how windows are batched.
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
        """Return the new names of renamed settings, by the old name."""
        return {"anew": "drop_context_prob"}

    def check(self) -> None:
        """Check that the probability lies between 0 and 1.

        Raises:
            SvmError: names the setting.
        """
        if not 0 <= self.drop_context_prob <= 1:
            raise SvmError(f"data.drop_context_prob is {self.drop_context_prob}; it must be from 0 to 1.")


@dataclass(frozen=True)
class OptimizerConfig(FromDict):
    """AdamW (arXiv 1711.05101).

    Attributes:
        learning_rate: the highest rate of the schedule.
        betas: decay rates of the two moment estimates.
        eps: added to the denominator.
        weight_decay: applied to matrices only, not to norms and biases.
        max_grad_norm: the gradient is clipped to this norm.
        accumulate: batches whose gradients are accumulated for one step.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    accumulate: int = 1

    def check(self) -> None:
        """Check that the values are in range.

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
    """A linear head on the vision tower, used in training only.

    Attributes:
        name: the array in a clip's sidecar that holds the targets.
        kind: ``picture`` classifies the whole picture, ``patch`` classifies each merged patch, ``place`` predicts the
            merged patch that contains an object.
        classes: the number of classes; unused by ``place``.
        weight: the weight of this head's loss among the heads.
    """

    name: str = ""
    kind: HeadKind = "picture"
    classes: int = 2
    weight: float = 1.0

    def check(self) -> None:
        """Check that the head has a usable name and at least two classes.

        Raises:
            SvmError: names the setting.
        """
        if not self.name or self.name == "text":
            raise SvmError(f"auxiliary.heads: {self.name!r} cannot be a head's name.")
        if self.classes < 2:
            raise SvmError(f"auxiliary.heads: {self.name} has {self.classes} classes; there must be 2 or more.")


@dataclass(frozen=True)
class AuxiliaryConfig(FromDict):
    """Auxiliary losses on the vision tower.

    Attributes:
        heads: the vision heads.
        weight: the weight of the heads' loss relative to the text loss.
        first_steps: steps at the start of the run that train with the heads' loss only.
    """

    heads: tuple[HeadConfig, ...] = ()
    weight: float = 0.1
    first_steps: int = 0

    def check(self) -> None:
        """Check that the heads have different names, and that `first_steps` has heads to train.

        Raises:
            SvmError: names the setting.
        """
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise SvmError("auxiliary.heads: two heads have the same name; rename one.")
        if self.first_steps and not self.heads:
            raise SvmError(f"auxiliary.first_steps is {self.first_steps}, but auxiliary.heads is empty.")


@dataclass(frozen=True)
class ValidationConfig(FromDict):
    """The validation set. The model is validated at each checkpoint.

    Attributes:
        records: JSONL files of records that are not trained on.
        batches: the maximum number of batches of a validation; null for all of them.
        patience: validations without a lower loss after which the run stops early; null for no early stop.
        sample_every: steps between two samples of generated commentary for a validation clip; 0 for a sample at each
            validation, null for none.
        sample_seconds: seconds of video in a sample.
    """

    records: tuple[str, ...] = ()
    batches: int | None = None
    patience: int | None = None
    sample_every: int | None = 0
    sample_seconds: int = 4

    def check(self) -> None:
        """Check that the sample's settings are in range.

        Raises:
            SvmError: names the setting.
        """
        if self.sample_every is not None and self.sample_every < 0:
            raise SvmError(f"validation.sample_every is {self.sample_every}; it must be 0 or more, or null.")
        if self.sample_seconds < 1:
            raise SvmError(f"validation.sample_seconds is {self.sample_seconds}; it must be 1 or more.")


@dataclass(frozen=True)
class CheckpointingConfig(FromDict):
    """When checkpoints are written.

    Attributes:
        every: steps between two checkpoints.
        keep: the number of newest checkpoints that are kept.
    """

    every: int = 200
    keep: int = 3

    def check(self) -> None:
        """Check that both numbers are positive.

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
        model: the model that the run starts from.
        data: the training data.
        optimizer: AdamW's settings.
        schedule: the number of steps and the learning-rate schedule.
        auxiliary: auxiliary losses on the vision tower.
        validation: the validation set.
        checkpointing: when checkpoints are written.
        freeze: patterns (``visual.*``) of parameters that are not trained.
        lora: train low-rank adapters for `model.checkpoint` and freeze its weights; null trains the weights.
        keep_features: encode each window once and cache its vision features in float16, within
            ``data.batches.cache_mb``, in place of its frames. Needs a frozen vision tower (``freeze: ["visual.*"]``)
            without heads.
        grad_checkpoint: recompute the activations of each layer in the backward pass; slower, with far less memory.
        stream: settings of ``stream.yaml`` that override those that follow from `data`.
        seed: seed of the order of the windows and of the vision heads' initial weights.
    """

    model: InitialModelConfig = field(default_factory=InitialModelConfig)
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
        """Return the new names of renamed settings, by the old name."""
        return {
            "start": "model",
            "evaluation": "validation",
            "saving": "checkpointing",
            "recompute": "grad_checkpoint",
        }

    @classmethod
    def overlays(cls) -> dict[str, type[FromDict]]:
        """Return the settings that `stream` overrides."""
        return {"stream": StreamConfig}

    def training_stream(self) -> StreamConfig:
        """Return the stream settings that match the training windows and their chat template."""
        # Tokens of the turn's opening and closing markup, which `text_sink` and `text_sliding_window` include.
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
        """Check the stream settings, and that `keep_features` has a frozen vision tower.

        Raises:
            SvmError: names the setting.
        """
        adapts = self.lora or self.model.adapter
        if self.keep_features and ("visual.*" not in self.freeze or self.auxiliary.heads or adapts):
            raise SvmError('keep_features needs freeze: ["visual.*"], without auxiliary.heads and without lora.')
        self.training_stream().merged(self.stream)
