"""``svm-tui export``: writes a saved session as subtitles, as text, or into its clip."""

import argparse
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.errors import SvmError
from tui.commands.options import add_per_second, add_session, add_voice, checked_clip, imply_voice
from tui.messages import note

if TYPE_CHECKING:
    from streaming_vlm_mlx.sessions.mp4 import Mp4Settings, Progress

HELP = (
    "Write a saved session as subtitles (.vtt, .srt), text (.txt) or JSON, or into its clip (.mp4): as a subtitle "
    "track, spoken (--voice), drawn on the picture (--burn)."
)
MP4 = ".mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_session(parser)
    parser.add_argument(
        "--out", metavar="F", type=Path, required=True, help="file to write: .vtt, .srt, .txt, .json or .mp4"
    )
    parser.add_argument(
        "--clip",
        type=checked_clip,
        metavar="F",
        help="the session's clip, for .mp4 (default: the path in SESSION, else beside it)",
    )
    parser.add_argument(
        "--language",
        metavar="L",
        default="eng",
        help="language of an .mp4's subtitle track, as ISO 639-2 (default: eng)",
    )
    add_per_second(parser)
    add_voice(parser, "speak the commentary in a second sound track of an .mp4, over the lowered sound of the clip")
    parser.add_argument(
        "--burn", action="store_true", help="draw the commentary on the picture of an .mp4, which is encoded again"
    )
    parser.add_argument("--force", action="store_true", help="replace any file, not only an earlier export of the clip")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from streaming_vlm_mlx.sessions.journal import load_session
    from streaming_vlm_mlx.sessions.subtitles import check_replaceable, find_format, write

    imply_voice(args)
    if args.out.suffix.lower() == MP4:
        _write_clip(args)
    else:
        find_format(args.out, more=(MP4,))
        if args.voice or args.burn:
            raise SvmError(
                f"{args.out} holds neither sound nor pictures; end the name with {MP4} for --voice or --burn."
            )
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
    with _settings(args) as settings, _shown_progress() as progress:
        write_mp4(args.out, clip, record.seconds, settings, progress)


@contextmanager
def _settings(args: argparse.Namespace) -> "Iterator[Mp4Settings]":
    from streaming_vlm_mlx.audio.voice import Voice, find_voice
    from streaming_vlm_mlx.sessions.mp4 import Mp4Settings

    with ExitStack() as stack:
        voice = stack.enter_context(Voice(find_voice(args.voice_command))) if args.voice else None
        yield Mp4Settings(args.language, args.per_second, voice.speak if voice else None, args.burn)


@contextmanager
def _shown_progress() -> "Iterator[Progress]":
    """Yield what shows the seconds that are done and the time left on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("seconds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("seconds", total=None)

        def show(done: float, total: float) -> None:
            bar.update(task, completed=int(done), total=None if math.isinf(total) else math.ceil(total))

        yield show
