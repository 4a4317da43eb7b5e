"""``svm-tui play --ipc`` as a program of its own: driven to its end, ended by anything else, refused."""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.sessions.journal import load_session
from tests.crash.assets import SECONDS, Assets
from tests.crash.interrupting import PATIENCE, Blow, Command, Moment, Outcome, run
from tests.crash.launcher import Launcher


class Driver(threading.Thread):
    """A client that connects as soon as it can, sends `lines`, and reads until the connection is closed.

    When it reads the result of the second `last`, it quits.
    """

    def __init__(self, path: Path, lines: list[list[object]], last: int | None) -> None:
        super().__init__(daemon=True)
        self.path, self.lines, self.last = path, lines, last
        self.read: list[dict[str, Any]] = []
        self.has_ended = False

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE
        with socket.socket(socket.AF_UNIX) as connection:
            while connection.connect_ex(os.fspath(self.path)):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.01)
            with suppress(ConnectionError):
                connection.sendall("".join(json.dumps({"command": line}) + "\n" for line in self.lines).encode())
                for line in connection.makefile("rb"):
                    values = json.loads(line)
                    self.read.append(values)
                    if values.get("event") == "second" and values["index"] == self.last:
                        connection.sendall(b'{"command": ["quit"], "request_id": 9}\n')
        self.has_ended = True


@contextmanager
def driving(path: Path, *lines: list[object], last: int | None = None) -> Iterator[Driver]:
    driver = Driver(path, list(lines), last)
    driver.start()
    yield driver
    driver.join(PATIENCE)
    assert driver.has_ended


def play(
    launcher: Launcher, assets: Assets, folder: Path, path: Path, moment: Moment | None = None, blow: Blow = "SIGKILL"
) -> Outcome:
    """Play a clip of `SECONDS` in a terminal, without a key, until it is ended."""
    if not (folder / "clip.mp4").exists():
        shutil.copy(assets.clip, folder / "clip.mp4")
    words = ("play", "clip.mp4", "--ckpt", str(assets.ckpt), "--out", "game.json", "--no-picture", "--ipc", str(path))
    environ = {name: str(folder / name) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_HOME")}
    return run(launcher, Command(words, folder, environ, terminal=True), moment, blow)


def test_a_program_drives_the_player_from_start_to_end(
    launcher: Launcher, assets: Assets, tmp_path: Path, socket_path: Path
) -> None:
    lines: list[list[object]] = [["observe", "events"], ["set", "pace", "every"], ["ask", "who leads?"]]
    with driving(socket_path, *lines, last=SECONDS - 1) as driver:
        outcome = play(launcher, assets, tmp_path, socket_path)
    assert outcome.ended.status == 0, outcome.err[-500:]
    assert outcome.modes
    assert not socket_path.exists()
    seconds = {values["index"]: values for values in driver.read if values.get("event") == "second"}
    record = load_session(tmp_path / "game.json")
    assert [seconds[second.index]["text"] for second in record.seconds] == [second.text for second in record.seconds]
    assert len(record.seconds) == SECONDS
    assert [second.query for second in record.seconds].count("who leads?") == 1
    assert {"error": "success", "data": None, "request_id": 9} in driver.read
    assert driver.read[-1] == {"event": "shutdown"}


@pytest.mark.parametrize("blow", ["SIGTERM", "SIGINT", "ctrl-c", "hangup"])
def test_the_socket_is_gone_however_the_player_ends(
    blow: Blow, launcher: Launcher, assets: Assets, tmp_path: Path, socket_path: Path
) -> None:
    with driving(socket_path, ["observe", "events", "text", "position"]):
        outcome = play(launcher, assets, tmp_path, socket_path, Moment(3), blow)
    assert outcome.struck
    assert not socket_path.exists()


def test_the_socket_of_a_killed_player_is_replaced_by_the_next(
    launcher: Launcher, assets: Assets, tmp_path: Path, socket_path: Path
) -> None:
    with driving(socket_path):
        play(launcher, assets, tmp_path, socket_path, Moment(1), "SIGKILL")
    assert socket_path.is_socket()
    with driving(socket_path, ["quit"]) as driver:
        assert play(launcher, assets, tmp_path, socket_path).ended.status == 0
    assert {"error": "success", "data": None, "request_id": 0} in driver.read
    assert not socket_path.exists()


def test_a_path_that_exists_is_refused_before_the_screen_opens(
    launcher: Launcher, assets: Assets, tmp_path: Path, socket_path: Path
) -> None:
    socket_path.write_text("precious")
    outcome = play(launcher, assets, tmp_path, socket_path)
    assert outcome.ended.status == 2
    line = f"svm-tui: --ipc {socket_path} exists and is no socket; name a path that does not exist."
    assert outcome.err.decode().split() == line.split()
    assert socket_path.read_text() == "precious"
