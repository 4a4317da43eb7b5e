"""What a soak runs on: a long clip, the shipped checkpoint's engine, the journal as it grows, and random settings."""

import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx

from streaming_vlm_mlx.config import PixelConfig, StreamConfig
from streaming_vlm_mlx.input_files import parse_json
from streaming_vlm_mlx.shipped import CHECKPOINT, SAMPLE
from streaming_vlm_mlx.stream.async_engine import Due, Engine
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.stream.events import Event, GenerationResult
from streaming_vlm_mlx.stream_settings import read_stream_config
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.image_processor import resize_frames
from streaming_vlm_mlx.video.video_file import open_video

# Eight merged patches: the smallest picture with rows and columns in which something moves.
SIZE = (112, 56)


class LoopedClip:
    """The sample, small, over and over: the seconds of a clip of any length."""

    size = SIZE

    def __init__(self, duration: float, loop: int) -> None:
        """Repeat the first `loop` seconds of the sample for `duration` seconds."""
        self.duration: float | None = duration
        small = PixelConfig(min_pixels=SIZE[0] * SIZE[1], max_pixels=SIZE[0] * SIZE[1])
        with open_video(SAMPLE) as source:
            self._frames = [resize_frames(chunk.frames, small) for chunk in source.chunks(duration=float(loop))]

    def read(self, number: int) -> Chunk | None:
        """Return second `number`, or None past the end."""
        assert self.duration is not None
        if number >= self.duration:
            return None
        frames = self._frames[number % len(self._frames)]
        times = tuple(number + k / len(frames) for k in range(len(frames)))
        return Chunk(number, float(number), min(number + 1.0, self.duration), frames, times)

    def close(self) -> None:
        """Do nothing; nothing is open."""


class SoakEngine(Engine):
    """The shipped checkpoint's engine, which can begin a stream anew where the player empties the windows.

    Attributes:
        finished: the last second of this play that was generated or skipped; -1 for none.
        next_config: settings of a stream that begins at the next seek; None to go on.
    """

    def __init__(self, seed: int) -> None:
        shipped = read_stream_config(CHECKPOINT)
        # Enough tokens for words, answers and a scratchpad's line.
        sampling = replace(shipped.sampling, max_new_tokens=8, temperature=0.7, silence_threshold=None, seed=seed)
        config = replace(shipped, sampling=sampling)
        super().__init__(bundle_loader(CHECKPOINT, mx.float32, config), config)
        self.finished, self._play = -1, 0
        self.next_config: StreamConfig | None = None

    def cancel(self) -> None:
        """End the play under way, and forget what it finished."""
        self.finished = -1
        self._play += 1
        super().cancel()

    async def play(
        self, chunks: Iterable[Chunk] | AsyncIterable[Chunk], due: Due, skips: bool = True
    ) -> AsyncGenerator[Event]:
        """See `Engine.play`."""
        play = self._play

        def finish(number: int) -> None:
            # What ends after a seek belongs to the play before it.
            if play == self._play:
                self.finished = max(self.finished, number)

        async def decide(start: float, end: float) -> bool:
            wanted = await due(start, end)
            if not wanted:
                finish(math.floor(start))
            return wanted

        async with aclosing(super().play(chunks, decide, skips)) as events:
            async for event in events:
                yield event
                # The caller has handled it.
                if isinstance(event, GenerationResult):
                    finish(event.index)

    async def reanchor(self) -> None:
        """Empty the windows, or begin a stream with other settings."""
        if self.next_config is None:
            await super().reanchor()
            return
        self.configure(self.next_config)
        await self.reset()
        self.next_config = None


class JournalTail:
    """The lines of a journal that came since the last call."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._at = folder, 0
        self.path: Path | None = None

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield what each new line holds."""
        self.path = self.path or next(self._folder.glob("*.jsonl"), None)
        if self.path is None:
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                assert line.endswith(b"\n")
                # The first line is the record, empty.
                if self._at:
                    yield parse_json(line.decode())
                self._at += len(line)


def change_settings(config: StreamConfig, random: Random) -> StreamConfig:
    """Return `config` with other windows, sampling or still patches, which need no new stream."""
    choice = random.choice
    sampling = replace(
        config.sampling,
        temperature=choice((0.0, 0.7, 1.5)),
        top_p=choice((0.9, 1.0)),
        max_new_tokens=choice((2, 6, 12)),
        silence_threshold=choice((None, 0.65)),
        repetition_window=choice((0.0, 8.0)),
        no_repeat_ngram_size=choice((0, 3)),
        max_words=choice((None, 4)),
        seed=random.randrange(1000),
    )
    return replace(
        config,
        window=random.randint(1, 10),
        text_round=random.randint(1, 10),
        sink=choice((0, 4, 60)),
        slide=choice((0, 1, 8, 63)),
        drop_still=choice((None, 4.0, 20.0)),
        scratchpad=choice(("", "What do you see?")),
        scratch_round=random.randint(1, 6),
        sampling=sampling,
    )


def new_stream(config: StreamConfig, random: Random) -> StreamConfig:
    """Return the settings of a stream that begins anew."""
    choice = random.choice
    mode = choice(("streaming", "streaming", "streaming", "streaming", "recompute", "window", "full"))
    return replace(
        change_settings(config, random),
        mode=mode,
        pos_mode=choice(("shrink", "shrink", "append")),
        all_text=random.random() < 0.2,
        kv_bits=choice((None, None, 8, 4)),
        previous=choice(("", "The match begins. It is warm and dry.")),
    )


def largest_streams(config: StreamConfig) -> Iterator[StreamConfig]:
    """Yield, for each mode, cache and kind of positions, the settings of `new_stream` that take the most memory."""
    sampling = replace(config.sampling, max_new_tokens=12, silence_threshold=None, max_words=None)
    large = replace(config, window=10, text_round=10, sink=60, slide=63, drop_still=None, sampling=sampling)
    large = replace(large, scratchpad="What do you see?", scratch_round=6, all_text=True)
    for bits, positions in product((None, 8, 4), ("shrink", "append")):
        for mode in ("streaming", "recompute", "window", "full"):
            yield replace(large, mode=mode, kv_bits=bits, pos_mode=positions)
