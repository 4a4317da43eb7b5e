"""Loads and saves checkpoint folders: ``config.json``, safetensors, the tokenizer's files and ``stream.yaml``.

The order of loading is mlx-lm's: read the config, list the weights, build the model, sanitize names and layouts,
quantize, check, load. The first half, `open_checkpoint`, reads no weight, so that the memory budget can be checked
before the second half, `load_weights`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import yaml

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoint_files import CONFIG, WEIGHTS, read_json, read_processor_files
from streaming_vlm_mlx.config import ModelConfig, StreamConfig
from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import family_of, read_config
from streaming_vlm_mlx.models.quantization import resolve_quantization
from streaming_vlm_mlx.models.tensor_parallel import check_splits, split_array, split_layers
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import Stored, list_tensors, mlx_vlm_name
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.stream_settings import STREAM, read_stream_config
from streaming_vlm_mlx.taught_questions import read_questions, write_questions
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import TOKENIZER, Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary, Ids, Vocabulary

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: its weights.
        tokenizer: text to ids and back.
        vocabulary: ids to rows and back.
        stream: the settings that it was trained for.
        processor: the files that tell other programs how to prepare text and pixels, by name.
        questions: what it was taught to answer; empty where that is not known.
    """

    model: VisionLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    stream: StreamConfig
    processor: Mapping[str, bytes] = field(default_factory=dict)
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint folder whose files fit together; no weight is read yet.

    Attributes:
        folder: where the files are.
        model: the model, quantized as the folder says. Its weights are placeholders that are not computed;
            `load_weights` replaces them, so an info can be loaded once.
        tensors: the stored tensors that the model takes, by parameter name.
        layout: how stored tensors become the model's.
        tokenizer: the folder's tokenizer.
        vocabulary: the folder's vocabulary.
    """

    folder: Path
    model: VisionLanguageModel
    tensors: dict[str, Stored]
    layout: "WeightLayout"
    tokenizer: Tokenizer
    vocabulary: Vocabulary

    @property
    def config(self) -> ModelConfig:
        """The model's config; its `vocab_size` counts the rows that the model takes."""
        return self.model.config


def read_model_config(folder: Path) -> ModelConfig:
    """Return the config in ``config.json`` of `folder`.

    Raises:
        SvmError: the file is missing, is not JSON, or describes a model that is not supported.
    """
    values = read_json(folder / CONFIG)
    foreign = values.get("quantization_config")
    if values.get("quantization") is None and isinstance(foreign, dict):
        raise SvmError(
            f"{folder} is quantized by {foreign.get('quant_method', 'a program')!r}, which MLX cannot read; "
            "use the plain model and quantize it with 'svm-tui convert-ckpt --bits'."
        )
    try:
        config = read_config(values)
    except SvmError as error:
        raise SvmError(f"{folder}: {error}") from error
    name = config.vocabulary
    if name is not None and (Path(name).name != name or name in ("", "..")):
        raise SvmError(f"{folder / CONFIG}: vocabulary is {name!r}; it must be the name of a file in that folder.")
    return config


def checkpoint_notes(folder: Path) -> list[str]:
    """Return sentences that the user of the checkpoint in `folder` should read."""
    # The shipped checkpoint was trained with the shipped tokenizer.
    if not (folder / CONFIG).is_file() or (folder / TOKENIZER).is_file() or folder.samefile(CHECKPOINT):
        return []
    return [f"{folder} has no {TOKENIZER}; the Qwen2.5-VL tokenizer that comes with svm-tui is used."]


def open_checkpoint(folder: Path) -> CheckpointInfo:
    """Build the model of the checkpoint in `folder` and check its files, without reading a weight.

    Raises:
        SvmError: a file is missing, damaged or a pickle, or names and shapes do not fit ``config.json``.
    """
    config = read_model_config(folder)
    tensors = list_tensors(folder, family_of(config).sanitize)
    if config.text_config.tie_word_embeddings:
        # Some folders store a head all the same; it is a copy of the embedding.
        tensors = {name: stored for name, stored in tensors.items() if not name.startswith("lm_head.")}
    tokenizer = Tokenizer.load(folder)
    vocabulary = _read_vocabulary(folder, config, tokenizer)
    rows = config.text_config.vocab_size
    is_subset = isinstance(vocabulary, CompactVocabulary) and len(vocabulary) < rows
    layout = WeightLayout(rows, vocabulary.ids if is_subset and isinstance(vocabulary, CompactVocabulary) else None)
    text = replace(config.text_config, vocab_size=len(vocabulary))
    model = VisionLanguageModel(replace(config, text_config=text, quantization=None))
    if config.quantization is not None:
        model.quantize(resolve_quantization(config.quantization, model, tensors))
    check_tensors(model, tensors, layout, folder)
    return CheckpointInfo(folder, model, tensors, layout, tokenizer, vocabulary)


