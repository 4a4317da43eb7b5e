"""Lists the safetensors of a folder, under one set of parameter names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streaming_vlm_mlx.checkpoint_files import INDEX, find_shards, read_index
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

    These are the names of the first Qwen2.5-VL folders on the hub; transformers and mlx-vlm also write others, for
    every family.
    """
    for prefix, ours in _PREFIXES:
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return name


def keep_name(name: str) -> str:
    """Return `name`, which is that in the first Qwen2-VL and Qwen2.5-VL folders too."""
    return name


def transformers_name(name: str) -> str:
    """Return the name that transformers 4.52 and later give to the parameter or layer `name` of this package.

    Folders of families after Qwen2.5-VL have these names, and so do PEFT's adapters.
    """
    if name.startswith("model."):
        return name.replace("model.", "model.language_model.", 1)
    return f"model.{name}" if name.startswith("visual.") else name


def mlx_vlm_name(name: str) -> str:
    """Return the name in mlx-vlm of the parameter or layer `name` of this package."""
    return name.replace("visual.", "vision_tower.", 1) if name.startswith("visual.") else f"language_model.{name}"


# Bytes of the safetensors dtypes that MLX computes with; quantized weights are packed into U32, and the scales of
# `mxfp4`, `mxfp8` and `nvfp4` are floating-point numbers of eight bits, which are stored as U8.
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "U8": 1}
_SCALES = ".scales"


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

    @property
    def is_float(self) -> bool:
        """Whether its numbers can be cast to another dtype."""
        return self.dtype not in ("U32", "U8")


def list_tensors(folder: Path, sanitize: Callable[[str], str]) -> dict[str, Stored]:
    """Return the tensors in `folder` by their names as the family's `sanitize` gives them, shard by shard.

    Raises:
        SvmError: a shard is missing, damaged or a pickle, lacks a tensor that the index names, or has a dtype that MLX
            does not compute with.
    """
    index = read_index(folder)
    found: dict[str, Stored] = {}
    for shard in find_shards(folder):
        keys = set()
        for stored in read_headers(shard):
            name = sanitize(stored.key)
            if name in found:
                raise SvmError(f"{folder} holds the tensor {name} twice; download the checkpoint again.")
            found[name] = stored
            keys.add(stored.key)
        for key in sorted(key for key, file in index.items() if file == shard.name and key not in keys):
            raise SvmError(f"{folder / INDEX} names {key}, which {shard.name} does not hold; download both again.")
    return found


def read_headers(shard: Path) -> Iterator[Stored]:
    """Yield the tensors of the safetensors file `shard`; reads no number.

    Raises:
        SvmError: the file is missing or damaged, or has a dtype that MLX does not compute with.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(key)
                stored = Stored(shard, key, part.get_dtype(), tuple(part.get_shape()))
                if stored.dtype not in SIZES or (stored.dtype == "U8" and not key.endswith(_SCALES)):
                    raise SvmError(
                        f"{shard}: {key} has the unsupported dtype {stored.dtype}; use a folder in BF16, F16 or F32."
                    )
                yield stored
    except (SafetensorError, OSError) as error:
        raise SvmError(f"{shard} is truncated or not a safetensors file ({error}); download it again.") from error
