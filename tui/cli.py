"""The program ``svm-tui``: parses the command line, imports the chosen command only, and reports its errors."""

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from streaming_vlm_mlx.errors import SvmError
from tui.messages import PROGRAM, note
from tui.player.exit import leave

# Each command's name, also its module's in `tui.commands`, and its line in `svm-tui --help`, which imports no command.
COMMANDS: Mapping[str, str] = {
    "play": "watch a clip with a model's commentary in the terminal",
    "replay": "play a saved session again, without a model",
    "export": "write a saved session as subtitles, as text, or into its clip",
    "infer": "write a model's commentary on a clip, without a screen",
    "convert": "make training records from datasets, or from clips with transcripts",
    "convert-ckpt": "quantize a checkpoint, or write it in Hugging Face's layout",
    "train": "train a model on records, from scratch or from a checkpoint",
    "fuse": "merge a LoRA adapter into its base checkpoint",
    "validate": "measure the quality of a model's commentary on clips it was not trained on",
    "report": "write a page on a clip: commentary beside the truth, scores, time and memory",
    "matches": "render simulated matches with commentary, for training and tests",
    "bench": "measure time and memory of a second of the stream on this machine",
    "models": "list the checkpoints on this machine, and which sizes fit it",
    "doctor": "show what MLX computes on here, and how to make it faster",
}

OK, DEFECT, BAD_INPUT = 0, 1, 2
# What a shell reports for a program that ended by SIGINT, SIGPIPE or SIGTERM.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
ENDS: Mapping[signal.Signals, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; a command ends as with Ctrl-C and keeps its results."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (without the program's name) and return the exit status.

    0 is success, 1 a bug in this program, 2 input that cannot be used, 130 Ctrl-C, 141 a closed stdout, 143 SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in words
    try:
        with _raising_on_signals():
            status = _run(words)
            print(end="", flush=True)
    except Terminated:
        return _fail(TERMINATED, "stopped.", debug)
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "stopped.", debug)
    except BrokenPipeError:
        _flush_stdout()
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the one place that turns a bug into a line for the user
        return _fail(*_explain(error), debug)
    return status


@contextlib.contextmanager
def _raising_on_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise, in the main thread and unless the parent process has them ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raising = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _raise_terminated}
    before = _heeded(raising)
    for number in before:
        signal.signal(number, raising[number])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeded(numbers: Iterable[signal.Signals]) -> dict[signal.Signals, Any]:
    """Return the handlers of those of `numbers` that are not ignored and that Python knows."""
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _raise_terminated(*_: object) -> NoReturn:
    raise Terminated


def _run(words: Sequence[str]) -> int:
    try:
        args = _parser(words).parse_args(words)
    except SystemExit as stop:
        # From argparse: it printed help, the version, or what is wrong with the arguments.
        return int(stop.code or OK)
    args.words = words
    status: int = args.run(args)
    return status


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one line, instead of the six of a command's usage.

    Attributes:
        command: what to ask for help.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.command = self.prog

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end the program."""
        note(f"{message.removesuffix('.')}; see '{self.command} --help'.")
        raise SystemExit(BAD_INPUT)


class _Version(argparse.Action):
    """Prints the version; looks it up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from streaming_vlm_mlx.backend import installed_version

        print(PROGRAM, installed_version(PROGRAM) or "(not installed)")
        parser.exit()


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the names of all commands, and the arguments of the one in `words`."""
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = _Parser(
        PROGRAM,
        description="Watch a sports clip in the terminal with commentary from a vision-language model on this machine.",
        epilog=f"See '{PROGRAM} COMMAND --help' for the options of a command.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_debug(parser, default=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line)
        if name == chosen:
            # What is left over of a command's arguments is refused by this parser.
            parser.command = command.prog
            _add_command(command, name)
    return parser


def _add_command(parser: argparse.ArgumentParser, name: str) -> None:
    module = importlib.import_module(f"tui.commands.{name.replace('-', '_')}")
    parser.description = module.HELP
    module.add_arguments(parser)
    _add_debug(parser, default=argparse.SUPPRESS)
    parser.set_defaults(run=module.run)


def _add_debug(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")


def _explain(error: Exception) -> tuple[int, str]:
    """Return the exit status for `error` and its message."""
    text = " ".join(str(error).split())
    if isinstance(error, SvmError):
        return BAD_INPUT, text
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return BAD_INPUT, "no space left on the disk; free some, or choose another path."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # A name that is too long, a folder that may not be entered.
        return BAD_INPUT, f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}; check the path."
    found = f"{type(error).__name__}: {text}".removesuffix(": ")
    return DEFECT, f"internal error, run again with --debug for a traceback: {found}"


def _fail(status: int, text: str, debug: bool) -> int:
    """Print `text` on stderr, after the traceback of the current error if `debug` is set; return `status`."""
    _flush_stdout()
    # The terminal may have been closed.
    with contextlib.suppress(OSError):
        if debug:
            traceback.print_exc()
        note(text)
    return status


def _flush_stdout() -> None:
    """Write what is still buffered; if that fails, discard it, so that Python does not try again when it exits."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> NoReturn:
    """Run the command of the command line and end the process; the entry point of ``svm-tui``."""
    # For what arrives before the command runs, and when it is done.
    for number in _heeded(ENDS):
        signal.signal(number, _leave_on_signal)
    status = main()
    threads = [thread for thread in threading.enumerate() if not thread.daemon]
    # Not imported here, since that takes time.
    processes = sys.modules.get("multiprocessing")
    if (status in (INTERRUPTED, TERMINATED) and not (processes and processes.active_children())) or len(threads) > 1:
        # Python's own exit waits for Textual's reader of a terminal that was closed, and for a stalled read in FFmpeg.
        leave(status)
    sys.exit(status)


def _leave_on_signal(number: int, _: FrameType | None) -> NoReturn:
    leave(ENDS[signal.Signals(number)])


if __name__ == "__main__":
    program()
