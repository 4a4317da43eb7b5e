"""The end of a process whose threads may still work, or hang, and of a player whose terminal is closed."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

if sys.platform != "win32":
    import termios

# Signals of a terminal that is closed, of a machine that shuts down, and of a user; Windows lacks the first.
END_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name))
# Seconds that the player has to end by itself.
GRACE = 0.7
# Seconds that the terminal has to take back its modes.
RESTORE = 0.2
# Milliseconds between two looks at the terminal.
POLL = 100
# No mouse, no bracketed paste, no keyboard protocol; the screen before the player's, and the cursor.
RESET = b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[<u\x1b[?1049l\x1b[?25h"


class Watchdog:
    """A thread that waits for the end of the terminal.

    Textual's writer thread dies on a terminal that has vanished, and the event loop then waits for it for ever. So the
    thread asks the loop to end, and after a while saves the session and ends the process itself.
    """

    def __init__(self, ask: Callable[[int], None], finish: Callable[[], object], grace: float = GRACE) -> None:
        """Prepare to watch.

        Args:
            ask: asks the player to end with an exit status; called from any thread.
            finish: saves the session; called from the thread.
            grace: seconds between the two.
        """
        self._ask, self._finish, self._grace = ask, finish, grace
        self._status = 0
        self._asked = threading.Event()

    def start(self, terminal: int = 0) -> None:
        """Watch the signals and `terminal`, a file descriptor that was one; to be called in the main thread."""
        for number in END_SIGNALS:
            signal.signal(number, self._on_signal)
        args = (terminal, _modes(terminal))
        threading.Thread(target=self._watch, args=args, name="svm-watchdog", daemon=True).start()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._end(128 + number)

    def _end(self, status: int) -> None:
        if not self._asked.is_set():
            self._status = status
            self._asked.set()
            self._ask(status)

    def _watch(self, terminal: int, modes: "list[Any] | None") -> None:
        poll = _poll(terminal)
        while not self._asked.is_set():
            # One that was closed before this look is no terminal any more.
            if not os.isatty(terminal) or (poll and any(event & select.POLLHUP for _, event in poll.poll(POLL))):
                self._end(128 + END_SIGNALS[0])
            elif not poll:
                self._asked.wait()
        # The process ends before this wait does, unless something hangs.
        threading.Event().wait(self._grace)
        try:
            self._finish()
        finally:
            _restore(terminal, modes)
            # Flushing could hang, too.
            os._exit(self._status)


def _poll(terminal: int) -> "select.poll | None":
    """Return what tells that `terminal` was closed from the other side; None where the system has no such thing."""
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    # A hangup is always reported.
    poll.register(terminal, 0)
    return poll


def _modes(terminal: int) -> "list[Any] | None":
    """Return the modes of `terminal`; None where it has none."""
    if sys.platform == "win32":
        return None
    try:
        return termios.tcgetattr(terminal)
    except termios.error:
        return None


def _restore(terminal: int, modes: "list[Any] | None") -> None:
    """Give `terminal` its `modes` and its screen back, unless it was closed or reads nothing."""
    if sys.platform == "win32" or modes is None or not os.isatty(terminal):
        return

    def restore() -> None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, modes)
            os.write(terminal, RESET)

    # Both wait for ever where nobody reads what was written before.
    thread = threading.Thread(target=restore, name="svm-restore", daemon=True)
    thread.start()
    thread.join(RESTORE)


def keep_screen_apart() -> None:
    """Let Textual draw through a descriptor of its own; that of stderr is silenced while a sound device is opened.

    It is also asked for the terminal's size, since stdout may be a file.
    """
    if sys.platform != "win32" and sys.__stderr__ is not None:
        own = os.fdopen(os.dup(sys.__stderr__.fileno()), "w", encoding=sys.__stderr__.encoding)
        # Textual takes them from there; nothing else of it can be set.
        for name in ("__stderr__", "__stdout__"):
            setattr(sys, name, own)


def forget_terminal() -> None:
    """Drop Textual's handler of SIGCONT, which fails when its loop has ended; a terminal that closes sends one."""
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, signal.SIG_DFL)


def leave(status: int) -> NoReturn:
    """End the process with `status` at once.

    Python's regular exit takes longer, and it stops a thread that still computes inside C++ code, which aborts.
    """
    for stream in (sys.stdout, sys.stderr):
        # Whoever reads them may have gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
