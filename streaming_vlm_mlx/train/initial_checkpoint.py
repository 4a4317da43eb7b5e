"""Loads what a training run starts from: a checkpoint, an adapter of one, or a model with random weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import resolve_adapter, resolve_checkpoint
from streaming_vlm_mlx.models.adapter_info import AdapterInfo
from streaming_vlm_mlx.models.adapters import adapter_notes, check_base, open_adapter
from streaming_vlm_mlx.models.loading import Checkpoint, load_weights, open_checkpoint
from streaming_vlm_mlx.models.memory_budget import check_trains, memory_limit
from streaming_vlm_mlx.models.sizes import seed_weights, tiny_config
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.taught_questions import choose_questions
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import build, count_ids
from streaming_vlm_mlx.train.config import TrainConfig
from streaming_vlm_mlx.train.optim import freeze

# Records that are read for a vocabulary, and for the questions in them.
_COUNTED_RECORDS = 20_000

Report = Callable[[str], None]


def load_initial_checkpoint(
    config: TrainConfig,
    files: Sequence[RecordFile],
    dtype: mx.Dtype = mx.float32,
    limit: int | None = None,
    adapter: AdapterInfo | None = None,
) -> Checkpoint:
    """Return the model that the run starts from: `model.checkpoint`, or a model with random weights.

    Args:
        config: the run's settings.
        files: the run's records, which decide the vocabulary of a model with random weights.
        dtype: the dtype of weights that LoRA freezes; all other weights are float32.
        limit: as in `load_to_train`.
        adapter: the adapter whose training goes on, or None.

    Raises:
        SvmError: the checkpoint cannot be read or trained, the adapter does not fit it, or the model's sizes do not
            fit one another.
    """
    stream = make_stream(config, files)
    if config.model.checkpoint is not None:
        base = resolve_checkpoint(config.model.checkpoint)
        loaded = load_to_train(base, config, dtype, limit, adapter)
        # A checkpoint that does not say what it was taught can answer more than the records ask.
        questions = choose_questions(_questions(files, stream), loaded.questions) if loaded.questions else ()
        return replace(loaded, stream=stream, questions=questions)
    if config.lora is not None:
        raise SvmError("lora needs a checkpoint to adapt; name one in model.checkpoint, or with --ckpt.")
    tokenizer = Tokenizer.load()
    vocabulary = build(tokenizer, count_ids(tokenizer, _texts(files)), config.model.vocab_size)
    sizes = tiny_config(len(vocabulary)).merged(config.model.config)
    if sizes.text_config.vocab_size != len(vocabulary):
        raise SvmError("model.config: text_config.vocab_size follows from model.vocab_size; remove it.")
    model = VisionLanguageModel(sizes)
    seed_weights(model, config.model.seed)
    return Checkpoint(model, tokenizer, vocabulary, stream, questions=choose_questions(_questions(files, stream)))


def with_adapter(config: TrainConfig, report: Report) -> tuple[TrainConfig, AdapterInfo | None]:
    """Return the adapter that the run goes on from, or None, and `config` with its settings of `lora`.

    Raises:
        SvmError: the adapter cannot be read or trained, or `config` has other settings of `lora`.
    """
    if config.model.adapter is None:
        return config, None
    adapter = open_adapter(resolve_adapter(Path(config.model.adapter)))
    for name in adapter.merged:
        raise SvmError(f"{adapter.folder} adapts {name}, which cannot be trained on; fuse it, and train a new adapter.")
    if config.lora not in (None, adapter.lora):
        raise SvmError(f"{adapter.folder} has settings of its own for lora; leave lora out, and --lora.")
    if config.model.checkpoint is not None:
        for note in adapter_notes(adapter.folder, resolve_checkpoint(config.model.checkpoint)):
            report(note)
    return replace(config, lora=adapter.lora), adapter


def load_to_train(
    folder: Path,
    config: TrainConfig,
    dtype: mx.Dtype,
    limit: int | None = None,
    adapter: AdapterInfo | None = None,
) -> Checkpoint:
    """Read the checkpoint in `folder`, with float32 weights; in `dtype` if only adapters are trained.

    Args:
        folder: the checkpoint's folder.
        config: the run's settings.
        dtype: what the run computes in.
        limit: the memory limit in bytes; a run that needs more is refused before a weight is read. None for the limit
            of this machine.
        adapter: an adapter that must fit the checkpoint, or None.

    Raises:
        SvmError: the checkpoint cannot be read, has quantized weights and no adapters, or needs too much memory.
    """
    info = open_checkpoint(folder)
    if adapter:
        check_base(adapter, info)
    if config.lora is None and info.config.quantization is not None:
        raise SvmError(
            f"{folder} is quantized, and quantized weights cannot be trained; train an adapter with --lora, or start "
            "from the model that is not quantized."
        )
    held, trainable = dtype, 0
    if config.lora is None:
        model = VisionLanguageModel(info.config)
        held, trainable = mx.float32, model.parameter_count() - freeze(model, config.freeze)
    check_trains(info.model, folder, held, trainable, memory_limit() if limit is None else limit)
    return load_weights(info, held)


def make_stream(config: TrainConfig, files: Sequence[RecordFile]) -> StreamConfig:
    """Return the checkpoint's stream settings: those of the training windows, overridden by `config.stream`."""
    fps = files[0][0].fps if files else StreamConfig().fps
    return replace(config.training_stream(), fps=fps).merged(config.stream)


def _texts(files: Sequence[RecordFile]) -> Iterator[str]:
    """Yield the texts of the records."""
    for record in _some(files):
        yield record.previous
        for turn in record.turns:
            yield turn.user_text
            yield turn.assistant_text


def _questions(files: Sequence[RecordFile], stream: StreamConfig) -> Iterator[str]:
    """Yield the viewers' questions in the records."""
    for record in _some(files):
        yield from (turn.question for turn in record.turns if turn.question != stream.scratchpad)


def _some(files: Sequence[RecordFile]) -> Iterator[StreamingRecord]:
    """Yield the records; of a large set, an evenly spaced subset."""
    every = max(1, sum(len(file) for file in files) // _COUNTED_RECORDS)
    for file in files:
        yield from (file[number] for number in range(0, len(file), every))
