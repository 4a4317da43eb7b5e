"""What a run begins with: its model, its words, its windows."""

import importlib.util
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml
from mlx.utils import tree_reduce

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.collator import Batches
from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig, Windows
from streaming_vlm_mlx.data.frame_workers import FramePool
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.errors import SvmError, log_limit
from streaming_vlm_mlx.hub import resolve_checkpoint
from streaming_vlm_mlx.models.adapters import Adapter, continue_adapter, fingerprint
from streaming_vlm_mlx.models.loading import Checkpoint, load_weights, open_checkpoint
from streaming_vlm_mlx.models.memory_budget import check_trains, memory_limit
from streaming_vlm_mlx.models.presets import seed_weights, tiny_config
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import build, count_ids
from streaming_vlm_mlx.train.checkpointing import Progress, RunFolder, load_training, read_progress, take_heads
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.gradients import WorkerSpec, as_numpy, flatten, make_train_model
from streaming_vlm_mlx.train.loss import TrainModel
from streaming_vlm_mlx.train.metrics import Event, MetricsFile, Note, Saved, Started, plot_losses
from streaming_vlm_mlx.train.optim import freeze, make_optimizer
from streaming_vlm_mlx.train.trainer import Callbacks, Dataset, MicrobatchBuilder, Trainer, TrainState
from streaming_vlm_mlx.train.vision_heads import TargetReader, VisionHeads
from streaming_vlm_mlx.train.worker_process import Tower
from streaming_vlm_mlx.train.workers import open_worker_pool

# Enough to know what is said; a vocabulary needs no more.
_COUNTED_RECORDS = 20_000

Report = Callable[[str], None]


def open_records(paths: Sequence[str], report: Report) -> list[RecordFile]:
    """Open files of records, and tell `report` of lines that are left out.

    Raises:
        SvmError: there are no files, or one cannot be used.
    """
    if not paths:
        raise SvmError("there is nothing to learn from: name a file of records in data.records, or with --records.")
    files = [RecordFile.open(Path(path)) for path in paths]
    for file in files:
        if file.skipped_count:
            report(f"{file.skipped_count} records of {file.path} are left out, the first: {file.skipped[0]}")
    return files


def make_windows(files: Sequence[RecordFile], config: TrainConfig) -> Windows:
    """Cut records into the windows that `config` asks for.

    Raises:
        SvmError: windows of that length and stride make no sense.
    """
    return Windows(files, config.data.seconds, config.data.stride, config.data.drop_context_prob)


def make_builder(checkpoint: Checkpoint, config: TrainConfig) -> SampleBuilder:
    """Return what writes windows in the model's ids."""
    vision = checkpoint.model.config.vision_config
    data, stream = config.data, StreamConfig().merged(config.stream)
    sample = SampleConfig(
        text_sink=data.text_sink,
        text_sliding_window=data.text_sliding_window,
        tokens_per_second=vision.tokens_per_second if vision else 0.0,
        all_text=data.all_text,
        pixels=data.pixels,
        scratchpad=stream.scratchpad,
        scratch_round=stream.scratch_round,
        features_width=vision.out_hidden_size if vision and config.keep_features else None,
    )
    return SampleBuilder(checkpoint.tokenizer, sample, checkpoint.vocabulary)


def load_initial(
    config: TrainConfig, files: Sequence[RecordFile], dtype: mx.Dtype = mx.float32, limit: int | None = None
) -> Checkpoint:
    """Return the model that the run begins with, in float32; one that stands still in `dtype`.

    Args:
        config: the run's settings.
        files: its records.
        dtype: what it computes in.
        limit: as `load_to_train` takes it.

    Raises:
        SvmError: the checkpoint cannot be read or trained, or the sizes do not fit one another.
    """
    stream = make_stream(config, files)
    if config.start.checkpoint is not None:
        return replace(load_to_train(resolve_checkpoint(config.start.checkpoint), config, dtype, limit), stream=stream)
    if config.lora is not None:
        raise SvmError("lora: there is no checkpoint to adapt; name one in start.checkpoint, or with --ckpt.")
    tokenizer = Tokenizer.load()
    vocabulary = build(tokenizer, count_ids(tokenizer, _texts(files)), config.start.vocabulary)
    sizes = tiny_config(len(vocabulary)).merged(config.start.sizes)
    if sizes.text_config.vocab_size != len(vocabulary):
        raise SvmError("start.sizes: vocab_size follows from start.vocabulary; leave it out.")
    model = VisionLanguageModel(sizes)
    seed_weights(model, config.start.seed)
    return Checkpoint(model, tokenizer, vocabulary, stream)


