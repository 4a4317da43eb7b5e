"""``svm-tui infer``: writes commentary on a clip, without a screen."""

import argparse
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streaming_vlm_mlx.background import run_coroutine
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.plain_text import harmless, safe_json
from streaming_vlm_mlx.shipped import SAMPLE, notice
from tui.commands.bench import describe_machine
from tui.commands.options import add_model_arguments, add_per_second, make_engine, resolve_settings, run_as_follower
from tui.messages import note, warn
from tui.session_paths import check_writable, journal_path, new_record
from tui.signals import signals_held

if TYPE_CHECKING:
    from streaming_vlm_mlx.sessions.record import SessionRecord
    from streaming_vlm_mlx.sessions.session_log import SessionLog, Write
    from streaming_vlm_mlx.stream.async_engine import Engine
    from streaming_vlm_mlx.stream.events import Event, GenerationResult
    from streaming_vlm_mlx.video.reconnect import FeedStatus
    from streaming_vlm_mlx.video.source import Source

# Seconds to wait for a source to close.
PATIENCE = 1.0

HELP = "Write a model's commentary on a clip, second by second, to stdout and into a file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "clip",
        metavar="CLIP",
        nargs="?",
        default=str(SAMPLE),
        help="a video file, URL or camera (/dev/video0, avfoundation:0), or records (.jsonl) (default: a sample)",
    )
    parser.add_argument("--record", type=int, default=0, metavar="N", help="which of the records, from 0 (default 0)")
    add_model_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="F", help="file to write: .vtt, .srt, .json or .txt")
    add_per_second(parser)
    parser.add_argument("--force", action="store_true", help="let --out replace any file, not only an earlier export")
    parser.add_argument("--json", action="store_true", help="print a JSON object a second instead of lines of text")
    parser.add_argument("--start", type=float, metavar="S", help="second to start at (default: 0, or the record's)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to watch (default: to the end)")


def run(args: argparse.Namespace) -> int:
    """Comment on the clip; the seconds so far are kept however the run ends."""
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.memory import machine_memory
    from streaming_vlm_mlx.sessions import subtitles
    from streaming_vlm_mlx.sessions.subtitles import check_replaceable, find_format
    from streaming_vlm_mlx.text.chat_template import STYLES
    from streaming_vlm_mlx.video.feed import FeedWatch
    from streaming_vlm_mlx.video.video_file import open_video

    if args.out:
        find_format(args.out)
        check_writable(args.out)
    asked = args.query is not None
    args = fill_in(args)
    if args.out:
        check_replaceable(args.out, args.clip, args.force)
    config, folder = resolve_settings(args, warn=asked)
    if run_as_follower(folder, config):
        return 0
    show = print_json if args.json else print_line
    watch = FeedWatch(tell=partial(report, args.clip))
    with closing(open_video(args.clip, config.fps, STYLES[config.style].takes_ending_frames, watch)) as source:
        engine, name = make_engine(folder, config, note, args.adapter)
        try:
            record = new_record(args.clip, name, config, describe_machine(prepare()))
            advice = notice(folder, [args.clip], machine_memory())
            with saved(make_log(args.out, record, partial(subtitles.write, per_second=args.per_second))) as log:
                run_coroutine(comment(engine, source, args, log, advice, show))
        finally:
            engine.close()
        if source.skipped:
            warn(f"{args.clip}: {source.skipped} corrupt packets were skipped.")
    return 0


def fill_in(args: argparse.Namespace) -> argparse.Namespace:
    """Return `args`; when CLIP is a file of records, with the record's values wherever the user gave none.

    Raises:
        SvmError: the file cannot be read, or holds no such record.
    """
    defaults: dict[str, Any] = {"start": 0.0}
    if args.clip.endswith(".jsonl"):
        from streaming_vlm_mlx.data.records import RecordFile

        records = RecordFile.open(Path(args.clip))
        if not 0 <= args.record < len(records):
            raise SvmError(f"{args.clip} holds records 0 to {len(records) - 1}; there is no record {args.record}.")
        record = records[args.record]
        args = argparse.Namespace(**{**vars(args), "clip": record.video})
        start = record.video_start if args.start is None else args.start
        defaults = {
            "start": start,
            "duration": record.video_end - start,
            "previous": record.previous,
            "query": record.query or None,
            "fps": int(record.fps),
        }
    given = {name: value for name, value in vars(args).items() if value is not None}
    return argparse.Namespace(**{**vars(args), **defaults, **given})


