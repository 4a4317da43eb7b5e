"""The file of the player's socket: made for its user alone, never in the place of anything, and removed at the end."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError

# Clients that may wait to be accepted while the player starts.
BACKLOG = 16


class SocketFile:
    """A Unix socket that listens at a path.

    Attributes:
        path: where it lies.
        socket: what listens; the event loop accepts from it.
    """

    def __init__(self, path: Path) -> None:
        """Listen at `path`, readable and writable for the user alone from the first moment.

        A socket that a killed program left there is replaced.

        Raises:
            SvmError: something else is there, or the path cannot hold a socket.
        """
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileExistsError):
                self._listen()
                return
            with _locked(path.parent):
                _remove_dead(path)
                self._listen()
        except OSError as error:
            self.socket.close()
            raise SvmError(f"--ipc {path}: {_explain(error)}") from error
        except SvmError:
            self.socket.close()
            raise

    def _listen(self) -> None:
        """Bind and listen.

        Raises:
            FileExistsError: there is something at the path.
        """
        # The system makes the file with what the mask leaves of its mode, so it is never open wider.
        before = os.umask(0o177)
        try:
            self.socket.bind(os.fspath(self.path))
        except OSError as error:
            # It follows no symbolic link, also none that leads nowhere.
            if error.errno == errno.EADDRINUSE:
                raise FileExistsError(error.errno, error.strerror) from error
            raise
        finally:
            os.umask(before)
        self._identity = _identity(self.path)
        self.socket.listen(BACKLOG)

    def remove(self) -> None:
        """Remove the file, unless another has taken its place; from any thread, any number of times."""
        with suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other players from replacing a dead socket in `folder` at the same time.

    One of two would remove what the other has just made.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove_dead(path: Path) -> None:
    """Remove the socket at `path` if no program listens there.

    Raises:
        SvmError: a program listens, or it is no socket.
    """
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise SvmError(f"--ipc {path} exists and is no socket; name a path that does not exist.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A program that listens and does not accept must not hold the player up.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, PermissionError):
            pass
        except OSError as error:
            raise SvmError(
                f"--ipc {path} is a socket of another kind ({error.strerror}); name another path."
            ) from error
    raise SvmError(f"--ipc {path} is in use by another program; name another path, or end that program.")


def _explain(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "another program is making its socket in that folder; try again."
    if isinstance(error, FileNotFoundError):
        return "its folder does not exist; make the folder, or name another path."
    if error.strerror is None:
        # From Python, before it asks the system.
        return "the path is too long for a socket; name one of at most 100 bytes."
    return f"no socket can be made there ({error.strerror}); name another path."
