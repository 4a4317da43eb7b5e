"""Which graphics a terminal says that it has."""

import os
import pty
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tui.terminal_graphics import QUESTION, ask_terminal, parse_answer

KITTY = b"\x1b_Gi=31;OK\x1b\\"
ITERM2 = b"\x1bP>|iTerm2 3.5.4\x1b\\"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"\x1b[?62;22c", ()),
        (b"\x1b[?62;4;22c", ("Sixel",)),
        # The first number is the level: VT132.
        (b"\x1b[?4;6c", ()),
        (b"\x1b[?62;14;40c", ()),
        (KITTY + b"\x1b[?62;c", ("Kitty",)),
        (b"\x1b_Gi=31;ENOTSUP:no\x1b\\\x1b[?62c", ()),
        (ITERM2 + b"\x1b[?62;4c", ("iTerm2", "Sixel")),
        (b"\x1bP>|WezTerm 20240203\x1b\\" + KITTY + b"\x1b[?65;4;6c", ("Kitty", "iTerm2", "Sixel")),
        (b"\x1bP>|tmux 3.4\x1b\\\x1b[?1;2;4c", ("Sixel",)),
        (b"typed\x1b[A\x1b[?62;4c", ("Sixel",)),
        (b"", None),
        (KITTY, None),
        (b"\x1b[?62;4", None),
    ],
)
def test_answers(answer: bytes, found: tuple[str, ...] | None) -> None:
    assert parse_answer(answer) == found


@contextmanager
def terminal(*answers: bytes) -> Iterator[int]:
    """Yield a terminal that gives `answers`, one after the other, when it has been asked."""
    ours, theirs = pty.openpty()

    def answer() -> None:
        asked = b""
        while QUESTION not in asked:
            asked += os.read(ours, 1024)
        for part in answers:
            os.write(ours, part)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield theirs
    finally:
        thread.join()
        os.close(ours)
        os.close(theirs)


def still() -> float:
    """Be a clock of which no time passes."""
    return 0.0


def test_a_terminal_is_asked_and_left_as_it_was() -> None:
    with terminal(b"\x1b_Gi=31;", b"OK\x1b\\\x1b[?62;", b"4c") as tty:
        before = termios.tcgetattr(tty)
        assert ask_terminal(tty, tty, still, limit=60.0) == ("Kitty", "Sixel")
        assert termios.tcgetattr(tty) == before


def test_a_terminal_that_does_not_answer_is_not_waited_for() -> None:
    ticks = count()
    with terminal() as tty:
        before = termios.tcgetattr(tty)
        # The clock is past the limit when it is read again.
        assert ask_terminal(tty, tty, lambda: 2.0 * next(ticks), limit=1.0) is None
        assert termios.tcgetattr(tty) == before


def test_a_terminal_that_says_anything_else_without_end_is_left() -> None:
    with terminal(b"x" * 5000) as tty:
        assert ask_terminal(tty, tty, still, limit=60.0) is None
