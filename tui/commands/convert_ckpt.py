"""``svm-tui convert-ckpt``: a checkpoint with fewer bits, or in Hugging Face's layout."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming_vlm_mlx.models.convert import Conversion, Progress

HELP = (
    "Make a checkpoint smaller ('svm-tui convert-ckpt Qwen/Qwen2.5-VL-7B-Instruct small --bits 4'), or, without "
    "--bits, lay it out as Hugging Face does, so that a model trained here opens there. One file of weights is held in "
    "memory."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", help="a folder, a name below checkpoints/, or a hub id")
    parser.add_argument("out", type=Path, metavar="DST", help="folder to make")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="pack each weight into so many bits")
    parser.add_argument(
        "--group-size", type=int, choices=(32, 64, 128), help="weights that share a scale (default: 32; with 4 bits 64)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="of what is not packed (default: as it is)"
    )
    parser.add_argument("--keep-vision", action="store_true", help="leave the vision tower's weights plain")
    parser.add_argument(
        "--keep-sensitive",
        action=argparse.BooleanOptionalAction,
        help="leave plain what costs most when rounded: embedding, head, first layers (default: with 8 bits only)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the result: with --bits to the source, without them to transformers (needs torch)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; print what was made."""
    from streaming_vlm_mlx import backend
    from streaming_vlm_mlx.hub import resolve_checkpoint

    backend.prepare()
    from streaming_vlm_mlx.models.convert import Conversion, convert, make_plan
    from streaming_vlm_mlx.models.verify import needs_torch

    if args.check and args.bits is None:
        needs_torch()
    job = Conversion(
        resolve_checkpoint(args.source),
        args.out,
        args.bits,
        args.group_size,
        args.dtype,
        args.keep_vision,
        args.keep_sensitive,
    )
    plan = make_plan(job)
    for note in plan.notes:
        print(note, file=sys.stderr)
    made = convert(job, plan, _progress())
    files = f"{made.shards} file{'s' if made.shards > 1 else ''}"
    print(f"{job.out}: {files} of weights, {made.nbytes / GIB:.2f} GiB")
    if args.check:
        print(_check(job))
    return 0


def _check(job: "Conversion") -> str:
    """Return a line on how the result compares.

    Raises:
        SvmError: it is not what transformers makes of it.
    """
    from streaming_vlm_mlx.errors import SvmError
    from streaming_vlm_mlx.models.verify import check_against_source, check_against_transformers

    if job.bits is not None:
        found = check_against_source(job.source, job.out)
        return (
            f"check: the likeliest id is the source's at {found.agreement:.0%} of places; logits within "
            f"{found.error:.2g} of it, where they spread by {found.spread:.2g}"
        )
    found = check_against_transformers(job.out)
    if not found.same:
        raise SvmError(f"{job.out}: logits are off by {found.error:.2g} from transformers'; do not use it.")
    return f"check: logits within {found.error:.1e} of transformers'"


def _progress() -> "Progress":
    """Return what shows the tensors go by on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda *_: None

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\rtensors {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show
