#!/usr/bin/env python
"""What the player costs its viewer: to start, a key, to quit, the model's speed, memory; in a terminal of its own."""

import argparse
import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import av

SIZE = (40, 120)
# Seconds after which what is waited for will not come.
PATIENCE = 60.0
# Images and other strings, which end in ST or BEL, and what begins one that has not ended.
STRINGS = re.compile(r"\x1b[P_\]][^\x1b\x07]*(?:\x07|\x1b\\)")
UNFINISHED = re.compile(r"\x1b(?:[P_\]][^\x1b\x07]*\x1b?)?\Z")
IMAGES = ("\x1b_Ga=T", "\x1bP9;1q", "\x1b]1337;File")
# A cell in pixels, and what a terminal says of itself for each way of drawing.
CELL = (10, 20)
ATTRIBUTES = "\x1b[?62;c"
ANSWERS = {
    "kitty": f"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.35.2)\x1b\\{ATTRIBUTES}",
    "iterm2": f"\x1bP>|iTerm2 3.5.4\x1b\\{ATTRIBUTES}",
    "sixel": "\x1b[?62;4c",
    "sextants": f"\x1bP>|VTE(7600)\x1b\\{ATTRIBUTES}",
    "blocks": ATTRIBUTES,
}
# What it is asked at last, and whether it knows synchronised updates.
ASKED, SYNC_ASKED, SYNC_KNOWN = "\x1b[c", "\x1b[?2026$p", "\x1b[?2026;2$y"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
PICTURE, PAUSED, PLAYING = re.compile("[▀\U0001fb00-\U0001fb3b]"), "‖ paused", "▶"
# Between the clip and the model.
TOP_LINE = " · "
# A time and words behind it; the top line's duration and the time that is left are no such time.
WORDS = re.compile(r"(?<!/ )(?<!−)0\d:\d\d  [^\s▌›·?]")
# How often memory is looked at, and how many seconds apart, to take the least.
MOMENTS, MOMENT = 20, 0.1
# Presses from normal speed to the highest.
FASTER = 5
# Seconds of a feed before it is silent.
STALLS_AT = 5
PARTS = ("keys", "quit", "feed", "model", "memory")
# Keys, and what the screen shows for each.
KEYS = ((b" ", PAUSED), (b" ", PLAYING), (b"]", "1.25×"), (b"[", "1×"), (b"l", "wait for model"), (b"l", "real time"))


@dataclass(frozen=True)
class Target:
    """A figure, and the most that it may be."""

    name: str
    value: float
    limit: float
    unit: str
    remark: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "BROKEN"
        return (
            f"{self.name:<22}{self.value:>8.4g} {self.unit:<3} of {self.limit:g}  {verdict:<7} {self.remark}".rstrip()
        )


@dataclass
class Figures:
    """What was measured: seconds, milliseconds where a name says so, megabytes."""

    first_picture_s: float = 0.0
    first_words_s: float = 0.0
    key_ms: list[float] = field(default_factory=list)
    quit_s: list[float] = field(default_factory=list)
    feed_quit_s: list[float] = field(default_factory=list)
    model_ms_infer: float = 0.0
    model_ms_play: float = 0.0
    memory_mb: list[float] = field(default_factory=list)

    def targets(self) -> Iterator[Target]:
        """Yield the target of every figure that was measured."""
        if self.key_ms:
            yield Target("first picture", self.first_picture_s, 0.7, "s")
            yield Target("first words", self.first_words_s, 3.0, "s")
            median = f"median {statistics.median(self.key_ms):.1f} ms of {len(self.key_ms)} keys"
            p95 = statistics.quantiles(self.key_ms, n=20, method="inclusive")[-1]
            yield Target("key to effect, p95", p95, 50.0, "ms", median)
            yield Target("key to effect, max", max(self.key_ms), 200.0, "ms")
        if self.quit_s:
            yield Target("quit, max", max(self.quit_s), 0.5, "s", f"of {len(self.quit_s)}")
        if self.feed_quit_s:
            remark = f"of {len(self.feed_quit_s)}, with the voice, while a feed brings nothing"
            yield Target("quit a feed, max", max(self.feed_quit_s), 0.5, "s", remark)
        if self.model_ms_infer:
            play, infer = self.model_ms_play, self.model_ms_infer
            both = f"{play:.0f} ms a second, without a screen {infer:.0f}"
            yield Target("model slowed down", 100 * (play / infer - 1), 10.0, "%", both)
        if self.memory_mb:
            first, last = self.memory_mb[0], self.memory_mb[-1]
            yield Target("memory, growth", last - first, 30.0, "MB", f"from {first:.0f} MB to {last:.0f}")


