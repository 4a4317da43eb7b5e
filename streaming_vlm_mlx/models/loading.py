"""Checkpoint folders: ``config.json``, safetensors, the tokenizer's files and ``stream.yaml``."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import mlx.core as mx
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.config import Family, ModelConfig, QuantizationConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import STREAM, read_stream_config
from streaming_vlm_mlx.models.quantization import resolve_quantization
from streaming_vlm_mlx.models.tensor_parallel import check_splits, split_array, split_layers
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import WEIGHTS, Stored, list_tensors, read_json
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary, Ids, Vocabulary

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
class CheckpointInfo:
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
    fit: "WeightLayout"
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
            f"{folder} is quantised by {foreign.get('quant_method', 'a program')!r}, which MLX cannot read; "
            "take the plain model and quantise it with 'svm-tui convert-ckpt --bits'."
        )
    return ModelConfig.from_dict(values)


def open_checkpoint(folder: Path) -> CheckpointInfo:
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
    fit = WeightLayout(rows, vocabulary.ids if spread and isinstance(vocabulary, CompactVocabulary) else None)
    config = replace(config, text_config=replace(config.text_config, vocab_size=len(vocabulary)))
    if config.quantization is not None:
        plain = VisionLanguageModel(replace(config, quantization=None))
        config = replace(config, quantization=resolve_quantization(config.quantization, plain, tensors))
    check_names(VisionLanguageModel(config), tensors, fit, folder)
    return CheckpointInfo(config, tensors, fit, tokenizer, vocabulary)


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
    return load_weights(open_checkpoint(folder), folder, dtype, progress)


def load_weights(
    info: CheckpointInfo, folder: Path, dtype: mx.Dtype, progress: Progress = lambda *_: None, ranks: Ranks = ALONE
) -> Checkpoint:
    """Read the weights of the checkpoint in `folder` that was `info`; as `load_checkpoint`.

    Of several machines, `ranks`, each keeps its part of the decoder.

    Raises:
        SvmError: a weight cannot be read, or the model does not divide into so many parts.
    """
    check_splits(info.config, ranks.size)
    model, reader = VisionLanguageModel(info.config), ShardReader(info.fit)
    wanted = dict(model.named_arrays())
    if ranks.size > 1:
        split_layers(model, ranks)
    shards: dict[Path, list[str]] = {}
    for name, stored in info.tensors.items():
        shards.setdefault(stored.shard, []).append(name)
    for number, (shard, names) in enumerate(shards.items()):
        progress(shard.name, number, len(shards))
        for name in names:
            whole = reader.take(name, info.tensors[name], wanted.pop(name).shape, dtype)
            array = split_array(name, whole, ranks)
            del whole
            model.load_weights([(name, array)], strict=False)
            mx.eval(array)
    mx.clear_cache()
    progress("weights", len(shards), len(shards))
    return Checkpoint(model, info.tokenizer, info.vocabulary, read_stream_config(folder))


def save_checkpoint(folder: Path, checkpoint: Checkpoint, extra: Callable[[Path], None] = lambda _: None) -> None:
    """Write `checkpoint` to `folder`, whole or not at all; a folder that stood there is replaced.

    Args:
        folder: where the checkpoint shall be.
        checkpoint: model, tokenizer, vocabulary and stream settings.
        extra: adds further files to the folder before it is moved into place.

    Raises:
        SvmError: the place cannot be written.
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
            raise SvmError(f"{folder} cannot be written: {error}") from error
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


ARCHITECTURES = {
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
}


def hub_values(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Return the values of ``config.json`` for weights of `dtype` (``float32``, ``bfloat16``, ``float16``)."""
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "torch_dtype": dtype,
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
        **{name: getattr(config, name) for name in ids},
        "text_config": _text(config.text_config),
        "vision_config": _vision(config.vision_config) if config.vision_config else None,
    }
    if config.vocabulary is not None:
        values["vocabulary"] = config.vocabulary
    if config.quantization is not None:
        values["quantization"] = quantization_block(config.quantization)
    return values


def quantization_block(config: QuantizationConfig) -> dict[str, Any]:
    """Return MLX's ``quantization`` block: what is said of single layers lies beside the rest."""
    values = config.to_dict()
    return {**values, **values.pop("layers")}


def _text(config: TextConfig) -> dict[str, Any]:
    values = config.to_dict()
    section = values.pop("mrope_section")
    return {**values, "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": section}}


