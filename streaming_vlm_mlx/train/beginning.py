"""What a run begins with: its model, its words, its windows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.checkpoints.budget import check_trains, memory_limit
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.record_file import RecordFile
from streaming_vlm_mlx.data.samples import SampleBuilder, SampleConfig
from streaming_vlm_mlx.data.windows import Windows
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.locate import locate
from streaming_vlm_mlx.model.checkpoint import Checkpoint, fill, open_checkpoint
from streaming_vlm_mlx.model.preset import tiny_config
from streaming_vlm_mlx.model.tiny import seed_weights
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary_build import build, count_ids
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.optimizer import freeze

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
