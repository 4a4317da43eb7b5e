"""``svm-tui convert-ckpt``: quantizes a checkpoint, or writes it in Hugging Face's layout."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import ADAPTER_NAMES, CHECKPOINT_NAMES
from tui.downloads import find_adapter, find_checkpoint
from tui.messages import tell, warn

if TYPE_CHECKING:
    from streaming_vlm_mlx.models.convert_checkpoint import Conversion, Progress

HELP = (
    "Quantize a checkpoint ('svm-tui convert-ckpt Qwen/Qwen2.5-VL-7B-Instruct small --bits 4'), or, without --bits, "
    "write it in Hugging Face's layout, so that transformers can load a model trained here; '--adapter A --peft DST' "
    "writes an adapter for PEFT. Memory holds one file of weights at a time."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", nargs="?", metavar="SRC", help=f"checkpoint: {CHECKPOINT_NAMES}")
    parser.add_argument("out", type=Path, nargs="?", metavar="DST", help="folder to write, which must not exist")
    parser.add_argument("--adapter", type=Path, metavar="A", help=f"convert this adapter instead: {ADAPTER_NAMES}")
    parser.add_argument("--peft", type=Path, metavar="DST", help="folder to write --adapter to, for PEFT")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="bits a weight (default: not quantized)")
    parser.add_argument(
        "--group-size",
        type=int,
        choices=(32, 64, 128),
        help="weights that share a scale (default: 64 with 4 bits, 32 with 8)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="of weights that are not quantized (default: the source's)",
    )
    parser.add_argument("--keep-vision", action="store_true", help="do not quantize the vision tower")
    parser.add_argument(
        "--keep-sensitive",
        action=argparse.BooleanOptionalAction,
        help="do not quantize what loses most: embedding, head, first layers (default: with 8 bits only)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the result with the source; without --bits, with transformers (needs torch)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint, and print the result's size."""
    from streaming_vlm_mlx import backend

    backend.prepare()
    if args.adapter or args.peft:
        return _convert_adapter(args)
    if args.source is None or args.out is None:
        raise SvmError("name the checkpoint and the folder to write: svm-tui convert-ckpt SRC DST.")
    from streaming_vlm_mlx.models.convert_checkpoint import Conversion, convert, make_plan
    from streaming_vlm_mlx.models.verify_conversion import needs_torch

    if args.check and args.bits is None:
        needs_torch()
    job = Conversion(
        find_checkpoint(args.source),
        args.out,
        args.bits,
        args.group_size,
        args.dtype,
        args.keep_vision,
        args.keep_sensitive,
    )
    plan = make_plan(job)
    for text in plan.notes:
        warn(text)
    made = convert(job, plan, _progress())
    files = f"{made.shards} file{'s' if made.shards > 1 else ''}"
    tell(f"{job.out}: {files} of weights, {made.nbytes / GIB:.2f} GiB")
    if args.check:
        tell(_check(job))
    return 0


def _convert_adapter(args: argparse.Namespace) -> int:
    """Write the adapter for PEFT, and print its folder."""
    from streaming_vlm_mlx.models.adapters import open_adapter
    from streaming_vlm_mlx.models.peft import save_peft

    adapter = find_adapter(args.adapter)
    if adapter is None or args.peft is None or args.source is not None:
        raise SvmError("an adapter is converted by: svm-tui convert-ckpt --adapter A --peft DST.")
    save_peft(args.peft, open_adapter(adapter))
    tell(args.peft)
    return 0


def _check(job: "Conversion") -> str:
    """Return a line that compares the result with its source or with transformers.

    Raises:
        SvmError: its logits are not those of transformers.
    """
    from streaming_vlm_mlx.models.verify_conversion import check_against_source, check_against_transformers

    if job.bits is not None:
        found = check_against_source(job.source, job.out)
        return (
            f"check: the most likely token is the source's at {found.agreement:.0%} of positions; logits differ by at "
            f"most {found.error:.2g}, their standard deviation is {found.spread:.2g}"
        )
    found = check_against_transformers(job.out)
    if not found.same:
        raise SvmError(f"{job.out}: logits differ from transformers' by {found.error:.2g}; do not use this checkpoint.")
    return f"check: logits within {found.error:.1e} of transformers'"


def _progress() -> "Progress":
    """Return a function that shows the count of written tensors on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda *_: None

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\rtensors {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show
