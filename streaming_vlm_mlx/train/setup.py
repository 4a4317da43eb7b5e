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
from streaming_vlm_mlx.errors import SvmError, limited
from streaming_vlm_mlx.hub import locate
from streaming_vlm_mlx.models.adapters import Adapter, continue_adapter, fingerprint
from streaming_vlm_mlx.models.loading import Checkpoint, fill, open_checkpoint
from streaming_vlm_mlx.models.memory_budget import check_trains, memory_limit
from streaming_vlm_mlx.models.presets import seed_weights, tiny_config
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import build, count_ids
from streaming_vlm_mlx.train.checkpointing import Progress, RunFolder, load_training, read_progress, take_heads
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.gradients import Blueprint, as_numpy, by_name, make_learner
from streaming_vlm_mlx.train.loss import Learner
from streaming_vlm_mlx.train.metrics import Began, Event, MetricsFile, Note, Saved, plot_losses
from streaming_vlm_mlx.train.optim import freeze, make_optimizer
from streaming_vlm_mlx.train.trainer import Dataset, Feeder, Trained, Trainer, Watch
from streaming_vlm_mlx.train.vision_heads import TargetReader, VisionHeads
from streaming_vlm_mlx.train.worker_process import Tower
from streaming_vlm_mlx.train.workers import hired

# Enough to know what is said; a vocabulary needs no more.
_COUNTED_RECORDS = 20_000

Report = Callable[[str], None]


def open_records(paths: Sequence[str], report: Report) -> list[RecordFile]:
    """Open files of records, and tell `report` of lines that are left out.

    Raises:
        SvmError: there are no files, or one can not be used.
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
    return Windows(files, config.data.seconds, config.data.stride, config.data.anew)


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


def begin(
    config: TrainConfig, files: Sequence[RecordFile], dtype: mx.Dtype = mx.float32, limit: int | None = None
) -> Checkpoint:
    """Return the model that the run begins with, in float32; one that stands still in `dtype`.

    Args:
        config: the run's settings.
        files: its records.
        dtype: what it computes in.
        limit: as `load_to_train` takes it.

    Raises:
        SvmError: the checkpoint can not be read or trained, or the sizes do not fit one another.
    """
    stream = make_stream(config, files)
    if config.start.checkpoint is not None:
        return replace(load_to_train(locate(config.start.checkpoint), config, dtype, limit), stream=stream)
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
        SvmError: the checkpoint can not be read, is quantised though its weights shall move, or takes too much memory.
    """
    opened = open_checkpoint(folder)
    if config.lora is None and opened.config.quantization is not None:
        raise SvmError(
            f"{folder} is quantised, and packed weights do not move; train an adapter beside them with --lora, "
            "or begin with the plain model."
        )
    held, moving = dtype, 0
    if config.lora is None:
        model = VisionLanguageModel(opened.config)
        held, moving = mx.float32, model.parameter_count() - freeze(model, config.freeze)
    check_trains(opened.config, folder, held, moving, memory_limit() if limit is None else limit)
    return fill(opened, folder, held)


def make_stream(config: TrainConfig, files: Sequence[RecordFile]) -> StreamConfig:
    """Return the settings that the model will stream under: those that it learns in, `config.stream` laid over them."""
    fps = files[0][0].fps if files else StreamConfig().fps
    return replace(config.learnt_stream(), fps=fps).merged(config.stream)


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


Say = Callable[[str], None]


