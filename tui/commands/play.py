"""``svm-tui play``: plays a clip in the terminal with a model's commentary."""

import argparse
import contextlib
import os
import sys
import threading
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import check_readable
from streaming_vlm_mlx.shipped import SAMPLE, notice
from tui import messages
from tui.commands.bench import describe_machine
from tui.commands.options import (
    PLAYER_SETTINGS,
    add_model_arguments,
    add_voice,
    checked_clip,
    fill_in,
    imply_voice,
    is_follower,
    make_engine,
    resolve_settings,
    run_as_follower,
)
from tui.commands.playlist import OneModel, Playlist
from tui.player import gc_tuning as gc_tuning
from tui.player.pace import PACES, choose_pace
from tui.positions import Positions
from tui.session_paths import base_paths, check_writable, new_record, state_folder

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.stream.async_engine import Engine
    from streaming_vlm_mlx.video.recorder import Recorder
    from tui.player.graphics.display import Display
    from tui.player.sound import OpenSource
    from tui.player.spec import Note, PlayerSpec
    from tui.player.transcript import Timed

# The defaults of the options that say how a clip is shown.
VIEW = {
    "pace": "live",
    "start": 0.0,
    "loop": False,
    "sound": True,
    "volume": 100.0,
    "voice": False,
    "picture": "auto",
    "theme": "floodlight",
    "keys": {},
    "per_second": False,
}
PICTURES = ("auto", "kitty", "iterm2", "sixel", "sextants", "blocks", "off")
# In the state folder: where clips were left.
POSITIONS = "positions.json"
# Seconds after which a computing thread gives up the interpreter lock.
SWITCH = 0.0005
HELP = (
    "Watch a clip in the terminal, with a model's commentary as it is generated and a reference transcript beside it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "clips",
        metavar="CLIP",
        nargs="*",
        help="a video file, URL or camera such as /dev/video0; of several, > and < play the next and the one before "
        "(default: a sample)",
    )
    add_truth_argument(parser)
    parser.add_argument("--out", type=Path, metavar="F", help="file to save the session in (default: beside the clip)")
    parser.add_argument("--record", type=Path, metavar="F", help="keep a live feed as it comes, in a .ts, .mkv or .mp4")
    add_ipc_argument(parser)
    add_options(parser)
    parser.epilog = f"{settings_file()} can hold options too, as 'pace: every'."


