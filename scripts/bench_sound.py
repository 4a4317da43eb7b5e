#!/usr/bin/env python
"""Measures how far a clip's sound is from the playhead, on a null sink of PulseAudio whose monitor is recorded.

The clip's pitch rises steadily, so that 43 ms of the recording say where in the clip they are. It needs pulseaudio,
parec, ALSA's plugin for PulseAudio (libasound2-plugins) and the extra [sound], and runs as long as it plays.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from feed_server import served
from null_sink import null_sink

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.feed_sound import FeedSound
from streaming_vlm_mlx.audio.feeder import open_feeder
from streaming_vlm_mlx.audio.motion import Motion
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.feed import FeedWatch
from streaming_vlm_mlx.video.video_file import open_video
from tui.player.feed import FeedSeconds
from tui.player.playhead import SPEEDS, Playhead
from tui.player.screens.player import TICK_RATE
from tui.player.sound import PlayerSound, SoundSpec

# The pitch rises from LOWEST by SLOPE Hz a second, and begins again after PERIOD seconds.
LOWEST, SLOPE, PERIOD = 400.0, 400.0, 8.0
# Samples that are looked at at once, every STEP seconds, and the size of the transform.
WINDOW, STEP, TRANSFORM = 2048, 0.05, 1 << 16
# Seconds over which the clock of the sink is as good as the machine's.
PORTION = 10.0
# The quietest sound, as a part of full scale.
QUIET = 0.01
# Seconds after an action from which sound has to be in its place.
SETTLED = 0.5
Mono = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """What was measured; errors in milliseconds of sound, positive where it is early.

    Attributes:
        seconds: how long was played.
        actions: seeks, pauses, waits and changes of speed.
        looks: parts of the recording that were looked at, and had to be in their place.
        median: the middle error.
        p95: the error that 95 of 100 do not exceed, either way.
        largest: the largest error.
        drift: its change a minute.
        silent: looks without sound, where there has to be some.
        settling: milliseconds from an action to sound within 100 ms of its place, the middle and the longest.
        stopping: milliseconds from a pause to silence, the middle and the longest.
        jumps: how often sound was moved.
        gaps: how often there was none yet.
    """

    seconds: float
    actions: int
    looks: int
    median: float
    p95: float
    largest: float
    drift: float
    silent: int
    settling: tuple[float, float]
    stopping: tuple[float, float]
    jumps: int
    gaps: int


@dataclass(frozen=True)
class Recording:
    """What was heard: mono at `RATE`, and when each sample was played.

    The clock of the sink is not that of the machine, so the time is taken anew every `PORTION` seconds.
    """

    samples: Mono
    arrivals: list[tuple[int, float]]

    def times(self, samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the times at which the `samples`, by their number, were played."""
        counts, delays = (np.array(column, np.float64) for column in zip(*self.arrivals, strict=True))
        delays = delays - counts / RATE
        portions = (counts / RATE / PORTION).astype(int)
        # What comes at once has come soonest.
        soonest = [delays[portions == portion].min() for portion in np.unique(portions)]
        middles = [counts[portions == portion].mean() for portion in np.unique(portions)]
        played: npt.NDArray[np.float64] = samples / RATE + np.interp(samples, middles, soonest)
        return played


def sweep(position: npt.NDArray[np.float64]) -> Mono:
    """Return the clip's sound at `position` seconds each."""
    phase = position % PERIOD
    return (0.4 * np.sin(2 * np.pi * (LOWEST * phase + SLOPE * phase**2 / 2))).astype(np.float32)


def make_sweep(path: Path, seconds: float) -> Path:
    """Write a clip of `seconds` whose pitch says where it is."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=2, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 128_000
        for second in range(math.ceil(seconds)):
            for half in range(2):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 100, np.uint8), format="rgb24")
                picture.pts, picture.time_base = 2 * second + half, Fraction(1, 2)
                out.mux(video.encode(picture))
            samples = sweep(second + np.arange(RATE) / RATE)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), second * RATE
            out.mux(audio.encode(frame))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path


def hurry(process: int) -> None:
    """Let `process` run before all others, which only root may; on a busy machine PulseAudio is late, too."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(5))


