"""Checkpoint folders: ``config.json``, safetensors, the tokenizer's files and ``stream.yaml``."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import mlx.core as mx
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.config import Family, ModelConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.locate import STREAM, read_stream_config
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary, Vocabulary

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, ready to run; `stream` are the settings that it was trained for."""

    model: VisionLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    stream: StreamConfig


def read_model_config(folder: Path) -> ModelConfig:
    """Return the settings in `folder`'s ``config.json``.

    Raises:
        SvmError: the file is absent, is not JSON, or is of a model that we do not take.
    """
    values = _read_json(folder / CONFIG)
    family = values.get("model_type")
    if family not in get_args(Family):
        families = " and ".join(map(repr, get_args(Family)))
        raise SvmError(f"{folder} holds a model of type {family!r}; this program runs {families}.")
    return ModelConfig.from_dict(values)


def load_checkpoint(folder: Path, dtype: mx.Dtype, progress: Progress = lambda *_: None) -> Checkpoint:
    """Read the checkpoint in `folder`, its weights as `dtype`.

    Args:
        folder: where the files are.
        dtype: what the model computes in.
        progress: told a stage, and how many of how many steps of it are done.

    Raises:
        SvmError: a file is absent, damaged or a pickle, or its names and shapes do not fit ``config.json``; all found
            out before a weight is read.
    """
    config = read_model_config(folder)
    shards = find_shards(folder)
    model = VisionLanguageModel(config)
    check_names(model, shards, folder)
    tokenizer = Tokenizer.load(folder)
    vocabulary = _read_vocabulary(folder, config, tokenizer)
    for number, shard in enumerate(shards):
        progress(shard.name, number, len(shards))
        model.load_weights([(hub_name(n), a.astype(dtype)) for n, a in _read_shard(shard).items()], strict=False)
        mx.eval(model.parameters())
    progress("weights", len(shards), len(shards))
    return Checkpoint(model, tokenizer, vocabulary, read_stream_config(folder))


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
        config = checkpoint.model.config
        write_text(part / CONFIG, json.dumps(config.to_dict(), indent=1) + "\n")
        write_text(part / STREAM, yaml.safe_dump(checkpoint.stream.to_dict(), sort_keys=False))
        write_text(part / "tokenizer.json", checkpoint.tokenizer.backend.to_str())
        if isinstance(checkpoint.vocabulary, CompactVocabulary) and config.vocabulary:
            checkpoint.vocabulary.save(part / config.vocabulary)
        try:
            mx.save_safetensors(str(part / WEIGHTS), dict(checkpoint.model.named_arrays()), {"format": "mlx"})
        except RuntimeError as error:
            raise SvmError(f"{folder} can not be written: {error}") from error
        extra(part)


def hub_name(name: str) -> str:
    """Return the name of a parameter in the first hub folders: ``visual.…``, ``model.…``, ``lm_head.weight``."""
    for new, old in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def find_shards(folder: Path) -> list[Path]:
    """Return the safetensors files that hold the weights.

    Raises:
        SvmError: there are none, one that the index names is absent, or there are only pickles.
    """
    if (folder / INDEX).is_file():
        listed = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise SvmError(f"{folder / INDEX} has no 'weight_map'; fetch the checkpoint again.")
        names = sorted({str(name) for name in listed.values()})
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise SvmError(f"{folder} lacks {missing[0]}, which {INDEX} names; fetch the checkpoint again.")
        return [folder / n for n in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
    if pickles:
        raise SvmError(f"{folder / pickles[0]} is a pickle, which can run code; only safetensors are read.")
    raise SvmError(f"{folder} holds neither {WEIGHTS} nor {INDEX}.")


def check_names(model: VisionLanguageModel, shards: list[Path], folder: Path) -> None:
    """Compare names and shapes in the shards' headers with what `model` wants.

    Raises:
        SvmError: names the first tensor that is absent, unknown or of another shape, or the damaged file.
    """
    wanted = {name: array.shape for name, array in model.named_arrays()}
    found = {hub_name(name): shape for shard in shards for name, shape in _shapes(shard)}
    for name in sorted(wanted.keys() - found.keys()):
        raise SvmError(f"{folder} lacks the tensor {name}, which its {CONFIG} calls for.")
    for name, shape in sorted(found.items()):
        if name not in wanted:
            raise SvmError(f"{folder} holds the tensor {name}, which its {CONFIG} has no place for.")
        if shape != wanted[name]:
            raise SvmError(f"{folder}: {name} is {list(shape)}, its {CONFIG} calls for {list(wanted[name])}.")


def _shapes(shard: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes from a shard's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, tuple(file.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise SvmError(f"{shard} is truncated or no safetensors file ({error}); fetch it again.") from error


def _read_shard(shard: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(shard))
    except RuntimeError as error:
        raise SvmError(f"{shard} can not be read: {error}.") from error
    assert isinstance(loaded, dict)
    return loaded


def _read_vocabulary(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> Vocabulary:
    rows = config.text_config.vocab_size
    if config.vocabulary is None:
        if rows < len(tokenizer):
            raise SvmError(f"{folder} has {rows} rows for its tokenizer's {len(tokenizer)} ids; its {CONFIG} is off.")
        return FullVocabulary(rows)
    vocabulary = CompactVocabulary.load(folder / config.vocabulary, tokenizer)
    if len(vocabulary) != rows:
        raise SvmError(f"{folder / config.vocabulary} lists {len(vocabulary)} ids, {CONFIG} says {rows}.")
    return vocabulary


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SvmError(f"{path} can not be read: {error.strerror}.") from error
    except ValueError as error:
        raise SvmError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise SvmError(f"{path} holds no settings.")
    return values
