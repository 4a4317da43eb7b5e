"""Runs a command and interrupts it at a moment of its own progress."""

import fcntl
import os
import pty
import selectors
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.crash.launcher import Ended, Launcher, Request

# What happens to a run: a signal, Ctrl-C typed in its terminal, or the end of the terminal.
Blow = Literal["SIGKILL", "SIGTERM", "SIGINT", "ctrl-c", "hangup"]
# Wall seconds after which a run that has been told to end, or was not, is taken to hang.
PATIENCE = 120.0
COLUMNS, ROWS = 100, 30


@dataclass(frozen=True)
class Moment:
    """When a run is interrupted: `delay` seconds after the event `number` of it, from 0, its start.

    Attributes:
        number: an event is a change of a file, a second on the screen, or a line on stdout.
        lines: only lines on stdout count.
        delay: seconds.
        inside: the run sends itself the signal, just before its change of a file `number`, from 1.
        is_deaf: whether the terminal reads nothing in these seconds, so that who writes to it waits.
    """

    number: int
    delay: float = 0.0
    inside: bool = False
    is_deaf: bool = False
    lines: bool = False


@dataclass(frozen=True)
class Command:
    """A command line of ``svm-tui`` in `folder`.

    Attributes:
        words: its arguments.
        folder: its working folder.
        environ: variables beside those of this process.
        terminal: whether it has one; `controlling` says whether its shell would tell it of its end.
        keys: what is typed when a second is on the screen, by its number.
        out: a file for stdout; None for one that is read.
        file_size, obey_modes, no_network: as of `Request`.
    """

    words: tuple[str, ...]
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False
    controlling: bool = True
    keys: Mapping[int, bytes] = field(default_factory=dict)
    out: int | None = None
    file_size: int | None = None
    obey_modes: bool = False
    no_network: bool = False


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        out, err: what it wrote on stdout and stderr, or on its terminal.
        shown: seconds that were on the screen.
        changes: changes of files so far.
        times: wall seconds of each event, from the start.
        ended: its status and processor time.
        struck: whether it was interrupted before its end.
        seconds: wall seconds, and `cpu` processor seconds, from there to its end.
        modes: whether its terminal was as before when it had ended; None without a terminal.
    """

    out: bytes = b""
    err: bytes = b""
    shown: list[int] = field(default_factory=list)
    changes: int = 0
    times: list[float] = field(default_factory=list)
    ended: Ended = field(default_factory=lambda: Ended(0, 0.0))
    struck: bool = False
    seconds: float = 0.0
    cpu: float = 0.0
    modes: bool | None = None

    @property
    def lines(self) -> list[str]:
        """The whole lines on stdout."""
        return self.out.decode("utf-8", "replace").split("\n")[:-1]


class HangsError(Exception):
    """A run that does not end."""


def run(launcher: Launcher, command: Command, moment: Moment | None = None, blow: Blow = "SIGKILL") -> Outcome:
    """Run `command` to its end, interrupted at `moment`.

    Raises:
        HangsError: it goes on for ever; it is killed.
    """
    with ExitStack() as stack:
        return _Run(launcher, command, moment, blow, stack).follow()


class _Run:
    """One run, its files, and what came of it so far."""

    def __init__(
        self, launcher: Launcher, command: Command, moment: Moment | None, blow: Blow, stack: ExitStack
    ) -> None:
        self._launcher, self._command, self._moment, self._blow = launcher, command, moment, blow
        self._stack, self._outcome, self._events = stack, Outcome(), 0
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._master: int | None = None
        self._reports = b""
        self._strike_at: float | None = None
        self._struck_at, self._cpu_before = 0.0, 0.0
        self._is_over = False
        self._begin = time.monotonic()
        self._pid = self._start()

    def _start(self) -> int:
        given, reports = self._command.out, self._pipe(self._read_reports)
        out = self._pipe(self._read_out) if given is None else os.dup(given)
        if self._command.terminal:
            self._master, slave = pty.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            self._modes = termios.tcgetattr(self._master)
            self._listen(self._master, self._read_screen)
            self._stack.callback(self._hang_up)
            stdin = err = slave
        else:
            stdin, err = os.open(os.devnull, os.O_RDONLY), self._pipe(self._read_err)
        inside = self._moment if self._moment and self._moment.inside else None
        request = Request(
            self._command.words,
            str(self._command.folder),
            {"TERM": "xterm-256color", **self._command.environ},
            inside.number if inside else 0,
            signal.Signals[self._blow] if inside else 0,
            self._command.terminal and self._command.controlling,
            self._command.file_size,
            self._command.obey_modes,
            self._command.no_network,
        )
        try:
            return self._launcher.start(request, [stdin, out, err, reports])
        finally:
            for number in {stdin, out, err, reports}:
                os.close(number)

    def _pipe(self, read: Callable[[bytes], None]) -> int:
        ours, theirs = os.pipe()
        self._listen(ours, read)
        self._stack.callback(os.close, ours)
        return theirs

    def _listen(self, number: int, read: Callable[[bytes], None]) -> None:
        os.set_blocking(number, False)
        self._selector.register(number, selectors.EVENT_READ, read)

    def follow(self) -> Outcome:
        """Read what the run says and interrupt it, until it has ended."""
        self._selector.register(self._launcher, selectors.EVENT_READ)
        try:
            self._watch()
        except BaseException:
            # Its end must not be taken for that of the next run.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._launcher.wait()
            raise
        return self._finish()

    def _watch(self) -> None:
        """Return when the run has ended."""
        self._advance()
        last = time.monotonic()
        while True:
            wait = PATIENCE if self._strike_at is None else max(self._strike_at - time.monotonic(), 0.0)
            ready = [key for key, _ in self._selector.select(wait)]
            if self._strike_at is not None and time.monotonic() >= self._strike_at:
                self._strike()
            if any(key.fileobj is self._launcher for key in ready):
                return
            if ready:
                last = time.monotonic()
            for key in ready:
                self._read(key)
            if time.monotonic() - (self._struck_at or last) > PATIENCE:
                raise HangsError(f"it does not end: {self._outcome.err[-300:]!r}")

    def _finish(self) -> Outcome:
        outcome = self._outcome
        outcome.ended = self._launcher.wait()
        self._is_over = True
        if self._struck_at:
            outcome.seconds, outcome.cpu = time.monotonic() - self._struck_at, outcome.ended.cpu - self._cpu_before
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._launcher:
                self._read(key)
        outcome.times.append(time.monotonic() - self._begin)
        if self._moment and self._moment.inside:
            outcome.struck = outcome.changes >= self._moment.number
        if self._master is not None:
            outcome.modes = termios.tcgetattr(self._master) == self._modes
        return outcome

    def _read(self, key: selectors.SelectorKey) -> None:
        """Read all that is there; what was read before may have closed the terminal."""
        while key.fd in self._selector.get_map():
            try:
                data = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                return
            except OSError:
                # The other side of a terminal was closed.
                data = b""
            if data:
                key.data(data)
            else:
                self._selector.unregister(key.fd)

    def _read_out(self, data: bytes) -> None:
        self._outcome.out += data
        for _ in range(data.count(b"\n")):
            self._advance(1)

    def _read_err(self, data: bytes) -> None:
        self._outcome.err += data

    def _read_screen(self, data: bytes) -> None:
        self._outcome.err += data

    def _read_reports(self, data: bytes) -> None:
        *lines, self._reports = (self._reports + data).split(b"\n")
        for line in lines:
            if line.startswith(b"s "):
                second = int(line[2:])
                self._outcome.shown.append(second)
                if self._master is not None and (keys := self._command.keys.get(second)):
                    os.write(self._master, keys)
            else:
                self._outcome.changes += 1
            self._advance(1)

    def _advance(self, events: int = 0) -> None:
        """Count `events`, and set the time of the blow when its moment has come."""
        if events:
            self._outcome.times.append(time.monotonic() - self._begin)
        self._events += events
        moment = self._moment
        if moment is None or moment.inside or self._outcome.struck or self._is_over:
            return
        reached = len(self._outcome.lines) if moment.lines else self._events
        if reached >= moment.number and self._strike_at is None:
            self._strike_at = time.monotonic() + moment.delay
            if moment.is_deaf and self._master is not None:
                self._selector.unregister(self._master)
            if not moment.delay:
                self._strike()

    def _strike(self) -> None:
        self._strike_at = None
        if self._outcome.struck:
            return
        self._outcome.struck = True
        self._struck_at, self._cpu_before = time.monotonic(), _cpu_seconds(self._pid)
        if self._blow == "hangup":
            self._hang_up()
        elif self._blow == "ctrl-c":
            assert self._master is not None
            os.write(self._master, b"\x03")
        else:
            # It may have ended by now.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.Signals[self._blow])

    def _hang_up(self) -> None:
        if self._master is not None:
            with suppress(KeyError):
                self._selector.unregister(self._master)
            os.close(self._master)
            self._master = None


def _cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process so far; 0 where the system does not tell, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