def report(clip: str, status: "FeedStatus") -> None:
    """Say on stderr that the feed `clip` was lost, is back, or has ended."""
    match status.state:
        case "reconnecting":
            note(f"{clip}: {status.reason}; connecting again ({status.attempt}).")
        case "ended":
            note(f"{clip}: {status.reason}; the feed has ended.")
        case _:
            note(f"{clip}: connected again.")


@contextlib.contextmanager
def closing(source: "Source") -> "Iterator[Source]":
    """Close `source` after the block; one that is blocked in a read is left to the end of the process."""
    try:
        yield source
    finally:
        closer = threading.Thread(target=source.close, name="svm-closer", daemon=True)
        closer.start()
        closer.join(PATIENCE)


def make_log(out: Path | None, record: "SessionRecord", write: "Write | None" = None) -> "SessionLog":
    """Return the log of a session that `write` writes to `out`, with its journal in the state folder.

    By default the ending of `out` names a format of `subtitles`.
    """
    from streaming_vlm_mlx.sessions import subtitles
    from streaming_vlm_mlx.sessions.session_log import SessionLog

    if out is None:
        return SessionLog(record, (), note)
    journal = journal_path(record.clip, record.created)
    return SessionLog(record, [out.with_suffix("")], note, [out.suffix], journal, True, write or subtitles.write)


@contextlib.contextmanager
def saved(log: "SessionLog") -> "Iterator[SessionLog]":
    """Save `log` when the block ends, with the failure if it ends by one; before the first second nothing is written.

    Raises:
        SvmError: the file cannot be written; the message says where the journal is.
    """
    try:
        yield log
    except BaseException as error:
        log.fail(str(error) or type(error).__name__)
        raise
    finally:
        # A journal is left behind where the session is not saved.
        with signals_held():
            try:
                for path in log.save():
                    note(f"{path} written.")
            finally:
                log.close()


async def comment(
    engine: "Engine",
    source: "Source",
    args: argparse.Namespace,
    log: "SessionLog",
    advice: str,
    on_second: "Callable[[GenerationResult], None]",
) -> None:
    """Run the model on the seconds of `source` that `args` names, and enter each into `log`.

    Args:
        engine: runs the model.
        source: the clip.
        args: the options `start` and `duration`.
        log: the session.
        advice: what to tell the user when the model is loaded; may be empty.
        on_second: called with each second.

    Raises:
        SvmError: the model fails, or the clip cannot be read.
    """
    from streaming_vlm_mlx.stream.events import Failed, GenerationResult, Ready, still_share

    chunks = source.chunks(args.start, args.duration)
    with progress(source, args) as show:
        async with contextlib.aclosing(engine.play(chunks, skips=False)) as events:
            async for event in events:
                show(event)
                if isinstance(event, GenerationResult):
                    log.add(event)
                    on_second(event)
                elif isinstance(event, Ready) and advice:
                    # Not before an error, which is one line.
                    note(advice)
                elif isinstance(event, Failed):
                    raise SvmError(event.message)
    seconds = log.record.seconds
    if left_out := sum(second.still_tokens for second in seconds):
        share, each = still_share(seconds) or 0.0, left_out / len(seconds)
        note(f"{left_out} video tokens were left out because they did not change: {share:.0%}, {each:.0f} a second.")


def print_json(second: "GenerationResult") -> None:
    """Print a second as a line of JSON."""
    print(safe_json(json.dumps(second.to_dict(), ensure_ascii=False)), flush=True)


def print_line(second: "GenerationResult") -> None:
    """Print the time and the text of a second, nothing for a silent one."""
    from streaming_vlm_mlx.sessions.subtitles import clock

    if second.text:
        print(f"{clock(round(second.start * 1000))[:-4]}  {' '.join(harmless(second.text).split())}", flush=True)


class _Show(Protocol):
    def __call__(self, event: "Event") -> None: ...


@contextlib.contextmanager
def progress(source: "Source", args: argparse.Namespace) -> Iterator[_Show]:
    """Show the progress through the clip on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    from streaming_vlm_mlx.stream.events import GenerationResult, Loading

    known = None if source.duration is None else max(source.duration - args.start, 0.0)
    total = args.duration if known is None else min(known, args.duration or known)
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("loading", total=total)

        def show(event: "Event") -> None:
            if isinstance(event, Loading):
                bar.update(task, description=f"loading {event.stage}")
            elif isinstance(event, GenerationResult):
                bar.update(task, description="watching", completed=event.end - args.start)

        yield show
