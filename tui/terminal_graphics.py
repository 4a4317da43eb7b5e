"""Asks a terminal which graphics it can show."""

import os
import re
import select
import termios
import tty
from collections.abc import Callable
from typing import Literal

Graphics = Literal["Kitty", "iTerm2", "Sixel"]

# Seconds that a terminal has to answer, also one behind a slow connection.
LIMIT = 1.0
# A picture of one pixel in Kitty's protocol, the terminal's name, and last what every terminal answers: its attributes.
# What a terminal shows of a question that it does not know is cleared.
_KITTY, _NAME, _ATTRIBUTES = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\", b"\x1b[>0q", b"\x1b[c"
_CLEAR = b"\r\x1b[K"
QUESTION = _KITTY + _NAME + _ATTRIBUTES + _CLEAR
_ANSWERED = re.compile(rb"\x1b\[\?([\d;]*)c")
# Terminals that show iTerm2's pictures, by the name that they give; there is no question for it.
_ITERM2 = re.compile(rb"\x1bP>\|(iTerm2|WezTerm)")
_SIXEL = b"4"
_MOST_BYTES = 4096


def parse_answer(answer: bytes) -> tuple[Graphics, ...] | None:
    """Return the protocols that `answer` to `QUESTION` names, the best first; None while it is not complete."""
    attributes = _ANSWERED.search(answer)
    if attributes is None:
        return None
    found: list[Graphics] = []
    if b"\x1b_Gi=31;OK" in answer:
        found.append("Kitty")
    if _ITERM2.search(answer):
        found.append("iTerm2")
    # The first number is the level of the terminal.
    if _SIXEL in attributes[1].split(b";")[1:]:
        found.append("Sixel")
    return tuple(found)


def ask_terminal(
    reader: int, writer: int, clock: Callable[[], float], limit: float = LIMIT
) -> tuple[Graphics, ...] | None:
    """Return the protocols that a terminal knows, the best first; None if it does not answer.

    Args:
        reader: file descriptor that its keys and answers come from; must be a terminal.
        writer: file descriptor that it shows.
        clock: returns seconds.
        limit: seconds to wait for the answer.
    """
    before = termios.tcgetattr(reader)
    try:
        # The answer must be neither shown nor kept for the shell.
        tty.setcbreak(reader, termios.TCSAFLUSH)
        os.write(writer, QUESTION)
        answer, end = b"", clock() + limit
        while (found := parse_answer(answer)) is None and len(answer) < _MOST_BYTES:
            ready, _, _ = select.select([reader], [], [], max(end - clock(), 0.0))
            if not ready or not (more := os.read(reader, 1024)):
                return None
            answer += more
        return found
    finally:
        termios.tcsetattr(reader, termios.TCSAFLUSH, before)
