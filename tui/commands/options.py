"""Options that commands share, the stream settings that result, the engine, and the player's settings file.

The settings file holds options of ``svm-tui play`` under their own names, without the dashes, and the viewer's keys.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import check_name
from streaming_vlm_mlx.shipped import CHECKPOINT
from tui import messages
from tui.downloads import find_adapter, find_checkpoint

PLAYER_SETTINGS = "player.yaml"
# The setting there that is no option: keys by the names of actions.
KEYS = "keys"

# What can be named, in the help of options.
CHECKPOINT_NAMES = "a folder, a name in checkpoints/, or owner/name[@revision] on the hub"
ADAPTER_NAMES = "a folder (of train --lora, PEFT or mlx-vlm), or owner/name[@revision] on the hub"

AddOptions = Callable[[argparse.ArgumentParser], None]

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.config_io import SettingLine
    from streaming_vlm_mlx.stream.async_engine import Engine


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and its stream's settings."""
    parser.add_argument(
        "--ckpt",
        metavar="C",
        help=f"checkpoint: {CHECKPOINT_NAMES} (default: the one of the package, for matches)",
    )
    parser.add_argument("--adapter", type=Path, metavar="A", help=f"LoRA adapter of --ckpt: {ADAPTER_NAMES}")
    parser.add_argument(
        "--query", metavar="TEXT", help="what to ask the model for, in the first second (default: the checkpoint's)"
    )
    parser.add_argument("--previous", metavar="TEXT", help="commentary before the clip's start (default: none)")
    parser.add_argument(
        "--fps", type=int, metavar="N", help="frames a second that the model sees (default: the checkpoint's, else 2)"
    )
    parser.add_argument("--config", type=Path, metavar="F", help="YAML of stream settings that replace --ckpt's own")
    parser.add_argument(
        "--kv-bits", type=int, choices=(8, 4), help="bits of a number in the KV cache (default: the model's dtype)"
    )
    add_drop_still(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the sampling (default: --ckpt's own, else 0)")


def add_drop_still(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out video which did not change."""
    parser.add_argument(
        "--drop-still",
        type=float,
        metavar="L",
        help="leave out video tokens whose pixels changed by at most L of 255 (root mean square) since the model was "
        "shown them (default: all are shown)",
    )


def add_per_second(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves the seconds of commentary as they are."""
    parser.add_argument(
        "--per-second",
        action="store_true",
        help="write subtitles second by second, as for training (default: in sentences)",
    )


def checked_clip(name: str) -> str:
    """Return `name`, which a user gave for a clip.

    Raises:
        SvmError: it is empty.
    """
    return check_name(name, "clip", "a video file")


def add_session(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a session; an empty name is refused."""
    kinds = "a saved session (.json) or a journal (.jsonl)"
    parser.add_argument(
        "session", metavar="SESSION", type=lambda name: Path(check_name(name, "session", kinds)), help=kinds
    )


def add_voice(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add the options that have the commentary spoken; `purpose` is the help of the switch."""
    parser.add_argument("--voice", action=argparse.BooleanOptionalAction, help=purpose)
    parser.add_argument(
        "--voice-command",
        metavar="C",
        help="program that speaks: it reads text on its stdin and writes a WAV to stdout, or to the file {output} "
        "(default: say on a Mac, espeak-ng elsewhere)",
    )


def imply_voice(args: argparse.Namespace) -> None:
    """Turn the voice on where only its program was named."""
    if args.voice is None and args.voice_command is not None:
        args.voice = True


def resolve_settings(args: argparse.Namespace, warn: bool = True) -> "tuple[StreamConfig, Path]":
    """Return the stream's settings and the checkpoint's folder; `warn` says so where the query has no effect.

    A checkpoint and an adapter on the hub are downloaded; `args.adapter` becomes the adapter's folder.

    The settings are the adapter's or else the checkpoint's, then those of --config, then the options. Without --ckpt
    the checkpoint is the one in the package.

    Raises:
        SvmError: there is no such checkpoint, or a setting cannot be used.
    """
    from streaming_vlm_mlx.stream_settings import STREAM, read_stream_config

    folder = CHECKPOINT if args.ckpt is None else find_checkpoint(args.ckpt)
    args.adapter = find_adapter(args.adapter)
    owner = args.adapter if args.adapter and (args.adapter / STREAM).is_file() else folder
    config = read_stream_config(owner, args.config)
    given = {
        k: getattr(args, k)
        for k in ("query", "previous", "fps", "kv_bits", "drop_still")
        if getattr(args, k) is not None
    }
    sampling = {} if args.seed is None else {"sampling": {"seed": args.seed}}
    config = config.merged({**given, **sampling})
    if warn and args.query is not None:
        _warn_of_unused_query(config, folder)
    return config, folder


def _warn_of_unused_query(config: "StreamConfig", folder: Path) -> None:
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from tui.player.spec import uses_query

    if not uses_query(config):
        messages.note(
            f"--query has no effect: the training template of {checkpoint_name(folder)} has no query; "
            "ask questions in the player with /."
        )


def make_engine(
    folder: Path, config: "StreamConfig", note: Callable[[str], None], adapter: Path | None = None
) -> "tuple[Engine, str]":
    """Start an engine on the checkpoint in `folder`; return it and the model's name.

    Args:
        folder: the checkpoint's folder.
        config: the stream's settings.
        note: called with one sentence for each thing that the user needs to know.
        adapter: folder of an adapter of that checkpoint.

    Raises:
        SvmError: MLX cannot be loaded on this machine.
    """
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.distributed import join
    from streaming_vlm_mlx.hub_cache import checkpoint_name
    from streaming_vlm_mlx.models.adapters import adapter_notes
    from streaming_vlm_mlx.models.loading import checkpoint_notes
    from streaming_vlm_mlx.stream.async_engine import Engine
    from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
    from streaming_vlm_mlx.stream_settings import describe_preset

    adapted = adapter_notes(adapter, folder) if adapter else ()
    preset = describe_preset(checkpoint_name(folder), config)
    for line in (machine.advice, *checkpoint_notes(folder), *adapted, preset):
        if line:
            note(line)
    name = f"{folder} with {adapter}" if adapter else str(folder)
    load = bundle_loader(folder, machine.dtype, config, adapter, partial(join, os.environ))
    return Engine(load, config), name


def is_follower(environ: Mapping[str, str]) -> bool:
    """Return whether ``mlx.launch``, or a user, numbered this process as one of the followers: rank 1 or above."""
    return environ.get("MLX_RANK", "0") != "0"


def run_as_follower(folder: Path, config: "StreamConfig") -> bool:
    """Return False on rank 0; on any other, serve its part of the model until rank 0 ends, and return True.

    Raises:
        SvmError: the checkpoint cannot be split, or another machine was lost.
    """
    if not is_follower(os.environ):
        return False
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.distributed import join
    from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
    from streaming_vlm_mlx.stream.distributed_runner import follow

    _, bundle = bundle_loader(folder, machine.dtype, config, None, partial(join, os.environ))(lambda _: None)
    follow(bundle.model, bundle.ranks)
    return True


def fill_in(args: argparse.Namespace, add_options: AddOptions, settings: Path, defaults: Mapping[str, object]) -> None:
    """Set each option of `args` that is None from the file `settings`, else from `defaults`.

    Args:
        args: the parsed command line.
        add_options: declares the options that the file may hold; all of them default to None.
        settings: YAML with one option a line; may be absent.
        defaults: values of options that neither the command line nor the file sets.

    Raises:
        SvmError: the file cannot be read, or has a key that is not an option, or a value that does not fit its option.
            The text names the line.
    """
    kept = read_options(settings, add_options) if settings.is_file() else {}
    for name, value in {**defaults, **kept}.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def read_options(path: Path, add_options: AddOptions) -> dict[str, object]:
    """Return the options that the YAML file `path` sets, by the names that argparse gives them.

    Raises:
        SvmError: as `fill_in`.
    """
    from streaming_vlm_mlx.config_io import describe_unknown, read_lines

    parser = _Parser(allow_abbrev=False, add_help=False)
    add_options(parser)
    known = [KEYS, *(name.replace("_", "-") for name in vars(parser.parse_args([])))]
    found: dict[str, object] = {}
    for line in read_lines(path):
        if line.key not in known:
            raise SvmError(f"{path}:{line.number}: {describe_unknown(str(line.key), known)}")
        if line.key == KEYS and line.value is not None:
            found[KEYS] = _read_keymap(path, line)
            continue
        try:
            parsed = parser.parse_args(_as_words(str(line.key), line.value))
        except _RefusedError as error:
            raise SvmError(f"{path}:{line.number}: {_explain(str(line.key), line.value, str(error))}") from error
        found |= {name: value for name, value in vars(parsed).items() if value is not None}
    return found


def _read_keymap(path: Path, line: "SettingLine") -> dict[str, str]:
    # Textual takes a while to import.
    from tui.player.keymap import check_keymap
    from tui.player.screens.player import PlayerScreen

    def refusal(keymap: object) -> str:
        try:
            check_keymap(keymap, PlayerScreen.BINDINGS)
        except SvmError as error:
            return str(error)
        return ""

    if problem := refusal(line.value):
        # The line of the key that is refused alone, else that of all.
        keys = line.value if isinstance(line.value, Mapping) else {}
        numbers = (line.inner[key] for key, value in keys.items() if refusal({key: value}) == problem)
        raise SvmError(f"{path}:{next(numbers, line.number)}: {problem}")
    return check_keymap(line.value, PlayerScreen.BINDINGS)


def _as_words(name: str, value: object) -> list[str]:
    """Return the option as a user would type it."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}={value}"]


def _explain(name: str, value: object, message: str) -> str:
    """Return what argparse says against a value, for a file instead of a command line."""
    if "ignored explicit argument" in message:
        return f"{name} is {value!r}; it must be true or false."
    if "unrecognized arguments" in message:
        return f"{name} is {value!r}; it is not a switch and needs a value."
    return f"{name}: {message.partition(': ')[2]}."


class _RefusedError(Exception):
    """What argparse says against an option."""


class _Parser(argparse.ArgumentParser):
    """Raises an error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse an option."""
        raise _RefusedError(message)
