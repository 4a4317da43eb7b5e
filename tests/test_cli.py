import argparse
import errno
import importlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from streaming_vlm_mlx.errors import SvmError
from tui import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Put a command ``try-it [WORD]`` into the table, which does what it is given."""

    def put(run: Callable[[argparse.Namespace], int]) -> None:
        module: Any = ModuleType("tui.commands.try_it")
        module.HELP = "Try a thing."
        module.add_arguments = lambda parser: parser.add_argument("word", nargs="?")
        module.run = run
        monkeypatch.setitem(sys.modules, "tui.commands.try_it", module)
        monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, "try-it": "try a thing"})

    return put


def raiser(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def start(*words: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """Run the program with `stdout` as its standard output, buffered as usual."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    program = [sys.executable, "-m", "tui", *words]
    return subprocess.run(program, cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_a_command_gets_its_arguments_and_gives_the_status(register: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def run(args: argparse.Namespace) -> int:
        seen.append((args.word, args.debug))
        print("result")
        return 7

    register(run)
    assert cli.main(["try-it", "word"]) == 7
    assert cli.main(["--debug", "try-it"]) == 7
    assert cli.main(["try-it", "--debug"]) == 7
    assert seen == [("word", False), (None, True), (None, True)]
    assert capsys.readouterr() == ("result\n" * 3, "")


INTERNAL = "internal error, run again with --debug for a traceback"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (SvmError("clip.mp4 is empty;\n choose another."), 2, "clip.mp4 is empty; choose another."),
        (KeyboardInterrupt(), 130, "stopped."),
        (cli.Terminated(), 143, "stopped."),
        (ZeroDivisionError("by\nzero"), 1, f"{INTERNAL}: ZeroDivisionError: by zero"),
        (AssertionError(), 1, f"{INTERNAL}: AssertionError"),
        (OSError(errno.EIO, "broken"), 1, f"{INTERNAL}: OSError: [Errno 5] broken"),
        (
            OSError(errno.ENOSPC, "full"),
            2,
            "no space left on the disk; free some, or choose another path.",
        ),
    ],
)
def test_an_error_is_one_line(
    register: Any, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    register(raiser(error))
    assert cli.main(["try-it"]) == status
    assert capsys.readouterr() == ("", f"svm-tui: {line}\n")


def test_debug_adds_the_traceback(register: Any, capsys: pytest.CaptureFixture[str]) -> None:
    register(raiser(SvmError("no such clip.")))
    assert cli.main(["try-it", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "in run" in shown
    assert shown.endswith("\nsvm-tui: no such clip.\n")


def test_what_was_printed_before_an_error_is_kept(register: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        print("first second")
        raise SvmError("the second second is broken.")

    register(run)
    assert cli.main(["try-it"]) == 2
    assert capfd.readouterr().out == "first second\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    asked = capsys.readouterr().out
    for name, line in cli.COMMANDS.items():
        assert [name] in [listed.split()[:1] for listed in asked.splitlines() if listed.startswith("    ")]
        assert line.split()[0] in asked
    assert cli.main([]) == 0
    assert capsys.readouterr().out == asked


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"tui.commands.{name.replace('-', '_')}")
    assert callable(module.run)
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: svm-tui {name} ")
    # Some releases of Python wrap lines at hyphens too.
    assert "".join(module.HELP.split()) in "".join(shown.split())


@pytest.mark.parametrize("words", [["no-such-command"], ["doctor", "--no-such-option"], ["--debug"]])
def test_arguments_that_do_not_parse_are_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"svm-tui: .*; see 'svm-tui( doctor)? --help'\.\n", captured.err)
    assert ("doctor --help" in captured.err) == ("doctor" in words)


def test_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"svm-tui": "1.2.3"}.__getitem__)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "svm-tui 1.2.3\n"


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"]])
def test_a_reader_that_leaves_early_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = start(*words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = start("--help", stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr.startswith("svm-tui: no space left")
    assert done.stderr.count("\n") == 1


# A command that is done, or not yet begun, when the signal arrives.
LATE = """
import os, signal, sys
from tui import cli
main = cli.main
def struck():
    status = main(["--version"]) if {done} else 0
    os.kill(os.getpid(), {number})
    return status if {done} else main(["--version"])
cli.main = struck
{before}
cli.program()
"""


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_of_the_command_ends_the_program_in_silence(number: signal.Signals, done: bool) -> None:
    script = LATE.format(done=done, number=int(number), before=f"signal.signal({int(number)}, signal.SIG_DFL)")
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (128 + number, "")
    assert bool(ended.stdout) == done


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    script = LATE.format(done=True, number=int(number), before=f"signal.signal({int(number)}, signal.SIG_IGN)")
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
