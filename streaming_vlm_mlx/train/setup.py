"""Sets up a training run: model, vocabulary, windows, optimizer and workers."""

import importlib.util
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml
from mlx.utils import tree_reduce

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.config import PixelConfig, StreamConfig
from streaming_vlm_mlx.data.collator import Batches
from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig, Windows
from streaming_vlm_mlx.data.frame_workers import FramePool
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.errors import SvmError, log_limit
from streaming_vlm_mlx.hub import resolve_checkpoint
from streaming_vlm_mlx.models.adapter_info import AdapterInfo, restore
from streaming_vlm_mlx.models.adapters import (
    Adapter,
    continue_adapter,
    fingerprint,
)
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import Checkpoint
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream_settings import read_stream_config
from streaming_vlm_mlx.train.checkpointing import Progress, RunFolder, load_heads, load_training, read_progress
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.gradients import WorkerSpec, as_numpy, flatten, make_train_model
from streaming_vlm_mlx.train.initial_checkpoint import (
    Report,
    load_initial_checkpoint,
    load_to_train,
    make_stream,
    with_adapter,
)
from streaming_vlm_mlx.train.loss import TrainModel
from streaming_vlm_mlx.train.metrics import CheckpointSaved, Event, MetricsFile, Note, Stage, Started, plot_losses
from streaming_vlm_mlx.train.optim import make_optimizer
from streaming_vlm_mlx.train.trainer import Callbacks, Dataset, MicrobatchBuilder, Trainer, TrainState
from streaming_vlm_mlx.train.vision_heads import TargetReader, VisionHeads
from streaming_vlm_mlx.train.worker_process import Tower
from streaming_vlm_mlx.train.workers import open_worker_pool


def open_records(paths: Sequence[str], report: Report) -> list[RecordFile]:
    """Open JSONL files of records; `report` receives a message for each file with skipped lines.

    Raises:
        SvmError: there are no files, or one of them cannot be used.
    """
    if not paths:
        raise SvmError("there are no training records: name a file in data.records, or with --records.")
    files = [RecordFile.open(Path(path)) for path in paths]
    for file in files:
        if file.skipped_count:
            report(f"{file.skipped_count} lines of {file.path} were skipped, the first: {file.skipped[0]}")
    return files


def make_windows(files: Sequence[RecordFile], config: TrainConfig) -> Windows:
    """Cut the records of `files` into the windows of `config`.

    Raises:
        SvmError: the stride does not fit the windows' length.
    """
    return Windows(files, config.data.seconds, config.data.stride, config.data.drop_context_prob)