def load_to_train(folder: Path, config: TrainConfig, dtype: mx.Dtype, limit: int | None = None) -> Checkpoint:
    """Read the checkpoint in `folder`, its weights in float32; in `dtype` where adapters alone move.

    Args:
        folder: the checkpoint's.
        config: the run's settings.
        dtype: what the run computes in.
        limit: bytes that the run may take at the most; what is sure to take more is refused before a weight is read.
            None for what this machine has for it.

    Raises:
        SvmError: the checkpoint cannot be read, is quantised though its weights shall move, or takes too much memory.
    """
    info = open_checkpoint(folder)
    if config.lora is None and info.config.quantization is not None:
        raise SvmError(
            f"{folder} is quantised, and packed weights do not move; train an adapter beside them with --lora, "
            "or begin with the plain model."
        )
    held, moving = dtype, 0
    if config.lora is None:
        model = VisionLanguageModel(info.config)
        held, moving = mx.float32, model.parameter_count() - freeze(model, config.freeze)
    check_trains(info.model, folder, held, moving, memory_limit() if limit is None else limit)
    return load_weights(info, held)


def make_stream(config: TrainConfig, files: Sequence[RecordFile]) -> StreamConfig:
    """Return the settings that the model will stream under: those that it learns in, `config.stream` laid over them."""
    fps = files[0][0].fps if files else StreamConfig().fps
    return replace(config.training_stream(), fps=fps).merged(config.stream)


