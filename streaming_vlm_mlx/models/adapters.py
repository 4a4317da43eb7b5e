"""An adapter's folder: ``adapters.safetensors`` and ``adapter_config.json``, as mlx-lm names them.

Beside the adapter's settings the latter says which checkpoint it was trained on, by name and by fingerprint: on any
other one it means nothing.
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
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import STREAM, read_stream_config
from streaming_vlm_mlx.models.loading import CONFIG, Checkpoint, load_weights, open_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.lora import LoraConfig, adapted_layers, adapter_arrays, attach, fuse
from streaming_vlm_mlx.models.weights import Stored, canonical_name, find_shards, read_json

ARRAYS, SETTINGS = "adapters.safetensors", "adapter_config.json"
# Bytes of either end of a tensor that go into a fingerprint: training moves every number, so a few tell.
_ENDS = 128


@dataclass(frozen=True)
class Adapter(FromDict):
    """What an adapter is, and what it belongs to.

    Attributes:
        lora: its layers.
        base: the name of the checkpoint that it was trained on.
        fingerprint: of that checkpoint's weights.
        trained_parameters: how many numbers it holds.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)
    base: str = ""
    fingerprint: str = ""
    trained_parameters: int = 0


def fingerprint(folder: Path) -> str:
    """Return what tells the weights of the checkpoint in `folder` from others; a few bytes of each tensor are read.

    Raises:
        SvmError: there are no weights, or a file is damaged.
    """
    ends = sorted(end for shard in find_shards(folder) for end in _ends(shard))
    return hashlib.sha256(b"".join(part for end in ends for part in end)).hexdigest()[:32]


def _ends(shard: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield what each tensor is, and the first and last of its bytes, as the format's header tells where they lie."""
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = (8 + length + offset for offset in entry["data_offsets"])
                    what = f"{canonical_name(name)} {entry['dtype']} {entry['shape']}\n"
                    yield what.encode(), _read(file, start, end)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise SvmError(f"{shard} is truncated or no safetensors file ({error}); fetch it again.") from error


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    first = file.read(min(_ENDS, end - start))
    file.seek(max(start, end - _ENDS))
    return first + file.read(min(_ENDS, end - start))


def save_adapter(
    folder: Path, adapter: Adapter, checkpoint: Checkpoint, extra: Callable[[Path], None] = lambda _: None
) -> None:
    """Write the adapter of a model to `folder`, whole or not at all; a folder that stood there is replaced.

    Args:
        folder: where it shall be.
        adapter: what it is; its parameters are counted here.
        checkpoint: the model that it is attached to, and the settings to stream under.
        extra: adds further files to the folder before it is moved into place.

    Raises:
        SvmError: the place cannot be written.
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
    """Return what ``adapter_config.json`` in `folder` says.

    Raises:
        SvmError: it is absent, damaged, or not this program's.
    """
    values: dict[str, Any] = read_json(folder / SETTINGS)
    if "lora" not in values or "fingerprint" not in values:
        raise SvmError(f"{folder / SETTINGS} does not say what it was trained on; adapters of svm-tui train --lora do.")
    return Adapter.from_dict(values)


def check_base(folder: Path, adapter: Adapter, base: Path) -> None:
    """Refuse to put the adapter in `folder` beside the weights in `base` when it was trained on others.

    Raises:
        SvmError: names both.
    """
    if fingerprint(base) != adapter.fingerprint:
        raise SvmError(f"{folder} is an adapter of {adapter.base}, whose weights are not those of {base}.")


def load_adapter(folder: Path, adapter: Adapter, model: nn.Module, dtype: mx.Dtype) -> None:
    """Attach the adapter in `folder` to `model`, its numbers as `dtype`.

    Raises:
        SvmError: the arrays are absent or damaged, or are not what `adapter` says.
    """
    attach(model, adapter.lora)
    _check_count(folder, adapter, model)
    _restore(folder, model, dtype)


def continue_adapter(folder: Path, adapter: Adapter, model: nn.Module) -> None:
    """Give the adapters that are attached to `model` the values in `folder`, to go on with them, in float32.

    Raises:
        SvmError: they are other adapters than `adapter`, or of another base; or the files are damaged.
    """
    saved = read_adapter(folder)
    if saved.fingerprint != adapter.fingerprint:
        raise SvmError(f"{folder} is an adapter of {saved.base}, whose weights are not those of {adapter.base}.")
    _check_count(folder, saved, model)
    if saved.lora != adapter.lora:
        raise SvmError(f"{folder} was trained with {saved.lora}; go on with these settings of lora.")
    _restore(folder, model, mx.float32)


def _arrays(model: nn.Module) -> dict[str, mx.array]:
    return {f"{name}.{key}": a for name, layer in adapted_layers(model) for key, a in adapter_arrays(layer).items()}


def _check_count(folder: Path, adapter: Adapter, model: nn.Module) -> None:
    count = sum(array.size for array in _arrays(model).values())
    if count != adapter.trained_parameters:
        raise SvmError(
            f"{folder} has {adapter.trained_parameters:,} trained parameters by its {SETTINGS}, but the layers that "
            f"are adapted here have {count:,}."
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
            raise SvmError(f"{path}: {name} is not what {SETTINGS} beside it says; fetch the adapter again.")
    model.load_weights([(name, array.astype(dtype)) for name, array in loaded.items()], strict=False)
    mx.eval(model.parameters())


_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def fuse_checkpoint(base: Path, adapter: Path, out: Path) -> None:
    """Write the checkpoint in `base` with the adapter in `adapter` fused into it to `out`, in the base's own dtype.

    Raises:
        SvmError: `out` holds a checkpoint, the adapter is of another base, or a file cannot be used.
    """
    if (out / CONFIG).exists():
        raise SvmError(f"{out} holds a checkpoint already; choose another place with --out.")
    described = read_adapter(adapter)
    check_base(adapter, described, base)
    info = open_checkpoint(base)
    checkpoint = load_weights(info, base, _dtype(info.tensors))
    load_adapter(adapter, described, checkpoint.model, mx.float32)
    fuse(checkpoint.model)
    stream = read_stream_config(adapter) if (adapter / STREAM).is_file() else checkpoint.stream
    save_checkpoint(out, replace(checkpoint, stream=stream))


def _dtype(tensors: dict[str, Stored]) -> mx.Dtype:
    """Return what the weights are stored as: what is plain in every model is its last norm."""
    return _DTYPES[tensors["model.norm.weight"].dtype]
