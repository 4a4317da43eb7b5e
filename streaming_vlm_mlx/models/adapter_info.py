"""An opened adapter folder, whichever program wrote it: what it changes in a base, whether it fits, and its arrays."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import CheckpointInfo, WeightLayout
from streaming_vlm_mlx.models.lora import EMBEDDING, HEAD, Kind, Linear, LoraConfig, attach, fix_lengths, shape_of
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import Stored

PATCHES = "visual.patch_embed.proj"
# Layers that are not linear; an adapter of one is added to the weight when it is loaded.
MERGED = (EMBEDDING, PATCHES)


@dataclass(frozen=True)
class AdaptedLayer:
    """The adapter of one layer.

    Attributes:
        rank: rank of its matrices.
        scale: factor of their product.
        arrays: the stored ``lora_a``, ``lora_b`` and, for DoRA, ``m``.
    """

    rank: int
    scale: float
    arrays: Mapping[str, Stored]


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter folder whose config and weights agree; no array is read yet.

    Attributes:
        folder: where the files are.
        file: the file with the arrays.
        lora: the adapter as `attach` takes it, without the layers in `merged`.
        layers: the adapted linear layers by name.
        merged: the adapted layers that are not linear.
        full: parameters that replace the base's, by name.
        copies: copies of the base's parameters, which are not read.
        transposed: whether matrices are stored as PEFT stores them, [outputs, inputs].
        base: name of the checkpoint that the adapter was trained on; "" where the folder does not say.
        fingerprint: fingerprint of that checkpoint's weights; "" where the folder does not say.
        targets: says whether the config calls for an adapter of the layer with this name.
    """

    folder: Path
    file: Path
    lora: LoraConfig
    layers: Mapping[str, AdaptedLayer]
    merged: Mapping[str, AdaptedLayer]
    full: Mapping[str, Stored]
    copies: Mapping[str, Stored] = field(default_factory=dict)
    transposed: bool = False
    base: str = ""
    fingerprint: str = ""
    targets: Callable[[str], bool] = lambda _: False

    def shape(self, layer: AdaptedLayer, part: str) -> tuple[int, ...]:
        """Return the shape that an array of `layer` has in a model: [inputs, rank], [rank, outputs] or [outputs]."""
        shape = layer.arrays[part].shape
        return shape[::-1] if self.transposed and part != "m" else shape


def exact_config(kind: Kind, layers: Mapping[str, AdaptedLayer], full: Mapping[str, Stored]) -> LoraConfig:
    """Return the settings of an adapter that has exactly these layers and whole parameters."""
    names = sorted(layers)
    rank = Counter(layers[name].rank for name in names).most_common(1)[0][0] if names else 1
    scale = Counter(layers[name].scale for name in names).most_common(1)[0][0] if names else 1.0
    ranks = {name: layers[name].rank for name in names if layers[name].rank != rank}
    scales = {name: layers[name].scale for name in names if layers[name].scale != scale}
    return LoraConfig(kind, rank, scale, tuple(names), ranks, scales, tuple(sorted(full)))


def check_parts(folder: Path, kind: Kind, layers: Mapping[str, AdaptedLayer]) -> None:
    """Check that each of `layers` has the arrays of its kind.

    Raises:
        SvmError: names the layer and the array that is missing or that this kind does not have.
    """
    wanted = {"lora_a", "lora_b"} | ({"m"} if kind == "dora" else set())
    for name, layer in sorted(layers.items()):
        for part in sorted(wanted ^ layer.arrays.keys()):
            what = "lacks" if part in wanted else "has"
            raise SvmError(
                f"{folder} {what} {part} of {name}, and its {ADAPTER_CONFIG} says otherwise; download it again."
            )


def check_fits(adapter: AdapterInfo, base: CheckpointInfo) -> None:
    """Check that `base` has every layer that `adapter` changes, in its shape; reads no weight.

    Raises:
        SvmError: names a layer that does not fit, or one that the adapter's config calls for and its file lacks.
    """
    text = base.config.text_config
    linears = {name: shape_of(m) for name, m in base.model.named_modules() if isinstance(m, Linear)}
    # A head that is the embedding gets arrays of its own where an adapter changes it.
    linears.setdefault(HEAD, (text.vocab_size, text.hidden_size))
    where = f"{adapter.folder} does not fit {base.folder}"
    for name, layer in sorted(adapter.layers.items()):
        if name not in linears:
            raise SvmError(f"{where}: it adapts {name}, which is no linear layer of that model.")
        outputs, inputs = linears[name]
        wanted = {"lora_a": (inputs, layer.rank), "lora_b": (layer.rank, outputs), "m": (outputs,)}
        for part in layer.arrays:
            _compare(where, f"{part} of {name}", adapter.shape(layer, part), wanted[part])
    parameters = {name: array.shape for name, array in base.model.named_arrays()}
    _check_merged(where, adapter, parameters, text.vocab_size, text.hidden_size)
    _check_full(where, adapter, base, parameters, linears)
    known = adapter.layers.keys() | adapter.merged.keys()
    for name in (*linears, *(name for name in MERGED if f"{name}.weight" in parameters)):
        if name not in known and adapter.targets(name):
            raise SvmError(
                f"{adapter.folder} is incomplete: {ADAPTER_CONFIG} calls for an adapter of {name}, which "
                f"{adapter.file.name} does not hold; download it again."
            )


