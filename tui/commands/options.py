"""What commands that run a model share: their options, the settings these come to, and the engine."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.shipped import CHECKPOINT

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.stream.engine import Engine


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose a model and its stream's settings."""
    parser.add_argument(
        "--ckpt", metavar="C", help="a folder, a name below checkpoints/, or a hub id (default: one that knows matches)"
    )
    parser.add_argument("--adapter", type=Path, metavar="A", help="a folder of train --lora, to put beside --ckpt")
    parser.add_argument("--query", help="what the viewer asks for, in the first second")
    parser.add_argument("--previous", help="what was said before the clip")
    parser.add_argument("--fps", type=int, help="frames taken from a second (default: the checkpoint's, else 2)")
    parser.add_argument("--config", type=Path, metavar="F", help="YAML of stream settings, laid over the checkpoint's")
    parser.add_argument("--kv-bits", type=int, choices=(8, 4), help="hold the cache in so many bits a number")
    parser.add_argument("--seed", type=int, help="where random draws begin (default 0)")


def resolve_settings(args: argparse.Namespace) -> "tuple[StreamConfig, Path]":
    """Return the stream's settings and the checkpoint's folder: its own or the adapter's, then --config, then options.

    Without --ckpt that is the checkpoint which comes with the package.

    Raises:
        SvmError: there is no such checkpoint, or a setting cannot be used.
    """
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.config_io import read_settings
    from streaming_vlm_mlx.hub import STREAM, read_stream_config, resolve_checkpoint

    folder = resolve_checkpoint(args.ckpt) if args.ckpt else CHECKPOINT
    settled = args.adapter if args.adapter and (args.adapter / STREAM).is_file() else folder
    config = read_stream_config(settled)
    if args.config:
        config = config.merged(read_settings(args.config, StreamConfig))
    named = {k: getattr(args, k) for k in ("query", "previous", "fps", "kv_bits") if getattr(args, k) is not None}
    sampling = {} if args.seed is None else {"sampling": {"seed": args.seed}}
    config = config.merged({**named, **sampling})
    if args.query is not None:
        _warn_of_unused_query(config, folder)
    return config, folder


def _warn_of_unused_query(config: "StreamConfig", folder: Path) -> None:
    from tui.player.spec import uses_query

    if not uses_query(config):
        print(
            f"svm-tui: --query has no effect: the training template of {folder.name} has no query; "
            "ask questions in the player with /.",
            file=sys.stderr,
        )


def make_engine(
    folder: Path, config: "StreamConfig", note: Callable[[str], None], adapter: Path | None = None
) -> "tuple[Engine, str]":
    """Start an engine on the checkpoint in `folder`; return its name too.

    Args:
        folder: the checkpoint's.
        config: the stream's settings.
        note: told, in a sentence each, what the user had better know.
        adapter: the folder of an adapter of that checkpoint.

    Raises:
        SvmError: nothing on this machine can run a model.
    """
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.distributed import join
    from streaming_vlm_mlx.models.loading import checkpoint_notes
    from streaming_vlm_mlx.stream.engine import Engine
    from streaming_vlm_mlx.stream.loader import bundle_loader

    for line in (machine.advice, *checkpoint_notes(folder)):
        if line:
            note(line)
    name = f"{folder} with {adapter}" if adapter else str(folder)
    load = bundle_loader(folder, machine.dtype, config, adapter, partial(join, os.environ))
    return Engine(load, config), name


def is_follower(environ: Mapping[str, str]) -> bool:
    """Return whether ``mlx.launch``, or a user, numbered this process as one of the followers: rank 1 or above."""
    return environ.get("MLX_RANK", "0") != "0"


def run_as_follower(folder: Path, config: "StreamConfig") -> bool:
    """Return False on rank 0; on any other, serve its part of the model until rank 0 ends, and return True.

    Raises:
        SvmError: the checkpoint cannot be split, or another machine was lost.
    """
    if not is_follower(os.environ):
        return False
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.distributed import join
    from streaming_vlm_mlx.stream.distributed_runner import follow
    from streaming_vlm_mlx.stream.loader import bundle_loader

    _, bundle = bundle_loader(folder, machine.dtype, config, None, partial(join, os.environ))(lambda _: None)
    follow(bundle.model, bundle.ranks)
    return True