def with_pixels_of(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return `config` with the pixel settings of the checkpoint in `folder` where its own are the defaults.

    Raises:
        SvmError: the checkpoint's settings cannot be read.
    """
    default = PixelConfig().to_dict()
    chosen = {name: value for name, value in config.data.pixels.to_dict().items() if value != default[name]}
    pixels = read_stream_config(folder).pixels.merged(chosen)
    return replace(config, data=replace(config.data, pixels=pixels))


def make_builder(checkpoint: Checkpoint, config: TrainConfig) -> SampleBuilder:
    """Return the builder of samples in the tokens of `checkpoint`.

    Raises:
        SvmError: the run's patches are not of the size that the model takes.
    """
    vision = checkpoint.model.config.vision_config
    if vision is not None:
        config.data.pixels.check_fits(vision)
    data, stream = config.data, StreamConfig().merged(config.stream)
    sample = SampleConfig(
        text_sink=data.text_sink,
        text_sliding_window=data.text_sliding_window,
        tokens_per_second=vision.tokens_per_second if vision else 0.0,
        all_text=data.all_text,
        pixels=data.pixels,
        scratchpad=stream.scratchpad,
        scratch_round=stream.scratch_round,
        features_width=vision.features_width if vision and config.keep_features else None,
        has_stamps=family_of(checkpoint.model.config).HAS_STAMPS,
    )
    return SampleBuilder(checkpoint.tokenizer, sample, checkpoint.vocabulary)


def train(
    config: TrainConfig,
    out: Path,
    resume: bool,
    dtype: mx.Dtype,
    cores: int,
    callbacks: Callbacks,
    ranks: Ranks = ALONE,
    limit: int | None = None,
) -> Progress:
    """Train with `config` in the folder `out`; return the state of the run at its end.

    Args:
        config: the run's settings.
        out: the run's folder, see `checkpointing`.
        resume: continue from the newest checkpoint in `out`, with the same losses as an unbroken run.
        dtype: what to compute in; trained weights are float32.
        cores: the number of microbatches that can be computed at once: the cores of a CPU, 1 for a GPU.
        callbacks: receives events, and says when to stop.
        ranks: the processes of a distributed run. Each trains on batches of its own. The main rank writes into `out`,
            which all ranks have to read in order to resume.
        limit: the memory limit in bytes of the model and its optimizer; None for the limit of this machine.

    Raises:
        SvmError: settings, records, checkpoint or folder cannot be used, another run uses the folder, or another rank
            exited.
    """
    folder = RunFolder(out)
    with folder.lock() if ranks.is_main else nullcontext():
        return _train(config, folder, resume, dtype, cores, callbacks, ranks, limit)


def _train(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool,
    dtype: mx.Dtype,
    cores: int,
    callbacks: Callbacks,
    ranks: Ranks,
    limit: int | None,
) -> Progress:
    """Train as `train` does, in a folder that is locked."""
    if not resume:
        folder.check_new()
    checkpoint_folder = folder.newest() if resume else None
    if checkpoint_folder is not None:
        config = with_pixels_of(config, checkpoint_folder)
    elif config.model.checkpoint is not None:
        config = with_pixels_of(config, resolve_checkpoint(config.model.checkpoint))
    report = log_limit(lambda text: callbacks.report(Note(text)))
    config, start = (config, None) if checkpoint_folder and config.lora else with_adapter(config, report)
    files = open_records(config.data.records, report)
    windows = make_windows(files, config)
    progress = (
        read_progress(checkpoint_folder) if checkpoint_folder else Progress(seed=config.seed, windows=len(windows))
    )
    _check_same(progress, config, len(windows), folder.path)
    if ranks.is_main:
        folder.recover(progress)
    if resume and checkpoint_folder is None:
        report(f"{folder.path} holds no checkpoint yet; the run starts from step 1.")
    callbacks.report(Stage("loading the model", 0, callbacks.clock()))
    # A step has no more microbatches than rows.
    cores = min(cores, config.data.batches.batch_size * config.optimizer.accumulate)
    if checkpoint_folder and config.lora is None:
        checkpoint = replace(load_to_train(checkpoint_folder, config, dtype, limit), stream=make_stream(config, files))
    else:
        checkpoint = load_initial_checkpoint(config, files, dtype, limit, start)
    spec = WorkerSpec(
        checkpoint.model.config, config.auxiliary.heads, config.freeze, config.grad_checkpoint, config.lora, config.seed
    )
    state = _make_state(config, checkpoint, spec, checkpoint_folder or start, cores, report)
    builder = make_builder(state.checkpoint, config)
    order = Batches(windows, builder, config.data.batches, config.seed, ranks.rank, ranks.size, report)
    train_set, validation_set = Dataset(windows, order), _validation_set(config, builder, report, ranks)
    _check_ranks(ranks, progress, state.train_model)
    callbacks = _with_metrics(config, folder, progress.step, callbacks) if ranks.is_main else callbacks
    callbacks.report(Started(progress.step, config.schedule.steps, len(windows), _count(state.train_model)))
    frame_pool = _make_frame_pool(config, checkpoint.model)
    with frame_pool as frames, open_worker_pool(state.train_model, spec, dtype, cores, ranks) as pool:
        trainer = Trainer(config, folder, state, pool, train_set, validation_set, progress, callbacks)
        trainer.run(frames)
    return trainer.progress


def _make_frame_pool(config: TrainConfig, model: VisionLanguageModel) -> FramePool:
    """Return the pool that decodes the run's frames, and encodes them with `keep_features`.

    Raises:
        SvmError: `keep_features` is set and the model has no vision tower.
    """
    batches, tower = config.data.batches, _tower(model) if config.keep_features else None
    return FramePool(batches.workers, int(batches.cache_mb * 1e6), tower)


def _make_state(
    config: TrainConfig,
    checkpoint: Checkpoint,
    spec: WorkerSpec,
    start: Path | AdapterInfo | None,
    cores: int,
    report: Report,
) -> TrainState:
    """Return the model with its heads and its optimizer: new, with an adapter, or restored from a run's checkpoint."""
    if spec.heads and spec.model.vision_config is None:
        raise SvmError("auxiliary.heads: the model has no vision tower.")
    train_model = make_train_model(checkpoint.model, spec)
    if not _count(train_model)[0]:
        raise SvmError("freeze: no trainable parameter is left.")
    if train_model.vision_heads is not None:
        _init_heads(train_model.vision_heads, config, report)
    adapter = _make_adapter(config) if config.lora else None
    if isinstance(start, AdapterInfo):
        restore(start, checkpoint.model)
    elif adapter and start:
        continue_adapter(start, adapter, checkpoint.model)
    optimizer = make_optimizer(config.optimizer)
    optimizer.init(train_model.trainable_parameters())
    if isinstance(start, Path):
        load_training(start, optimizer, train_model.vision_heads)
    mx.eval(train_model.parameters(), optimizer.state)
    pixels = config.data.pixels
    targets = TargetReader(spec.heads, pixels.temporal_patch_size, pixels.merge_size)
    return TrainState(
        checkpoint, train_model, optimizer, MicrobatchBuilder(checkpoint, targets, cores, report), adapter
    )


def _tower(model: VisionLanguageModel) -> Tower:
    """Return the vision tower of `model` in a form that other processes can load.

    Raises:
        SvmError: the model has no vision tower.
    """
    if model.config.vision_config is None:
        raise SvmError("keep_features: the model has no vision tower.")
    return Tower(model.config, dict(as_numpy(flatten(model.visual.parameters()))))


def _make_adapter(config: TrainConfig) -> Adapter:
    """Return the description of the run's adapter and its base checkpoint."""
    assert config.lora
    assert config.model.checkpoint
    base = resolve_checkpoint(config.model.checkpoint)
    return Adapter(config.lora, config.model.checkpoint, fingerprint(base))


def _init_heads(heads: VisionHeads, config: TrainConfig, report: Report) -> None:
    """Initialize `heads` from the checkpoint that the run starts from, and at random where it has no matching head."""
    seed_weights(heads, config.seed)
    if config.model.checkpoint is None:
        return
    missing = load_heads(resolve_checkpoint(config.model.checkpoint), heads)
    names = sorted({name.split(".")[1] for name in missing})
    if names:
        report(f"{config.model.checkpoint} has no weights for vision heads that start at random: {', '.join(names)}")


def _validation_set(config: TrainConfig, builder: SampleBuilder, report: Report, ranks: Ranks) -> Dataset | None:
    if not config.validation.records:
        return None
    windows = make_windows(open_records(config.validation.records, report), config).share(ranks.rank, ranks.size)
    return Dataset(windows, Batches(windows, builder, config.data.batches, config.seed, report=report))


def _check_ranks(ranks: Ranks, progress: Progress, train_model: TrainModel) -> None:
    """Check that all ranks start at the same step with the same windows and weights.

    Raises:
        SvmError: names what differs.
    """
    if ranks.size == 1:
        return
    arrays = flatten(train_model.parameters()).values()
    sample = b"".join(np.array(array.reshape(-1)[:64].astype(mx.float32)).tobytes() for array in arrays)
    step, windows, trainable = progress.step, progress.windows, _count(train_model)[0]
    numbers = {"step": step, "windows": windows, "trainable weights": trainable, "weights": zlib.crc32(sample)}
    ranks.check_same(numbers)


def _with_metrics(config: TrainConfig, folder: RunFolder, step: int, callbacks: Callbacks) -> Callbacks:
    """Write the settings; return `callbacks` that also write metrics and samples, and plot the losses."""
    write_text(folder.settings, yaml.safe_dump(config.to_dict(), sort_keys=False))
    metrics, report = MetricsFile(folder.metrics, folder.samples, step), callbacks.report
    can_draw = importlib.util.find_spec("matplotlib") is not None

    def write_and_report(event: Event) -> None:
        metrics.add(event)
        report(event)
        if isinstance(event, CheckpointSaved) and can_draw:
            plot_losses(folder.metrics, folder.plot)
        elif isinstance(event, Started) and not can_draw:
            report(Note("matplotlib is not installed, so loss.png is not drawn: pip install 'svm-tui[plot]'."))

    return replace(callbacks, report=write_and_report)


def _check_same(progress: Progress, config: TrainConfig, windows: int, out: Path) -> None:
    """Check that a resumed run has the windows and the seed that it was started with."""
    if progress.windows != windows:
        raise SvmError(
            f"{out} was trained on {progress.windows} windows, now there are {windows}; resume with the same records, "
            f"or start a new run from its checkpoint: --ckpt {out} and another --out."
        )
    if progress.seed != config.seed:
        raise SvmError(
            f"{out} was trained with seed {progress.seed}, not {config.seed}; resume with seed {progress.seed}."
        )


def _count(train_model: TrainModel) -> tuple[int, int]:
    """Return the number of trainable weights, and of all weights."""
    trees = train_model.trainable_parameters(), train_model.parameters()
    trainable, total = (tree_reduce(lambda count, array: count + array.size, tree, 0) for tree in trees)
    return trainable, total
