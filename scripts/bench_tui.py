#!/usr/bin/env python
"""What the player costs its viewer: to start, a key, to quit, the model's speed, memory; in a terminal of its own."""

import argparse
import contextlib
import io
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from feed_server import served
from player_terminal import ANSWERS, playing

PICTURE, PAUSED, PLAYING = re.compile("[▀\U0001fb00-\U0001fb3b]"), "‖ paused", "▶"
# Between the clip and the model.
TOP_LINE = " · "
# A time and words behind it; the top line's duration and the time that is left are no such time.
WORDS = re.compile(r"(?<!/ )(?<!−)0\d:\d\d  [^\s▌›·?]")
# How often memory is looked at, and how many seconds apart, to take the least.
MOMENTS, MOMENT = 20, 0.1
# Presses from normal to double speed.
FASTER = 3
# Seconds of a feed before it is silent.
STALLS_AT = 5
PARTS = ("keys", "quit", "feed", "model", "sound", "client", "memory")
# What the client follows.
FOLLOWED = ("events", "text", "position", "state", "delay", "figures", "settings")
# A tone for a clip without sound, in Hz.
TONE = 440.0
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
class Cost:
    """Milliseconds that the model worked on each second of the clip, in runs: with what may slow it down, and without.

    The seconds are the same in all runs, so what they share is no noise.
    """

    slowed: list[list[float]] = field(default_factory=list)
    alone: list[list[float]] = field(default_factory=list)

    def target(self, name: str, limit: float) -> Target:
        """Return by how much the model is slower, each second taken as the middle one of all runs."""
        slowed, alone = (
            statistics.mean(statistics.median(second) for second in zip(*runs, strict=True))
            for runs in (self.slowed, self.alone)
        )
        remark = f"{slowed:.1f} ms a second, else {alone:.1f}; {len(self.alone)} runs each"
        return Target(name, 100 * (slowed / alone - 1), limit, "%", remark)


@dataclass
class Figures:
    """What was measured: seconds, milliseconds where a name says so, megabytes."""

    first_picture_s: float = 0.0
    first_words_s: float = 0.0
    key_ms: list[float] = field(default_factory=list)
    quit_s: list[float] = field(default_factory=list)
    feed_quit_s: list[float] = field(default_factory=list)
    model_ms: Cost = field(default_factory=Cost)
    sound_ms: Cost = field(default_factory=Cost)
    client_ms: Cost = field(default_factory=Cost)
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
            remark = f"of {len(self.feed_quit_s)}, with sound and voice, while a feed brings nothing"
            yield Target("quit a feed, max", max(self.feed_quit_s), 0.5, "s", remark)
        costs = ("screen", self.model_ms, 10.0), ("sound", self.sound_ms, 3.0), ("client", self.client_ms, 3.0)
        for name, cost, limit in costs:
            if cost.alone:
                yield cost.target(f"slower by the {name}", limit)
        if self.memory_mb:
            first, last = self.memory_mb[0], self.memory_mb[-1]
            yield Target("memory, growth", last - first, 30.0, "MB", f"from {first:.0f} MB to {last:.0f}")


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
    """Serve the first seconds of `clip` over HTTP, all at once and then nothing more, and yield the address."""
    data = io.BytesIO()
    with av.open(clip) as source, av.open(data, "w", format="mpegts") as feed:
        streams = {stream: feed.add_stream_from_template(stream) for stream in source.streams.get(video=0, audio=0)}
        for packet in source.demux(*streams):
            if packet.dts is not None and packet.dts * packet.time_base < STALLS_AT:
                packet.stream = streams[packet.stream]
                feed.mux(packet)
    with served(data.getvalue()) as address:
        yield address


def measure_feed_quits(words: Sequence[str], rounds: int, figures: Figures) -> None:
    """Quit while a feed brings nothing, with sound on a null sink, and the voice where there is a program for it."""
    from null_sink import null_sink

    voice = ["--voice"] if shutil.which("espeak-ng") or shutil.which("say") else []
    with tempfile.TemporaryDirectory() as folder, null_sink(Path(folder)):
        clip = add_tone(Path(words[0]), Path(folder) / "heard.mp4")
        for _ in range(rounds):
            with stalled_feed(str(clip)) as address, playing(address, *words[1:], *voice) as player:
                player.wait("no signal")
                figures.feed_quit_s.append(player.quit())


