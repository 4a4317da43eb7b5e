"""The player in a terminal that shows images: what it asks, what it writes, and what it leaves."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.player.graphics.protocols import ITERM2, SIXEL, read_iterm2, read_kitty, read_sixel
from tests.video.clips import make_clip
from tui.player.graphics.drawing import NUMBERS
from tui.terminal_graphics import QUESTION

ROOT = Path(__file__).parents[2]
# Seconds after which what was waited for will not come.
PATIENCE = 120.0
ANSWERS = {
    "kitty": b"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.35.2)\x1b\\\x1b[?62;c",
    "iterm2": b"\x1bP>|iTerm2 3.5.4\x1b\\\x1b[?62;4c",
    "sixel": b"\x1bP>|foot(1.16.2)\x1b\\\x1b[?62;4;22c",
}
IMAGES = {
    "kitty": re.compile(r"\x1b_Ga=T[^\x1b]*m=[01];[^\x1b]*\x1b\\(?:\x1b_Gq=2,m=[01];[^\x1b]*\x1b\\)*"),
    "iterm2": ITERM2,
    "sixel": SIXEL,
}
SYNC_QUESTION, SYNC_ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"


class ImageTerminal:
    """A terminal of 30 rows and 100 columns with cells of 10 by 20 pixels, that answers what it is asked."""

    def __init__(self, mode: str, words: list[str], folder: Path, typed: str = "") -> None:
        """Run the program with `words`; `typed` is typed while it asks."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 1000, 600))
        environ = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_STATE_HOME": str(folder)}
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tui", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env={**os.environ, **environ},
            start_new_session=True,
        )
        os.close(theirs)
        self._answers = {QUESTION: typed.encode() + ANSWERS[mode], SYNC_QUESTION: SYNC_ANSWER}
        self._shown, self._news, self._done = b"", threading.Condition(), False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._done:
            try:
                more = os.read(self._ours, 1 << 16)
            except OSError:
                more = b""
            with self._news:
                self._shown, self._done = self._shown + more, not more
                self._news.notify_all()
            for question in [question for question in self._answers if question in self._shown]:
                os.write(self._ours, self._answers.pop(question))

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def until(self, pattern: re.Pattern[str], count: int = 1, since: int = 0) -> int:
        """Wait until `pattern` was written `count` times from byte `since` on, and return how much there is."""
        with self._news:
            found = self._news.wait_for(
                lambda: self._done or len(pattern.findall(self.text[since:])) >= count, PATIENCE
            )
            assert found
            assert not self._done, self.text[-2000:]
            return len(self.text)

    @property
    def text(self) -> str:
        return self._shown.decode("utf-8", "ignore")

    def quit(self) -> str:
        """Press q, and return what Textual wrote, and what came after it."""
        self.press("q")
        assert self.program.wait(PATIENCE) == 0
        self._reader.join(PATIENCE)
        # The question came before.
        return self.text[self.text.index("\x1b[?1049h") :]

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        self._reader.join(PATIENCE)
        os.close(self._ours)


@pytest.fixture
def terminal(mode: str, tmp_path: Path) -> Iterator[ImageTerminal]:
    clip = make_clip(tmp_path / "match.mp4", count=240, rate=8)
    terminal = ImageTerminal(mode, ["play", str(clip), "--out", str(tmp_path / "out.json")], tmp_path)
    yield terminal
    terminal.close()


def updates(text: str) -> list[str]:
    """Return what lies in each synchronised update; images must lie nowhere else."""
    first, *rest = text.split("\x1b[?2026h")
    inside, outside = zip(*(part.split("\x1b[?2026l", 1) for part in rest), strict=True)
    for pattern in IMAGES.values():
        assert not pattern.search(first + "".join(outside))
    return list(inside)


@pytest.mark.parametrize("mode", IMAGES)
def test_each_image_is_part_of_one_update_and_nothing_is_left(terminal: ImageTerminal, mode: str) -> None:
    image = IMAGES[mode]
    terminal.until(image, 3)
    # Behind the help there is no image; when it is closed, there is one again.
    terminal.press("?")
    since = terminal.until(re.compile("esc closes"))
    terminal.press("?")
    since = terminal.until(image, since=since)
    terminal.press("f")
    terminal.until(image, 2, since=since)
    text = terminal.quit()
    found = [match[0] for update in updates(text) for match in image.finditer(update)]
    assert len(found) >= 6
    if mode == "kitty":
        commands = read_kitty(text)
        shown = [command for command in commands if command.keys["a"] == "T"]
        assert all(command.pixels.any() for command in shown)
        assert {int(command.keys["i"]) for command in shown} == set(NUMBERS)
        assert [int(command.keys["i"]) for command in read_kitty(text[: text.index("\x1b[?1049l")])[-2:]] == [*NUMBERS]
        assert {command.keys["a"] for command in commands[-2:]} == {"d"}
    elif mode == "sixel":
        # Whole cells, and no more than the room.
        height, width = read_sixel(found[-1]).shape[:2]
        assert (height % 20, width % 10) == (0, 0)
        assert height <= 560
    else:
        settings, _ = read_iterm2(found[-1])
        assert int(settings["height"]) <= 28


@pytest.mark.parametrize("mode", IMAGES)
def test_a_suspended_player_draws_everything_again(terminal: ImageTerminal, mode: str) -> None:
    image = IMAGES[mode]
    terminal.until(image, 2)
    # Before that, the key plays without the model.
    terminal.until(re.compile("▶"))
    terminal.press(" ")
    terminal.until(re.compile("paused"))
    terminal.press("\x1a")
    _, status = os.waitpid(terminal.program.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    since = terminal.until(re.compile(re.escape("\x1b[?1049l")))
    terminal.program.send_signal(signal.SIGCONT)
    terminal.until(image, since=since)
    terminal.until(re.compile(r"match\.mp4.*paused"), since=since)
    terminal.quit()


def test_the_next_clip_of_a_playlist_is_shown_alike_and_the_terminal_is_not_asked_again(tmp_path: Path) -> None:
    clips = [str(make_clip(tmp_path / f"{name}.mp4", count=240, rate=8)) for name in ("first", "second")]
    terminal = ImageTerminal("kitty", ["play", *clips], tmp_path)
    try:
        since = terminal.until(IMAGES["kitty"])
        terminal.press(">")
        since = terminal.until(re.compile(re.escape("(2/2)")), since=since)
        terminal.until(IMAGES["kitty"], 2, since=since)
        terminal.quit()
        assert terminal.text.count(QUESTION.decode()) == 1
    finally:
        terminal.close()


def test_a_key_that_is_typed_while_the_terminal_is_asked_is_taken(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "match.mp4", count=240, rate=8)
    terminal = ImageTerminal("kitty", ["play", str(clip)], tmp_path, typed="q")
    try:
        assert terminal.program.wait(PATIENCE) == 0
    finally:
        terminal.close()
