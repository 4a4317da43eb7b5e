"""What a conversion shall make of a checkpoint, settled before a weight is read."""

from dataclasses import dataclass, replace
from pathlib import Path

from streaming_vlm_mlx.config import ModelConfig, QuantizationConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.checkpoint import Opened, open_checkpoint
from streaming_vlm_mlx.model.quantization import quantizable
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, Ids

# What Hugging Face rounds the rows of Qwen's embedding up to a multiple of.
_ROUND = 64
WORDS = ("model.embed_tokens", "lm_head")
# What the first layers round goes through all others.
SENSITIVE = (*WORDS, "model.layers.0.", "visual.blocks.0.")


@dataclass(frozen=True)
class Conversion:
    """From a checkpoint to another.

    Attributes:
        source: the folder to read.
        out: the folder to make; nothing may lie there yet.
        bits: of each weight, 4 or 8; None for plain weights in Hugging Face's layout.
        group_size: weights that share a scale; None for 32 with 8 bits, 64 with 4.
        dtype: of all that is not packed (``float32``, ``float16``, ``bfloat16``); None leaves it.
        keep_vision: the vision tower's weights stay plain.
        keep_sensitive: what costs most when it is rounded stays plain: the embedding, the head, the first layer and the
            vision tower's first block; None for yes with 8 bits, of which little loss is expected, and no with 4, which
            are for machines that are short of memory.
        shard_bytes: of a file at most; as much is held in memory.
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
    """A conversion whose source is found whole.

    Attributes:
        opened: the source.
        config: of the model to be written; its `vocab_size` counts the rows in the folder.
        ids: where a compact vocabulary's rows go among all of the tokenizer's; None where rows stay.
        notes: what the user had better know, a sentence each.
    """

    opened: Opened
    config: ModelConfig
    ids: Ids | None
    notes: tuple[str, ...]


def make_plan(job: Conversion) -> Plan:
    """Look at the source and settle what shall become of it.

    Raises:
        SvmError: the source is damaged, the target is taken, or the one can not become the other.
    """
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise SvmError(f"{job.out} is there already and is not replaced; choose another place.")
    opened = open_checkpoint(job.source)
    if job.bits is not None:
        return _packed(job, opened, job.bits)
    if opened.config.vision_config is None:
        raise SvmError(
            f"{job.source} has no vision tower, which Hugging Face's {opened.config.model_type} is never without: "
            "it can not open there."
        )
    plain = replace(opened.config, quantization=None)
    if not isinstance(opened.vocabulary, CompactVocabulary):
        return Plan(opened, plain, None, ())
    rows = -(-len(opened.tokenizer) // _ROUND) * _ROUND
    text = replace(plain.text_config, vocab_size=rows)
    note = (
        f"this model knows {len(opened.vocabulary)} of {len(opened.tokenizer)} ids; in transformers the others read as "
        "nothing, and generation_config.json keeps them from being said. Text must be split into the ids of "
        f"{plain.vocabulary} to read as it does here."
    )
    return Plan(opened, replace(plain, text_config=text), opened.vocabulary.ids, (note,))


def quantization_for(
    config: ModelConfig,
    bits: int,
    group_size: int | None = None,
    keep_vision: bool = False,
    keep_sensitive: bool | None = None,
) -> QuantizationConfig:
    """Return which layers of a plain model of `config` are packed, and how; the arguments are as in `Conversion`.

    Layers whose inputs do not divide into groups stay plain.
    """
    group_size = group_size or (32 if bits == 8 else 64)
    stays = bits == 8 if keep_sensitive is None else keep_sensitive
    layers = {}
    for name, layer in quantizable(VisionLanguageModel(config)):
        kept = (keep_vision and name.startswith("visual.")) or (stays and name.startswith(SENSITIVE))
        if kept or layer.weight.shape[1] % group_size:
            layers[name] = False
    return QuantizationConfig(group_size, bits, layers=layers)


def _packed(job: Conversion, opened: Opened, bits: int) -> Plan:
    if opened.config.quantization is not None:
        raise SvmError(f"{job.source} is quantised already; take the plain model, or convert this one without --bits.")
    quantization = quantization_for(opened.config, bits, job.group_size, job.keep_vision, job.keep_sensitive)
    quantization.check()
    group_size = quantization.group_size
    widths = {n: m.weight.shape[1] for n, m in quantizable(VisionLanguageModel(opened.config))}
    uneven = {name: width for name, width in widths.items() if width % group_size}
    for name, width in uneven.items():
        if not name.startswith("visual."):
            raise SvmError(
                f"{job.source}: the {width} inputs of {name} do not divide into groups of {group_size}; "
                "choose another --group-size."
            )
    notes = []
    if uneven and not job.keep_vision:
        notes.append(
            f"{len(uneven)} layers of the vision tower stay plain: {max(uneven.values())} inputs do not divide into "
            f"groups of {group_size}."
        )
    return Plan(opened, replace(opened.config, quantization=quantization), None, tuple(notes))