def _texts(files: Sequence[RecordFile]) -> Iterator[str]:
    """Yield what the records say, of many records a sample that is spread evenly."""
    every = max(1, sum(len(file) for file in files) // _COUNTED_RECORDS)
    for file in files:
        for number in range(0, len(file), every):
            record = file[number]
            yield record.previous
            for turn in record.turns:
                yield turn.user_text
                yield turn.assistant_text


Log = Callable[[str], None]


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
    """Train under `config` into the folder `out`; return where the run stands when it ends.

    Args:
        config: the run's settings.
        out: see `state` for what lies in it afterwards.
        resume: go on from the newest saving in `out`, to the same losses as without the break.
        dtype: what to compute in; weights are float32.
        cores: shards that can be worked on side by side: a CPU's cores; 1 on a GPU.
        callbacks: the world around the run.
        ranks: the machines that take part. Each learns from batches of its own, and one of them writes into `out`,
            which all must see to go on with a run.
        limit: bytes that the model and its optimizer may take at the most; None for what this machine has for them.

    Raises:
        SvmError: settings, records, checkpoint or folder cannot be used, or a machine was lost.
    """
    folder = RunFolder(out)
    if not resume:
        folder.check_new()
    step_folder = folder.newest() if resume else None
    log = log_limit(lambda text: callbacks.report(Note(text)))
    files = open_records(config.data.records, log)
    windows = make_windows(files, config)
    progress = read_progress(step_folder) if step_folder else Progress(seed=config.seed, windows=len(windows))
    _check_same(progress, config, len(windows), out)
    if ranks.is_main:
        folder.recover(progress)
    if resume and step_folder is None:
        log(f"{out} was never saved; the run begins anew.")
    # No more than there are rows in an update.
    cores = min(cores, config.data.batches.batch_size * config.optimizer.accumulate)
    if step_folder and config.lora is None:
        checkpoint = replace(load_to_train(step_folder, config, dtype, limit), stream=make_stream(config, files))
    else:
        checkpoint = load_initial(config, files, dtype, limit)
    spec = WorkerSpec(
        checkpoint.model.config, config.auxiliary.heads, config.freeze, config.grad_checkpoint, config.lora, config.seed
    )
    state = _make_state(config, checkpoint, spec, step_folder, cores, log)
    builder = make_builder(state.checkpoint, config)
    order = Batches(windows, builder, config.data.batches, config.seed, ranks.rank, ranks.size, log)
    train_set, validation_set = Dataset(windows, order), _validation_set(config, builder, log, ranks)
    _check_ranks(ranks, progress, state.train_model)
    kept = _with_metrics(config, folder, progress.step, callbacks) if ranks.is_main else callbacks
    kept.report(Started(progress.step, config.schedule.steps, len(windows), _count(state.train_model)))
    frames_of = _make_frames(config, checkpoint.model)
    with frames_of as frames, open_worker_pool(state.train_model, spec, dtype, cores, ranks) as pool:
        trainer = Trainer(config, folder, state, pool, train_set, validation_set, progress, kept)
        trainer.run(frames)
    return trainer.progress


def _make_frames(config: TrainConfig, model: VisionLanguageModel) -> FramePool:
    """Return what decodes the run's frames, and looks at them if `config` says so.

    Raises:
        SvmError: there is no tower to look with.
    """
    batches, tower = config.data.batches, _tower(model) if config.keep_features else None
    return FramePool(batches.workers, int(batches.cache_mb * 1e6), tower)


def _make_state(
    config: TrainConfig, checkpoint: Checkpoint, spec: WorkerSpec, step_folder: Path | None, parts: int, log: Log
) -> TrainState:
    """Return the model with its heads and its optimizer, fresh or as `step_folder` has them."""
    if spec.heads and spec.model.vision_config is None:
        raise SvmError("auxiliary.heads: this model has no vision tower to teach.")
    train_model = make_train_model(checkpoint.model, spec)
    if not _count(train_model)[0]:
        raise SvmError("freeze: nothing is left that could move.")
    if train_model.vision_heads is not None:
        _init_heads(train_model.vision_heads, config, log)
    adapter = _describe(config) if config.lora else None
    if adapter and step_folder:
        continue_adapter(step_folder, adapter, checkpoint.model)
    optimizer = make_optimizer(config.optimizer)
    optimizer.init(train_model.trainable_parameters())
    if step_folder is not None:
        load_training(step_folder, optimizer, train_model.vision_heads)
    mx.eval(train_model.parameters(), optimizer.state)
    pixels = config.data.pixels
    targets = TargetReader(spec.heads, pixels.temporal_patch_size, pixels.merge_size)
    return TrainState(checkpoint, train_model, optimizer, MicrobatchBuilder(checkpoint, targets, parts, log), adapter)


def _tower(model: VisionLanguageModel) -> Tower:
    """Return the vision tower of `model`, to be used elsewhere.

    Raises:
        SvmError: it has none.
    """
    if model.config.vision_config is None:
        raise SvmError("keep_features: this model has no vision tower.")
    return Tower(model.config.vision_config, dict(as_numpy(flatten(model.visual.parameters()))))


def _describe(config: TrainConfig) -> Adapter:
    """Return what the run's adapter is, and what it belongs to."""
    assert config.lora
    assert config.start.checkpoint
    base = resolve_checkpoint(config.start.checkpoint)
    return Adapter(config.lora, config.start.checkpoint, fingerprint(base))


def _init_heads(heads: VisionHeads, config: TrainConfig, log: Log) -> None:
    """Give `heads` their first weights: those beside the checkpoint that the run begins with, else random ones."""
    seed_weights(heads, config.seed)
    if config.start.checkpoint is None:
        return
    missing = take_heads(resolve_checkpoint(config.start.checkpoint), heads)
    names = sorted({name.split(".")[1] for name in missing})
    if names:
        log(f"vision heads that begin at random, since {config.start.checkpoint} has none that fit: {', '.join(names)}")


def _validation_set(config: TrainConfig, builder: SampleBuilder, log: Log, ranks: Ranks) -> Dataset | None:
    if not config.validation.records:
        return None
    windows = make_windows(open_records(config.validation.records, log), config).share(ranks.rank, ranks.size)
    return Dataset(windows, Batches(windows, builder, config.data.batches, config.seed, report=log))


def _check_ranks(ranks: Ranks, progress: Progress, train_model: TrainModel) -> None:
    """Refuse machines that stand at different places, or begin with different weights.

    Raises:
        SvmError: says in what they differ.
    """
    if ranks.size == 1:
        return
    arrays = flatten(train_model.parameters()).values()
    sample = b"".join(np.array(array.reshape(-1)[:64].astype(mx.float32)).tobytes() for array in arrays)
    step, windows, moving = progress.step, progress.windows, _count(train_model)[0]
    ranks.check_same({"step": step, "windows": windows, "parameters that move": moving, "weights": zlib.crc32(sample)})


def _with_metrics(config: TrainConfig, folder: RunFolder, step: int, callbacks: Callbacks) -> Callbacks:
    """Write the settings; return `callbacks` that also write each metric, and plot them at each checkpoint."""
    write_text(folder.settings, yaml.safe_dump(config.to_dict(), sort_keys=False))
    metrics, report = MetricsFile(folder.metrics, step), callbacks.report
    can_draw = importlib.util.find_spec("matplotlib") is not None

    def both(event: Event) -> None:
        metrics.add(event)
        report(event)
        if isinstance(event, Saved) and can_draw:
            plot_losses(folder.metrics, folder.plot)
        elif isinstance(event, Started) and not can_draw:
            report(Note("the losses are not drawn: pip install 'svm-tui[plot]' for that."))

    return replace(callbacks, report=both)


def _check_same(progress: Progress, config: TrainConfig, windows: int, out: Path) -> None:
    """Refuse to go on in data that lie otherwise than when the run was saved."""
    if progress.windows != windows:
        raise SvmError(
            f"{out} was trained on {progress.windows} windows, now there are {windows}; go on with the same records, "
            f"or begin a new run with what it learnt: --ckpt {out} and another --out."
        )
    if progress.seed != config.seed:
        raise SvmError(f"{out} was trained with seed {progress.seed}, not {config.seed}; go on with that one.")


def _count(train_model: TrainModel) -> tuple[int, int]:
    """Return how many numbers move, and how many there are."""
    trees = train_model.trainable_parameters(), train_model.parameters()
    moving, every = (tree_reduce(lambda count, array: count + array.size, tree, 0) for tree in trees)
    return moving, every