def load_checkpoint(folder: Path, dtype: mx.Dtype, progress: Progress = lambda *_: None) -> Checkpoint:
    """Load the checkpoint in `folder`, one weight at a time, so that no weight is held twice.

    Args:
        folder: where the files are.
        dtype: the model's dtype; quantized weights keep theirs.
        progress: called with a stage and how many of how many of its steps are done.

    Raises:
        SvmError: a file is missing, damaged or a pickle, or names and shapes do not fit ``config.json``; raised before
            a weight is read.
    """
    return load_weights(open_checkpoint(folder), dtype, progress)


def load_weights(
    info: CheckpointInfo, dtype: mx.Dtype, progress: Progress = lambda *_: None, ranks: Ranks = ALONE
) -> Checkpoint:
    """Load the weights of an opened checkpoint into its model; see `load_checkpoint`.

    With several machines in `ranks`, each keeps its part of the decoder.

    Raises:
        SvmError: a weight cannot be read, or the model cannot be split over so many machines.
    """
    check_splits(info.config, ranks.size)
    model, reader = info.model, ShardReader(info.layout)
    shapes = {name: array.shape for name, array in model.named_arrays()}
    if ranks.size > 1:
        split_layers(model, ranks)
    shards: dict[Path, list[str]] = {}
    for name, stored in info.tensors.items():
        shards.setdefault(stored.shard, []).append(name)
    for number, (shard, names) in enumerate(shards.items()):
        progress(shard.name, number, len(shards))
        for name in names:
            whole = reader.take(name, info.tensors[name], shapes[name], dtype)
            array = split_array(name, whole, ranks)
            del whole
            model.load_weights([(name, array)], strict=False)
            mx.eval(array)
    mx.clear_cache()
    progress("weights", len(shards), len(shards))
    folder = info.folder
    stream, processor, questions = read_stream_config(folder), read_processor_files(folder), read_questions(folder)
    return Checkpoint(model, info.tokenizer, info.vocabulary, stream, processor, questions)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, extra: Callable[[Path], None] = lambda _: None) -> None:
    """Write `checkpoint` to `folder` atomically; an existing folder is replaced.

    Args:
        folder: the folder to write.
        checkpoint: model, tokenizer, vocabulary and stream settings.
        extra: adds further files to the folder before it is moved into place.

    Raises:
        SvmError: the folder cannot be written.
    """
    with replacing_folder(folder) as part:
        config, dtype = checkpoint.model.config, str(checkpoint.model.dtype).rpartition(".")[2]
        write_text(part / CONFIG, json.dumps(hub_values(config, dtype), indent=1) + "\n")
        write_text(part / STREAM, yaml.safe_dump(checkpoint.stream.to_dict(), sort_keys=False))
        write_text(part / TOKENIZER, checkpoint.tokenizer.backend.to_str())
        for name, content in checkpoint.processor.items():
            (part / name).write_bytes(content)
        if checkpoint.questions:
            write_questions(part, checkpoint.questions)
        if isinstance(checkpoint.vocabulary, CompactVocabulary) and config.vocabulary:
            checkpoint.vocabulary.save(part / config.vocabulary)
        hub_name = family_of(config).hub_name
        arrays = {hub_name(name): array for name, array in checkpoint.model.named_arrays()}
        try:
            mx.save_safetensors(str(part / WEIGHTS), arrays, {"format": "mlx"})
        except RuntimeError as error:
            raise SvmError(f"{folder} cannot be written: {error}") from error
        extra(part)


