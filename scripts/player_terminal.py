"""A terminal for benchmarks: runs the player in it, presses keys, and waits for what is drawn."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence

# Rows and columns.
SIZE = (40, 120)
# Seconds after which what is waited for will not come.
PATIENCE = 60.0
# Images and other strings, which end in ST or BEL, and what begins one that has not ended.
STRINGS = re.compile(r"\x1b[P_\]][^\x1b\x07]*(?:\x07|\x1b\\)")
UNFINISHED = re.compile(r"\x1b(?:[P_\]][^\x1b\x07]*\x1b?)?\Z")
IMAGES = ("\x1b_Ga=T", "\x1bP9;1q", "\x1b]1337;File")
# A cell in pixels, and what a terminal says of itself for each way of drawing.
CELL = (10, 20)
ATTRIBUTES = "\x1b[?62;c"
ANSWERS = {
    "kitty": f"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.35.2)\x1b\\{ATTRIBUTES}",
    "iterm2": f"\x1bP>|iTerm2 3.5.4\x1b\\{ATTRIBUTES}",
    "sixel": "\x1b[?62;4c",
    "sextants": f"\x1bP>|VTE(7600)\x1b\\{ATTRIBUTES}",
    "blocks": ATTRIBUTES,
}
# What it is asked at last, and whether it knows synchronised updates.
ASKED, SYNC_ASKED, SYNC_KNOWN = "\x1b[c", "\x1b[?2026$p", "\x1b[?2026;2$y"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")


class Player:
    """The player in a terminal of its own, and all that it drew."""

    def __init__(self, words: Sequence[str], state: str, picture: str) -> None:
        self.begun = time.perf_counter()
        command = [sys.executable, "-m", "tui", *words]
        environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_STATE_HOME": state}
        self.terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, SIZE[1] * CELL[0], SIZE[0] * CELL[1]))
        self.modes = termios.tcgetattr(inner)
        self.inner = inner
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environ, start_new_session=True
        )
        self._shown, self._news, self._unfinished = "", threading.Condition(), ""
        self._answers = {ASKED: ANSWERS[picture], SYNC_ASKED: SYNC_KNOWN}
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            select.select([self.terminal], [], [])
            try:
                drawn = os.read(self.terminal, 1 << 16)
            except OSError:
                return
            text = self._unfinished + self._decode(drawn)
            self._answer(text)
            end = UNFINISHED.search(text)
            text, self._unfinished = (text[: end.start()], end[0]) if end else (text, "")
            text = STRINGS.sub(lambda found: "▀" if found[0].startswith(IMAGES) else "", text)
            with self._news:
                self._shown += ESCAPES.sub("", text)
                self._news.notify_all()

    def _answer(self, text: str) -> None:
        for question in [question for question in self._answers if question in text]:
            os.write(self.terminal, self._answers.pop(question).encode())

    def press(self, key: bytes) -> float:
        """Forget what was drawn so far, press `key`, and return when."""
        with self._news:
            self._shown = ""
        pressed = time.perf_counter()
        os.write(self.terminal, key)
        return pressed

    def wait(self, expected: str | re.Pattern[str]) -> float:
        """Wait until `expected` is drawn, and return when."""
        found: Callable[[], object] = (
            (lambda: expected in self._shown) if isinstance(expected, str) else (lambda: expected.search(self._shown))
        )
        with self._news:
            if not self._news.wait_for(found, PATIENCE):
                sys.exit(f"bench: {expected!r} was not drawn within {PATIENCE:.0f} s")
        return time.perf_counter()

    def quit(self) -> float:
        """Press q and return the seconds until the process is gone; its terminal must be as it was."""
        pressed = self.press(b"q")
        status = self.process.wait(PATIENCE)
        seconds = time.perf_counter() - pressed
        modes = termios.tcgetattr(self.inner)
        if status or modes != self.modes:
            sys.exit(f"bench: the player ended with status {status} and terminal modes {modes}, not {self.modes}")
        return seconds

    def resident_mb(self) -> float:
        """Return the megabytes that the process occupies, as ps counts them."""
        size = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, check=True)
        return int(size.stdout) / 1024

    def close(self) -> None:
        """Let nothing run on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.inner)


@contextlib.contextmanager
def playing(*words: str, picture: str = "blocks") -> Iterator[Player]:
    """Run ``svm-tui play`` with `words` in a terminal that shows `picture`, its sessions kept out of the way."""
    with tempfile.TemporaryDirectory() as state:
        player = Player(["play", *words], state, picture)
        try:
            yield player
        finally:
            player.close()