class Player:
    """The player in a terminal of its own, and all that it drew."""

    def __init__(self, words: Sequence[str], state: str, picture: str) -> None:
        self.begun = time.perf_counter()
        command = [sys.executable, "-m", "tui", *words]
        environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_STATE_HOME": state}
        self.terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, SIZE[1] * CELL[0], SIZE[0] * CELL[1]))
        self.modes = termios.tcgetattr(inner)
        self.inner = inner
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environ, start_new_session=True
        )
        self._shown, self._news, self._unfinished = "", threading.Condition(), ""
        self._answers = {ASKED: ANSWERS[picture], SYNC_ASKED: SYNC_KNOWN}
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            select.select([self.terminal], [], [])
            try:
                drawn = os.read(self.terminal, 1 << 16)
            except OSError:
                return
            text = self._unfinished + self._decode(drawn)
            self._answer(text)
            end = UNFINISHED.search(text)
            text, self._unfinished = (text[: end.start()], end[0]) if end else (text, "")
            text = STRINGS.sub(lambda found: "▀" if found[0].startswith(IMAGES) else "", text)
            with self._news:
                self._shown += ESCAPES.sub("", text)
                self._news.notify_all()

    def _answer(self, text: str) -> None:
        for question in [question for question in self._answers if question in text]:
            os.write(self.terminal, self._answers.pop(question).encode())

    def press(self, key: bytes) -> float:
        """Forget what was drawn so far, press `key`, and return when."""
        with self._news:
            self._shown = ""
        pressed = time.perf_counter()
        os.write(self.terminal, key)
        return pressed

    def wait(self, expected: str | re.Pattern[str]) -> float:
        """Wait until `expected` is drawn, and return when."""
        found: Callable[[], object] = (
            (lambda: expected in self._shown) if isinstance(expected, str) else (lambda: expected.search(self._shown))
        )
        with self._news:
            if not self._news.wait_for(found, PATIENCE):
                sys.exit(f"bench_tui: {expected!r} was not drawn within {PATIENCE:.0f} s")
        return time.perf_counter()

    def quit(self) -> float:
        """Press q and return the seconds until the process is gone; its terminal must be as it was."""
        pressed = self.press(b"q")
        status = self.process.wait(PATIENCE)
        seconds = time.perf_counter() - pressed
        modes = termios.tcgetattr(self.inner)
        if status or modes != self.modes:
            sys.exit(f"bench_tui: the player ended with status {status} and terminal modes {modes}, not {self.modes}")
        return seconds

    def resident_mb(self) -> float:
        """Return the megabytes that the process occupies, as ps counts them."""
        size = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, check=True)
        return int(size.stdout) / 1024

    def close(self) -> None:
        """Let nothing run on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.inner)


@contextlib.contextmanager
def playing(*words: str, picture: str = "blocks") -> Iterator[Player]:
    """Run ``svm-tui play`` with `words` in a terminal that shows `picture`, its sessions kept out of the way."""
    with tempfile.TemporaryDirectory() as state:
        player = Player(["play", *words], state, picture)
        try:
            yield player
        finally:
            player.close()


def measure_start_and_keys(words: Sequence[str], picture: str, presses: int, figures: Figures) -> None:
    """Start, press keys while the model speaks, quit."""
    with playing(*words, "--loop", picture=picture) as player:
        figures.first_picture_s = player.wait(PICTURE) - player.begun
        figures.first_words_s = player.wait(WORDS) - player.begun
        for number in range(presses):
            key, effect = KEYS[number % len(KEYS)]
            figures.key_ms.append(1e3 * (-player.press(key) + player.wait(effect)))
            # So that keys fall anywhere in a second of the model's.
            time.sleep(0.137)
        figures.quit_s.append(player.quit())


def measure_quits(words: Sequence[str], picture: str, figures: Figures) -> None:
    """Quit at several moments: as soon as the top line is drawn, with the first picture, with the first words."""
    for moment in (TOP_LINE, PICTURE, WORDS):
        with playing(*words, picture=picture) as player:
            player.wait(moment)
            figures.quit_s.append(player.quit())


@contextlib.contextmanager
def stalled_feed(clip: str) -> Iterator[str]:
    """Serve the first pictures of `clip` over HTTP, all at once and then nothing more, and yield the address."""
    data = io.BytesIO()
    with av.open(clip) as source, av.open(data, "w", format="mpegts") as feed:
        stream = feed.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.dts * packet.time_base < STALLS_AT:
                packet.stream = stream
                feed.mux(packet)

    def serve(listener: socket.socket) -> None:
        # The listener is closed at the end.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
                connection.sendall(data.getvalue())
                kept.append(connection)

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/live"


def measure_feed_quits(words: Sequence[str], rounds: int, figures: Figures) -> None:
    """Quit while a feed is silent, with the voice on where there is a program for it."""
    voice = ["--voice"] if shutil.which("espeak-ng") or shutil.which("say") else []
    for _ in range(rounds):
        with stalled_feed(words[0]) as address, playing(address, *words[1:], *voice) as player:
            player.wait("no signal")
            figures.feed_quit_s.append(player.quit())


def measure_model(words: Sequence[str], picture: str, rounds: int, figures: Figures) -> None:
    """Compare what a second costs the model with and without a screen, both as fast as it can; the best of each."""
    with tempfile.TemporaryDirectory() as folder:
        alone, shown = [], []
        for number in range(rounds):
            path = Path(folder) / f"infer{number}.json"
            infer = [sys.executable, "-m", "tui", "infer", *words, "--out", str(path)]
            subprocess.run(infer, capture_output=True, check=True)
            alone.append(median_ms(path))
            path = Path(folder) / f"play{number}.json"
            with playing(*words, "--pace", "every", "--out", str(path), picture=picture) as player:
                player.wait(WORDS)
                for _ in range(FASTER):
                    player.press(b"]")
                player.wait("■ end")
                player.quit()
            shown.append(median_ms(path))
        figures.model_ms_infer, figures.model_ms_play = min(alone), min(shown)


def median_ms(session: Path) -> float:
    """Return the milliseconds of work a second, the first two left out: they warm up."""
    seconds = json.loads(session.read_text())["seconds"][2:]
    return float(statistics.median(second["timings"]["total_ms"] for second in seconds))


def measure_memory(words: Sequence[str], picture: str, minutes: float, figures: Figures) -> None:
    """Play a looped clip for `minutes` and note the memory, once a minute where there are two or more."""
    count = max(round(minutes), 2)
    with playing(*words, "--loop", picture=picture) as player:
        player.wait(WORDS)
        for _ in range(count):
            time.sleep(60 * minutes / count - MOMENTS * MOMENT)
            # The least of some moments: what a second's work takes for itself is no growth.
            figures.memory_mb.append(min(player.resident_mb() for _ in _moments(MOMENTS, MOMENT)))
        figures.quit_s.append(player.quit())


def _moments(count: int, pause: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(pause)
        yield number


def main() -> int:
    """Measure, print a table, write JSON if asked to; the status is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", help="a clip of ten seconds or more, to be played")
    parser.add_argument("--ckpt", help="a checkpoint, as for svm-tui play")
    parser.add_argument("--picture", choices=ANSWERS, default="blocks", help="what the terminal shows (default blocks)")
    parser.add_argument("--presses", type=int, default=60, help="keys to press, 2 at least (default 60)")
    parser.add_argument("--rounds", type=int, default=3, help="comparisons with infer, the best counts (default 3)")
    parser.add_argument("--minutes", type=float, default=0.0, help="minutes of a looped clip, for memory (default 0)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures")
    args = parser.parse_args()
    words = [args.clip, *(["--ckpt", args.ckpt] if args.ckpt else [])]
    figures = Figures()
    if "keys" in args.only:
        measure_start_and_keys(words, args.picture, args.presses, figures)
    if "quit" in args.only:
        measure_quits(words, args.picture, figures)
    if "feed" in args.only:
        measure_feed_quits(words, args.rounds, figures)
    if "model" in args.only:
        measure_model(words, args.picture, args.rounds, figures)
    if "memory" in args.only and args.minutes:
        measure_memory(words, args.picture, args.minutes, figures)
    targets = list(figures.targets())
    print("\n".join(map(str, targets)))
    if args.json:
        args.json.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    return int(not all(target.holds for target in targets))


if __name__ == "__main__":
    sys.exit(main())
