"""Converts checkpoints: quantizes them, or writes plain weights in Hugging Face's layout (svm-tui convert-ckpt)."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoint_files import CONFIG, INDEX, WEIGHTS, read_json
from streaming_vlm_mlx.config import Family, ModelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import (
    CheckpointInfo,
    ShardReader,
    checkpoint_notes,
    hub_values,
    open_checkpoint,
)
from streaming_vlm_mlx.models.quantization import dequantize, pack, quantizable
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.processor_config import IMAGE, VIDEO
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.stream_settings import INSTRUCT, STREAM, preset_of, read_stream_config
from streaming_vlm_mlx.text.tokenizer import SHIPPED
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, Ids

# Hugging Face pads the rows of Qwen's embedding to a multiple of this.
_ROUND = 64
WORDS = ("model.embed_tokens", "lm_head")
# Rounding errors of the first layers pass through all others.
SENSITIVE = (*WORDS, "model.layers.0.", "visual.blocks.0.")
# Learned positions are added to pixels, and take little memory.
PLAIN = ("visual.pos_embed",)


@dataclass(frozen=True)
class Conversion:
    """The settings of a conversion.

    Attributes:
        source: the folder to read.
        out: the folder to write; it must not exist, or be empty.
        bits: bits a weight, 4 or 8; None for plain weights in Hugging Face's layout.
        group_size: weights that share a scale; None for 32 with 8 bits, 64 with 4.
        dtype: dtype of the weights that are not packed (``float32``, ``float16``, ``bfloat16``); None keeps theirs.
        keep_vision: keep the vision tower plain.
        keep_sensitive: keep the layers plain that lose most by rounding: the embedding, the head, the first layer and
            the first block of the vision tower. None for yes with 8 bits and no with 4.
        shard_bytes: largest size of a file; as much is held in memory.
    """

    source: Path
    out: Path
    bits: int | None = None
    group_size: int | None = None
    dtype: str | None = None
    keep_vision: bool = False
    keep_sensitive: bool | None = None
    shard_bytes: int = 2 << 30


@dataclass(frozen=True)
class Plan:
    """A conversion whose source was checked.

    Attributes:
        info: the source.
        config: the config to write; its `vocab_size` counts the rows in the folder.
        ids: the ids of a compact vocabulary's rows, which are spread over the rows of all ids; None to keep the rows.
        notes: sentences for the user.
    """

    info: CheckpointInfo
    config: ModelConfig
    ids: Ids | None
    notes: tuple[str, ...]


def make_plan(job: Conversion) -> Plan:
    """Check the source and the target, and plan the conversion; reads no weight.

    Raises:
        SvmError: the source is damaged, the target exists, or the conversion is not possible.
    """
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise SvmError(f"{job.out} exists and is not replaced; choose another folder.")
    info, notes = open_checkpoint(job.source), tuple(checkpoint_notes(job.source))
    if job.bits is not None:
        return _plan_packed(job, info, job.bits, notes)
    if info.config.vision_config is None:
        raise SvmError(
            f"{job.source} has no vision tower, so transformers cannot open it as {info.config.model_type}; "
            "convert it with --bits."
        )
    plain = replace(info.config, quantization=None)
    if not isinstance(info.vocabulary, CompactVocabulary):
        return Plan(info, plain, None, notes)
    rows = -(-len(info.tokenizer) // _ROUND) * _ROUND
    text = replace(plain.text_config, vocab_size=rows)
    note = (
        f"this model has rows for {len(info.vocabulary)} of {len(info.tokenizer)} ids; in transformers the others read "
        "as zeros, and generation_config.json suppresses them. For the same results as here, encode text with the "
        f"ids of {plain.vocabulary} only."
    )
    return Plan(info, replace(plain, text_config=text), info.vocabulary.ids, (*notes, note))


def quantization_for(
    model: VisionLanguageModel,
    bits: int,
    group_size: int | None = None,
    keep_vision: bool = False,
    keep_sensitive: bool | None = None,
) -> QuantizationConfig:
    """Return which layers of a plain `model` to quantize, and how; the other arguments are those of `Conversion`.

    Layers whose inputs do not divide into groups are not quantized.
    """
    group_size = group_size or (32 if bits == 8 else 64)
    stays = bits == 8 if keep_sensitive is None else keep_sensitive
    layers = {}
    for name, layer in quantizable(model):
        kept = (keep_vision and name.startswith("visual.")) or (stays and name.startswith(SENSITIVE))
        if kept or name in PLAIN or layer.weight.shape[1] % group_size:
            layers[name] = False
    return QuantizationConfig(group_size, bits, layers=layers)


def _plan_packed(job: Conversion, info: CheckpointInfo, bits: int, notes: tuple[str, ...]) -> Plan:
    if info.config.quantization is not None:
        raise SvmError(f"{job.source} is quantized already; use the plain model, or convert this one without --bits.")
    quantization = quantization_for(info.model, bits, job.group_size, job.keep_vision, job.keep_sensitive)
    quantization.check()
    group_size = quantization.group_size
    widths = {n: m.weight.shape[1] for n, m in quantizable(info.model)}
    uneven = {name: width for name, width in widths.items() if width % group_size}
    for name, width in uneven.items():
        if not name.startswith("visual."):
            raise SvmError(
                f"{job.source}: the {width} inputs of {name} do not divide into groups of {group_size}; "
                "choose another --group-size."
            )
    if uneven and not job.keep_vision:
        plain = (
            f"{len(uneven)} layers of the vision tower stay plain: {max(uneven.values())} inputs do not divide into "
            f"groups of {group_size}."
        )
        notes = (*notes, plain)
    return Plan(info, replace(info.config, quantization=quantization), None, notes)


class ShardWriter:
    """Writes arrays in shards; only the shard that is being filled is held in memory."""

    def __init__(self, folder: Path, limit: int, made_for: str) -> None:
        """Write to `folder`, at most `limit` bytes a shard; `made_for` (``pt`` or ``mlx``) goes into the header."""
        self._folder, self._limit, self._made_for = folder, limit, made_for
        self._held: dict[str, mx.array] = {}
        self._shards: list[list[str]] = []
        self.nbytes = 0

    def add(self, name: str, array: mx.array) -> None:
        """Compute `array` and add it to the current shard.

        Raises:
            SvmError: the folder cannot be written.
        """
        mx.eval(array)
        if self._held and sum(a.nbytes for a in self._held.values()) + array.nbytes > self._limit:
            self._write()
        self._held[name] = array
        self.nbytes += array.nbytes

    def finish(self) -> int:
        """Write the last shard, name the shards, write the index, and return the number of shards.

        Raises:
            SvmError: the folder cannot be written.
        """
        self._write()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / WEIGHTS)
            return count
        where: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / file)
            where |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self.nbytes}, "weight_map": dict(sorted(where.items()))}
        write_text(self._folder / INDEX, json.dumps(index, indent=1) + "\n")
        return count

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05}.safetensors"

    def _write(self) -> None:
        path = self._part(len(self._shards))
        try:
            mx.save_safetensors(str(path), self._held, {"format": self._made_for})
        except RuntimeError as error:
            raise SvmError(f"{self._folder} cannot be written: {error}") from error
        self._shards.append(list(self._held))
        self._held = {}
        mx.clear_cache()


GENERATION = "generation_config.json"
_COPIED = {".json", ".txt", ".yaml", ".jinja"}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """The result: how many files of weights were written, and their bytes."""

    shards: int
    nbytes: int


def convert(job: Conversion, plan: Plan, progress: Progress = lambda *_: None) -> Converted:
    """Write the planned checkpoint to ``job.out`` atomically.

    Args:
        job: the settings.
        plan: the result of `make_plan` for `job`.
        progress: called with how many of how many tensors are read.

    Raises:
        SvmError: a weight cannot be read, or the folder cannot be written.
    """
    with replacing_folder(job.out) as part:
        _copy_files(job.source, part, plan.config.model_type)
        if not (part / STREAM).is_file() and preset_of(job.source) != INSTRUCT:
            # The new name may not say what the old one says.
            stream = read_stream_config(job.source).to_dict()
            write_text(part / STREAM, yaml.safe_dump(stream, sort_keys=False))
        dtype = job.dtype or _stored_dtype(plan)
        write_text(part / CONFIG, json.dumps(_config_values(job.source, plan, dtype), indent=1) + "\n")
        if plan.ids is not None:
            write_text(part / GENERATION, json.dumps(_generation(part, plan, plan.ids)) + "\n")
        writer = ShardWriter(part, job.shard_bytes, "pt" if job.bits is None else "mlx")
        for name, array in _weights(plan, getattr(mx, job.dtype) if job.dtype else None, progress):
            writer.add(family_of(plan.config).hub_name(name), array)
        return Converted(writer.finish(), writer.nbytes)


def _weights(plan: Plan, dtype: mx.Dtype | None, progress: Progress) -> Iterator[tuple[str, mx.array]]:
    """Yield the tensors of the target, not yet computed, in the order of the source on disk."""
    info, reader = plan.info, ShardReader(plan.info.layout)
    plain = dtype or getattr(mx, _stored_dtype(plan))
    shapes = {name: array.shape for name, array in info.model.named_arrays()}

    def take(name: str) -> mx.array:
        return reader.take(name, info.tensors[name], shapes[name], dtype)

    for number, name in enumerate(info.tensors):
        progress(number, len(info.tensors))
        layer, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        array = take(name)
        if info.tensors[name].is_quantized:
            assert info.config.quantization is not None
            how = info.config.quantization.of(layer)
            assert how is not None
            biases = take(f"{layer}.biases") if how.mode == "affine" else None
            array = dequantize(array, take(f"{layer}.scales"), biases, how, plain if biases is None else None)
        if plan.ids is not None and layer in WORDS:
            array = _spread(array, plan.ids, plan.config.text_config.vocab_size)
        yield from _packed(name, array, plan)
    progress(len(info.tensors), len(info.tensors))


def _spread(array: mx.array, ids: Ids, rows: int) -> mx.array:
    """Return [rows, width] with the rows of `array` [ids, width] at their `ids` and zeros elsewhere."""
    whole = mx.zeros((rows, array.shape[1]), array.dtype)
    whole[mx.array(ids)] = array
    return whole


def _packed(name: str, array: mx.array, plan: Plan) -> Iterator[tuple[str, mx.array]]:
    """Yield `array`, or the words, scales and biases that it is packed into."""
    layer, _, kind = name.rpartition(".")
    quantization = plan.config.quantization
    chosen = quantization.of(layer) if quantization and kind == "weight" and array.ndim == 2 else None
    if chosen is None:
        yield name, array
        return
    mx.eval(array)
    parts = pack(array, chosen.bits, chosen.group_size)
    yield from zip((name, f"{layer}.scales", f"{layer}.biases"), parts, strict=True)


def _stored_dtype(plan: Plan) -> str:
    """Return the dtype that most numbers of the source have."""
    counts: dict[str, int] = {}
    for stored in plan.info.tensors.values():
        if stored.is_float:
            counts[stored.dtype] = counts.get(stored.dtype, 0) + stored.size
    return _DTYPES[max(counts, key=lambda name: counts[name])]


def _config_values(source: Path, plan: Plan, dtype: str) -> dict[str, Any]:
    """Return the source's ``config.json`` with the changes of the conversion."""
    ours, own = hub_values(plan.config, dtype), read_json(source / CONFIG)
    merged = {**_fresh(own), **ours}
    for name in ("text_config", "vision_config"):
        if ours[name]:
            merged[name] = {**_fresh(own.get(name) or {}), **ours[name]}
    if ours["vision_config"]:
        # mlx-vlm refuses the type that transformers 5 writes there, and no program needs one.
        merged["vision_config"].pop("model_type", None)
    return merged


