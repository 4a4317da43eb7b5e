"""From tensors in files to the arrays of a model: what they are called, how they lie, in which dtype."""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.shards import Stored
from streaming_vlm_mlx.model.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.vocabulary import Ids

Shape = tuple[int, ...]
_PATCHES = "visual.patch_embed.proj.weight"
_ROWS = ("model.embed_tokens.", "lm_head.")


@dataclass(frozen=True)
class Fit:
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

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._shard: Path | None = None
        self._arrays: dict[str, mx.array] = {}

    def take(self, name: str, stored: Stored, shape: Shape, dtype: mx.Dtype | None) -> mx.array:
        """Return parameter `name` of `shape`, its numbers as `dtype` unless they are packed; None leaves them.

        Nothing is read before the array is evaluated. A tensor can be taken once.

        Raises:
            SvmError: the file can not be read.
        """
        if stored.shard != self._shard:
            self._shard, self._arrays = stored.shard, _open(stored.shard)
        array = self._fit.apply(name, self._arrays.pop(stored.key), shape)
        return array if stored.is_quantized or dtype is None else array.astype(dtype)


def check_names(model: VisionLanguageModel, tensors: dict[str, Stored], fit: Fit, folder: Path) -> None:
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
        raise SvmError(f"{shard} can not be read: {error}.") from error
    assert isinstance(loaded, dict)
    return loaded