def train(
    config: TrainConfig,
    out: Path,
    resume: bool,
    dtype: mx.Dtype,
    cores: int,
    watch: Watch,
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
        watch: the world around the run.
        ranks: the machines that take part. Each learns from batches of its own, and one of them writes into `out`,
            which all must see to go on with a run.
        limit: bytes that the model and its optimizer may take at the most; None for what this machine has for them.

    Raises:
        SvmError: settings, records, checkpoint or folder can not be used, or a machine was lost.
    """
    folder = RunFolder(out)
    if not resume:
        folder.check_new()
    saving = folder.newest() if resume else None
    say = limited(lambda text: watch.report(Note(text)))
    files = open_records(config.data.records, say)
    windows = make_windows(files, config)
    progress = read_progress(saving) if saving else Progress(seed=config.seed, windows=len(windows))
    _check_same(progress, config, len(windows), out)
    if ranks.leads:
        folder.mend(progress)
    if resume and saving is None:
        say(f"{out} was never saved; the run begins anew.")
    # No more than there are rows in an update.
    cores = min(cores, config.data.batches.batch_size * config.optimizer.accumulate)
    if saving and config.lora is None:
        checkpoint = replace(load_to_train(saving, config, dtype, limit), stream=make_stream(config, files))
    else:
        checkpoint = begin(config, files, dtype, limit)
    blueprint = Blueprint(
        checkpoint.model.config, config.auxiliary.heads, config.freeze, config.recompute, config.lora, config.seed
    )
    trained = _make_trained(config, checkpoint, blueprint, saving, cores, say)
    builder = make_builder(trained.checkpoint, config)
    order = Batches(windows, builder, config.data.batches, config.seed, ranks.rank, ranks.size, say)
    learnt, watched = Dataset(windows, order), _watched(config, builder, say, ranks)
    _check_ranks(ranks, progress, trained.learner)
    kept = _kept(config, folder, progress.step, watch) if ranks.leads else watch
    kept.report(Began(progress.step, config.schedule.steps, len(windows), _count(trained.learner)))
    frames_of = _make_frames(config, checkpoint.model)
    with frames_of as frames, hired(trained.learner, blueprint, dtype, cores, ranks) as crew:
        trainer = Trainer(config, folder, trained, crew, learnt, watched, progress, kept)
        trainer.run(frames)
    return trainer.progress


def _make_frames(config: TrainConfig, model: VisionLanguageModel) -> FramePool:
    """Return what decodes the run's frames, and looks at them if `config` says so.

    Raises:
        SvmError: there is no tower to look with.
    """
    batches, tower = config.data.batches, _tower(model) if config.keep_features else None
    return FramePool(batches.workers, int(batches.cache_mb * 1e6), tower)


def _make_trained(
    config: TrainConfig, checkpoint: Checkpoint, blueprint: Blueprint, saving: Path | None, parts: int, say: Say
) -> Trained:
    """Return the model with its heads and its optimizer, fresh or as `saving` has them."""
    if blueprint.heads and blueprint.model.vision_config is None:
        raise SvmError("auxiliary.heads: this model has no vision tower to teach.")
    learner = make_learner(checkpoint.model, blueprint)
    if not _count(learner)[0]:
        raise SvmError("freeze: nothing is left that could move.")
    if learner.vision_heads is not None:
        _begin_heads(learner.vision_heads, config, say)
    adapter = _describe(config) if config.lora else None
    if adapter and saving:
        continue_adapter(saving, adapter, checkpoint.model)
    optimizer = make_optimizer(config.optimizer)
    optimizer.init(learner.trainable_parameters())
    if saving is not None:
        load_training(saving, optimizer, learner.vision_heads)
    mx.eval(learner.parameters(), optimizer.state)
    pixels = config.data.pixels
    targets = TargetReader(blueprint.heads, pixels.temporal_patch_size, pixels.merge_size)
    return Trained(checkpoint, learner, optimizer, Feeder(checkpoint, targets, parts, say), adapter)


def _tower(model: VisionLanguageModel) -> Tower:
    """Return the vision tower of `model`, to be used elsewhere.

    Raises:
        SvmError: it has none.
    """
    if model.config.vision_config is None:
        raise SvmError("keep_features: this model has no vision tower.")
    return Tower(model.config.vision_config, dict(as_numpy(by_name(model.visual.parameters()))))


def _describe(config: TrainConfig) -> Adapter:
    """Return what the run's adapter is, and what it belongs to."""
    assert config.lora
    assert config.start.checkpoint
    base = locate(config.start.checkpoint)
    return Adapter(config.lora, config.start.checkpoint, fingerprint(base))


def _begin_heads(heads: VisionHeads, config: TrainConfig, say: Say) -> None:
    """Give `heads` their first weights: those beside the checkpoint that the run begins with, else random ones."""
    seed_weights(heads, config.seed)
    if config.start.checkpoint is None:
        return
    missing = take_heads(locate(config.start.checkpoint), heads)
    names = sorted({name.split(".")[1] for name in missing})
    if names:
        say(f"vision heads that begin at random, since {config.start.checkpoint} has none that fit: {', '.join(names)}")


def _watched(config: TrainConfig, builder: SampleBuilder, say: Say, ranks: Ranks) -> Dataset | None:
    if not config.evaluation.records:
        return None
    windows = make_windows(open_records(config.evaluation.records, say), config).share(ranks.rank, ranks.size)
    return Dataset(windows, Batches(windows, builder, config.data.batches, config.seed, report=say))


def _check_ranks(ranks: Ranks, progress: Progress, learner: Learner) -> None:
    """Refuse machines that stand at different places, or begin with different weights.

    Raises:
        SvmError: says in what they differ.
    """
    if ranks.size == 1:
        return
    arrays = by_name(learner.parameters()).values()
    sample = b"".join(np.array(array.reshape(-1)[:64].astype(mx.float32)).tobytes() for array in arrays)
    step, windows, moving = progress.step, progress.windows, _count(learner)[0]
    ranks.check_same({"step": step, "windows": windows, "parameters that move": moving, "weights": zlib.crc32(sample)})


def _kept(config: TrainConfig, folder: RunFolder, step: int, watch: Watch) -> Watch:
    """Write the settings; return `watch` with every figure written down first, and drawn whenever the run is saved."""
    write_text(folder.settings, yaml.safe_dump(config.to_dict(), sort_keys=False))
    metrics, report = MetricsFile(folder.metrics, step), watch.report
    can_draw = importlib.util.find_spec("matplotlib") is not None

    def both(event: Event) -> None:
        metrics.add(event)
        report(event)
        if isinstance(event, Saved) and can_draw:
            plot_losses(folder.metrics, folder.plot)
        elif isinstance(event, Began) and not can_draw:
            report(Note("the losses are not drawn: pip install 'svm-tui[plot]' for that."))

    return replace(watch, report=both)


def _check_same(progress: Progress, config: TrainConfig, windows: int, out: Path) -> None:
    """Refuse to go on in data that lie otherwise than when the run was saved."""
    if progress.windows != windows:
        raise SvmError(
            f"{out} was trained on {progress.windows} windows, now there are {windows}; go on with the same records, "
            f"or begin a new run with what it learnt: --ckpt {out} and another --out."
        )
    if progress.seed != config.seed:
        raise SvmError(f"{out} was trained with seed {progress.seed}, not {config.seed}; go on with that one.")


def _count(learner: Learner) -> tuple[int, int]:
    """Return how many numbers move, and how many there are."""
    trees = learner.trainable_parameters(), learner.parameters()
    moving, every = (tree_reduce(lambda count, array: count + array.size, tree, 0) for tree in trees)
    return moving, every
