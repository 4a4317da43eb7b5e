"""The player in a real terminal, tmux, with a real (untrained) model."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
import webvtt

from streaming_vlm_mlx.sessions.journal import load_session
from tests.video.clips import make_clip
from tests.video.feeds import HEAD, Visit, answering, feed_server, transport_stream

ROOT = Path(__file__).parents[2]
# Seconds after which what was waited for will not come.
PATIENCE = 120.0

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A terminal of 100x30 with a server of its own."""

    def __init__(self, socket: str, folder: Path) -> None:
        self._socket, self._folder = socket, folder

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._socket, "-f", os.devnull, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def run(self, *words: str) -> None:
        """Run the program, then tell its exit status and the terminal's settings."""
        spec = shlex.join([sys.executable, "-m", "tui", *words])
        environ = f"XDG_STATE_HOME={shlex.quote(str(self._folder / 'state'))} COLORTERM=truecolor"
        script = f"cd {shlex.quote(str(ROOT))}; {environ} {spec}; echo status $?; stty -a; exec cat"
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", script)

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def until(self, condition: Callable[[str], bool]) -> str:
        """Look at the screen until it is as it should be."""
        deadline = time.monotonic() + PATIENCE
        while not condition(screen := self.screen):
            if time.monotonic() > deadline:
                pytest.fail(f"the terminal did not come to it:\n{screen}")
        return screen

    def until_shown(self, text: str) -> str:
        return self.until(lambda screen: text in screen)

    def until_gone(self, text: str) -> str:
        return self.until(lambda screen: text not in screen)

    def until_a_second_is_kept(self) -> None:
        """Wait for a second that is done: the title tells the delay of one that is not, too."""
        deadline = time.monotonic() + PATIENCE
        # Behind the journal's first line.
        while not any(path.read_bytes().count(b"\n") > 1 for path in (self._folder / "state").rglob("*.jsonl")):
            if time.monotonic() > deadline:
                pytest.fail(f"no second is in the journal:\n{self.screen}")
            time.sleep(0.01)

    @property
    def program_id(self) -> int:
        """The process of the program, the child of the pane's shell."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        return int(subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    # One server for each test: a server that is about to end would take a new session with it.
    socket = f"svm-tui-test-{os.getpid()}-{tmp_path.name}"
    yield Terminal(socket, tmp_path)
    subprocess.run(["tmux", "-L", socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve seconds, with a transcript beside them."""
    path = make_clip(tmp_path / "match.mp4", count=48, rate=4)
    path.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:12.000\n" + "truth " * 24 + "\n")
    return path


def test_a_clip_is_played_from_the_command_to_the_subtitles(terminal: Terminal, clip: Path, tmp_path: Path) -> None:
    terminal.run("play", str(clip), "--pace", "every")
    # The truth is there before the model is.
    terminal.until_shown("truth")
    terminal.until_shown("speed ×")
    terminal.press("Space")
    terminal.until_shown("paused")
    terminal.press("9")
    terminal.until_shown("00:10 / ")
    terminal.press("g")
    terminal.until_shown("ROUGE-L")
    terminal.press("g")
    terminal.until_gone("ROUGE-L")
    terminal.press("/")
    terminal.until_shown("ask about the next second")
    terminal.type("who leads?")
    terminal.press("Enter")
    terminal.press("Space")
    terminal.until_shown("? who leads?")
    terminal.until_shown("■ end")
    terminal.press("q")
    screen = terminal.until_shown("status 0")
    # The terminal is as it was: lines, echo, and what the program printed.
    terminal.until(lambda screen: " icanon" in screen and " -echo " not in screen)
    paths = [Path(line) for line in "".join(screen.split("status")[0]).split() if line.startswith("/")]
    assert {path.suffix for path in paths} == {".vtt", ".json"}
    record = load_session(next(path for path in paths if path.suffix == ".json"))
    assert any(second.query == "who leads?" for second in record.seconds)
    cues = list(webvtt.read(str(next(path for path in paths if path.suffix == ".vtt"))))
    assert [cue.start_in_seconds for cue in cues] == [int(s.start) for s in record.seconds if s.text]
    assert cues
    assert not list((tmp_path / "state").rglob("*.jsonl"))


