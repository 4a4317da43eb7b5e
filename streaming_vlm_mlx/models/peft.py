"""Reads and writes adapters of Hugging Face's PEFT: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import regex

from streaming_vlm_mlx.atomic import replacing_folder, write_text
from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, PEFT_WEIGHTS
from streaming_vlm_mlx.config_io import demand, shown
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.adapter_info import (
    MERGED,
    AdaptedLayer,
    AdapterInfo,
    check_parts,
    exact_config,
    read_arrays,
)
from streaming_vlm_mlx.models.lora import EMBEDDING, HEAD, Kind
from streaming_vlm_mlx.models.weights import Stored, read_headers, sanitize_name, transformers_name

PICKLE = "adapter_model.bin"
TAKEN = "svm-tui takes LORA: LoRA, rsLoRA and DoRA"
# Settings of variants that compute something else, or change the base's weights.
_VARIANTS = (
    *("trainable_token_indices", "target_parameters", "layer_replication", "megatron_config", "lora_bias"),
    *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"),
    "velora_config",
)
_INITS_THAT_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Seconds of processor time that an expression may take for one name; most take a thousandth of it.
_PATIENCE = 0.02
_PREFIXES = ("base_model.model.", "module.", "_orig_mod.")
_PART = re.compile(
    r"(?P<layer>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(\.(?!weight$|bias$)[^.]+)?(\.weight)?"
)
_SAVED = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_OURS = {"A": "lora_a", "B": "lora_b", "embedding_A": "lora_a", "embedding_B": "lora_b", "magnitude_vector": "m"}
Names = str | tuple[str, ...] | None


@dataclass(frozen=True)
class PeftConfig:
    """The settings of ``adapter_config.json`` that say what an adapter computes, under PEFT's names."""

    r: int
    lora_alpha: float
    use_rslora: bool
    use_dora: bool
    target_modules: Names
    exclude_modules: Names
    modules_to_save: tuple[str, ...]
    layers_to_transform: tuple[int, ...]
    layers_pattern: tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    bias: str
    base: str

    def of(self, module: str) -> tuple[int, float]:
        """Return rank and scale of the adapter of `module`, a name as PEFT has it."""
        rank = _by_pattern(self.rank_pattern, module, self.r)
        return rank, _by_pattern(self.alpha_pattern, module, self.lora_alpha) / (rank**0.5 if self.use_rslora else rank)

    def targets(self, module: str) -> bool:
        """Return whether `module`, a name as PEFT has it, gets an adapter."""
        saved = any(_match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save)
        if saved or self.target_modules is None or (self.exclude_modules and _names(self.exclude_modules, module)):
            return False
        if isinstance(self.target_modules, str):
            if self.target_modules.lower() == "all-linear":
                return sanitize_name(module) not in (HEAD, *MERGED)
            return _match(self.target_modules, module, regex.fullmatch) is not None
        if not _names(self.target_modules, module):
            return False
        exact = module in self.target_modules
        return exact or not self.layers_to_transform or self._layer_of(module) in self.layers_to_transform

    def _layer_of(self, module: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in self.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        found = next((match for p in patterns if (match := _match(p, module))), None)
        return int(found[1]) if found else None


def _names(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return _match(names, module, regex.fullmatch) is not None
    return module in names or module.endswith(tuple(f".{name}" for name in names))


def _by_pattern(values: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((value for pattern, value in values.items() if _match(rf"(.*\.)?({pattern})$", module)), default)


def _match(expression: str, module: str, match: Callable[..., Any] = regex.match) -> Any:
    """Return the match of `expression`, which the adapter's config holds, with the name `module`.

    Raises:
        SvmError: it is no expression, or takes time that grows without bound.
    """
    try:
        return match(expression, module, timeout=_PATIENCE)
    except (regex.error, TimeoutError) as error:
        raise SvmError(
            f"{ADAPTER_CONFIG}: the expression {shown(expression)} for names of modules cannot be used ({error}); "
            "list the names."
        ) from error


def read_peft_config(path: Path, values: Mapping[str, Any]) -> PeftConfig:
    """Return the settings `values` of PEFT's config file `path`.

    Raises:
        SvmError: a setting has a wrong type, or names a method or variant that is not supported.
    """
    _check_method(path, values)

    def take(name: str, kinds: type | tuple[type, ...], default: Any, rule: str) -> Any:
        value = default if values.get(name) is None else values[name]
        demand(isinstance(value, kinds), f"{path}: {name}", value, rule)
        return value

    def names(name: str) -> tuple[str, ...]:
        given = take(name, (list, str), [], "a list of names")
        return _strings(path, name, [given] if isinstance(given, str) else given)

    def targets(name: str) -> Names:
        given = take(name, (list, str), [], "a list of names, or an expression")
        return given if isinstance(given, str) else _strings(path, name, given)

    layers = take("layers_to_transform", (list, int), [], "a list of numbers")
    ranks, alphas = (take(name, dict, {}, "a mapping of names") for name in ("rank_pattern", "alpha_pattern"))
    config = PeftConfig(
        take("r", int, 8, "a whole number"),
        take("lora_alpha", (int, float), 8, "a number"),
        take("use_rslora", bool, False, "true or false"),
        take("use_dora", bool, False, "true or false"),
        targets("target_modules") if values.get("target_modules") is not None else None,
        targets("exclude_modules"),
        names("modules_to_save"),
        tuple([layers] if isinstance(layers, int) else layers),
        names("layers_pattern"),
        ranks,
        alphas,
        take("bias", str, "none", "'none', 'all' or 'lora_only'"),
        take("base_model_name_or_path", str, "", "a name"),
    )
    for name, rank in (("r", config.r), *ranks.items()):
        demand(type(rank) is int and rank >= 1, f"{path}: {name}", rank, "1 or more")
    for name, alpha in (("lora_alpha", config.lora_alpha), *alphas.items()):
        demand(type(alpha) in (int, float) and 0 < alpha < math.inf, f"{path}: {name}", alpha, "a number above 0")
    return config


def _strings(path: Path, name: str, values: list[object]) -> tuple[str, ...]:
    demand(all(isinstance(value, str) for value in values), f"{path}: {name}", values, "a list of names")
    return tuple(str(value) for value in values)


def _check_method(path: Path, values: Mapping[str, Any]) -> None:
    method = values.get("peft_type")
    if method != "LORA":
        raise SvmError(f"{path.parent} is an adapter of the kind {method!r} of PEFT; {TAKEN}.")
    for name in _VARIANTS:
        if values.get(name):
            raise SvmError(f"{path} sets {name}, a variant of LoRA that is not supported; {TAKEN}.")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_INITS_THAT_CHANGE_THE_BASE):
        raise SvmError(
            f"{path}: init_lora_weights is {start!r}, which changes the base's weights; save the adapter with PEFT's "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it, or merge it with PEFT."
        )


def open_peft(folder: Path, values: Mapping[str, Any]) -> AdapterInfo:
    """Open the PEFT adapter in `folder`, whose config holds `values`; reads no array.

    Raises:
        SvmError: the file is missing, damaged or a pickle, the method is not supported, or config and file disagree.
    """
    path, file = folder / ADAPTER_CONFIG, folder / PEFT_WEIGHTS
    config = read_peft_config(path, values)
    if not file.is_file() and (folder / PICKLE).is_file():
        raise SvmError(f"{folder / PICKLE} is a pickle, which can run code; save the adapter as {PEFT_WEIGHTS}.")
    if not file.is_file():
        raise SvmError(f"{folder} lacks {PEFT_WEIGHTS}; download the adapter again.")
    return _open(folder, file, config)


def _open(folder: Path, file: Path, config: PeftConfig) -> AdapterInfo:
    parts: dict[str, dict[str, Stored]] = {}
    spelt: dict[str, str] = {}
    full: dict[str, Stored] = {}
    copies: dict[str, Stored] = {}
    for stored in read_headers(file):
        key = _stripped(stored.key)
        found = _PART.fullmatch(key)
        name = sanitize_name(found["layer"] if found else key)
        place = parts.setdefault(name, {}) if found else full if _is_full(key, config, file) else copies
        part = _OURS[found["part"]] if found else name
        if part in place:
            raise SvmError(f"{file} holds {stored.key} twice, under different names; keep one adapter in it.")
        place[part] = stored
        if found:
            spelt[name] = found["layer"]
    head = f"{HEAD}.weight"
    if f"{EMBEDDING}.weight" in full and head in copies:
        # With ensure_weight_tying, modules_to_save names the embedding alone.
        full[head] = copies.pop(head)
    kind: Kind = "dora" if config.use_dora else "lora"
    adapted = {name: AdaptedLayer(*config.of(spelt[name]), arrays) for name, arrays in parts.items()}
    layers = {name: layer for name, layer in adapted.items() if name not in MERGED}
    merged = {name: layer for name, layer in adapted.items() if name in MERGED}
    if merged and config.use_dora:
        raise SvmError(f"{folder} adapts {next(iter(merged))} with DoRA, which svm-tui takes for linear layers only.")
    check_parts(folder, kind, adapted)
    _check_agreement(folder, file, config, adapted, spelt)
    _check_saved(folder, config, full)
    if not (adapted or full):
        raise SvmError(f"{file} holds no adapter.")
    lora = exact_config(kind, layers, full)
    expected = _expected(config, spelt)
    return AdapterInfo(folder, file, lora, layers, merged, full, copies, True, config.base, targets=expected)


def _stripped(key: str) -> str:
    """Return a tensor's name without the wrappers of PEFT, torch.compile and data-parallel training."""
    while key.startswith(_PREFIXES):
        for prefix in _PREFIXES:
            key = key.removeprefix(prefix)
    key = _SAVED.sub("", key)
    return key if _PART.fullmatch(key) else key.replace(".base_layer.", ".")


def _is_full(key: str, config: PeftConfig, file: Path) -> bool:
    """Return whether a tensor that is no part of an adapter replaces one of the base's; a copy of the base's does not.

    Raises:
        SvmError: the config does not account for it.
    """
    module, _, leaf = key.rpartition(".")
    layer = sanitize_name(module)
    if any(name in _ancestors(module, config.modules_to_save) for name in config.modules_to_save):
        return True
    if leaf == "bias" and config.bias != "none":
        return True
    # PEFT saves the embeddings where it cannot tell whether they were resized.
    if leaf == "weight" and layer in (EMBEDDING, HEAD):
        return False
    raise SvmError(f"{file} holds {key}, which {ADAPTER_CONFIG} does not name; {TAKEN}.")


def _paths(module: str) -> list[str]:
    """Return the names of the modules that `module` is in, the outermost first, and its own."""
    steps = module.split(".")
    return [".".join(steps[: count + 1]) for count in range(len(steps))]


def _ancestors(module: str, names: tuple[str, ...]) -> set[str]:
    """Return those of `names` that `module`, or a module that it is in, ends with, as PEFT compares them."""
    return {name for name in names if any(path.endswith(name) for path in _paths(module))}


def _check_agreement(
    folder: Path, file: Path, config: PeftConfig, adapted: Mapping[str, AdaptedLayer], spelt: Mapping[str, str]
) -> None:
    for name, layer in sorted(adapted.items()):
        rank = next(iter(layer.arrays["lora_a"].shape), 0)
        if rank != layer.rank:
            raise SvmError(f"{folder / ADAPTER_CONFIG} gives {name} rank {layer.rank}, {file.name} has rank {rank}.")
        if config.target_modules is not None and not config.targets(spelt[name]):
            raise SvmError(f"{file} adapts {spelt[name]}, which target_modules in {ADAPTER_CONFIG} does not name.")


def _check_saved(folder: Path, config: PeftConfig, full: Mapping[str, Stored]) -> None:
    modules = [_stripped(stored.key).rpartition(".")[0] for stored in full.values()]
    for module in modules:
        saved = [path for path in _paths(module) if path.endswith(config.modules_to_save)]
        if len(saved) > 1:
            raise SvmError(
                f"{folder / ADAPTER_CONFIG}: modules_to_save names {saved[0]} and {saved[1]} in it, of which PEFT "
                "saves one alone; train with the outer one."
            )
    for name in config.modules_to_save:
        if not any(_ancestors(module, (name,)) for module in modules):
            raise SvmError(
                f"{folder / ADAPTER_CONFIG}: modules_to_save names {name!r}, which {PEFT_WEIGHTS} does not hold."
            )


def _expected(config: PeftConfig, spelt: Mapping[str, str]) -> Callable[[str], bool]:
    """Return a function that says whether the config calls for an adapter of a layer, which has this package's name.

    Expressions match names as the file spells them: those of transformers before 4.52, or those since.
    """
    spell = (
        transformers_name
        if any(name.startswith(("model.language_model.", "model.visual.")) for name in spelt.values())
        else str
    )
    return lambda name: config.targets(spell(name))


def save_peft(out: Path, adapter: AdapterInfo) -> None:
    """Write `adapter` to `out`, which must not exist or be empty, as PEFT's `PeftModel.from_pretrained` opens it.

    Raises:
        SvmError: the folder exists or cannot be written, or the arrays cannot be read.
    """
    arrays = read_arrays(adapter)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SvmError(f"{out} exists and is not replaced; choose another folder.")
    written = {}
    for name, layer in adapter.layers.items():
        module = f"base_model.model.{transformers_name(name)}"
        for part, theirs in (("lora_a", "lora_A.weight"), ("lora_b", "lora_B.weight"), ("m", "lora_magnitude_vector")):
            if part in layer.arrays:
                array = arrays[layer.arrays[part].key]
                turned = array if adapter.transposed or part == "m" else array.T
                written[f"{module}.{theirs}"] = mx.contiguous(turned)
    for name, layer in adapter.merged.items():
        tail = ("lora_embedding_A", "lora_embedding_B") if name == EMBEDDING else ("lora_A.weight", "lora_B.weight")
        for part, theirs in zip(("lora_a", "lora_b"), tail, strict=True):
            written[f"base_model.model.{transformers_name(name)}.{theirs}"] = arrays[layer.arrays[part].key]
    for name, stored in adapter.full.items():
        owner, _, leaf = transformers_name(name).rpartition(".")
        inner = f"{owner}.base_layer" if name.rpartition(".")[0] in adapter.layers else owner
        written[f"base_model.model.{inner}.{leaf}"] = arrays[stored.key]
    with replacing_folder(out) as part_folder:
        write_text(part_folder / ADAPTER_CONFIG, json.dumps(_config_values(adapter), indent=2) + "\n")
        try:
            mx.save_safetensors(str(part_folder / PEFT_WEIGHTS), written, {"format": "pt"})
        except RuntimeError as error:
            raise SvmError(f"{out} cannot be written: {error}") from error


def _config_values(adapter: AdapterInfo) -> dict[str, Any]:
    adapted, lora = {**adapter.layers, **adapter.merged}, adapter.lora
    modules = {name: transformers_name(name) for name in adapted}
    # PEFT wants every parameter of a module to save, and takes single biases as those of `bias`.
    saved = {name.removesuffix(".weight") for name in adapter.full if name.endswith(".weight")} - adapter.layers.keys()
    is_bias_only = any(name.endswith(".bias") and name.rpartition(".")[0] not in saved for name in adapter.full)
    alphas = {name: _whole(layer.rank * layer.scale) for name, layer in adapted.items()}
    alpha = _whole(lora.rank * lora.scale)
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": adapter.base or None,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "use_dora": lora.kind == "dora",
        "use_rslora": False,
        "target_modules": sorted(modules.values()),
        "modules_to_save": sorted(map(transformers_name, saved)) or None,
        "rank_pattern": {modules[name]: layer.rank for name, layer in adapted.items() if layer.rank != lora.rank},
        "alpha_pattern": {modules[name]: value for name, value in alphas.items() if value != alpha},
        "bias": "all" if is_bias_only else "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _whole(value: float) -> float:
    """Return `value`, rounded to twelve digits, as an int if it is whole."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded
