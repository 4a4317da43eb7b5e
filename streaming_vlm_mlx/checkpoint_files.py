"""The files of a checkpoint folder: what they are called, which are needed, which are missing. Imports no MLX."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# A list of the questions that the checkpoint was taught to answer; a checkpoint of the hub has none.
QUESTIONS = "questions.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
ADAPTER_CONFIG = "adapter_config.json"
# mlx-lm, mlx-vlm and this package write the first.
MLX_WEIGHTS, PEFT_WEIGHTS = ADAPTER_WEIGHTS = ("adapters.safetensors", "adapter_model.safetensors")

# What tells a processor how to prepare text and pixels.
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
_SETTINGS = (
    CONFIG,
    INDEX,
    "generation_config.json",
    *PROCESSOR_FILES,
    "vocabulary.json",
    "stream.yaml",
    QUESTIONS,
)
_TOKENIZER, _TOKENIZER_PARTS = "tokenizer.json", ("vocab.json", "merges.txt")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the JSON file `path`.

    Raises:
        SvmError: the file is missing, is not JSON, or holds no object.
    """
    try:
        values = parse_json(read_file(path).decode("utf-8"))
    except ValueError as error:
        raise SvmError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise SvmError(f"{path} holds no settings.")
    return values


def read_eos_ids(folder: Path) -> tuple[int, ...] | None:
    """Return the ids that end a reply, from ``generation_config.json`` in `folder`, else ``config.json``; None without.

    Raises:
        SvmError: a file is not JSON, or the value is neither an id nor a list of ids.
    """
    for name in ("generation_config.json", CONFIG):
        found = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if found is not None:
            ids = found if isinstance(found, list) else [found]
            if not ids or any(type(one) is not int or one < 0 for one in ids):
                raise SvmError(f"{folder / name}: eos_token_id is {found!r}; it must be an id or a list of ids.")
            return tuple(ids)
    return None


def read_processor_files(folder: Path) -> dict[str, bytes]:
    """Return what is in the files of `folder` that prepare text and pixels, by name.

    Raises:
        SvmError: a file cannot be read.
    """
    try:
        return {name: (folder / name).read_bytes() for name in PROCESSOR_FILES if (folder / name).is_file()}
    except OSError as error:
        raise SvmError(f"{folder} cannot be read: {error.strerror}.") from error


def read_index(folder: Path) -> dict[str, str]:
    """Return the file of each tensor that the index in `folder` names; empty without an index.

    Raises:
        SvmError: the index is not JSON, or names a file outside the folder.
    """
    if not (folder / INDEX).is_file():
        return {}
    listed = read_json(folder / INDEX).get("weight_map")
    # A shard must be in the folder itself.
    if not isinstance(listed, dict) or not all(isinstance(n, str) and Path(n).name == n for n in listed.values()):
        raise SvmError(f"{folder / INDEX} has no 'weight_map' of files; download the checkpoint again.")
    return listed


def find_shards(folder: Path) -> list[Path]:
    """Return the safetensors files with the weights.

    Raises:
        SvmError: there are none, one that the index names is missing, or there are only pickles.
    """
    shards = _shard_names(folder)
    missing = [name for name in shards if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in shards]
    if (folder / INDEX).is_file():
        raise SvmError(f"{folder} lacks {missing[0]}, which {INDEX} names; download the checkpoint again.")
    pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
    if pickles:
        raise SvmError(f"{folder / pickles[0]} is a pickle, which can run code; only safetensors are read.")
    raise SvmError(f"{folder} holds neither {WEIGHTS} nor {INDEX}.")


def missing_file(folder: Path) -> str | None:
    """Return the first file that the checkpoint in `folder` cannot do without and lacks; None if it is complete."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    try:
        wanted = _named_files(folder)
    except SvmError:
        # A damaged file is for the loader to report.
        return None
    return next((name for name in wanted if not (folder / name).is_file()), None)


def missing_adapter_file(folder: Path) -> str | None:
    """Return the first file that the adapter in `folder` cannot do without and lacks; None if it is complete."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return ADAPTER_CONFIG
    return None if any((folder / name).is_file() for name in ADAPTER_WEIGHTS) else ADAPTER_WEIGHTS[0]


def needed_files(names: Collection[str], folder: Path | None = None) -> list[str]:
    """Return which files a checkpoint needs of a repository with the files `names`, settings first and weights last.

    What ``config.json`` and the index name is known if they are in `folder` already, and listed even if the repository
    lacks it. Without `folder`, the weights are all numbered shards.
    """
    settings = [name for name in _SETTINGS if name in names]
    tokenizer = [_TOKENIZER] if _TOKENIZER in names else [name for name in _TOKENIZER_PARTS if name in names]
    if folder is not None:
        weights = _named_files(folder)
    elif INDEX in names:
        weights = sorted(name for name in names if _is_shard(name))
    else:
        weights = [name for name in (WEIGHTS,) if name in names]
    return list(dict.fromkeys((*settings, *tokenizer, *weights)))


def needed_adapter_files(names: Collection[str]) -> list[str]:
    """Return which of the files `names` of a repository an adapter needs."""
    weights = next((name for name in ADAPTER_WEIGHTS if name in names), None)
    settings = [name for name in (ADAPTER_CONFIG, "stream.yaml") if name in names]
    return [*settings, *([weights] if weights else [])]


def why_no_checkpoint(names: Collection[str]) -> str | None:
    """Return why a repository with the files `names` holds no checkpoint, and the way out; None if it holds one."""
    if CONFIG in names and (WEIGHTS in names or INDEX in names):
        return None
    if ADAPTER_CONFIG in names:
        return "is a LoRA adapter; name the model it was trained on with --ckpt, and this with --adapter"
    if any(name.endswith(".gguf") for name in names):
        return "holds GGUF files, which are not read; name the model that they were made from"
    if CONFIG not in names:
        return f"has no {CONFIG}, so it holds no checkpoint"
    if pickle := _first_pickle(names):
        return f"holds pickles only ({pickle}), which can run code; only safetensors are read"
    return f"holds neither {WEIGHTS} nor {INDEX}"


def why_no_adapter(names: Collection[str]) -> str | None:
    """Return why a repository with the files `names` holds no adapter, and the way out; None if it holds one."""
    if ADAPTER_CONFIG not in names:
        instead = "; name a checkpoint with --ckpt" if CONFIG in names else ""
        return f"has no {ADAPTER_CONFIG}, so it holds no adapter{instead}"
    if any(name in names for name in ADAPTER_WEIGHTS):
        return None
    if pickle := _first_pickle(names):
        return f"holds pickles only ({pickle}), which can run code; only safetensors are read"
    return f"holds neither {' nor '.join(ADAPTER_WEIGHTS)}"


def _named_files(folder: Path) -> list[str]:
    """Return the files that ``config.json`` and the index of `folder` name: a vocabulary, and the weights."""
    named = read_json(folder / CONFIG).get("vocabulary")
    is_file_here = isinstance(named, str) and Path(named).name == named
    return [*([str(named)] if is_file_here else []), *_shard_names(folder)]


def _shard_names(folder: Path) -> list[str]:
    return sorted(set(read_index(folder).values())) if (folder / INDEX).is_file() else [WEIGHTS]


def _is_shard(name: str) -> bool:
    return name.startswith("model-") and "-of-" in name and name.endswith(".safetensors") and "/" not in name


def _first_pickle(names: Collection[str]) -> str | None:
    endings = tuple(pattern.removeprefix("*") for pattern in PICKLES)
    return next((name for name in sorted(names) if name.endswith(endings)), None)
