"""Loads and saves adapter folders: ``adapters.safetensors`` and ``adapter_config.json``, as in mlx-lm.

The config also names the checkpoint that the adapter was trained on and holds its fingerprint: an adapter works with
the weights that it was trained on, and no others.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import mlx.nn as nn
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoint_files import CONFIG, find_shards, read_json
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import Checkpoint, load_weights, open_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig, adapted_layers, adapter_arrays, attach, fuse
from streaming_vlm_mlx.models.weights import Stored, sanitize_name
from streaming_vlm_mlx.stream_settings import STREAM, read_stream_config

ARRAYS, SETTINGS = "adapters.safetensors", "adapter_config.json"
# Bytes at each end of a tensor that go into a fingerprint. Training changes every number, so a few are enough.
_ENDS = 128


@dataclass(frozen=True)
class Adapter(FromDict):
    """The contents of ``adapter_config.json``.

    Attributes:
        lora: which layers are adapted, and how.
        base: name of the checkpoint that the adapter was trained on.
        fingerprint: fingerprint of that checkpoint's weights.
        trained_parameters: how many numbers the adapter holds.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)
    base: str = ""
    fingerprint: str = ""
    trained_parameters: int = 0


def fingerprint(folder: Path) -> str:
    """Return a fingerprint of the weights of the checkpoint in `folder`, from a few bytes of each tensor.

    Raises:
        SvmError: the folder has no weights, or a file is damaged.
    """
    ends = sorted(end for shard in find_shards(folder) for end in _ends(shard))
    return hashlib.sha256(b"".join(part for end in ends for part in end)).hexdigest()[:32]


def _ends(shard: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the description of each tensor and its first and last bytes, located through the header."""
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = (8 + length + offset for offset in entry["data_offsets"])
                    what = f"{sanitize_name(name)} {entry['dtype']} {entry['shape']}\n"
                    yield what.encode(), _read(file, start, end)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise SvmError(f"{shard} is truncated or not a safetensors file ({error}); download it again.") from error


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    first = file.read(min(_ENDS, end - start))
    file.seek(max(start, end - _ENDS))
    return first + file.read(min(_ENDS, end - start))


def save_adapter(
    folder: Path, adapter: Adapter, checkpoint: Checkpoint, extra: Callable[[Path], None] = lambda _: None
) -> None:
    """Write the adapter of a model to `folder` atomically; an existing folder is replaced.

    Args:
        folder: the folder to write.
        adapter: the config; its `trained_parameters` are counted here.
        checkpoint: the model with the adapter attached, and the stream settings.
        extra: adds further files to the folder before it is moved into place.

    Raises:
        SvmError: the folder cannot be written.
    """
    arrays = _arrays(checkpoint.model)
    counted = replace(adapter, trained_parameters=sum(array.size for array in arrays.values()))
    with replacing_folder(folder) as part:
        write_text(part / SETTINGS, json.dumps(counted.to_dict(), indent=1) + "\n")
        write_text(part / STREAM, yaml.safe_dump(checkpoint.stream.to_dict(), sort_keys=False))
        try:
            mx.save_safetensors(str(part / ARRAYS), arrays, {"format": "mlx"})
        except RuntimeError as error:
            raise SvmError(f"{folder} cannot be written: {error}") from error
        extra(part)


def read_adapter(folder: Path) -> Adapter:
    """Return the contents of ``adapter_config.json`` in `folder`.

    Raises:
        SvmError: the file is missing, damaged, or was not written by this program.
    """
    values: dict[str, Any] = read_json(folder / SETTINGS)
    if "lora" not in values or "fingerprint" not in values:
        raise SvmError(
            f"{folder / SETTINGS} does not say what it was trained on; use an adapter of 'svm-tui train --lora'."
        )
    return Adapter.from_dict(values)


def check_base(folder: Path, adapter: Adapter, base: Path) -> None:
    """Check that the adapter in `folder` was trained on the weights in `base`.

    Raises:
        SvmError: it was trained on other weights.
    """
    if fingerprint(base) != adapter.fingerprint:
        raise SvmError(f"{folder} is an adapter of {adapter.base}, whose weights are not those of {base}.")


def load_adapter(folder: Path, adapter: Adapter, model: nn.Module, dtype: mx.Dtype) -> None:
    """Attach the adapter in `folder` to `model`, with its parameters cast to `dtype`.

    Raises:
        SvmError: the arrays are missing or damaged, or do not fit `adapter`.
    """
    attach(model, adapter.lora)
    _check_count(folder, adapter, model)
    _restore(folder, model, dtype)


def continue_adapter(folder: Path, adapter: Adapter, model: nn.Module) -> None:
    """Load the adapter in `folder` into the adapter layers of `model`, in float32, to continue its training.

    Raises:
        SvmError: the layers or the base checkpoint differ from `adapter`, or a file is damaged.
    """
    saved = read_adapter(folder)
    if saved.fingerprint != adapter.fingerprint:
        raise SvmError(f"{folder} is an adapter of {saved.base}, whose weights are not those of {adapter.base}.")
    _check_count(folder, saved, model)
    if saved.lora != adapter.lora:
        raise SvmError(f"{folder} was trained with {saved.lora}; continue with the same settings of lora.")
    _restore(folder, model, mx.float32)


def _arrays(model: nn.Module) -> dict[str, mx.array]:
    return {f"{name}.{key}": a for name, layer in adapted_layers(model) for key, a in adapter_arrays(layer).items()}


def _check_count(folder: Path, adapter: Adapter, model: nn.Module) -> None:
    count = sum(array.size for array in _arrays(model).values())
    if count != adapter.trained_parameters:
        raise SvmError(
            f"{folder / SETTINGS} says {adapter.trained_parameters:,} trained parameters, but the adapted layers of "
            f"this model have {count:,}; use the checkpoint and the settings of its training."
        )


def _restore(folder: Path, model: nn.Module, dtype: mx.Dtype) -> None:
    path = folder / ARRAYS
    try:
        loaded = mx.load(str(path))
        assert isinstance(loaded, dict)
        mx.eval(loaded)
    except (RuntimeError, OSError) as error:
        raise SvmError(f"{path} cannot be read: {error}.") from error
    wanted = _arrays(model)
    for name in sorted(wanted.keys() | loaded.keys()):
        if name not in wanted or name not in loaded or loaded[name].shape != wanted[name].shape:
            raise SvmError(f"{path}: {name} does not fit {SETTINGS}; download the adapter again.")
    model.load_weights([(name, array.astype(dtype)) for name, array in loaded.items()], strict=False)
    mx.eval(model.parameters())


_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def fuse_checkpoint(base: Path, adapter: Path, out: Path) -> None:
    """Fuse the adapter in `adapter` into the checkpoint in `base` and write the result to `out`, in the base's dtype.

    Raises:
        SvmError: `out` holds a checkpoint, the adapter belongs to another base, or a file cannot be used.
    """
    if (out / CONFIG).exists():
        raise SvmError(f"{out} already holds a checkpoint; choose another folder with --out.")
    described = read_adapter(adapter)
    check_base(adapter, described, base)
    info = open_checkpoint(base)
    checkpoint = load_weights(info, _dtype(info.tensors))
    load_adapter(adapter, described, checkpoint.model, mx.float32)
    fuse(checkpoint.model)
    stream = read_stream_config(adapter) if (adapter / STREAM).is_file() else checkpoint.stream
    save_checkpoint(out, replace(checkpoint, stream=stream))


def _dtype(tensors: dict[str, Stored]) -> mx.Dtype:
    """Return the dtype of the stored weights: that of the last norm, which is never quantized."""
    return _DTYPES[tensors["model.norm.weight"].dtype]
