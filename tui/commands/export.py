"""``svm-tui export``: writes a saved session as subtitles, as text, or into its clip."""

import argparse
import re
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import add_per_second
from tui.messages import note

HELP = (
    "Write a saved session as subtitles (.vtt, .srt), text (.txt) or JSON, or as a subtitle track in its clip (.mp4)."
)
MP4 = ".mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("session", metavar="SESSION", type=Path, help="a saved session (.json) or a journal (.jsonl)")
    parser.add_argument(
        "--out", metavar="F", type=Path, required=True, help="file to write: .vtt, .srt, .txt, .json or .mp4"
    )
    parser.add_argument(
        "--clip", metavar="F", help="the session's clip, for .mp4 (default: the path in SESSION, else beside it)"
    )
    parser.add_argument(
        "--language",
        metavar="L",
        default="eng",
        help="language of an .mp4's subtitle track, as ISO 639-2 (default: eng)",
    )
    add_per_second(parser)
    parser.add_argument("--force", action="store_true", help="replace any file, not only an earlier export of the clip")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from streaming_vlm_mlx.sessions.journal import load_session
    from streaming_vlm_mlx.sessions.subtitles import check_replaceable, find_format, write

    if args.out.suffix.lower() == MP4:
        _write_clip(args)
    else:
        find_format(args.out, more=(MP4,))
        record = load_session(args.session)
        check_replaceable(args.out, record.clip, args.force)
        write(args.out, record, args.per_second)
    note(f"{args.out} written.")
    return 0


def _write_clip(args: argparse.Namespace) -> None:
    from streaming_vlm_mlx.sessions.journal import load_session
    from streaming_vlm_mlx.sessions.mp4 import write_mp4
    from streaming_vlm_mlx.sessions.subtitles import check_replaceable
    from tui.commands.replay import find_clip

    if not re.fullmatch("[a-z]{3}", args.language):
        raise SvmError(f"--language is {args.language!r}; it must be three letters of ISO 639-2, such as eng or deu.")
    record = load_session(args.session)
    clip = find_clip(record, args.session, args.clip)
    if clip is None:
        raise SvmError(f"{args.clip or record.clip} does not exist; name the session's clip with --clip.")
    if args.out.exists() and args.out.samefile(clip):
        raise SvmError(f"{args.out} is the clip itself; choose another name for the copy with subtitles.")
    check_replaceable(args.out, clip, args.force)
    write_mp4(args.out, clip, record.seconds, args.language, args.per_second)
