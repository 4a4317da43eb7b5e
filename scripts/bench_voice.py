#!/usr/bin/env python
"""Measures when spoken commentary begins: the clip plays in real time, without a screen, into a null device.

For each phrase, it is the time in seconds of clip from the end of its second to its first sample; negative where the
phrase begins before the second is over. What a device plays ahead is added.
"""

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.mixer import Mixer
from streaming_vlm_mlx.audio.output import LATENCY
from streaming_vlm_mlx.audio.voice import Voice, find_voice
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.shipped import CHECKPOINT, SAMPLE
from streaming_vlm_mlx.stream_settings import read_stream_config
from streaming_vlm_mlx.video.video_file import open_video
from tui.commands.options import make_engine
from tui.player.clip import ClipSeconds
from tui.player.controller import Controller, PlayerEvent
from tui.player.phrases import Phrase, PhraseReader
from tui.player.playhead import Playhead
from tui.player.screens.player import TICK_RATE
from tui.player.voice import PlayerVoice

# Samples that the null device takes at once.
BLOCK = 480


@dataclass(frozen=True)
class Begun:
    """A phrase that was spoken.

    Attributes:
        second: number of its second.
        text: its words.
        delay: seconds of clip from the end of its second until it is heard.
        speaking: seconds of these from its last word until it is heard, which the voice takes.
    """

    second: int
    text: str
    delay: float
    speaking: float


class Bench:
    """A player without a screen that speaks."""

    def __init__(self, clip: str, checkpoint: Path, command: str | None) -> None:
        """Prepare to play `clip` with the model in the folder `checkpoint`."""
        self.said: dict[Phrase, float] = {}
        self.begun: list[Begun] = []
        self.notes: list[str] = []
        config = read_stream_config(checkpoint)
        source = open_video(clip, config.fps)
        self._mixer, self._reader = Mixer(), PhraseReader()
        self._playhead = Playhead(time.perf_counter, source.duration)
        log = SessionLog(SessionRecord(clip=clip), (), self.notes.append)
        make = lambda: make_engine(checkpoint, config, self.notes.append)[0]  # noqa: E731 - the controller calls it
        self._controller = Controller(make, ClipSeconds(source), self._playhead, log, self._hear)
        speaker = Voice(find_voice(command))
        self._voice = PlayerVoice(speaker, self._mixer, time.perf_counter, self.notes.append, self._note_begun)

    async def play(self, seconds: float) -> None:
        """Play up to `seconds` of the clip."""
        stop = threading.Event()
        threading.Thread(target=partial(self._take_samples, stop), daemon=True).start()
        task = asyncio.create_task(self._controller.run())
        try:
            while self._playhead.state != "ended" and self._controller.tick() < seconds:
                self._voice.follow(self._playhead.motion)
                await asyncio.sleep(1 / TICK_RATE)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._voice.close()
            self._controller.close()
            stop.set()

    def _hear(self, event: PlayerEvent) -> None:
        for phrase in self._reader.read(event):
            self.said[phrase] = time.perf_counter()
            self._voice.say(phrase)

    def _note_begun(self, phrase: Phrase, wait: float) -> None:
        now, heard_in = time.perf_counter(), wait + LATENCY
        delay = self._playhead.motion.reached(now) + heard_in - phrase.end
        speaking = now + heard_in - self.said[phrase]
        self.begun.append(Begun(phrase.second, phrase.text, round(delay, 3), round(speaking, 3)))

    def _take_samples(self, stop: threading.Event) -> None:
        """Play as a sound device does, by the clock."""
        out, due = np.zeros((BLOCK, 2), np.float32), time.perf_counter()
        while not stop.wait(max(due - time.perf_counter(), 0)):
            self._mixer.fill(out, due)
            due += BLOCK / RATE


def describe(what: str, seconds: Sequence[float]) -> str:
    """Return a line on `seconds`."""
    if not seconds:
        return f"{what}: none"
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return f"{what}: median {p50:.2f} s, p95 {p95:.2f} s, latest {max(seconds):.2f} s"


def main() -> None:
    """Play the clip, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", default=str(SAMPLE), help="a clip (default: the sample)")
    parser.add_argument("--ckpt", type=Path, default=CHECKPOINT, help="folder of a checkpoint (default: the package's)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="seconds to play (default: to the end)")
    parser.add_argument("--voice-command", help="program that speaks (default: that of the system)")
    parser.add_argument("--json", type=Path, help="file for all phrases")
    args = parser.parse_args()
    bench = Bench(args.clip, args.ckpt, args.voice_command)
    asyncio.run(bench.play(args.seconds))
    for note in bench.notes:
        print(note)
    print(f"{len(bench.said)} phrases, {len(bench.said) - len(bench.begun)} of them dropped")
    print(describe("heard after the end of their second", [phrase.delay for phrase in bench.begun]))
    print(describe("heard after their last word", [phrase.speaking for phrase in bench.begun]))
    if args.json:
        args.json.write_text(json.dumps([asdict(phrase) for phrase in bench.begun], indent=1) + "\n", encoding="utf-8")
    # The engine's thread may be busy.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