def test_before_another_clip_plays_a_line_says_which_checkpoint_to_take(terminal: Terminal, clip: Path) -> None:
    terminal.run("play", str(clip), "--no-picture")
    terminal.until_shown("knows simulated matches only")
    terminal.press("q")
    # It stays when the player has ended.
    lines = terminal.until_shown("status 0").splitlines()
    assert any(line.startswith("svm-tui: this checkpoint knows simulated matches only; for real") for line in lines)
    assert "(downloads " in "".join(lines)


def test_a_player_that_is_told_to_end_saves_and_leaves_the_terminal_as_it_was(
    terminal: Terminal, clip: Path, tmp_path: Path
) -> None:
    terminal.run("play", str(clip), "--no-picture", "--out", str(tmp_path / "watched.json"))
    terminal.until_a_second_is_kept()
    os.kill(terminal.program_id, signal.SIGTERM)
    terminal.until_shown("status 143")
    terminal.until(lambda screen: " icanon" in screen and " -echo " not in screen)
    assert load_session(tmp_path / "watched.json").seconds
    assert not list((tmp_path / "state").rglob("*.jsonl"))


def test_a_player_whose_terminal_is_closed_saves(terminal: Terminal, clip: Path, tmp_path: Path) -> None:
    terminal.run("play", str(clip), "--no-picture", "--out", str(tmp_path / "watched.json"))
    terminal.until_a_second_is_kept()
    terminal.tmux("kill-session")
    paths = [tmp_path / "watched.json", tmp_path / "watched.vtt"]
    deadline = time.monotonic() + PATIENCE
    while not all(path.is_file() for path in paths):
        found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
        assert time.monotonic() < deadline, f"the session was not saved: {found}"
        time.sleep(0.01)
    assert load_session(paths[0]).seconds


def test_a_player_that_is_killed_leaves_its_journal(terminal: Terminal, clip: Path, tmp_path: Path) -> None:
    terminal.run("play", str(clip), "--no-picture")
    state = tmp_path / "state"
    terminal.until(lambda _: any(path.read_bytes().count(b"\n") >= 3 for path in state.rglob("*.jsonl")))
    os.kill(terminal.program_id, signal.SIGKILL)
    terminal.until_shown("status 137")
    (journal,) = state.rglob("*.jsonl")
    assert len(load_session(journal).seconds) >= 1


def test_a_feed_is_watched_through_a_stall_and_an_end_and_kept(terminal: Terminal, tmp_path: Path) -> None:
    visits: list[Visit] = []

    def answer(visit: Visit) -> None:
        visits.append(visit)
        visit.send(transport_stream(tmp_path, 100 * len(visits), 40), HEAD)

    kept = tmp_path / "kept.ts"
    with feed_server() as server:
        answering(server, answer)
        terminal.run("play", f"http://127.0.0.1:{server.port}/live", "--record", str(kept))
        terminal.until_shown("◌ no signal")
        visits[0].close()
        # The new connection is answered only when that was seen.
        terminal.until_shown("◌ reconnecting (1)")
        answering(server, answer)
        terminal.until_gone("◌ reconnecting (1)")
        terminal.press("Left")
        terminal.until_shown("a live feed cannot go back")
        terminal.until_shown("◌ no signal")
        terminal.press("q")
        terminal.until_shown("status 0")
    assert str(kept) in terminal.screen.replace("\n", "")
    with av.open(str(kept)) as container:
        # FFmpeg keeps the last picture of a connection to itself.
        assert len(list(container.decode(video=0))) >= 78


def test_a_clip_is_not_recorded(terminal: Terminal, clip: Path, tmp_path: Path) -> None:
    terminal.run("play", str(clip), "--record", str(tmp_path / "kept.ts"))
    shown = terminal.until_shown("status 2")
    assert "is a clip, and --record keeps a live feed; leave out --record." in shown.replace("\n", "")
    assert not (tmp_path / "kept.ts").exists()
