"""Checkpoint folders: ``config.json``, safetensors, the tokenizer's files and ``stream.yaml``."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import mlx.core as mx
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.config import Family, ModelConfig, StreamConfig
from streaming_vlm_mlx.distributed.ranks import ALONE, Ranks
from streaming_vlm_mlx.distributed.split import check_splits, split_array, split_layers
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.locate import STREAM, read_stream_config
from streaming_vlm_mlx.model.hub import hub_values
from streaming_vlm_mlx.model.quantization import settle
from streaming_vlm_mlx.model.reading import Fit, ShardReader, check_names
from streaming_vlm_mlx.model.shards import WEIGHTS, Stored, list_tensors, read_json
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary, Vocabulary

CONFIG = "config.json"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, ready to run; `stream` are the settings that it was trained for."""

    model: VisionLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    stream: StreamConfig


@dataclass(frozen=True)
class Opened:
    """A folder that was looked at and found whole; no weight is read yet.

    Attributes:
        config: of the model that it makes.
        tensors: those that the model takes, by name.
        fit: how they become the model's.
        tokenizer: the folder's.
        vocabulary: the folder's.
    """

    config: ModelConfig
    tensors: dict[str, Stored]
    fit: Fit
    tokenizer: Tokenizer
    vocabulary: Vocabulary


def read_model_config(folder: Path) -> ModelConfig:
    """Return the settings in `folder`'s ``config.json``.

    Raises:
        SvmError: the file is absent, is not JSON, or is of a model that we do not take.
    """
    values = read_json(folder / CONFIG)
    family = values.get("model_type")
    if family not in get_args(Family):
        families = " and ".join(map(repr, get_args(Family)))
        raise SvmError(f"{folder} holds a model of type {family!r}; this program runs {families}.")
    foreign = values.get("quantization_config")
    if values.get("quantization") is None and isinstance(foreign, dict):
        raise SvmError(
            f"{folder} is quantised by {foreign.get('quant_method', 'a program')!r}, which MLX can not read; "
            "take the plain model and quantise it with 'svm-tui convert-ckpt --bits'."
        )
    return ModelConfig.from_dict(values)


def open_checkpoint(folder: Path) -> Opened:
    """Look at all but the weights of `folder`.

    Raises:
        SvmError: a file is absent, damaged or a pickle, or its names and shapes do not fit ``config.json``.
    """
    config = read_model_config(folder)
    tensors = list_tensors(folder)
    if config.text_config.tie_word_embeddings:
        # Some folders hold a head all the same; it is the embedding once more.
        tensors = {name: stored for name, stored in tensors.items() if not name.startswith("lm_head.")}
    tokenizer = Tokenizer.load(folder)
    vocabulary = _read_vocabulary(folder, config, tokenizer)
    rows = config.text_config.vocab_size
    spread = isinstance(vocabulary, CompactVocabulary) and len(vocabulary) < rows
    fit = Fit(rows, vocabulary.ids if spread and isinstance(vocabulary, CompactVocabulary) else None)
    config = replace(config, text_config=replace(config.text_config, vocab_size=len(vocabulary)))
    if config.quantization is not None:
        plain = VisionLanguageModel(replace(config, quantization=None))
        config = replace(config, quantization=settle(config.quantization, plain, tensors))
    check_names(VisionLanguageModel(config), tensors, fit, folder)
    return Opened(config, tensors, fit, tokenizer, vocabulary)


def load_checkpoint(folder: Path, dtype: mx.Dtype, progress: Progress = lambda *_: None) -> Checkpoint:
    """Read the checkpoint in `folder`, its weights as `dtype`, one by one, so that none is held twice.

    Args:
        folder: where the files are.
        dtype: what the model computes in; packed weights stay as they are.
        progress: told a stage, and how many of how many steps of it are done.

    Raises:
        SvmError: a file is absent, damaged or a pickle, or its names and shapes do not fit ``config.json``; all found
            out before a weight is read.
    """
    return fill(open_checkpoint(folder), folder, dtype, progress)


def fill(
    opened: Opened, folder: Path, dtype: mx.Dtype, progress: Progress = lambda *_: None, ranks: Ranks = ALONE
) -> Checkpoint:
    """Read the weights of the checkpoint in `folder` that was `opened`; as `load_checkpoint`.

    Of several machines, `ranks`, each keeps its part of the decoder.

    Raises:
        SvmError: a weight can not be read, or the model does not divide into so many parts.
    """
    check_splits(opened.config, ranks.size)
    model, reader = VisionLanguageModel(opened.config), ShardReader(opened.fit)
    wanted = dict(model.named_arrays())
    if ranks.size > 1:
        split_layers(model, ranks)
    shards: dict[Path, list[str]] = {}
    for name, stored in opened.tensors.items():
        shards.setdefault(stored.shard, []).append(name)
    for number, (shard, names) in enumerate(shards.items()):
        progress(shard.name, number, len(shards))
        for name in names:
            whole = reader.take(name, opened.tensors[name], wanted.pop(name).shape, dtype)
            array = split_array(name, whole, ranks)
            del whole
            model.load_weights([(name, array)], strict=False)
            mx.eval(array)
    mx.clear_cache()
    progress("weights", len(shards), len(shards))
    return Checkpoint(model, opened.tokenizer, opened.vocabulary, read_stream_config(folder))


def save_checkpoint(folder: Path, checkpoint: Checkpoint, extra: Callable[[Path], None] = lambda _: None) -> None:
    """Write `checkpoint` to `folder`, whole or not at all; a folder that stood there is replaced.

    Args:
        folder: where the checkpoint shall be.
        checkpoint: model, tokenizer, vocabulary and stream settings.
        extra: adds further files to the folder before it is moved into place.

    Raises:
        SvmError: the place can not be written.
    """
    with replacing_folder(folder) as part:
        config, dtype = checkpoint.model.config, str(checkpoint.model.dtype).rpartition(".")[2]
        write_text(part / CONFIG, json.dumps(hub_values(config, dtype), indent=1) + "\n")
        write_text(part / STREAM, yaml.safe_dump(checkpoint.stream.to_dict(), sort_keys=False))
        write_text(part / "tokenizer.json", checkpoint.tokenizer.backend.to_str())
        if isinstance(checkpoint.vocabulary, CompactVocabulary) and config.vocabulary:
            checkpoint.vocabulary.save(part / config.vocabulary)
        try:
            mx.save_safetensors(str(part / WEIGHTS), dict(checkpoint.model.named_arrays()), {"format": "mlx"})
        except RuntimeError as error:
            raise SvmError(f"{folder} can not be written: {error}") from error
        extra(part)


def _read_vocabulary(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> Vocabulary:
    rows = config.text_config.vocab_size
    if config.vocabulary is None:
        if rows < len(tokenizer):
            raise SvmError(f"{folder} has {rows} rows for its tokenizer's {len(tokenizer)} ids; its {CONFIG} is off.")
        return FullVocabulary(rows)
    vocabulary = CompactVocabulary.load(folder / config.vocabulary, tokenizer)
    # A model with few words may lie in a folder with a row for every id, for programs that know no such vocabulary.
    if len(vocabulary) != rows and not len(vocabulary) < len(tokenizer) <= rows:
        raise SvmError(f"{folder / config.vocabulary} lists {len(vocabulary)} ids, {CONFIG} says {rows}.")
    return vocabulary
