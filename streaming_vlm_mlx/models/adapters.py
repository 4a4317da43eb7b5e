"""Opens adapter folders of any program, and saves those of this one so that mlx-lm and mlx-vlm open them too.

A folder holds ``adapter_config.json`` and ``adapters.safetensors``; `peft` says what PEFT's holds. The config that is
written here has what mlx-lm and mlx-vlm read, and beside it the name of the checkpoint that the adapter was trained on
and a fingerprint of its weights: such an adapter works with these weights, and no others.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, CONFIG, MLX_WEIGHTS, find_shards, read_json
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json
from streaming_vlm_mlx.models.adapter_info import (
    MERGED,
    AdaptedLayer,
    AdapterInfo,
    check_fits,
    check_parts,
    exact_config,
    load_adapter,
    restore,
)
from streaming_vlm_mlx.models.loading import (
    Checkpoint,
    CheckpointInfo,
    load_weights,
    open_checkpoint,
    save_checkpoint,
)
from streaming_vlm_mlx.models.lora import Kind, LoraConfig, adapted_layers, fuse, trained_arrays
from streaming_vlm_mlx.models.peft import open_peft
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import Stored, mlx_vlm_name, read_headers, sanitize_name
from streaming_vlm_mlx.stream_settings import STREAM, read_stream_config

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
            header = parse_json(file.read(length))
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
    arrays = trained_arrays(checkpoint.model)
    counted = replace(adapter, trained_parameters=sum(array.size for array in arrays.values()))
    values = {**counted.to_dict(), **_mlx_values(adapter.lora, checkpoint.model)}
    named = {mlx_vlm_name(name.replace(".linear.", ".")): array for name, array in arrays.items()}
    with replacing_folder(folder) as part:
        write_text(part / ADAPTER_CONFIG, json.dumps(values, indent=1) + "\n")
        write_text(part / STREAM, yaml.safe_dump(checkpoint.stream.to_dict(), sort_keys=False))
        try:
            mx.save_safetensors(str(part / MLX_WEIGHTS), named, {"format": "mlx"})
        except RuntimeError as error:
            raise SvmError(f"{folder} cannot be written: {error}") from error
        extra(part)


def _mlx_values(lora: LoraConfig, model: VisionLanguageModel) -> dict[str, Any]:
    """Return the settings that mlx-lm and mlx-vlm read; they have one rank and one scale for all layers."""
    sizes = {"rank": lora.rank, "scale": lora.scale, "dropout": 0.0}
    return {
        "fine_tune_type": lora.kind,
        "num_layers": model.config.text_config.num_hidden_layers,
        **sizes,
        "alpha": lora.scale * lora.rank,
        "lora_parameters": {**sizes, "keys": [mlx_vlm_name(name) for name, _ in adapted_layers(model)]},
    }


def read_adapter(folder: Path) -> Adapter:
    """Return the contents of the ``adapter_config.json`` in `folder` that this program wrote.

    Raises:
        SvmError: the file is missing, damaged, or was not written by this program.
    """
    values = read_json(folder / ADAPTER_CONFIG)
    if "lora" not in values or "fingerprint" not in values:
        raise SvmError(
            f"{folder / ADAPTER_CONFIG} does not say what it was trained on; use an adapter of 'svm-tui train --lora'."
        )
    return Adapter.from_dict(values)


def open_adapter(folder: Path) -> AdapterInfo:
    """Open the adapter in `folder`: one of this program, of PEFT, of mlx-lm or of mlx-vlm. Reads no array.

    Raises:
        SvmError: a file is missing or damaged, config and file disagree, or the method is not supported.
    """
    values = read_json(folder / ADAPTER_CONFIG)
    if "peft_type" in values:
        return open_peft(folder, values)
    if "lora" in values and "fingerprint" in values:
        return _open_ours(folder, Adapter.from_dict(values))
    return _open_mlx(folder, values)


def _open_ours(folder: Path, adapter: Adapter) -> AdapterInfo:
    parts, full = _group(folder)
    layers = {name: AdaptedLayer(*adapter.lora.of(name), arrays) for name, arrays in parts.items()}
    check_parts(folder, adapter.lora.kind, layers)
    count = sum(stored.size for arrays in (full, *parts.values()) for stored in arrays.values())
    if count != adapter.trained_parameters:
        raise SvmError(
            f"{folder / ADAPTER_CONFIG} says {adapter.trained_parameters:,} trained parameters, {MLX_WEIGHTS} holds "
            f"{count:,}; download the adapter again."
        )
    base = adapter.base, adapter.fingerprint
    return AdapterInfo(folder, folder / MLX_WEIGHTS, adapter.lora, layers, {}, full, {}, False, *base)


# mlx-lm and mlx-vlm write the first names, mlx-vlm before 0.4 the others.
_PARTS = {"lora_a": "lora_a", "lora_b": "lora_b", "m": "m", "A": "lora_a", "B": "lora_b"}


def _open_mlx(folder: Path, values: dict[str, Any]) -> AdapterInfo:
    kind, given = values.get("fine_tune_type", "lora"), values.get("lora_parameters", values)
    sizes: dict[str, Any] = given if isinstance(given, dict) else {}
    rank, scale = sizes.get("rank"), sizes.get("scale")
    if scale is None and type(rank) is int and rank and type(values.get("alpha")) in (int, float):
        scale = values["alpha"] / rank
    if kind not in ("lora", "dora") or type(rank) is not int or rank < 1 or not isinstance(scale, int | float):
        raise SvmError(
            f"{folder / ADAPTER_CONFIG} describes no adapter that svm-tui takes: LoRA and DoRA of "
            "'svm-tui train --lora', PEFT, mlx-lm and mlx-vlm."
        )
    method: Kind = kind
    parts, full = _group(folder)
    layers = {name: AdaptedLayer(rank, scale, arrays) for name, arrays in parts.items()}
    check_parts(folder, method, layers)
    for name in MERGED:
        if name in layers:
            raise SvmError(f"{folder} adapts {name}, which svm-tui takes from adapters of PEFT only.")
    model = values.get("model")
    base = model if isinstance(model, str) else ""
    return AdapterInfo(folder, folder / MLX_WEIGHTS, exact_config(method, layers, full), layers, {}, full, base=base)


def _group(folder: Path) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
    """Return the stored arrays of each adapted layer, and the parameters that are stored whole, by name.

    Raises:
        SvmError: the file is missing or damaged.
    """
    parts: dict[str, dict[str, Stored]] = {}
    full: dict[str, Stored] = {}
    if not (folder / MLX_WEIGHTS).is_file():
        raise SvmError(f"{folder} lacks {MLX_WEIGHTS}; download the adapter again.")
    for stored in read_headers(folder / MLX_WEIGHTS):
        name = sanitize_name(stored.key)
        layer, _, leaf = name.rpartition(".")
        if leaf in _PARTS:
            parts.setdefault(layer, {})[_PARTS[leaf]] = stored
        else:
            full[name] = stored
    return parts, full


def check_base(adapter: AdapterInfo, base: CheckpointInfo) -> None:
    """Check that `adapter` fits `base`, and was trained on its weights where it says so; reads no weight in full.

    Raises:
        SvmError: it was trained on other weights, or names a layer that does not fit.
    """
    if adapter.fingerprint and fingerprint(base.folder) != adapter.fingerprint:
        raise SvmError(
            f"{adapter.folder} is an adapter of {adapter.base}, whose weights are not those of {base.folder}."
        )
    check_fits(adapter, base)


def adapter_notes(folder: Path, base: Path) -> list[str]:
    """Return sentences that the user of the adapter in `folder` with the checkpoint in `base` should read."""
    try:
        adapter = open_adapter(folder)
    except SvmError:
        # It is reported when the adapter is loaded.
        return []
    name = adapter.base.rstrip("/").rpartition("/")[2].lower()
    if adapter.fingerprint or not name or name in str(base.absolute()).lower():
        return []
    return [f"{folder} names {adapter.base} as its base; its layers are looked for in {base}."]


def continue_adapter(folder: Path, adapter: Adapter, model: VisionLanguageModel) -> None:
    """Load the adapter that this run wrote to `folder` into the adapter layers of `model`, to continue its training.

    Raises:
        SvmError: the layers or the base checkpoint differ from `adapter`, or a file is damaged.
    """
    saved = read_adapter(folder)
    if saved.fingerprint != adapter.fingerprint:
        raise SvmError(f"{folder} is an adapter of {saved.base}, whose weights are not those of {adapter.base}.")
    count = sum(array.size for array in trained_arrays(model).values())
    if count != saved.trained_parameters:
        raise SvmError(
            f"{folder / ADAPTER_CONFIG} says {saved.trained_parameters:,} trained parameters, but the adapted layers "
            f"of this model have {count:,}; use the checkpoint and the settings of its training."
        )
    if saved.lora != adapter.lora:
        raise SvmError(f"{folder} was trained with {saved.lora}; continue with the same settings of lora.")
    restore(open_adapter(folder), model)


_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def fuse_checkpoint(base: Path, folder: Path, out: Path) -> None:
    """Fuse the adapter in `folder` into the checkpoint in `base` and write the result to `out`, in the base's dtype.

    Raises:
        SvmError: `out` holds a checkpoint, the adapter belongs to another base, or a file cannot be used.
    """
    if (out / CONFIG).exists():
        raise SvmError(f"{out} already holds a checkpoint; choose another folder with --out.")
    adapter, info = open_adapter(folder), open_checkpoint(base)
    check_base(adapter, info)
    checkpoint = load_weights(info, _dtype(info.tensors))
    load_adapter(adapter, info, mx.float32)
    fuse(checkpoint.model)
    stream = read_stream_config(folder) if (folder / STREAM).is_file() else checkpoint.stream
    save_checkpoint(out, replace(checkpoint, stream=stream))


def _dtype(tensors: dict[str, Stored]) -> mx.Dtype:
    """Return the dtype of the stored weights: that of the last norm, which is never quantized."""
    return _DTYPES[tensors["model.norm.weight"].dtype]
