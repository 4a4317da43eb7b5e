"""``svm-tui fuse``: merges a LoRA adapter into its base checkpoint."""

import argparse
from pathlib import Path

from tui.commands.options import ADAPTER_NAMES, CHECKPOINT_NAMES
from tui.downloads import find_adapter, find_checkpoint
from tui.messages import note, tell

HELP = (
    "Merge a LoRA adapter into its base checkpoint: 'svm-tui fuse --ckpt BASE --adapter run1 --out all', "
    "then 'svm-tui play clip.mp4 --ckpt all'."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--ckpt", required=True, metavar="C", help=f"base: {CHECKPOINT_NAMES}")
    parser.add_argument("--adapter", required=True, type=Path, metavar="A", help=f"adapter: {ADAPTER_NAMES}")
    parser.add_argument("--out", required=True, type=Path, metavar="D", help="folder to write the checkpoint to")


def run(args: argparse.Namespace) -> int:
    """Write the fused checkpoint, and print its folder."""
    from streaming_vlm_mlx import backend

    backend.prepare()
    from streaming_vlm_mlx.models.adapters import adapter_notes, fuse_checkpoint

    base, adapter = find_checkpoint(args.ckpt), find_adapter(args.adapter)
    assert adapter
    for line in adapter_notes(adapter, base):
        note(line)
    fuse_checkpoint(base, adapter, args.out)
    tell(args.out)
    return 0