def _fresh(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` without what `hub_values` writes under another name or leaves out for a reason."""
    stale = ("quantization", "quantization_config", "dtype", "rope_parameters")
    return {name: value for name, value in values.items() if name not in stale}


def _generation(folder: Path, plan: Plan, ids: Ids) -> dict[str, Any]:
    """Return ``generation_config.json``; it suppresses ids without a row, whose scores mean nothing."""
    path = folder / GENERATION
    own = read_json(path) if path.is_file() else {}
    absent = np.setdiff1d(np.arange(plan.config.text_config.vocab_size, dtype=np.int32), ids)
    special = plan.info.tokenizer.special
    ends = {"eos_token_id": special.im_end, "pad_token_id": special.endoftext}
    return {**ends, **own, "suppress_tokens": absent.tolist()}


def _copy_files(source: Path, part: Path, family: Family) -> None:
    """Copy the files beside the weights; a missing tokenizer or processor config is replaced by Qwen2.5-VL's."""
    for folder in (SHIPPED, source):
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _COPIED and file.name not in (CONFIG, INDEX):
                shutil.copyfile(file, part / file.name)
    if family == "qwen3_vl":
        # Its pixels are prepared in another way.
        for _, name in (IMAGE, VIDEO):
            if not (source / name).is_file():
                (part / name).unlink()
