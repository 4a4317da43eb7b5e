"""``svm-tui fuse``: a checkpoint and its adapter in, one checkpoint out."""

import argparse
from pathlib import Path

HELP = (
    "Make an adapter part of the weights that it was trained on: 'svm-tui fuse --ckpt BASE --adapter run1 --out all', "
    "then 'svm-tui play clip.mp4 --ckpt all'."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--ckpt", required=True, metavar="C", help="a folder, a name below checkpoints/, or a hub id")
    parser.add_argument("--adapter", required=True, type=Path, metavar="A", help="a folder of train --lora")
    parser.add_argument("--out", required=True, type=Path, metavar="D", help="folder of the checkpoint to be made")


def run(args: argparse.Namespace) -> int:
    """Fuse, and say where the checkpoint is."""
    from streaming_vlm_mlx import backend

    backend.prepare()
    from streaming_vlm_mlx.hub import resolve_checkpoint
    from streaming_vlm_mlx.models.adapters import fuse_checkpoint

    fuse_checkpoint(resolve_checkpoint(args.ckpt), args.adapter, args.out)
    print(args.out)
    return 0
