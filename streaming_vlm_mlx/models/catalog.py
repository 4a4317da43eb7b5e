"""Lists the checkpoints on this machine with what they need, and says which published sizes fit a memory.

Only configs and the headers of weights are read.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, CONFIG, missing_file, read_json
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import DEFAULT_REVISION, HubCache
from streaming_vlm_mlx.memory import mac_gpu_memory
from streaming_vlm_mlx.models.convert_checkpoint import quantization_for
from streaming_vlm_mlx.models.families import FAMILIES, family_of
from streaming_vlm_mlx.models.loading import read_model_config
from streaming_vlm_mlx.models.memory_budget import GIB, estimate
from streaming_vlm_mlx.models.quantization import quantizable, resolve_quantization
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import list_tensors
from streaming_vlm_mlx.processor_config import DEFAULTS as PIXELS
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.stream_settings import INSTRUCT, LIVECC, STREAMINGVLM, preset_of, read_stream_config

PACKAGE, FOLDER, CACHE = "package", "checkpoints/", "hub cache"
BITS = (16, 8, 4)
# Of the memory that a model may use, the part to fill: other programs need some of it too.
_ROOM = 3 / 4
# Gibibytes of the Macs that a choice is made for.
MACS = (8, 16, 32, 64)


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint on this machine.

    Attributes:
        name: what ``--ckpt`` takes.
        place: where it is: with the package, in ``checkpoints/``, or in the hub's cache.
        folder: its folder.
        size: bytes of its files.
        revision: for a snapshot in the hub's cache, the branch or tag that points to it, else None.
        commit: for a snapshot in the hub's cache, its commit, else None.
        family: its family's name; None where it cannot be read.
        bits: bits of most weights.
        preset: the name of the stream settings that it takes before its own.
        peak: bytes that its stream needs under its own settings on this machine.
        fits: whether they are at most this machine's limit.
        problem: why it cannot be used, or empty.
        is_foreign: whether it is a model of a kind that this program does not run.
    """

    name: str
    place: str
    folder: str
    size: int
    revision: str | None = None
    commit: str | None = None
    family: str | None = None
    bits: int | None = None
    preset: str | None = None
    peak: int | None = None
    fits: bool | None = None
    problem: str = ""
    is_foreign: bool = False


@dataclass(frozen=True)
class Computing:
    """What this machine computes in, whether on a GPU, and the bytes that a model may use."""

    dtype: mx.Dtype
    gpu: bool
    limit: int


def list_checkpoints(root: Path, cache: HubCache, machine: Computing) -> Iterator[CheckpointSummary]:
    """Yield the checkpoint of the package, those in the folder `root`, and those in the hub's cache."""
    yield _summary(CheckpointSummary("(no --ckpt)", PACKAGE, str(CHECKPOINT), 0), CHECKPOINT, machine)
    for folder in sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith(".")):
        yield _summary(CheckpointSummary(folder.name, FOLDER, str(folder), 0), folder, machine)
    for name, folder in cache.snapshots():
        is_branch = name.revision != folder.name
        shown = name.repo_id if name.revision == DEFAULT_REVISION else str(name)
        found = CheckpointSummary(
            shown, CACHE, str(folder), 0, name.revision if is_branch else None, commit=folder.name
        )
        yield _summary(found, folder, machine)


