"""``svm-tui play``: watch a clip while a model comments on it."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.shipped import SAMPLE, notice
from tui.commands.options import add_model_arguments, is_follower, make_engine, resolve_settings, run_as_follower
from tui.commands.player_settings import FILE, fill_in
from tui.player import gc_tuning as gc_tuning
from tui.player.pace import PACES
from tui.session_paths import base_paths, new_record, state_folder

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from tui.player.controller import Commentator
    from tui.player.spec import Note, PlayerSpec
    from tui.player.transcript import Timed

# How a clip is shown when nobody says otherwise.
VIEW = {"pace": "live", "start": 0.0, "loop": False, "picture": True, "theme": "floodlight"}
# Seconds after which a thread that computes lets another one have the interpreter.
SWITCH = 0.0005
HELP = "Watch a clip in the terminal, a model's commentary as it is spoken, and the true transcript beside it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "clip", metavar="CLIP", nargs="?", help="a video file, URL or camera (/dev/video0) (default: a sample)"
    )
    parser.add_argument("--truth", type=Path, metavar="F", help="true transcript: .vtt, .srt, .json (default: beside)")
    parser.add_argument("--out", type=Path, metavar="F", help="where to save the session (default: beside the clip)")
    add_options(parser)
    parser.epilog = f"Options may stand in {settings_file()} too, as 'pace: every'."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what may stand in the settings file."""
    add_model_arguments(parser)
    add_view_options(parser)


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of how a clip is shown."""
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--pace", choices=PACES, help="keep to the clock, or wait for the model (default live)")
    parser.add_argument("--start", type=float, metavar="S", help="second to begin at (default 0)")
    parser.add_argument("--loop", action=flag, help="begin again at the clip's end")
    parser.add_argument("--picture", action=flag, help="begin with the picture shown, or hidden")
    parser.add_argument("--theme", metavar="T", help="colours: floodlight (default), daylight, or one of Textual's")


def settings_file() -> Path:
    """Return where the player's settings lie, if there are any."""
    return state_folder(os.environ, Path.home()) / FILE


def run(args: argparse.Namespace) -> int:
    """Play the clip; the session is saved however the player ends."""
    if not is_follower(os.environ):
        check_terminal(interactive(), os.environ.get("TERM", ""), f"svm-tui infer {args.clip or ''}".rstrip())
    gc_tuning.begin()
    args.clip = args.clip or str(SAMPLE)
    fill_in(args, add_options, settings_file(), VIEW)
    config, folder = resolve_settings(args)
    if not run_as_follower(folder, config):
        watch(_spec(args, config, folder), args.theme)
    return 0


def watch(spec: "PlayerSpec", theme: str) -> NoReturn:
    """Show `spec`, save its session, print where it is, and end the process."""
    from tui.player.app import PlayerApp
    from tui.player.threads import leave

    # The model's thread needs the interpreter at each token; by default the screen may keep it for ten times as long.
    sys.setswitchinterval(SWITCH)
    app = PlayerApp(spec, theme)
    try:
        app.run()
    finally:
        for path in app.session.save():
            print(path)
        app.session.close()
    leave(app.return_code or 0)


def interactive() -> bool:
    """Tell whether there is a terminal: Textual reads keys from stdin and draws on stderr; stdout may go elsewhere."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def check_terminal(there: bool, term: str, instead: str) -> None:
    """Refuse to open a screen where there is none.

    Args:
        there: whether there is a terminal at all.
        term: what the variable TERM says of it.
        instead: what to run instead.

    Raises:
        SvmError: says so.
    """
    if not there:
        raise SvmError(f"the player needs a terminal to draw on; without one, run '{instead}'.")
    if term in ("", "dumb", "unknown"):
        raise SvmError(f"this terminal cannot be drawn on (TERM is '{term}'); run '{instead}'.")


def _spec(args: argparse.Namespace, config: "StreamConfig", folder: Path) -> "PlayerSpec":
    from streaming_vlm_mlx.sessions.session_log import ENDINGS
    from streaming_vlm_mlx.video.source import open_video
    from tui.player.clip import ClipSeconds, FrameGrabber
    from tui.player.spec import PlayerSpec

    source = open_video(args.clip, config.fps)
    if source.duration is not None and not 0 <= args.start < source.duration:
        raise SvmError(f"{args.clip} runs from 0 to {source.duration:.1f} s; --start {args.start:g} is outside.")
    record = new_record(args.clip, str(folder), config)
    return PlayerSpec(
        clip=Path(args.clip).name or args.clip,
        model=folder.name,
        size=source.size,
        seconds=ClipSeconds(source),
        open_grabber=None if source.duration is None else partial(FrameGrabber, args.clip),
        make=partial(_make, folder, config, args.adapter, notice(folder, args.clip)),
        config=config,
        read_truth=partial(read_clip_truth, args.truth, args.clip, source.duration),
        record=record,
        base_paths=base_paths(args.out, args.clip, record.created),
        endings=tuple(dict.fromkeys((*([args.out.suffix] if args.out and args.out.suffix else []), *ENDINGS))),
        pace=args.pace,
        start=args.start,
        with_picture=args.picture,
        loop=args.loop,
    )


def _make(folder: Path, config: "StreamConfig", adapter: Path | None, notice: str, note: "Note") -> "Commentator":
    if notice:
        note(notice)
    return make_engine(folder, config, note, adapter)[0]


def read_clip_truth(named: Path | None, clip: str, duration: float | None, note: "Note") -> "tuple[Timed, ...]":
    """Return the words of the transcript that is `named`, else of the one beside `clip`; none where there is none.

    Raises:
        SvmError: it cannot be read.
    """
    from streaming_vlm_mlx.sessions.subtitles import exported_clip
    from tui.player.truth import find_truth, mismatch_warning, read_truth

    path = named or find_truth(clip)
    if path is None:
        return ()
    words = read_truth(path, clip)
    if exported_clip(path) is not None:
        note(f"{path.name} is commentary that svm-tui exported, not a reference transcript.")
    if warning := mismatch_warning(words, path, duration):
        note(warning)
    return words