def _read_vocabulary(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> Vocabulary:
    rows = config.text_config.vocab_size
    if config.vocabulary is None:
        if rows < len(tokenizer):
            raise SvmError(
                f"{folder} has {rows} rows for the {len(tokenizer)} ids of its tokenizer; its {CONFIG} is wrong."
            )
        return FullVocabulary(rows)
    vocabulary = CompactVocabulary.load(folder / config.vocabulary, tokenizer)
    # A folder for transformers has a row for every id, also where the model uses a compact vocabulary.
    if len(vocabulary) != rows and not len(vocabulary) < len(tokenizer) <= rows:
        raise SvmError(f"{folder / config.vocabulary} lists {len(vocabulary)} ids, {CONFIG} says {rows}.")
    return vocabulary


def hub_values(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Return the values of ``config.json`` for weights of `dtype` (``float32``, ``bfloat16``, ``float16``).

    The language model's settings are there twice: transformers reads ``text_config``, mlx-vlm the root.
    """
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    parts = family_of(config).write_parts(config)
    values: dict[str, Any] = {
        **parts["text_config"],
        "architectures": [family_of(config).ARCHITECTURE],
        "model_type": config.model_type,
        "torch_dtype": dtype,
        **{name: getattr(config, name) for name in ids},
        **parts,
    }
    if config.vocabulary is not None:
        values["vocabulary"] = config.vocabulary
    if config.quantization is not None:
        # mlx-vlm reads the first, the hub's pages the second.
        values["quantization"] = values["quantization_config"] = quantization_block(config.quantization)
    return values


def quantization_block(config: QuantizationConfig) -> dict[str, Any]:
    """Return MLX's ``quantization`` block: beside the common settings those of single layers, by mlx-vlm's names."""
    values = config.to_dict()
    return values | {mlx_vlm_name(name): part for name, part in values.pop("layers").items()}


Shape = tuple[int, ...]
_PATCHES = "visual.patch_embed.proj.weight"
_ROWS = ("model.embed_tokens.", "lm_head.")


@dataclass(frozen=True)
class WeightLayout:
    """How the tensors stored in a folder become the model's.

    Attributes:
        rows: rows of the stored embedding and head.
        ids: which of these rows the model takes, in its order; None for all.
    """

    rows: int
    ids: Ids | None = None

    def stored_shapes(self, name: str, shape: Shape) -> tuple[Shape, ...]:
        """Return the shapes that parameter `name`, of `shape` in the model, may have in the folder."""
        if name == _PATCHES:
            return shape, (shape[0], *shape[2:], shape[1])
        if self.ids is not None and name.startswith(_ROWS):
            return ((self.rows, *shape[1:]),)
        return (shape,)

    def sanitize(self, name: str, array: mx.array, shape: Shape) -> mx.array:
        """Return parameter `name`, stored as `array`, in the model's `shape`."""
        if array.shape == shape:
            return array
        if self.ids is not None and name.startswith(_ROWS):
            return mx.take(array, mx.array(self.ids), axis=0)
        # MLX convolutions have channels last, and so do the folders of mlx-community.
        return mx.moveaxis(array, -1, 1)


class ShardReader:
    """Reads tensors one by one, and keeps none that was taken."""

    def __init__(self, layout: WeightLayout) -> None:
        self._layout = layout
        self._shard: Path | None = None
        self._arrays: dict[str, mx.array] = {}

    def take(self, name: str, stored: Stored, shape: Shape, dtype: mx.Dtype | None) -> mx.array:
        """Return parameter `name` in `shape`, cast to `dtype` unless that is None or its numbers are not plain floats.

        The array is lazy: nothing is read before it is evaluated. A tensor can be taken once.

        Raises:
            SvmError: the file cannot be read.
        """
        if stored.shard != self._shard:
            self._shard, self._arrays = stored.shard, _open(stored.shard)
        array = self._layout.sanitize(name, self._arrays.pop(stored.key), shape)
        return array.astype(dtype) if stored.is_float and dtype is not None else array


def check_tensors(
    model: VisionLanguageModel, tensors: Mapping[str, Stored], layout: WeightLayout, folder: Path
) -> None:
    """Compare the names, shapes and kinds of `tensors` with the parameters of `model`.

    Raises:
        SvmError: names the first tensor that is missing, unknown, of another shape, or packed where it should not be.
    """
    wanted = dict(model.named_arrays())
    for name in sorted(wanted.keys() - tensors.keys()):
        raise SvmError(f"{folder} lacks the tensor {name}, which its config.json calls for.")
    for name, stored in sorted(tensors.items()):
        if name not in wanted:
            raise SvmError(f"{folder} holds the tensor {name}, which its config.json has no place for.")
        kind = _EXACT.get(wanted[name].dtype)
        if kind != (None if stored.is_float else stored.dtype):
            found = "packed" if stored.is_quantized else f"{stored.dtype}, not {'packed' if kind == 'U32' else kind}"
            raise SvmError(f"{folder}: {name} is {found}, and the 'quantization' in its config.json says otherwise.")
        shapes = layout.stored_shapes(name, wanted[name].shape)
        if stored.shape not in shapes:
            raise SvmError(f"{folder}: {name} is {list(stored.shape)}, its config.json calls for {list(shapes[0])}.")


# Dtypes that have to be as the model has them: words of packed weights, scales of eight bits.
_EXACT = {mx.uint32: "U32", mx.uint8: "U8"}


def _open(shard: Path) -> dict[str, mx.array]:
    try:
        loaded = mx.load(str(shard))
    except RuntimeError as error:
        raise SvmError(f"{shard} cannot be read: {error}.") from error
    assert isinstance(loaded, dict)
    return loaded


@dataclass(frozen=True)
class ModelBundle:
    """What all streams of one checkpoint share.

    Attributes:
        model: the model, or this machine's part of it.
        tokenizer: text to ids and back.
        vocabulary: ids to embedding rows and back.
        template: how turns are written.
        clock: returns seconds.
        ranks: the machines that hold the model.
    """

    model: VisionLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    template: ChatTemplate
    clock: Callable[[], float]
    ranks: Ranks = ALONE


def arrange_for_decode(model: VisionLanguageModel) -> None:
    """Evaluate the weights; on a CPU, transpose the linear layers in memory to [in, out] without changing their shapes.

    Decoding multiplies one row at a time, and BLAS reads that layout nearly at the speed of memory.
    """
    if mx.default_device().type == mx.DeviceType.cpu:
        for linear in model.linears():
            linear.weight = mx.contiguous(linear.weight.T).T
            mx.eval(linear.weight)
    mx.eval(model.parameters())