def measure_model(words: Sequence[str], picture: str, rounds: int, figures: Figures) -> None:
    """Compare what a second costs the model with and without a screen, both as fast as it can."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "infer.json"
        for _ in range(rounds):
            infer = [sys.executable, "-m", "tui", "infer", *words, "--out", str(path)]
            subprocess.run(infer, capture_output=True, check=True)
            figures.model_ms.alone.append(worked_ms(path))
            figures.model_ms.slowed.append(play_ms(words, picture))


def measure_sound(words: Sequence[str], picture: str, rounds: int, figures: Figures) -> None:
    """Compare a second's cost with the clip's sound on a null sink, and without."""
    from null_sink import null_sink

    with tempfile.TemporaryDirectory() as folder, null_sink(Path(folder)):
        clip = add_tone(Path(words[0]), Path(folder) / "heard.mp4")
        for _ in range(rounds):
            figures.sound_ms.alone.append(play_ms([str(clip), *words[1:], "--no-sound"], picture))
            figures.sound_ms.slowed.append(play_ms([str(clip), *words[1:]], picture))


def measure_client(words: Sequence[str], picture: str, rounds: int, figures: Figures) -> None:
    """Compare a second's cost with a client of the socket that follows everything, and without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        for _ in range(rounds):
            figures.client_ms.alone.append(play_ms(words, picture))
            with following(path) as count:
                figures.client_ms.slowed.append(play_ms([*words, "--ipc", str(path)], picture))
            if not count():
                sys.exit("bench_tui: the client of the socket heard of nothing")


def play_ms(words: Sequence[str], picture: str) -> list[float]:
    """Play to the end at twice the speed, and return the milliseconds of work on each second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "play.json"
        with playing(*words, "--pace", "every", "--out", str(path), picture=picture) as player:
            player.wait(WORDS)
            for _ in range(FASTER):
                player.press(b"]")
            player.wait("■ end")
            player.quit()
        return worked_ms(path)


@contextlib.contextmanager
def following(path: Path) -> Iterator[Callable[[], int]]:
    """Follow all that the player at the socket `path` tells, as soon as it is there; yield what counts it."""
    told, over = 0, threading.Event()

    def follow() -> None:
        nonlocal told
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(path)):
                if over.wait(0.05):
                    return
            client.sendall(json.dumps({"command": ["observe", *FOLLOWED]}).encode() + b"\n")
            while part := client.recv(1 << 16):
                told += part.count(b"property-change")

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield lambda: told
    finally:
        over.set()
        thread.join()


def add_tone(clip: Path, out: Path) -> Path:
    """Write `clip` with a steady tone as its sound."""
    rate, size = 48_000, 1024
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        pictures = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=rate, layout="mono")
        duration = float(source.duration or 0) / 1e6
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        for start in range(0, int(duration * rate), size):
            tone = 0.3 * np.sin(2 * np.pi * TONE / rate * np.arange(start, start + size))
            frame = av.AudioFrame.from_ndarray(tone.astype(np.float32).reshape(1, -1), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
            target.mux(sound.encode(frame))
        target.mux(sound.encode())
    return out


def worked_ms(session: Path) -> list[float]:
    """Return the milliseconds of work on each second, the first two left out: they warm up."""
    seconds = json.loads(session.read_text())["seconds"][2:]
    return [float(second["timings"]["total_ms"]) for second in seconds]


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
    parser.add_argument("--rounds", type=int, default=3, help="runs of each that is compared (default 3)")
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
    if "sound" in args.only:
        measure_sound(words, args.picture, args.rounds, figures)
    if "client" in args.only:
        measure_client(words, args.picture, args.rounds, figures)
    if "memory" in args.only and args.minutes:
        measure_memory(words, args.picture, args.minutes, figures)
    targets = list(figures.targets())
    print("\n".join(map(str, targets)))
    if args.json:
        args.json.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    return int(not all(target.holds for target in targets))


if __name__ == "__main__":
    sys.exit(main())
