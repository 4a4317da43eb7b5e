"""``svm-tui matches``: film simulated tennis with commentary, for training and validation."""

import argparse
import sys
from pathlib import Path

from tui.messages import tell, warn

HELP = (
    "Film simulated tennis matches, one a seed: clip, commentary and truth. The same seed and options give the same "
    "match. Seeds from 900000 on are for validation only; train on smaller ones."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for clips, sidecars and matches_with_seeks.jsonl")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many matches (default 1)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the first match; the others count up (default 0)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="T", help="length of each (default 60)")
    parser.add_argument(
        "--fps", type=int, default=25, metavar="F", help="frames a second (default 25; 4 are enough to train on)"
    )
    parser.add_argument(
        "--ask",
        type=float,
        default=12.0,
        metavar="S",
        help="seconds between two questions of a viewer (default 12)",
    )
    parser.add_argument(
        "--paraphrases",
        type=int,
        default=1,
        metavar="N",
        help="annotation lines for each match: the same play in other words (default 1)",
    )
    parser.add_argument("--late", action="store_true", help="start each match at game point or in a tie-break")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that film (default 1)")


def run(args: argparse.Namespace) -> int:
    """Film the missing matches, and print the path of each clip."""
    from rich.console import Console
    from rich.progress import track

    from streaming_vlm_mlx.matches.tennis.match import Tennis
    from streaming_vlm_mlx.matches.tennis.rules import late_score, random_score
    from streaming_vlm_mlx.matches.writer import make_matches

    seeds = range(args.seed, args.seed + args.count)
    sport = Tennis(args.fps, late_score if args.late else random_score)
    work = make_matches(args.out, sport, seeds, args.seconds, args.workers, args.ask, args.paraphrases)
    console = Console(stderr=True)
    filmed = 0
    for made in track(work, "matches", total=len(seeds), console=console, disable=not sys.stderr.isatty()):
        filmed += made.new
        tell(made.clip)
    warn(f"{len(seeds)} matches, {filmed} filmed now, in {args.out}")
    return 0
