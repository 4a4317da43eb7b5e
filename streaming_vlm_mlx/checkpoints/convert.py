"""From one checkpoint folder to another: fewer bits, another dtype, Hugging Face's layout; one shard in memory."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoints.packing import pack
from streaming_vlm_mlx.checkpoints.plan import WORDS, Conversion, Plan
from streaming_vlm_mlx.checkpoints.writing import ShardWriter
from streaming_vlm_mlx.model.checkpoint import CONFIG
from streaming_vlm_mlx.model.hub import hub_values
from streaming_vlm_mlx.model.reading import ShardReader
from streaming_vlm_mlx.model.shards import INDEX, read_json
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import SHIPPED
from streaming_vlm_mlx.text.vocabulary import Ids

GENERATION = "generation_config.json"
_COPIED = {".json", ".txt", ".yaml", ".jinja"}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """What was written: files of weights, and their bytes."""

    shards: int
    nbytes: int


def convert(job: Conversion, plan: Plan, progress: Progress = lambda *_: None) -> Converted:
    """Write what `plan` says to ``job.out``, whole or not at all.

    Args:
        job: what was asked for.
        plan: what `make_plan` made of it.
        progress: told how many of how many tensors are read.

    Raises:
        SvmError: a weight can not be read, or the folder can not be written.
    """
    with replacing_folder(job.out) as part:
        _copy_files(job.source, part)
        dtype = job.dtype or _stored_dtype(plan)
        write_text(part / CONFIG, json.dumps(_config_values(job.source, plan, dtype), indent=1) + "\n")
        if plan.ids is not None:
            write_text(part / GENERATION, json.dumps(_generation(part, plan, plan.ids)) + "\n")
        writer = ShardWriter(part, job.shard_bytes, "pt" if job.bits is None else "mlx")
        for name, array in _weights(plan, getattr(mx, job.dtype) if job.dtype else None, progress):
            writer.add(name, array)
        return Converted(writer.finish(), writer.nbytes)


def _weights(plan: Plan, dtype: mx.Dtype | None, progress: Progress) -> Iterator[tuple[str, mx.array]]:
    """Yield what the target holds, not yet computed, in the order in which the source lies on disk."""
    opened, reader = plan.opened, ShardReader(plan.opened.fit)
    shapes = {name: array.shape for name, array in VisionLanguageModel(opened.config).named_arrays()}

    def take(name: str) -> mx.array:
        return reader.take(name, opened.tensors[name], shapes[name], dtype)

    for number, name in enumerate(opened.tensors):
        progress(number, len(opened.tensors))
        layer, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        array = take(name)
        if opened.tensors[name].is_quantized:
            assert opened.config.quantization is not None
            bits, group_size = opened.config.quantization.of(layer) or (0, 0)
            array = mx.dequantize(array, take(f"{layer}.scales"), take(f"{layer}.biases"), group_size, bits)
        if plan.ids is not None and layer in WORDS:
            array = _spread(array, plan.ids, plan.config.text_config.vocab_size)
        yield from _packed(name, array, plan)
    progress(len(opened.tensors), len(opened.tensors))


def _spread(array: mx.array, ids: Ids, rows: int) -> mx.array:
    """Return [rows, width], the rows of `array` [ids, width] at their `ids` and zeros between them."""
    whole = mx.zeros((rows, array.shape[1]), array.dtype)
    whole[mx.array(ids)] = array
    return whole


def _packed(name: str, array: mx.array, plan: Plan) -> Iterator[tuple[str, mx.array]]:
    """Yield `array`, or in its place what it is packed into."""
    layer, _, kind = name.rpartition(".")
    quantization = plan.config.quantization
    chosen = quantization.of(layer) if quantization and kind == "weight" and array.ndim == 2 else None
    if chosen is None:
        yield name, array
        return
    mx.eval(array)
    parts = pack(array, *chosen)
    yield from zip((name, f"{layer}.scales", f"{layer}.biases"), parts, strict=True)


def _stored_dtype(plan: Plan) -> str:
    """Return the dtype of most numbers in the source."""
    counts: dict[str, int] = {}
    for stored in plan.opened.tensors.values():
        if not stored.is_quantized:
            counts[stored.dtype] = counts.get(stored.dtype, 0) + stored.size
    return _DTYPES[max(counts, key=lambda name: counts[name])]


def _config_values(source: Path, plan: Plan, dtype: str) -> dict[str, Any]:
    """Return the source's own ``config.json``, with what the conversion changes."""
    ours = hub_values(plan.config, dtype)
    own = {k: v for k, v in read_json(source / CONFIG).items() if k not in ("quantization", "quantization_config")}
    own.pop("dtype", None)
    if "text_config" not in own:
        # The first folders have the decoder's settings at the root.
        own |= {k: ours[k] for k in ("torch_dtype", "quantization") if k in ours}
        return own | {"vocab_size": plan.config.text_config.vocab_size}
    nested = {k: {**(own.get(k) or {}), **v} for k, v in ours.items() if k in ("text_config", "vision_config") and v}
    for part in nested.values():
        part.pop("dtype", None)
    return {**own, **ours, **nested}


def _generation(folder: Path, plan: Plan, ids: Ids) -> dict[str, Any]:
    """Return ``generation_config.json``: ids without a row are never said, for their scores mean nothing."""
    path = folder / GENERATION
    own = read_json(path) if path.is_file() else {}
    absent = np.setdiff1d(np.arange(plan.config.text_config.vocab_size, dtype=np.int32), ids)
    special = plan.opened.tokenizer.special
    ends = {"eos_token_id": special.im_end, "pad_token_id": special.endoftext}
    return {**ends, **own, "suppress_tokens": absent.tolist()}


def _copy_files(source: Path, part: Path) -> None:
    """Copy what lies beside the weights; a tokenizer or processor that is not there is Qwen's own."""
    for folder in (SHIPPED, source):
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _COPIED and file.name not in (CONFIG, INDEX):
                shutil.copyfile(file, part / file.name)
