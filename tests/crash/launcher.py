"""Starts ``svm-tui`` many times at little cost: a program that has imported everything forks for each run.

It is a process of its own with one thread: `Launcher` sends it a request and the files of the run over a socket, it
answers with the run's process id, and, when that process has ended, with its status and processor time. A run reports
on a pipe what it does, a line each: ``f`` before each change of a file, ``s N`` when second N is on the screen.
"""

import ctypes
import fcntl
import importlib
import json
import os
import pkgutil
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

ROOT = Path(__file__).parents[2]
# What a run takes long to import, beside the modules of this program.
LIBRARIES = ("av", "numpy", "tokenizers", "rich.progress", "textual.app", "PIL.Image", "yaml")
# Events of Python's audit that change a file, and where in their arguments the path is.
CHANGES = ("os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


# By machine: the architecture of its calls in seccomp's words, and the number of the call `socket`.
SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


@dataclass(frozen=True)
class Request:
    """A run of ``svm-tui``.

    Attributes:
        words: its command line.
        folder: its working folder.
        environ: variables that are set beside those of this process.
        number: which change of a file `signal` comes just before, from 1; 0 for none.
        signal: what the run then sends itself.
        controlling: whether stdin is the terminal that controls it, as of a shell.
        file_size: bytes that a file can have, as on a full disk; None for any.
        obey_modes: whether read-only folders are so for root, too.
        no_network: whether the system ends the run when it opens a socket to a network.
    """

    words: tuple[str, ...]
    folder: str
    environ: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    signal: int = 0
    controlling: bool = False
    file_size: int | None = None
    obey_modes: bool = False
    no_network: bool = False


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status or minus a signal, and the processor seconds that it took."""

    status: int
    cpu: float


class Launcher:
    """The program that forks, and the socket to it."""

    def __init__(self) -> None:
        """Start the program."""
        self._socket, theirs = socket.socketpair()
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.crash.launcher", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, pass_fds=[theirs.fileno()])
        theirs.close()
        self._answers = self._socket.makefile("r")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()

    def fileno(self) -> int:
        """Return the file descriptor that has something to read when a run has ended."""
        return self._socket.fileno()

    def start(self, request: Request, files: Sequence[int]) -> int:
        """Start a run with `files` as stdin, stdout, stderr and the pipe of its reports; return its process id."""
        socket.send_fds(self._socket, [json.dumps(asdict(request)).encode()], files)
        return int(self._answers.readline())

    def wait(self) -> Ended:
        """Wait for the run to end."""
        return Ended(**json.loads(self._answers.readline()))


def main(sock: socket.socket) -> None:
    """Fork for each request until the other side is closed."""
    _import_all()
    while True:
        data, files, _, _ = socket.recv_fds(sock, 1 << 16, 4)
        if not data:
            return
        request = Request(**json.loads(data))
        pid = os.fork()
        if pid == 0:
            sock.close()
            _become(request, files)
        for number in files:
            os.close(number)
        sock.sendall(f"{pid}\n".encode())
        _, status, usage = os.wait4(pid, 0)
        ended = Ended(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
        with suppress(BrokenPipeError):
            sock.sendall(f"{json.dumps(asdict(ended))}\n".encode())


def _import_all() -> None:
    """Import what runs use, and start no thread: a fork has only one."""
    from streaming_vlm_mlx import backend

    backend.prepare()
    import streaming_vlm_mlx
    import tui

    for package in (streaming_vlm_mlx, tui):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # Those need packages that may be absent.
            if ".peers" not in found.name and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in LIBRARIES:
        importlib.import_module(name)


def _become(request: Request, files: Sequence[int]) -> NoReturn:
    """Be the run: in a session of its own, with its files, folder and variables."""
    os.setsid()
    *streams, reports = files
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    if request.controlling:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if request.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.file_size, request.file_size))
    if request.obey_modes and os.geteuid() == 0:
        _drop_capabilities()
    if request.no_network:
        _forbid_network()
    os.chdir(request.folder)
    os.environ.update(request.environ)
    # A program that a shell starts in the background has SIGINT ignored, and so have its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _report(request, reports)
    from tui import cli

    sys.argv[1:] = request.words
    status: Any = 1
    try:
        cli.program()
    except SystemExit as end:
        status = end.code
    finally:
        # The interpreter's own end would wait for threads of the server's modules.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def _drop_capabilities() -> None:
    """Give up what lets root write where the modes forbid it."""
    # From capability.h: version 3, this process; then the sets effective, permitted and inheritable, twice 32 bits.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "the capabilities cannot be dropped")


def can_forbid_network() -> bool:
    """Return whether this system can watch a process for sockets."""
    return sys.platform == "linux" and platform.machine() in SOCKET_CALLS


def _forbid_network() -> None:
    """Let the system end this process by SIGSYS when it, or a library of it, opens a socket of IPv4 or IPv6.

    A filter of seccomp: four words an instruction, as filter.h and seccomp.h have them.
    """
    architecture, call = SOCKET_CALLS[platform.machine()]
    load, equal, end, allow, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
    program = [
        (load, 0, 0, 4),
        (equal, 0, 6, architecture),
        (load, 0, 0, 0),
        (equal, 0, 4, call),
        (load, 0, 0, 16),
        (equal, 1, 0, socket.AF_INET),
        (equal, 0, 1, socket.AF_INET6),
        (end, 0, 0, kill),
        (end, 0, 0, allow),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(packed)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, by_filter, header, 0, 0):
        raise OSError(ctypes.get_errno(), "sockets cannot be forbidden")


def _report(request: Request, reports: int) -> None:
    """Report each change of a file below the run's folder, and each second on the screen."""
    below, done = os.path.realpath(request.folder), 0

    def note_change(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if not _changes_file(event, args, below):
            return
        done += 1
        os.write(reports, b"f\n")
        if done == request.number:
            os.kill(os.getpid(), request.signal)

    from streaming_vlm_mlx.stream.events import GenerationResult
    from tui.player.presenter import Presenter

    handle = Presenter.handle

    def handle_and_report(self: Presenter, event: Any) -> None:
        handle(self, event)
        if isinstance(event, GenerationResult):
            os.write(reports, f"s {event.index}\n".encode())

    Presenter.handle = handle_and_report  # type: ignore[method-assign]
    sys.addaudithook(note_change)


def _changes_file(event: str, args: tuple[Any, ...], folder: str) -> bool:
    """Return whether an event of the audit is one that changes a file below `folder`."""
    if event == "ctypes.dlsym":
        return str(args[1]).startswith("rename")
    if event == "open":
        path, writes = args[0], bool((args[2] or 0) & WRITES)
    elif event in CHANGES:
        path, writes = args[0], True
    else:
        return False
    if not writes or isinstance(path, int):
        return False
    return os.path.abspath(os.fsdecode(path)).startswith(folder)  # noqa: PTH100 - of bytes or str, in a hook


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        main(connection)
