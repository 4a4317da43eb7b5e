"""The file of the socket: private, exclusive, replaced when dead, removed when its own."""

import os
import socket
import stat
from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from tui.player.ipc.socket_file import SocketFile


def make_dead(path: Path) -> None:
    """Leave a socket on which nobody listens, as a killed program does."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))


def test_it_listens_for_its_user_alone_and_is_removed(socket_path: Path) -> None:
    file = SocketFile(socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(socket_path))
    for _ in range(2):
        file.remove()
        assert not socket_path.exists()
    file.socket.close()


def test_it_is_never_open_wider(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, modes = os.umask(0), []
    listen = socket.socket.listen

    def look(self: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(socket_path.stat().st_mode))
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    try:
        SocketFile(socket_path).socket.close()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    # Nobody can connect before it listens, and by then it is private.
    assert modes == [0o600]


def test_a_dead_socket_is_replaced(socket_path: Path) -> None:
    make_dead(socket_path)
    file = SocketFile(socket_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(socket_path))
    file.socket.close()


def test_one_that_is_in_use_is_refused_and_goes_on(socket_path: Path) -> None:
    first = SocketFile(socket_path)
    with pytest.raises(SvmError, match="in use by another program; name another path"):
        SocketFile(socket_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(socket_path))
    first.socket.close()


def test_one_whose_program_accepts_nothing_is_refused_at_once(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(os.fspath(socket_path))
        busy.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(os.fspath(socket_path))
            except BlockingIOError:
                break
        with pytest.raises(SvmError, match="in use"):
            SocketFile(socket_path)
        for client in waiting:
            client.close()


def test_a_socket_of_datagrams_is_refused(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(os.fspath(socket_path))
        with pytest.raises(SvmError, match="is a socket of another kind"):
            SocketFile(socket_path)
        assert socket_path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to a dead socket", "dangling link", "pipe"])
def test_what_is_no_socket_stays(kind: str, socket_path: Path) -> None:
    elsewhere = socket_path.with_name("elsewhere")
    match kind:
        case "file":
            socket_path.write_text("precious")
        case "folder":
            socket_path.mkdir()
        case "pipe":
            os.mkfifo(socket_path)
        case _:
            if kind == "link":
                elsewhere.write_text("precious")
            elif kind == "link to a dead socket":
                make_dead(elsewhere)
            socket_path.symlink_to(elsewhere)
    before = socket_path.lstat()
    with pytest.raises(SvmError, match="exists and is no socket; name a path that does not exist"):
        SocketFile(socket_path)
    assert socket_path.lstat().st_ino == before.st_ino
    assert elsewhere.exists() == (kind in ("link", "link to a dead socket"))


def test_paths_that_can_hold_no_socket_are_refused(socket_path: Path) -> None:
    with pytest.raises(SvmError, match="its folder does not exist"):
        SocketFile(socket_path.parent / "missing" / "player.sock")
    with pytest.raises(SvmError, match="too long for a socket"):
        SocketFile(socket_path.parent / ("x" * 200))
    socket_path.write_text("")
    with pytest.raises(SvmError, match="no socket can be made there"):
        SocketFile(socket_path / "player.sock")


def test_what_took_its_place_is_not_removed(socket_path: Path) -> None:
    file = SocketFile(socket_path)
    # Beside it, so that the system gives it another number.
    other = socket_path.with_name("other")
    other.write_text("precious")
    other.replace(socket_path)
    file.remove()
    assert socket_path.read_text() == "precious"
    file.socket.close()


def test_of_two_that_replace_a_dead_socket_one_wins(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dead(socket_path)
    connect, refusals = socket.socket.connect, list[str]()

    def connect_while_another_player_starts(self: socket.socket, path: str) -> None:
        monkeypatch.undo()
        try:
            connect(self, path)
        finally:
            with pytest.raises(SvmError) as refused:
                SocketFile(socket_path)
            refusals.append(str(refused.value))

    monkeypatch.setattr(socket.socket, "connect", connect_while_another_player_starts)
    file = SocketFile(socket_path)
    text = f"--ipc {socket_path}: another program is making its socket in that folder; try again."
    assert refusals == [text]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(socket_path))
    file.socket.close()