def _summary(found: CheckpointSummary, folder: Path, machine: Computing) -> CheckpointSummary:
    """Return `found` with what the files in `folder` say."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = replace(found, size=sum(path.stat().st_size for path in files))
    try:
        if (folder / ADAPTER_CONFIG).is_file():
            return replace(found, problem="an adapter; name it with --adapter")
        lacks = missing_file(folder)
        values = read_json(folder / CONFIG) if lacks != CONFIG else {}
        if values and values.get("model_type") not in FAMILIES:
            return replace(found, problem=f"a model of type {values.get('model_type')!r}", is_foreign=True)
        if lacks:
            again = "; name it in a command while online to complete it" if found.place == CACHE else ""
            return replace(found, problem=f"incomplete: it lacks {lacks}{again}")
        return _measured(found, folder, machine)
    except SvmError as error:
        return replace(found, problem=str(error).replace(f"{folder}/", "").removeprefix(f"{folder}: ").rstrip("."))


def _measured(found: CheckpointSummary, folder: Path, machine: Computing) -> CheckpointSummary:
    config = read_model_config(folder)
    tensors = list_tensors(folder, family_of(config).sanitize)
    model = VisionLanguageModel(replace(config, quantization=None))
    bits = 8 * max((tensor.nbytes // tensor.size for tensor in tensors.values() if tensor.size), default=0)
    if config.quantization is not None:
        model.quantize(resolve_quantization(config.quantization, model, tensors))
        bits = config.quantization.bits
    peak = estimate(model, read_stream_config(folder), machine.dtype, machine.gpu).peak
    found = replace(found, family=family_of(config).NAME, bits=bits, preset=preset_of(folder))
    return replace(found, peak=peak, fits=peak <= machine.limit)


# Published models that are of one of the published sizes, and are known by another name; and their presets.
_ALSO = {"Qwen2.5-VL 7B": ("StreamingVLM", STREAMINGVLM), "Qwen2-VL 7B": ("LiveCC", LIVECC)}


@dataclass(frozen=True)
class Need:
    """A published size in so many bits, and the bytes that a stream of it needs."""

    model: str
    bits: int
    peak: int

    @property
    def label(self) -> str:
        """The name of the size, and of a model that is known by another."""
        return ", ".join((self.model, *_ALSO.get(self.model, ())[:1]))

    @property
    def presets(self) -> str:
        """The presets of the models that `label` names, in its order."""
        return ", ".join((INSTRUCT, *_ALSO.get(self.model, ())[1:]))


def published_needs(stream: StreamConfig | None = None, dtype: mx.Dtype = mx.bfloat16, gpu: bool = True) -> list[Need]:
    """Return what each published size needs in 16, 8 and 4 bits on a device that computes in `dtype`.

    The settings are `stream`, or the default. Frames are the largest that its family's processor makes.
    """
    stream = stream or StreamConfig()
    found = []
    for name, config in PUBLISHED.items():
        model = VisionLanguageModel(config)
        plain = estimate(model, replace(stream, pixels=PIXELS[config.model_type]), dtype, gpu).peak
        found.append(Need(name, 16, plain))
        found += [Need(name, bits, plain - _saved(model, bits, dtype.size)) for bits in (8, 4)]
    return found


def _saved(model: VisionLanguageModel, bits: int, size: int) -> int:
    """Return the bytes that ``convert-ckpt --bits`` saves of numbers of `size` bytes.

    Building each quantized model would take seconds.
    """
    plan = quantization_for(model, bits)
    numbers = sum(layer.weight.size for name, layer in quantizable(model) if plan.layers.get(name) is not False)
    # A scale and a bias for each group.
    return numbers * size - numbers * bits // 8 - 2 * size * numbers // plan.group_size


@dataclass(frozen=True)
class Choice:
    """What to take on a machine.

    Attributes:
        memory: its bytes.
        usable: those that a model may use.
        take: of each line of models, the largest that fits well, in the most bits that fit well.
    """

    memory: int
    usable: int
    take: Mapping[str, Need]


# Lines of models: their names, and the published sizes that belong to them, larger ones first.
LINES: Mapping[str, tuple[str, ...]] = {
    "StreamingVLM": ("Qwen2.5-VL 7B",),
    "LiveCC": ("Qwen2-VL 7B",),
    "Qwen3-VL": ("Qwen3-VL 8B", "Qwen3-VL 4B", "Qwen3-VL 2B"),
    "Qwen2.5-VL": ("Qwen2.5-VL 7B", "Qwen2.5-VL 3B"),
}


def choices(needs: Iterable[Need]) -> list[Choice]:
    """Return what to take on Macs of `MACS`, by `published_needs`."""
    needs = list(needs)
    return [choose(needs, gib * GIB, mac_gpu_memory(gib * GIB)) for gib in MACS]


def choose(needs: Iterable[Need], memory: int, usable: int) -> Choice:
    """Return what to take on a machine of `memory` bytes: three quarters of those that are `usable` are filled."""
    known = {(need.model, need.bits): need for need in needs}
    take = {}
    for line, models in LINES.items():
        fitting = [known[model, bits] for model in models for bits in BITS if known[model, bits].peak <= _ROOM * usable]
        if fitting:
            take[line] = fitting[0]
    return Choice(memory, usable, take)