class Recorder:
    """Records the monitor of the null sink on a thread."""

    def __init__(self) -> None:
        """Start; `finish` ends it."""
        command = ["parec", "-d", "svm.monitor", "--raw", "--latency-msec=10", f"--rate={RATE}", "--channels=1"]
        self.process = subprocess.Popen([*command, "--format=s16le"], stdout=subprocess.PIPE)
        self._parts: list[bytes] = []
        self._arrivals: list[tuple[int, float]] = []
        self.started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self.process.stdout is not None
        count = 0
        while part := os.read(self.process.stdout.fileno(), 1 << 16):
            self._parts.append(part)
            count += len(part) // 2
            self._arrivals.append((count, time.perf_counter()))
            self.started.set()

    def finish(self) -> Recording:
        """End the recording and return it."""
        self.process.terminate()
        self._thread.join()
        self.process.wait()
        whole = b"".join(self._parts)
        samples = np.frombuffer(whole[: len(whole) // 2 * 2], "<i2").astype(np.float32) / np.float32(1 << 15)
        return Recording(samples, self._arrivals)


class Viewer:
    """Moves a playhead as the player's screen does, and does things to it at random."""

    def __init__(self, playhead: Playhead, sound: PlayerSound, seed: int) -> None:
        """Act on `playhead`, which `sound` follows, as `seed` has it."""
        self._playhead, self._sound, self._random = playhead, sound, random.Random(seed)
        self.motions: list[Motion] = []
        # Time and kind of each action.
        self.actions: list[tuple[float, str]] = []

    def watch(self, seconds: float, actions: int) -> None:
        """Watch for `seconds`, with `actions` spread over them."""
        begin = time.perf_counter()
        due = [(number + 0.5) * seconds / actions for number in range(actions)]
        resume = math.inf
        while (now := time.perf_counter() - begin) < seconds:
            if due and now >= due[0]:
                due.pop(0)
                resume = now + self._act()
            if now >= resume:
                self._note("play")
                self._playhead.limit, resume = None, math.inf
                self._playhead.play()
            self._playhead.tick()
            self.follow()
            time.sleep(1 / TICK_RATE)

    def _act(self) -> float:
        """Do something, and return for how many seconds the playhead then stands."""
        head = self._playhead
        assert head.duration is not None
        kind = self._random.choice(("seek", "seek", "pause", "wait", "speed"))
        self._note(kind)
        if kind == "seek":
            head.seek(self._random.uniform(0, head.duration * 0.6))
        elif kind == "speed":
            wanted = self._random.choice((0.5, 0.75, 1.0, 1.0, 1.25, 1.5, 2.0))
            head.change_speed(SPEEDS.index(wanted) - SPEEDS.index(head.speed))
        elif kind == "pause":
            head.pause()
        else:
            head.tick()
            head.limit = head.position
        self.follow()
        return self._random.uniform(0.3, 1.5) if kind in ("pause", "wait") else math.inf

    def _note(self, kind: str) -> None:
        self.actions.append((time.perf_counter(), kind))

    def follow(self) -> None:
        """Let the sound follow the playhead."""
        motion = self._playhead.motion
        self._sound.follow(motion)
        self.motions.append(motion)


def positions_in(recording: Recording) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the times of looks at `recording`, and where in the sweep each is, modulo PERIOD; NaN for silence."""
    starts = np.arange(0, len(recording.samples) - WINDOW, round(STEP * RATE))
    window, found = np.hanning(WINDOW).astype(np.float32), np.full(len(starts), np.nan)
    for number, start in enumerate(starts):
        part = recording.samples[start : start + WINDOW]
        if np.sqrt(np.square(part).mean()) < QUIET:
            continue
        strength = np.abs(np.fft.rfft(part * window, TRANSFORM))
        found[number] = (int(np.argmax(strength)) * RATE / TRANSFORM - LOWEST) / SLOPE
    return recording.times(starts.astype(np.float64) + WINDOW / 2), found


def compare(recording: Recording, viewer: Viewer, sound: PlayerSound, seconds: float) -> Figures:
    """Return how far what was recorded is from where the playhead was."""
    times, found = positions_in(recording)
    begins = np.array([motion.at for motion in viewer.motions])
    actions = np.array([-math.inf, *(at for at, _ in viewer.actions)])
    errors, silent = list[tuple[float, float]](), 0
    settled: dict[float, float] = {}
    stopped: dict[float, float] = {}
    kinds = dict(viewer.actions)
    for at, place in zip(times, found, strict=True):
        index = int(np.searchsorted(begins, at)) - 1
        if index < 0 or at > begins[-1]:
            continue
        motion, acted = viewer.motions[index], float(actions[np.searchsorted(actions, at) - 1])
        expected = motion.position_at(at)
        if expected is None:
            if np.isnan(place) and kinds.get(acted) in ("pause", "wait"):
                stopped.setdefault(acted, at - acted)
            continue
        # Where the sweep begins again, a look sees both ends; at the start the device is not open yet.
        is_clear = 0.1 * motion.speed < expected % PERIOD < PERIOD - 0.1 * motion.speed
        error = ((place - expected + PERIOD / 2) % PERIOD - PERIOD / 2) / motion.speed
        if abs(error) < 0.1 and acted not in settled:
            settled[acted] = at - (acted if acted > 0 else begins[0])
        if is_clear and at - max(acted, begins[0]) > (SETTLED if acted > 0 else 3.0):
            silent += bool(np.isnan(place))
            errors.append((at, error)) if not np.isnan(place) else None
    if not errors:
        raise SvmError("nothing was heard; is the null sink the default device?")
    table = 1e3 * np.array(errors) * (1e-3, 1)
    settling = [1e3 * value for key, value in settled.items() if key > 0] or [0.0]
    stopping = [1e3 * value for value in stopped.values()] or [0.0]
    size = np.abs(table[:, 1])
    return Figures(
        seconds=seconds,
        actions=len(viewer.actions),
        looks=len(table),
        median=float(np.median(table[:, 1])),
        p95=float(np.percentile(size, 95)),
        largest=float(size.max()),
        drift=float(np.polyfit(table[:, 0], table[:, 1], 1)[0]) * 60,
        silent=silent,
        settling=(float(np.median(settling)), max(settling)),
        stopping=(float(np.median(stopping)), max(stopping)),
        jumps=sound.mixer.clip.jumps,
        gaps=sound.mixer.clip.gaps,
    )


def measure(seconds: float, actions: int, seed: int = 0, hurried: bool = False, feed: bool = False) -> Figures:
    """Play for `seconds` with `actions`, and return how far the sound was from the playhead.

    With `hurried`, what plays and records does not wait for what else the machine does. With `feed`, a live feed is
    played, on which nothing acts.

    Raises:
        SvmError: a program is missing, or nothing was heard.
    """
    with tempfile.TemporaryDirectory() as name, null_sink(Path(name)) as server:
        if hurried:
            hurry(os.getpid())
        recorder = Recorder()
        recorder.started.wait(10)
        for process in (server, os.getpid(), recorder.process.pid) if hurried else ():
            hurry(process)
        watch = watch_feed if feed else watch_clip
        viewer, sound = watch(Path(name), seconds, actions, seed)
        recording = recorder.finish()
        if sound.problem:
            raise SvmError(sound.problem)
        return compare(recording, viewer, sound, seconds)


def watch_clip(folder: Path, seconds: float, actions: int, seed: int) -> tuple[Viewer, PlayerSound]:
    """Watch a clip, and return who watched and what was heard."""
    duration = seconds + 30 if not actions else max(seconds, 60.0)
    clip = make_sweep(folder / "sweep.mp4", duration)
    sound = PlayerSound(SoundSpec(partial(open_feeder, str(clip))), time.perf_counter, lambda _: None)
    with contextlib.closing(sound):
        sound.start()
        viewer = Viewer(Playhead(time.perf_counter, duration), sound, seed)
        viewer.watch(seconds, actions)
    return viewer, sound


def watch_feed(folder: Path, seconds: float, *_: int) -> tuple[Viewer, PlayerSound]:
    """Watch a live feed as the player does, each second as soon as it is whole."""
    content = make_sweep(folder / "sweep.ts", seconds + 30).read_bytes()
    with served(content, len(content) / (seconds + 30)) as address:
        heard = FeedSound(address)
        source = open_video(address, watch=FeedWatch(hear=heard.put))
        assert source.feed
        playhead, whole = Playhead(time.perf_counter, None), queue.SimpleQueue[Chunk]()
        sound = PlayerSound(SoundSpec(partial(heard.open, source.feed.sound)), time.perf_counter, lambda _: None)
        reader = threading.Thread(target=read_all, args=(FeedSeconds(source), whole))
        with contextlib.closing(sound), source:
            reader.start()
            sound.start()
            viewer = Viewer(playhead, sound, 0)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                # As often as the screen.
                with contextlib.suppress(queue.Empty):
                    chunk = whole.get(timeout=1 / TICK_RATE)
                    playhead.follow(chunk.start, chunk.end)
                playhead.tick()
                viewer.follow()
            source.feed.stop()
            reader.join()
    return viewer, sound


def read_all(seconds: FeedSeconds, whole: "queue.SimpleQueue[Chunk]") -> None:
    """Put each of the `seconds` when its turn has come."""
    for number in itertools.count():
        chunk = seconds.read(number)
        if chunk is None:
            return
        whole.put(chunk)


def main() -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to play (default: 1)")
    parser.add_argument("--actions", type=int, default=0, help="seeks, pauses, waits and changes of speed (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="which of them (default: 0)")
    parser.add_argument("--hurried", action="store_true", help="run before all else on the machine; root only")
    parser.add_argument("--feed", action="store_true", help="play a live feed instead, without actions")
    args = parser.parse_args()
    try:
        figures = measure(60 * args.minutes, args.actions, args.seed, args.hurried, args.feed)
        print(json.dumps(asdict(figures), indent=2))
    except SvmError as error:
        print(f"bench_sound: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
