"""``svm-tui convert``: annotation files, or clips with a transcript, to training records."""

import argparse
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import VIDEOS
from streaming_vlm_mlx.plain_text import visible
from tui.messages import note, tell, warn

if TYPE_CHECKING:
    from streaming_vlm_mlx.data.convert_dataset import DatasetConversion, Filters, Progress

HELP = (
    "Convert annotation files of StreamingVLM or LiveCC, or clips with a transcript, to training records: "
    "'svm-tui convert games_with_seeks.jsonl --out train.jsonl', 'svm-tui convert clip.mp4 clip.srt --out clip.jsonl'."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="annotation files (.jsonl); or clips, each followed by its transcript (.vtt, .srt, Whisper's .json)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="record file to write (.jsonl)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run of the same command")
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="D",
        help="folder of the videos (default: $DATASET_PATH, else the folder of the first annotation file)",
    )
    parser.add_argument(
        "--via",
        choices=("own", "lmm"),
        default="own",
        help="read samples with the built-in reader (default), or with StreamingVLM's LMMDataset if it is installed",
    )
    parser.add_argument(
        "--vision-tokens", action="store_true", help="also write the number of vision tokens of each second"
    )
    parser.add_argument("--query", default="", help="for clips with a transcript: the viewer's request")
    parser.add_argument("--previous", default="", help="for clips with a transcript: the commentary before the clip")
    _add_filters(parser.add_argument_group("filters"))


def _add_filters(filters: Any) -> None:
    filters.add_argument("--games", metavar="GLOB", help="only videos with a matching path; * also matches /")
    filters.add_argument("--max-samples", type=int, metavar="N", help="stop after N records")
    filters.add_argument("--every", type=int, default=1, metavar="N", help="convert one sample of every N")
    filters.add_argument(
        "--min-words", type=int, default=1, metavar="N", help="skip samples with fewer words (default 1)"
    )
    filters.add_argument(
        "--split",
        choices=("all", "train", "valid"),
        default="all",
        help="convert all clips, or one set of a fixed split",
    )
    filters.add_argument(
        "--held-out", type=float, default=0.05, metavar="X", help="share of clips in the set 'valid' (default 0.05)"
    )
    filters.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="convert part I of N, such as 1/4")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 1/4")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> int:
    """Convert the inputs; print the counts on stdout and problems on stderr."""
    from streaming_vlm_mlx.data.clip_metadata import ClipCache
    from streaming_vlm_mlx.data.convert_dataset import convert_dataset
    from streaming_vlm_mlx.errors import log_limit
    from tui.session_paths import cache_folder

    conversion = _conversion(args)
    cache = cache_folder(os.environ, Path.home()) / "clips.sqlite"
    with _shown_progress() as (progress, say), ClipCache(cache, report=say) as clips:
        try:
            summary = convert_dataset(conversion, clips, args.resume, log_limit(say), progress)
        except KeyboardInterrupt:
            say("Stopped; continue with the same command and --resume.")
            raise
    for line in summary.lines():
        tell(line)
    if not summary.samples:
        raise SvmError(f"{args.out} has no record: every sample was skipped or filtered out, see above.")
    if folder := _outside(conversion.videos, args):
        note(f"{args.out} names clips outside of its folder; set {VIDEOS}={shlex.quote(folder)} wherever you use it.")
    return 0


def _outside(videos: Path, args: argparse.Namespace) -> str:
    """Return the folder of the clips that are not below the folder of --out; empty if all are."""
    clips = [path.parent for path in args.inputs[::2]] if args.inputs[0].suffix != ".jsonl" else [videos]
    folders = [os.path.realpath(path) for path in clips]
    outside = [path for path in folders if not Path(path).is_relative_to(os.path.realpath(args.out.parent))]
    return os.path.commonpath(outside) if outside else ""


def _conversion(args: argparse.Namespace) -> "DatasetConversion":
    from streaming_vlm_mlx.config import PixelConfig
    from streaming_vlm_mlx.data.convert_dataset import DatasetConversion
    from streaming_vlm_mlx.data.livecc_annotations import open_samples

    return DatasetConversion(
        sources=open_samples(args.inputs, args.query, args.previous),
        out=args.out,
        videos=args.videos or Path(os.environ.get(VIDEOS) or args.inputs[0].parent),
        filters=_filters(args),
        pixels=PixelConfig() if args.vision_tokens else None,
        dataset_class=_lmm_dataset() if args.via == "lmm" else None,
    )


def _lmm_dataset() -> Any:
    """Return ``LMMDataset``; None, with a note on stderr, if it cannot be imported."""
    from streaming_vlm_mlx.data.record_builder import load_lmm_dataset

    try:
        return load_lmm_dataset()
    except SvmError as error:
        warn(f"{error}; using the built-in reader.")
        return None


def _filters(args: argparse.Namespace) -> "Filters":
    from streaming_vlm_mlx.data.convert_dataset import Filters

    names = ("games", "max_samples", "every", "min_words", "split", "held_out")
    return Filters(shard=args.shard[0], shards=args.shard[1], **{name: getattr(args, name) for name in names})


@contextmanager
def _shown_progress() -> "Iterator[tuple[Progress, Callable[[str], None]]]":
    """Show a progress bar if stderr is a terminal; yield a function that moves it and one that prints above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("samples", total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def say(text: str) -> None:
            console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

        yield move, say
