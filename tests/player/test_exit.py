"""The player whose terminal is closed: saved and gone, whatever hangs."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.journal import load_session
from tests.player.hanging_player import HANGING
from tests.video.clips import make_clip
from tui.player.exit import RESET

ROOT = Path(__file__).parents[2]


@contextmanager
def playing(how: str, out: Path, *more: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run the player in a terminal of its own until it hangs; yield the process and the terminal's other side."""
    clip = make_clip(out.with_suffix(".mp4"), count=12, rate=4)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "tests.player.hanging_player", how, "play", str(clip), "--out", str(out), *more]
    environ = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(out.parent / "state")}
    with subprocess.Popen(
        words, cwd=ROOT, env=environ, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()


def drain(terminal: int) -> bytes:
    """Return what was written to the other side, which is closed."""
    found = b""
    with suppress(OSError):
        while data := os.read(terminal, 1 << 16):
            found += data
    return found


@pytest.mark.parametrize("end", ["SIGHUP", "SIGTERM", "close"])
def test_a_player_that_hangs_is_saved_and_ended(end: str, tmp_path: Path, socket_path: Path) -> None:
    out = tmp_path / "game.json"
    with playing("hang", out, "--ipc", str(socket_path)) as (process, ours):
        before = termios.tcgetattr(ours)
        assert process.stdout
        assert process.stdout.readline() == f"{HANGING}\n"
        assert termios.tcgetattr(ours) != before
        assert socket_path.is_socket()
        if end == "close":
            os.close(ours)
        else:
            process.send_signal(signal.Signals[end])
        # Far more than the second that it takes.
        assert process.wait(60) == (143 if end == "SIGTERM" else 129)
        if end != "close":
            assert termios.tcgetattr(ours) == before
            assert RESET in drain(ours)
    assert [second.text for second in load_session(out).seconds] == ["he scores"]
    assert not socket_path.exists()
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_player_that_fails_ends_also_when_a_thread_goes_on(tmp_path: Path, socket_path: Path) -> None:
    out = tmp_path / "game.json"
    with playing("fail", out, "--ipc", str(socket_path)) as (process, _):
        assert process.wait(60) == 1
    assert not socket_path.exists()
    assert load_session(out).seconds
    assert not list(tmp_path.rglob("*.jsonl"))


def test_the_terminal_says_how_large_it_is_where_stdout_is_a_file() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    program = (
        "import shutil; from tui.player.exit import keep_screen_apart; keep_screen_apart(); "
        "print(shutil.get_terminal_size().columns)"
    )
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, stderr=theirs, stdout=subprocess.PIPE, check=True
    )
    assert int(done.stdout) == 100
    os.close(ours)
    os.close(theirs)
