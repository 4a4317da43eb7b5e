"""Asks a terminal which graphics it can show, and chooses how the player draws its picture there."""

import fcntl
import os
import re
import select
import struct
import termios
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tui.player.graphics.display import MOST_PIXELS, Display, PictureMode

Graphics = Literal["Kitty", "iTerm2", "Sixel"]

# Seconds that a terminal has to answer, also one behind a slow connection: what came later would be taken for keys.
LIMIT = 1.0
# A picture of one pixel in Kitty's protocol, the terminal's name, the size of a cell, and last what every terminal
# answers: its attributes. What a terminal shows of a question that it does not know is cleared.
_KITTY, _NAME, _CELL, _ATTRIBUTES = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\", b"\x1b[>0q", b"\x1b[16t", b"\x1b[c"
_CLEAR = b"\r\x1b[K"
QUESTION = _KITTY + _NAME + _CELL + _ATTRIBUTES + _CLEAR
_ANSWERED = re.compile(rb"\x1b\[\?([\d;]*)c")
_NAMED = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_CELL_SIZE = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
# Terminals that show iTerm2's pictures, by the name that they give; there is no question for it.
_ITERM2 = re.compile(r"iTerm2|WezTerm")
# Those that show Kitty's images in text, from a version on; there is no question for it either.
_PLACEHOLDERS = {"kitty": (0, 28), "ghostty": (1, 0)}
# Those that draw sextants themselves, whatever the font has. VTE is the library of GNOME's terminal, among others.
_SEXTANTS = {"kitty": (0, 20), "ghostty": (1, 0), "wezterm": (0, 0), "foot": (1, 8), "vte": (6200,), "contour": (0, 3)}
_SIXEL = b"4"
# Answers, complete or cut off, and the sequences of keys such as arrows.
_SEQUENCE = re.compile(rb"\x1b(?:[_P][^\x1b]*(?:\x1b\\|\x1b?\Z)|\[[\d;?]*(?:[@-~]|\Z)|O.|\Z)")
_MOST_BYTES = 4096


@dataclass(frozen=True)
class TerminalAnswer:
    """What a terminal says of itself.

    Attributes:
        protocols: for pictures, the best first.
        name: with its version; empty where it does not say.
        cell: (width, height) of a cell in pixels; None where it does not say.
    """

    protocols: tuple[Graphics, ...] = ()
    name: str = ""
    cell: tuple[int, int] | None = None

    @property
    def picture_mode(self) -> PictureMode:
        """The sharpest way to draw a picture that changes several times a second."""
        if "Kitty" in self.protocols and self._is_one_of(_PLACEHOLDERS):
            return "kitty"
        if "iTerm2" in self.protocols:
            return "iterm2"
        # tmux says so whatever the terminal around it can show.
        if "Sixel" in self.protocols and not self.name.startswith("tmux"):
            return "sixel"
        return "sextants" if self._is_one_of(_SEXTANTS) else "blocks"

    def _is_one_of(self, known: Mapping[str, tuple[int, ...]]) -> bool:
        name, *numbers = re.findall(r"[A-Za-z]+|\d+", self.name)[:3] or [""]
        version = tuple(int(number) for number in numbers if number.isdigit())
        return name.lower() in known and version >= known[name.lower()]


@dataclass(frozen=True)
class Reply:
    """What came from a terminal that was asked.

    Attributes:
        answer: what it says of itself; None if it did not say so in time.
        typed: characters that were typed meanwhile.
    """

    answer: TerminalAnswer | None = None
    typed: str = ""


def parse_answer(answer: bytes) -> TerminalAnswer | None:
    """Return what `answer` to `QUESTION` says; None while it is not complete."""
    attributes = _ANSWERED.search(answer)
    if attributes is None:
        return None
    named, sized = _NAMED.search(answer), _CELL_SIZE.search(answer)
    name = named[1].decode("ascii", "replace") if named else ""
    found: list[Graphics] = []
    if b"\x1b_Gi=31;OK" in answer:
        found.append("Kitty")
    if _ITERM2.match(name):
        found.append("iTerm2")
    # The first number is the level of the terminal.
    if _SIXEL in attributes[1].split(b";")[1:]:
        found.append("Sixel")
    cell = (int(sized[2]), int(sized[1])) if sized else None
    return TerminalAnswer(tuple(found), name, cell if cell and all(cell) else None)


def ask_terminal(reader: int, writer: int, clock: Callable[[], float], limit: float = LIMIT) -> Reply:
    """Return what a terminal says of itself.

    Args:
        reader: file descriptor that its keys and answers come from; must be a terminal.
        writer: file descriptor that it shows.
        clock: returns seconds.
        limit: seconds to wait for the answer.
    """
    before = termios.tcgetattr(reader)
    came, found = b"", None
    try:
        # The answer must not be shown. What was typed before is kept.
        tty.setcbreak(reader, termios.TCSANOW)
        os.write(writer, QUESTION)
        end = clock() + limit
        while (found := parse_answer(came)) is None and len(came) < _MOST_BYTES:
            ready, _, _ = select.select([reader], [], [], max(end - clock(), 0.0))
            if not ready or not (more := os.read(reader, 1024)):
                break
            came += more
    finally:
        # Half an answer must not be kept for the shell.
        termios.tcsetattr(reader, termios.TCSANOW if found else termios.TCSAFLUSH, before)
    return Reply(found, typed_in(came))


def typed_in(came: bytes) -> str:
    """Return the characters that were typed among what `came` from a terminal."""
    return "".join(filter(str.isprintable, _SEQUENCE.sub(b"", came).decode("utf-8", "ignore")))


def find_display(
    wanted: str, reader: int, writer: int, clock: Callable[[], float], variables: Mapping[str, str]
) -> tuple[Display, str]:
    """Return how the player draws its picture on a terminal, and what was typed while the terminal was asked.

    It is asked where that is needed.

    Args:
        wanted: a `PictureMode`; ``auto`` for the sharpest that the terminal has; ``off``.
        reader: file descriptor that its keys and answers come from; must be a terminal.
        writer: file descriptor that it shows.
        clock: returns seconds.
        variables: of the environment.
    """
    modes: dict[str, PictureMode] = {"kitty": "kitty", "iterm2": "iterm2", "sixel": "sixel", "sextants": "sextants"}
    mode, size = modes.get(wanted, "blocks"), cell_size(writer)
    reply = Reply()
    can_answer = variables.get("TERM") != "linux" and "NO_COLOR" not in variables
    if can_answer and (wanted == "auto" or (mode in MOST_PIXELS and size is None)):
        # One that was closed is the player's to find.
        with suppress(OSError, termios.error):
            reply = ask_terminal(reader, writer, clock)
    if reply.answer and wanted == "auto":
        mode = reply.answer.picture_mode
    cell = size or (reply.answer.cell if reply.answer else None) or Display.cell
    return Display(mode, cell, lambda: cell_size(writer)), reply.typed


def cell_size(terminal: int) -> tuple[int, int] | None:
    """Return the (width, height) of a cell of `terminal`, a file descriptor, in pixels; None where it is not known."""
    try:
        rows, columns, width, height = struct.unpack("4H", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None
