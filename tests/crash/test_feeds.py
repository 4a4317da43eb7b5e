"""``infer`` on a feed that goes on for ever, or stalls: a signal ends it, and what was heard is there."""

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.journal import load_session
from tests.crash.assets import Assets
from tests.crash.interrupting import Blow, Command, Moment, Outcome, run
from tests.crash.launcher import Launcher
from tests.video.clips import make_clip

FIRST_LINE = Moment(1, lines=True)
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:3.0,\nclip.ts\n"


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of an MPEG transport stream."""
    return make_clip(tmp_path_factory.mktemp("feeds") / "clip.ts")


def infer(clip: str, moment: Moment, blow: Blow, launcher: Launcher, assets: Assets, folder: Path) -> Outcome:
    environ = {"XDG_STATE_HOME": str(folder / "state")}
    words = ("infer", clip, "--ckpt", str(assets.ckpt), "--out", "game.json", "--json")
    return run(launcher, Command(words, folder, environ), moment, blow)


def check(outcome: Outcome, blow: str, folder: Path) -> None:
    assert outcome.ended.status == 128 + signal.Signals[blow]
    assert outcome.err.decode().splitlines()[-1] == "svm-tui: stopped."
    assert "Traceback" not in outcome.err.decode()
    assert "exception" not in outcome.err.decode()
    assert len(load_session(folder / "game.json").seconds) >= len(outcome.lines) >= 1
    assert not list((folder / "state").rglob("*.jsonl"))


@pytest.mark.parametrize("blow", ["SIGTERM", "SIGINT"])
def test_a_playlist_without_an_end_is_left(
    blow: Blow, stream: Path, launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    shutil.copy(stream, tmp_path)
    (tmp_path / "live.m3u8").write_text(PLAYLIST)
    check(infer("live.m3u8", FIRST_LINE, blow, launcher, assets, tmp_path), blow, tmp_path)


@contextmanager
def stalling(content: bytes) -> Iterator[str]:
    """Serve `content` as the beginning of a stream that stalls; yield its address."""
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nContent-Length: 100000000\r\n\r\n")
            connection.sendall(content)
            done.wait()

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/live.ts"
        finally:
            done.set()


@pytest.mark.parametrize("blow", ["SIGTERM", "SIGINT"])
def test_a_server_that_stalls_is_left(
    blow: Blow, stream: Path, launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    with stalling(stream.read_bytes()) as address:
        check(infer(address, FIRST_LINE, blow, launcher, assets, tmp_path), blow, tmp_path)