def add_truth_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a reference transcript."""
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="F",
        help="reference transcript: .vtt, .srt, .json or .jsonl (default: the one beside the clip)",
    )


def add_ipc_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets other programs control the player."""
    parser.add_argument(
        "--ipc", type=Path, metavar="PATH", help="Unix socket to make, on which other programs control the player"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the settings file can hold."""
    add_model_arguments(parser)
    add_view_options(parser)


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a clip is shown."""
    flag = argparse.BooleanOptionalAction
    parser.add_argument(
        "--pace", choices=PACES, help="live: skip what is late; every: wait for the model (default: live)"
    )
    parser.add_argument("--start", type=float, metavar="S", help="start at this time, in seconds (default: 0)")
    parser.add_argument("--loop", action=flag, help="start again at the end (default: no)")
    parser.add_argument("--sound", action=flag, help="play the clip's sound (default: yes)")
    parser.add_argument("--volume", type=float, metavar="V", help="volume of the sound, 0 to 100 (default: 100)")
    add_voice(parser, "speak the commentary as it comes (default: no)")
    parser.add_argument(
        "--picture",
        nargs="?",
        const="auto",
        choices=PICTURES,
        help="how to draw the picture: by a protocol of the terminal, or in characters (default: auto, the sharpest "
        "that the terminal has)",
    )
    parser.add_argument("--no-picture", dest="picture", action="store_const", const="off", help="as --picture off")
    parser.add_argument(
        "--per-second",
        action=flag,
        help="show and save lines for seconds instead of sentences (default: no)",
    )
    parser.add_argument("--theme", metavar="T", help="floodlight, daylight or a theme of Textual (default: floodlight)")


def settings_file() -> Path:
    """Return the path of the player's settings file, which may not exist."""
    return state_folder(os.environ, Path.home()) / PLAYER_SETTINGS


def run(args: argparse.Namespace) -> int:
    """Play the clip; the session is saved however the player ends. On a follower's rank, serve rank 0 instead."""
    if not is_follower(os.environ):
        check_terminal(interactive(), os.environ.get("TERM", ""), f"svm-tui infer {' '.join(args.clips[:1])}".rstrip())
        gc_tuning.begin()
    clips = args.clips or [str(SAMPLE)]
    _check_playlist(args, clips)
    check_truth(args)
    imply_voice(args)
    args.must_wait = args.pace == "every"
    fill_in(args, add_options, settings_file(), VIEW)
    check_theme(args.theme)
    config, folder = resolve_settings(args)
    if not run_as_follower(folder, config):
        watch(_open_first(args, clips, config, folder), args.theme, args.ipc)
    return 0


def _check_playlist(args: argparse.Namespace, clips: list[str]) -> None:
    """Raise an SvmError where a clip has no name, or an option is for one clip and there are several."""
    for clip in clips:
        checked_clip(clip)
    for name in ("truth", "out"):
        if len(clips) > 1 and getattr(args, name):
            raise SvmError(f"--{name} is for one clip, and there are {len(clips)}; name one, or leave --{name} out.")


def check_truth(args: argparse.Namespace) -> None:
    """Raise an SvmError where the transcript that the user named cannot be read; one beside the clip is only noted."""
    if args.truth:
        check_readable(args.truth)


def check_theme(theme: str) -> None:
    """Raise an SvmError where `theme` is neither the player's nor Textual's."""
    from textual.theme import BUILTIN_THEMES

    from tui.player.app import OWN_THEMES

    known = [*(own.name for own in OWN_THEMES), *sorted(BUILTIN_THEMES)]
    if theme not in known:
        raise SvmError(f"there is no theme {theme!r}; choose one of {', '.join(known)}.")


def watch(spec: "PlayerSpec", theme: str, ipc: Path | None) -> NoReturn:
    """Open the player on `spec`, save its session, print the paths, and end the process.

    Raises:
        SvmError: no socket can be made at the path `ipc`.
    """
    from tui.player.app import PlayerApp
    from tui.player.exit import Watchdog, forget_terminal, keep_screen_apart, leave

    # The model's thread needs the interpreter lock at each token; Python's default is ten times as long.
    sys.setswitchinterval(SWITCH)
    keep_screen_apart()
    app = PlayerApp(spec, theme)
    saving = threading.Lock()

    def save() -> None:
        # First of all, since saving may hang.
        if app.socket_file:
            app.socket_file.remove()
        with saving:
            app.finish()

    Watchdog(app.end, save).start()
    try:
        if ipc:
            # Unix alone has what it imports.
            from tui.player.ipc.socket_file import SocketFile

            app.socket_file = SocketFile(ipc)
        app.run()
    finally:
        forget_terminal()
        try:
            save()
        finally:
            # Nobody reads the paths when the terminal was closed.
            with contextlib.suppress(OSError):
                for path in app.saved:
                    messages.tell(path)
    leave(app.return_code or 0)


def interactive() -> bool:
    """Return whether there is a terminal: Textual reads stdin and draws on stderr; stdout may be redirected."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def choose_display(wanted: str) -> "tuple[Display, str]":
    """Return how the picture is drawn on the terminal for the option `wanted`, one of `PICTURES`.

    The terminal is asked, so call it before Textual reads from there. What was typed meanwhile is returned too.
    """
    from tui.player.graphics.display import MODES, Display

    if sys.platform == "win32":
        return Display(next((mode for mode in MODES if mode == wanted), "blocks")), ""
    # Unix alone has what it imports.
    from tui.terminal_graphics import find_display

    # Textual draws on stderr.
    return find_display(wanted, sys.stdin.fileno(), sys.stderr.fileno(), time.perf_counter, os.environ)


def check_terminal(there: bool, term: str, instead: str) -> None:
    """Check that a terminal can show the player.

    Args:
        there: whether there is a terminal.
        term: the variable TERM.
        instead: the command to suggest where it cannot.

    Raises:
        SvmError: it cannot; the text has the command `instead`.
    """
    if not there:
        raise SvmError(f"the player needs a terminal; without one, run '{instead}'.")
    if term in ("", "dumb", "unknown"):
        raise SvmError(f"this terminal cannot show the player (TERM is '{term}'); run '{instead}'.")


def _open_first(args: argparse.Namespace, clips: list[str], config: "StreamConfig", folder: Path) -> "PlayerSpec":
    """Return the session of the first of `clips`, from which the others are found."""
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from streaming_vlm_mlx.memory import machine_memory

    advice = notice(folder, clips, machine_memory())
    model = OneModel(partial(_make, folder, config, args.adapter, advice), checkpoint_name(folder), config)

    def open_clip(clip: str, number: int) -> "PlayerSpec":
        # --start is for the first clip.
        changes = {"clip": clip} if number == 0 else {"clip": clip, "start": 0.0}
        spec = _spec(argparse.Namespace(**vars(args) | changes), config, folder, model)
        model.release()
        return replace(spec, display=display()[0])

    # Once, and not for a clip that cannot be opened.
    display = cache(partial(choose_display, args.picture))
    first = replace(Playlist(clips, open_clip, args.loop).open(0), typed=display()[1])
    if advice:
        # The one on the screen is gone when the player ends.
        messages.note(advice)
    return first


def _spec(args: argparse.Namespace, config: "StreamConfig", folder: Path, model: OneModel) -> "PlayerSpec":
    from streaming_vlm_mlx.audio.feed_sound import FeedSound
    from streaming_vlm_mlx.audio.feeder import open_feeder
    from streaming_vlm_mlx.backend import prepare
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from streaming_vlm_mlx.sessions.session_log import ENDINGS
    from streaming_vlm_mlx.sessions.subtitles import clip_name
    from streaming_vlm_mlx.stream_settings import describe_preset
    from streaming_vlm_mlx.taught_questions import read_questions
    from streaming_vlm_mlx.text.chat_template import STYLES
    from streaming_vlm_mlx.video.feed import FeedWatch
    from streaming_vlm_mlx.video.video_file import open_video
    from tui.player.clip import ClipSeconds, FrameGrabber
    from tui.player.feed import FeedSeconds
    from tui.player.spec import PlayerSpec

    recorder = make_recorder(args.record) if args.record else None
    feed_sound = FeedSound(args.clip)
    watch = FeedWatch(sink=recorder, hear=feed_sound.put if args.sound else None)
    source = open_video(args.clip, config.fps, STYLES[config.style].takes_ending_frames, watch)
    if recorder and not source.feed:
        raise SvmError(f"{args.clip} is a clip, and --record keeps a live feed; leave out --record.")
    if source.duration is not None and not 0 <= args.start < source.duration:
        raise SvmError(f"{args.clip} is {source.duration:.1f} s long; --start {args.start:g} is outside.")
    try:
        pace = choose_pace(args.clip, source.duration is None, args.pace, args.must_wait)
    except SvmError:
        source.close()
        raise
    record = new_record(args.clip, str(folder), config, describe_machine(), pace)
    return PlayerSpec(
        clip=clip_name(args.clip),
        model=checkpoint_name(folder),
        size=source.size,
        seconds=FeedSeconds(source) if source.feed else ClipSeconds(source),
        open_grabber=None if source.duration is None else partial(FrameGrabber, args.clip),
        make=model.make,
        config=config,
        read_truth=partial(read_clip_truth, args.truth, args.clip, source.duration),
        record=record,
        base_paths=base_paths(args.out, args.clip, record.created),
        endings=tuple(dict.fromkeys((*([args.out.suffix] if args.out and args.out.suffix else []), *ENDINGS))),
        pace=pace,
        start=args.start,
        **sound_settings(
            args, partial(feed_sound.open, source.feed.sound) if source.feed else partial(open_feeder, args.clip)
        ),
        with_picture=args.picture != "off",
        loop=args.loop,
        feed=source.feed,
        recording=recorder,
        keymap=args.keys,
        per_second=args.per_second,
        **_position(args, source.duration),
        questions=read_questions(folder),
        preset=describe_preset(checkpoint_name(folder), config),
        describe_machine=lambda: describe_machine(prepare()),
    )


def sound_settings(args: argparse.Namespace, open_source: "OpenSource | None") -> dict[str, Any]:
    """Return the fields of the spec on the voice, and on the sound that `open_source` opens; None where there is none.

    Raises:
        SvmError: there is no such volume, or the voice is wanted and its program is not there.
    """
    if not 0 <= args.volume <= 100:
        raise SvmError(f"--volume is {args.volume:g}; it is a number from 0 to 100.")
    from streaming_vlm_mlx.audio.voice import find_voice
    from tui.player.sound import SoundSpec
    from tui.player.voice import VoiceSpec

    if args.voice:
        find_voice(args.voice_command)
    sound = SoundSpec(open_source, args.volume) if args.sound and open_source else None
    return {"sound": sound, "voice": VoiceSpec(args.voice, args.voice_command)}


def make_recorder(path: Path) -> "Recorder":
    """Return what keeps a feed in `path`.

    Raises:
        SvmError: a feed cannot be kept there.
    """
    from streaming_vlm_mlx.video.recorder import Recorder

    recorder = Recorder(path)
    check_writable(path)
    return recorder


def _position(args: argparse.Namespace, duration: float | None) -> dict[str, Any]:
    """Return the fields of the spec that remember where a file was left."""
    if duration is None or not Path(args.clip).is_file():
        return {}
    positions = Positions(state_folder(os.environ, Path.home()) / POSITIONS)

    def remember(position: float) -> None:
        # Quitting must not fail for it.
        with contextlib.suppress(SvmError):
            positions.remember(args.clip, position, duration)

    return {"left_at": None if args.start else positions.find(args.clip), "remember": remember}


def _make(folder: Path, config: "StreamConfig", adapter: Path | None, advice: str, note: "Note") -> "Engine":
    if advice:
        note(advice)
    return make_engine(folder, config, note, adapter)[0]


def read_clip_truth(named: Path | None, clip: str, duration: float | None, note: "Note") -> "tuple[Timed, ...]":
    """Return the words of the transcript `named`, else of the one beside `clip`; empty where there is none.

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
