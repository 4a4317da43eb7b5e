"""Which graphics a terminal says that it has."""

import fcntl
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tui.terminal_graphics import (
    QUESTION,
    Graphics,
    Reply,
    TerminalAnswer,
    ask_terminal,
    cell_size,
    find_display,
    parse_answer,
    typed_in,
)

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
    parsed = parse_answer(answer)
    assert (parsed and parsed.protocols) == found


def test_a_name_and_the_size_of_a_cell_are_read() -> None:
    answer = parse_answer(ITERM2 + b"\x1b[6;21;9t\x1b[?62;4c")
    assert answer == TerminalAnswer(("iTerm2", "Sixel"), "iTerm2 3.5.4", (9, 21))
    assert parse_answer(b"\x1b[6;0;0t\x1b[?62c") == TerminalAnswer()


@pytest.mark.parametrize(
    ("name", "protocols", "mode"),
    [
        ("kitty(0.35.2)", ("Kitty",), "kitty"),
        # Its images in text came with 0.28.
        ("kitty(0.26.5)", ("Kitty",), "sextants"),
        ("ghostty 1.0.1", ("Kitty",), "kitty"),
        ("WezTerm 20240203-110809-5046fc22", ("Kitty", "iTerm2", "Sixel"), "iterm2"),
        ("iTerm2 3.5.4", ("iTerm2", "Sixel"), "iterm2"),
        ("Konsole 24.08", ("Kitty", "Sixel"), "sixel"),
        ("foot(1.16.2)", ("Sixel",), "sixel"),
        ("XTerm(379)", ("Sixel",), "sixel"),
        ("XTerm(379)", (), "blocks"),
        ("tmux 3.4", ("Sixel",), "blocks"),
        ("VTE(7600)", (), "sextants"),
        ("VTE(5200)", (), "blocks"),
        ("foot(1.16.2)", (), "sextants"),
        ("", (), "blocks"),
        ("", ("Sixel",), "sixel"),
    ],
)
def test_the_sharpest_picture_that_a_terminal_shows_is_chosen(
    name: str, protocols: tuple[Graphics, ...], mode: str
) -> None:
    assert TerminalAnswer(protocols, name).picture_mode == mode


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
        assert ask_terminal(tty, tty, still, limit=60.0) == Reply(TerminalAnswer(("Kitty", "Sixel")))
        assert termios.tcgetattr(tty) == before


def test_a_terminal_that_does_not_answer_is_not_waited_for() -> None:
    ticks = count()
    with terminal() as tty:
        before = termios.tcgetattr(tty)
        # The clock is past the limit when it is read again.
        assert ask_terminal(tty, tty, lambda: 2.0 * next(ticks), limit=1.0).answer is None
        assert termios.tcgetattr(tty) == before


def test_a_terminal_that_says_anything_else_without_end_is_left() -> None:
    with terminal(b"x" * 5000) as tty:
        assert ask_terminal(tty, tty, still, limit=60.0).answer is None


@pytest.mark.parametrize(
    "parts",
    [
        (b"q", b"\x1b[?62;c"),
        (KITTY + b"q" + ITERM2 + b"\x1b[6;21;9t\x1b[?62;4c",),
        (ITERM2 + b"\x1b[?62;4cq",),
        (b"\x1b[A\x1b[1;5Dq\x1bOP\r\x7f\x1b[?62c",),
    ],
)
def test_keys_that_are_typed_meanwhile_are_kept(parts: tuple[bytes, ...]) -> None:
    with terminal(*parts) as tty:
        reply = ask_terminal(tty, tty, still, limit=60.0)
    assert reply.answer
    assert reply.typed == "q"


def test_what_was_typed_before_is_kept() -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"]\xc3\xa9")
    ticks = count()
    # The clock is past the limit after one look.
    assert ask_terminal(theirs, theirs, lambda: 0.4 * next(ticks), limit=1.0) == Reply(None, "]é")
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("answer", [KITTY + ITERM2 + b"\x1b[6;21;9t\x1b[?62;4c", KITTY[:5], b"\x1b[?62;", b"\x1b"])
def test_no_part_of_an_answer_is_taken_for_keys(answer: bytes) -> None:
    for end in range(len(answer) + 1):
        assert not typed_in(answer[:end])


def size_to(tty: int, *size: int) -> None:
    """Set the rows, columns, width and height of a terminal, the latter in pixels."""
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("4H", *size))


def test_cells_are_measured_and_may_grow() -> None:
    with terminal(b"\x1bP>|kitty(0.35.2)\x1b\\" + KITTY + b"\x1b[?62;c") as tty:
        assert cell_size(tty) is None
        size_to(tty, 30, 100, 905, 600)
        display, _ = find_display("auto", tty, tty, still, {})
        assert (display.mode, display.measure()) == ("kitty", (9, 20))
        size_to(tty, 15, 50, 900, 600)
        assert display.measure() == (18, 40)


def test_a_terminal_that_measures_no_cells_is_asked_for_their_size() -> None:
    with terminal(b"\x1b[6;21;9t\x1b[?62;4c") as tty:
        display, _ = find_display("iterm2", tty, tty, still, {})
        assert (display.mode, display.cell, display.measure()) == ("iterm2", (9, 21), None)


def test_a_terminal_that_was_closed_gets_half_blocks() -> None:
    ours, theirs = pty.openpty()
    os.close(ours)
    assert find_display("auto", theirs, theirs, still, {})[0].mode == "blocks"
    os.close(theirs)


@pytest.mark.parametrize(
    ("wanted", "variables", "mode"),
    [
        ("blocks", {}, "blocks"),
        ("off", {}, "blocks"),
        ("sextants", {"NO_COLOR": "1"}, "sextants"),
        ("auto", {"NO_COLOR": "1"}, "blocks"),
        ("auto", {"TERM": "linux"}, "blocks"),
    ],
)
def test_a_terminal_is_asked_only_where_that_is_needed(wanted: str, variables: dict[str, str], mode: str) -> None:
    ours, theirs = pty.openpty()
    size_to(theirs, 30, 100, 900, 600)
    assert find_display(wanted, theirs, theirs, still, variables)[0].mode == mode
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    os.close(ours)
    os.close(theirs)