def _vision(config: VisionConfig) -> dict[str, Any]:
    values = config.to_dict()
    if values.pop("architecture") == "qwen2_vl":
        for name in ("intermediate_size", "tokens_per_second", "window_size", "fullatt_block_indexes"):
            del values[name]
        ratio = _whole(config.intermediate_size / config.hidden_size)
        width = {"embed_dim": config.hidden_size, "hidden_size": values.pop("out_hidden_size"), "mlp_ratio": ratio}
        return {**values, **width}
    if config.tokens_per_second is not None:
        values["tokens_per_second"] = _whole(config.tokens_per_second)
    return values


def _whole(value: float) -> float:
    """Return `value`, as an int if it is whole: transformers takes no floats there."""
    return int(value) if value == int(value) else value


Shape = tuple[int, ...]
_PATCHES = "visual.patch_embed.proj.weight"
_ROWS = ("model.embed_tokens.", "lm_head.")


@dataclass(frozen=True)
class WeightLayout:
    """How what lies in a folder becomes a model's.

    Attributes:
        rows: rows of the embedding and the head in the folder.
        ids: which of them the model takes, in its order; None for all.
    """

    rows: int
    ids: Ids | None = None

    def stored_shapes(self, name: str, shape: Shape) -> tuple[Shape, ...]:
        """Return the shapes that parameter `name`, of `shape` in the model, can have in the folder."""
        if name == _PATCHES:
            return shape, (shape[0], *shape[2:], shape[1])
        if self.ids is not None and name.startswith(_ROWS):
            return ((self.rows, *shape[1:]),)
        return (shape,)

    def apply(self, name: str, array: mx.array, shape: Shape) -> mx.array:
        """Return `array`, parameter `name` as it is stored, in the model's `shape`."""
        if array.shape == shape:
            return array
        if self.ids is not None and name.startswith(_ROWS):
            return mx.take(array, mx.array(self.ids), axis=0)
        # MLX's convolution wants channels last, so the folders of mlx-community have them there.
        return mx.moveaxis(array, -1, 1)


class ShardReader:
    """Reads tensors one by one; what was taken is not held here."""

    def __init__(self, fit: WeightLayout) -> None:
        self._template = fit
        self._shard: Path | None = None
        self._arrays: dict[str, mx.array] = {}

    def take(self, name: str, stored: Stored, shape: Shape, dtype: mx.Dtype | None) -> mx.array:
        """Return parameter `name` of `shape`, its numbers as `dtype` unless they are packed; None leaves them.

        Nothing is read before the array is evaluated. A tensor can be taken once.

        Raises:
            SvmError: the file cannot be read.
        """
        if stored.shard != self._shard:
            self._shard, self._arrays = stored.shard, _open(stored.shard)
        array = self._template.apply(name, self._arrays.pop(stored.key), shape)
        return array if stored.is_quantized or dtype is None else array.astype(dtype)


def check_names(model: VisionLanguageModel, tensors: dict[str, Stored], fit: WeightLayout, folder: Path) -> None:
    """Compare names, shapes and kinds of `tensors` with what `model` wants.

    Raises:
        SvmError: names the first tensor that is absent, unknown, of another shape, or packed where it should not be.
    """
    wanted = dict(model.named_arrays())
    for name in sorted(wanted.keys() - tensors.keys()):
        raise SvmError(f"{folder} lacks the tensor {name}, which its config.json calls for.")
    for name, stored in sorted(tensors.items()):
        if name not in wanted:
            raise SvmError(f"{folder} holds the tensor {name}, which its config.json has no place for.")
        packed = wanted[name].dtype == mx.uint32
        if stored.is_quantized != packed:
            kind = "packed" if stored.is_quantized else f"{stored.dtype}, not packed"
            raise SvmError(f"{folder}: {name} is {kind}, and the 'quantization' in its config.json says otherwise.")
        shapes = fit.stored_shapes(name, wanted[name].shape)
        if stored.shape not in shapes:
            raise SvmError(f"{folder}: {name} is {list(stored.shape)}, its config.json calls for {list(shapes[0])}.")


def _open(shard: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(shard))
    except RuntimeError as error:
        raise SvmError(f"{shard} cannot be read: {error}.") from error
    assert isinstance(loaded, dict)
    return loaded


@dataclass(frozen=True)
class ModelBundle:
    """What every stream of one checkpoint shares; `clock` reads seconds, `ranks` hold the model's parts."""

    model: VisionLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    template: ChatTemplate
    clock: Callable[[], float]
    ranks: Ranks = ALONE


def arrange_for_decode(model: VisionLanguageModel) -> None:
    """Evaluate the weights; on a CPU, let them lie [in, out] in memory under their [out, in] shapes.

    Decoding is products of one row, which BLAS reads from there nearly as fast as memory gives it.
    """
    if mx.default_device().type == mx.DeviceType.cpu:
        for linear in model.linears():
            linear.weight = mx.contiguous(linear.weight.T).T
            mx.eval(linear.weight)
    mx.eval(model.parameters())
