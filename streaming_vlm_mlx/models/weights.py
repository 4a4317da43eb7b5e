"""Lists the safetensors of a folder, under one set of parameter names."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.errors import SvmError

_PREFIXES = (
    # transformers 4.52 and later, in memory and in some folders.
    ("model.visual.", "visual."),
    ("model.language_model.", "model."),
    # mlx-vlm, which writes the folders of mlx-community.
    ("vision_tower.", "visual."),
    ("language_model.model.", "model."),
    ("language_model.lm_head", "lm_head"),
)


def sanitize_name(name: str) -> str:
    """Return the name that a parameter or layer has in this package: ``visual.…``, ``model.…``, ``lm_head.…``.

    These are the names of the first Qwen2.5-VL folders on the hub; transformers and mlx-vlm also write others.
    """
    for prefix, ours in _PREFIXES:
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return name


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# Bytes of the safetensors dtypes that MLX computes with; quantized weights are packed into U32.
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        shard: the file.
        key: the name of the tensor in the file.
        dtype: safetensors' name of its dtype, one of `SIZES`.
        shape: its shape.
    """

    shard: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers the tensor holds."""
        size = 1
        for side in self.shape:
            size *= side
        return size

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.size * SIZES[self.dtype]

    @property
    def is_quantized(self) -> bool:
        """Whether each number holds several weights."""
        return self.dtype == "U32"


def list_tensors(folder: Path) -> dict[str, Stored]:
    """Return the tensors in `folder` by their names as `sanitize_name` gives them, shard by shard.

    Raises:
        SvmError: a shard is missing, damaged or a pickle, lacks a tensor that the index names, or has a dtype that MLX
            does not compute with.
    """
    index = _read_index(folder)
    found: dict[str, Stored] = {}
    for shard in find_shards(folder):
        keys = set()
        for stored in _headers(shard):
            name = sanitize_name(stored.key)
            if name in found:
                raise SvmError(f"{folder} holds the tensor {name} twice; download the checkpoint again.")
            found[name] = stored
            keys.add(stored.key)
        for key in sorted(key for key, file in index.items() if file == shard.name and key not in keys):
            raise SvmError(f"{folder / INDEX} names {key}, which {shard.name} does not hold; download both again.")
    return found


def find_shards(folder: Path) -> list[Path]:
    """Return the safetensors files with the weights.

    Raises:
        SvmError: there are none, one that the index names is missing, or there are only pickles.
    """
    if (folder / INDEX).is_file():
        names = sorted(set(_read_index(folder).values()))
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise SvmError(f"{folder} lacks {missing[0]}, which {INDEX} names; download the checkpoint again.")
        return [folder / n for n in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
    if pickles:
        raise SvmError(f"{folder / pickles[0]} is a pickle, which can run code; only safetensors are read.")
    raise SvmError(f"{folder} holds neither {WEIGHTS} nor {INDEX}.")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the JSON file `path`.

    Raises:
        SvmError: the file is missing, is not JSON, or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SvmError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise SvmError(f"{path} holds no settings.")
    return values


def _read_index(folder: Path) -> dict[str, str]:
    """Return the file of each tensor that the index names; empty without an index."""
    if not (folder / INDEX).is_file():
        return {}
    listed = read_json(folder / INDEX).get("weight_map")
    # A shard must be in the folder itself.
    if not isinstance(listed, dict) or not all(isinstance(n, str) and Path(n).name == n for n in listed.values()):
        raise SvmError(f"{folder / INDEX} has no 'weight_map' of files; download the checkpoint again.")
    return listed


def _headers(shard: Path) -> Iterator[Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                stored = Stored(shard, key, part.get_dtype(), tuple(part.get_shape()))
                if stored.dtype not in SIZES:
                    raise SvmError(
                        f"{shard}: {key} has the unsupported dtype {stored.dtype}; use a folder in BF16, F16 or F32."
                    )
                yield stored
    except (SafetensorError, OSError) as error:
        raise SvmError(f"{shard} is truncated or not a safetensors file ({error}); download it again.") from error
