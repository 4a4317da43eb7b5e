"""Replay of a session without a model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.hub_cache import checkpoint_name
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.shipped import CHECKPOINT, NAME
from streaming_vlm_mlx.stream.events import Event, GenerationResult, Ready, SecondStarted, TextPiece

if TYPE_CHECKING:
    from streaming_vlm_mlx.video.chunk import Chunk


class Replayer:
    """A commentator that repeats the last result of each second, at the pace of the session; it ignores questions."""

    def __init__(self, record: SessionRecord, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Replay `record`; `sleep` waits for a number of seconds."""
        self._record, self._sleep = record, sleep
        self._seconds = {round(second.start): second for second in record.seconds}
        self._skipped = {round(second.start): second for second in record.skipped}
        self._cancelled = False
        self._ready = False

    @property
    def config(self) -> StreamConfig:
        """The settings that the session ended with."""
        return StreamConfig.from_dict(self._record.settings)

    async def play(
        self, chunks: "AsyncIterable[Chunk]", due: Callable[[float, float], Awaitable[bool]]
    ) -> AsyncGenerator[Event]:
        """Yield the recorded events of `chunks`, each at its turn by `due`, and the seconds that were skipped."""
        self._cancelled = False
        if not self._ready:
            self._ready = True
            yield Ready(recorded_name(self._record), 0)
        async for chunk in chunks:
            wanted = await due(chunk.start, chunk.end)
            if self._cancelled:
                return
            second, skipped = self._seconds.get(chunk.index), self._skipped.get(chunk.index)
            if wanted and skipped:
                yield replace(skipped, index=chunk.index)
            if wanted and second:
                yield SecondStarted(chunk.index, second.start, second.end)
                async for piece in self._words(chunk.index, second):
                    yield piece
                yield replace(second, index=chunk.index)

    def ask(self, question: str) -> None:
        """Do nothing: there is no model to answer."""

    def configure(self, config: StreamConfig) -> None:
        """Do nothing: the commentary is recorded."""

    def cancel(self) -> None:
        """End the play under way at its next word."""
        self._cancelled = True

    async def reanchor(self) -> None:
        """End the play under way."""
        self.cancel()

    def close(self, timeout: float) -> None:  # noqa: ARG002 - the name is the engine's
        """End the play under way; there is no thread to wait for."""
        self.cancel()

    async def _words(self, index: int, second: GenerationResult) -> AsyncGenerator[Event]:
        words = second.text.split(" ")
        await self._sleep(min(second.timings.first_text_ms / 1e3, 1.0))
        for word in words:
            if self._cancelled:
                return
            yield TextPiece(index, f"{word} ")
            await self._sleep(min(second.timings.decode_ms / 1e3, 1.0) / len(words))


def recorded_name(record: SessionRecord) -> str:
    """Return the name of the commentator in a replay of `record`."""
    folder, shipped = Path(record.model), CHECKPOINT.parts[-3:]
    # The session may come from another installation.
    name = NAME if folder.parts[-len(shipped) :] == shipped else checkpoint_name(folder)
    return f"{name}, recorded" if name else "recorded"
