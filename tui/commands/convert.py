"""``svm-tui convert``: annotations, or a clip with a transcript, to records that a model can be trained on."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.data.convert import ConvertJob, Progress, Selection

HELP = (
    "Make records (one JSON line each) of StreamingVLM's or LiveCC's annotation files, or of clips with a transcript: "
    "'svm-tui convert games_with_seeks.jsonl --out train.jsonl', 'svm-tui convert clip.mp4 clip.srt --out clip.jsonl'."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="annotation files (.jsonl); or clips, each followed by its transcript (.vtt, .srt, Whisper's .json)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="file of records to write (.jsonl)")
    parser.add_argument("--resume", action="store_true", help="go on where the same command was broken off")
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="D",
        help="folder of the annotations' videos (default: $DATASET_PATH, else the first annotation file's folder)",
    )
    parser.add_argument(
        "--via",
        choices=("own", "lmm"),
        default="own",
        help="read samples ourselves (default), or through StreamingVLM's LMMDataset where it is installed",
    )
    parser.add_argument(
        "--vision-tokens", action="store_true", help="also write how many tokens a second's video takes"
    )
    parser.add_argument("--query", default="", help="of clips with a transcript: what the viewer asks for")
    parser.add_argument("--previous", default="", help="of clips with a transcript: what was said before")
    _add_filters(parser.add_argument_group("filters"))


def _add_filters(filters: Any) -> None:
    filters.add_argument("--games", metavar="GLOB", help="only videos whose path matches; * matches / too")
    filters.add_argument("--max-samples", type=int, metavar="N", help="stop after so many records")
    filters.add_argument("--every", type=int, default=1, metavar="N", help="look at one sample of every N")
    filters.add_argument(
        "--min-words", type=int, default=1, metavar="N", help="leave out samples with fewer words (default 1)"
    )
    filters.add_argument(
        "--split", choices=("all", "train", "valid"), default="all", help="take all clips, or one side of a fixed split"
    )
    filters.add_argument(
        "--held-out", type=float, default=0.05, metavar="X", help="share of clips on the side 'valid' (default 0.05)"
    )
    filters.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="part I of N, such as 1/4")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 1/4")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> int:
    """Convert; print what was made."""
    from streaming_vlm_mlx.data.convert import convert
    from streaming_vlm_mlx.errors import log_limit

    job = _job(args)
    with _shown_progress() as (progress, say):
        try:
            summary = convert(job, args.resume, log_limit(say), progress)
        except KeyboardInterrupt:
            say("Stopped; the same command with --resume goes on from here.")
            raise
    print("\n".join(summary.lines()))
    if not summary.samples:
        raise SvmError(f"{args.out} holds no record: every sample was skipped or left out, for the reasons above.")
    return 0


def _job(args: argparse.Namespace) -> "ConvertJob":
    from streaming_vlm_mlx.config import PixelConfig
    from streaming_vlm_mlx.data.annotations import open_sources
    from streaming_vlm_mlx.data.convert import ConvertJob
    from streaming_vlm_mlx.data.record_builder import find_lmm_dataset

    dataset_class = find_lmm_dataset() if args.via == "lmm" else None
    if args.via == "lmm" and dataset_class is None:
        print("StreamingVLM's package cannot be imported; our own reader gives the same records.", file=sys.stderr)
    return ConvertJob(
        sources=open_sources(args.inputs, args.query, args.previous),
        out=args.out,
        videos=args.videos or Path(os.environ.get("DATASET_PATH") or args.inputs[0].parent),
        selection=_selection(args),
        pixels=PixelConfig() if args.vision_tokens else None,
        dataset_class=dataset_class,
    )


def _selection(args: argparse.Namespace) -> "Selection":
    from streaming_vlm_mlx.data.convert import Selection

    names = ("games", "max_samples", "every", "min_words", "split", "held_out")
    return Selection(shard=args.shard[0], shards=args.shard[1], **{name: getattr(args, name) for name in names})


@contextmanager
def _shown_progress() -> "Iterator[tuple[Progress, Callable[[str], None]]]":
    """Show a bar on stderr, if that is a terminal; yield what moves it and what prints a line above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("samples", total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def say(text: str) -> None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield move, say
