"""``svm-tui replay``: plays a saved session again, without a model."""

import argparse
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import path_in_file
from tui.commands.options import add_session, checked_clip, fill_in, imply_voice
from tui.commands.play import (
    VIEW,
    add_ipc_argument,
    add_options,
    add_truth_argument,
    add_view_options,
    check_terminal,
    check_theme,
    check_truth,
    choose_display,
    interactive,
    read_clip_truth,
    settings_file,
    sound_settings,
    watch,
)
from tui.player import gc_tuning as gc_tuning
from tui.player.pace import PACES
from tui.session_paths import journal_path

if TYPE_CHECKING:
    from streaming_vlm_mlx.sessions.record import SessionRecord
    from tui.player.replayer import Replayer
    from tui.player.spec import Note, PlayerSpec

HELP = "Play a session again without a model: a saved one (.json), or the journal of one that was killed (.jsonl)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_session(parser)
    parser.add_argument(
        "--clip", type=checked_clip, metavar="F", help="the clip (default: as in SESSION, else beside it)"
    )
    add_truth_argument(parser)
    add_ipc_argument(parser)
    add_view_options(parser)


def run(args: argparse.Namespace) -> int:
    """Play the session."""
    from streaming_vlm_mlx.sessions.journal import load_session

    check_truth(args)
    record = load_session(args.session)
    if not record.seconds:
        raise SvmError(f"{args.session} has no commentary; choose another session.")
    check_terminal(interactive(), os.environ.get("TERM", ""), f"svm-tui export {args.session} --out session.txt")
    gc_tuning.begin()
    imply_voice(args)
    fill_in(args, add_options, settings_file(), VIEW | ({"pace": record.pace} if record.pace in PACES else {}))
    check_theme(args.theme)
    watch(_spec(args, record), args.theme, args.ipc)


def find_clip(record: "SessionRecord", session: Path, named: str | None) -> str | None:
    """Return the path of the clip of `record`; None if there is no such file.

    The clip is `named`, else the recorded path, else the file of that name beside the session.
    """
    beside = session.parent / Path(record.clip).name
    places = [named] if named else [record.clip, str(beside)]
    found = next((place for place in places if place and Path(place).is_file()), None)
    # A session must not name an address or a device.
    return found and path_in_file(Path(), found)


def _make(record: "SessionRecord", lacks_picture: bool, note: "Note") -> "Replayer":
    from tui.player.replayer import Replayer

    if lacks_picture:
        note(f"no picture: {record.clip or 'the clip'} is not there; name it with --clip.")
    return Replayer(record)


def _spec(args: argparse.Namespace, record: "SessionRecord") -> "PlayerSpec":
    from streaming_vlm_mlx.audio.feeder import open_feeder
    from streaming_vlm_mlx.sessions.subtitles import clip_name
    from streaming_vlm_mlx.video.pyav_reader import probe
    from tui.player.clip import BlankSeconds, FrameGrabber
    from tui.player.replayer import recorded_name
    from tui.player.spec import PlayerSpec

    clip = find_clip(record, args.session, args.clip)
    if args.clip and clip is None:
        raise SvmError(f"{args.clip} does not exist; check the path.")
    info = probe(clip) if clip else None
    last = math.ceil(max(second.end for second in record.seconds))
    display, typed = choose_display(args.picture)
    duration = info.duration if info and info.duration else float(last)
    return PlayerSpec(
        clip=clip_name(record.clip) or "session",
        model=recorded_name(record),
        size=(info.width, info.height) if info else (16, 9),
        seconds=BlankSeconds(duration),
        open_grabber=partial(FrameGrabber, clip) if clip else None,
        make=partial(_make, record, args.picture != "off" and clip is None),
        config=None,
        read_truth=partial(read_clip_truth, args.truth, clip or record.clip, duration),
        record=record,
        base_paths=(args.session.with_suffix(""), journal_path(record.clip, record.created)),
        endings=(),
        start=min(args.start, duration),
        pace=args.pace,
        **sound_settings(args, partial(open_feeder, clip) if clip else None),
        with_picture=args.picture != "off",
        display=display,
        typed=typed,
        loop=args.loop,
        keymap=args.keys,
        per_second=args.per_second,
    )
