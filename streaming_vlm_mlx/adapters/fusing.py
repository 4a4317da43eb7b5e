"""An adapter that becomes part of the weights."""

from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.adapters.files import check_base, load_adapter, read_adapter
from streaming_vlm_mlx.adapters.layers import fuse
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.locate import STREAM, read_stream_config
from streaming_vlm_mlx.model.checkpoint import CONFIG, fill, open_checkpoint, save_checkpoint
from streaming_vlm_mlx.model.shards import Stored

_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def fuse_checkpoint(base: Path, adapter: Path, out: Path) -> None:
    """Write the checkpoint in `base` with the adapter in `adapter` fused into it to `out`, in the base's own dtype.

    Raises:
        SvmError: `out` holds a checkpoint, the adapter is of another base, or a file can not be used.
    """
    if (out / CONFIG).exists():
        raise SvmError(f"{out} holds a checkpoint already; choose another place with --out.")
    described = read_adapter(adapter)
    check_base(adapter, described, base)
    opened = open_checkpoint(base)
    checkpoint = fill(opened, base, _dtype(opened.tensors))
    load_adapter(adapter, described, checkpoint.model, mx.float32)
    fuse(checkpoint.model)
    stream = read_stream_config(adapter) if (adapter / STREAM).is_file() else checkpoint.stream
    save_checkpoint(out, replace(checkpoint, stream=stream))


def _dtype(tensors: dict[str, Stored]) -> mx.Dtype:
    """Return what the weights are stored as: what is plain in every model is its last norm."""
    return _DTYPES[tensors["model.norm.weight"].dtype]