def _compare(where: str, what: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise SvmError(f"{where}: {what} is {list(found)} in the adapter, the model calls for {list(wanted)}.")


def _check_merged(
    where: str, adapter: AdapterInfo, parameters: Mapping[str, tuple[int, ...]], rows: int, width: int
) -> None:
    for name, layer in adapter.merged.items():
        if f"{name}.weight" not in parameters:
            raise SvmError(f"{where}: it adapts {name}, which that model does not have.")
        shape = parameters[f"{name}.weight"]
        a, b = (layer.rank, *shape[1:]), (shape[0], layer.rank, *(1 for _ in shape[2:]))
        if name == EMBEDDING:
            a, b = (layer.rank, rows), (width, layer.rank)
        _compare(where, f"the adapter's A of {name}", layer.arrays["lora_a"].shape, a)
        _compare(where, f"the adapter's B of {name}", layer.arrays["lora_b"].shape, b)


def _check_full(
    where: str,
    adapter: AdapterInfo,
    base: CheckpointInfo,
    parameters: Mapping[str, tuple[int, ...]],
    linears: Mapping[str, tuple[int, int]],
) -> None:
    embedding = (base.config.text_config.vocab_size, base.config.text_config.hidden_size)
    plain = {f"{name}.weight": shape for name, shape in linears.items()} | {f"{EMBEDDING}.weight": embedding}
    for name, stored in sorted({**adapter.copies, **adapter.full}.items()):
        shape = plain.get(name, parameters.get(name))
        if shape is None:
            raise SvmError(f"{where}: it holds {name}, which that model does not have.")
        if stored.shape != shape and stored.shape not in base.layout.stored_shapes(name, shape):
            _compare(where, name, stored.shape, shape)


def load_adapter(adapter: AdapterInfo, base: CheckpointInfo, dtype: mx.Dtype) -> None:
    """Attach `adapter`, which fits, to the loaded model of `base`, with its arrays cast to `dtype`.

    Raises:
        SvmError: the arrays cannot be read.
    """
    held, merged = base.model.dtype, tuple(f"{name}.weight" for name in adapter.merged)
    attach(base.model, replace(adapter.lora, full=(*adapter.lora.full, *merged)))
    arrays = restore(adapter, base.model, dtype, held, base.layout)
    for name, layer in adapter.merged.items():
        a, b = (arrays[layer.arrays[part].key].astype(mx.float32) for part in ("lora_a", "lora_b"))
        product = b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1)
        weight = dict(base.model.named_arrays())[f"{name}.weight"]
        delta = product.T if name == EMBEDDING else product.reshape(weight.shape)
        changed = (weight.astype(mx.float32) + layer.scale * delta).astype(held)
        base.model.load_weights([(f"{name}.weight", changed)], strict=False)
    mx.eval(base.model.parameters())
    fix_lengths(base.model)


def restore(
    adapter: AdapterInfo,
    model: VisionLanguageModel,
    dtype: mx.Dtype = mx.float32,
    held: mx.Dtype = mx.float32,
    layout: WeightLayout | None = None,
) -> dict[str, mx.array]:
    """Load the arrays of `adapter` into the layers that `attach` made; return all stored arrays.

    Args:
        adapter: the adapter.
        model: the model, changed in place.
        dtype: dtype of the low-rank matrices in memory.
        held: dtype of parameters that are stored whole.
        layout: how stored rows of the embedding become the model's; None where they are the same.

    Raises:
        SvmError: the arrays cannot be read, or have other rows than a model with a compact vocabulary.
    """
    loaded, weights = read_arrays(adapter), []
    for name, layer in adapter.layers.items():
        for part, stored in layer.arrays.items():
            array = loaded[stored.key]
            turned = array.T if adapter.transposed and part != "m" else array
            weights.append((f"{name}.{part}", turned.astype(dtype)))
    shapes = {name: array.shape for name, array in model.named_arrays()}
    for name, stored in adapter.full.items():
        owner, _, leaf = name.rpartition(".")
        place = f"{owner}.linear.{leaf}" if owner in adapter.layers else name
        array = loaded[stored.key]
        array = layout.sanitize(name, array, shapes[place]) if layout else array
        if array.shape != shapes[place]:
            raise SvmError(
                f"{adapter.file} holds all rows of {name}, the model some; fuse it, and train a new adapter."
            )
        weights.append((place, array.astype(held)))
    model.load_weights(weights, strict=False)
    mx.eval(model.parameters())
    return loaded


def read_arrays(adapter: AdapterInfo) -> dict[str, mx.array]:
    """Return the arrays in the file of `adapter`, by their stored names.

    Raises:
        SvmError: they cannot be read.
    """
    try:
        loaded = mx.load(str(adapter.file))
        assert isinstance(loaded, dict)
        mx.eval(loaded)
    except (RuntimeError, OSError) as error:
        raise SvmError(f"{adapter.file} cannot be read: {error}.") from error
    return loaded
