"""Several clips, one after the other, under one model."""

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tui.player.controller import Commentator

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.stream.events import Event
    from streaming_vlm_mlx.video.chunk import Chunk
    from tui.player.spec import Note, PlayerSpec


class Reusable(Commentator, Protocol):
    """A commentator that can begin anew, with another clip."""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""

    async def reset(self) -> None:
        """End the current `play` and forget everything."""


class ClipEngine:
    """The commentator of one clip of a playlist; the model behind it outlives the clip."""

    def __init__(self, engine: Reusable, name: str, config: "StreamConfig", used: bool) -> None:
        """Comment with `engine`, whose checkpoint is called `name`.

        Args:
            engine: runs the model.
            name: of the checkpoint, as shown.
            config: the settings that the clip begins with.
            used: whether another clip had the engine before.
        """
        self._engine, self._name, self._begins_with, self._used = engine, name, config, used
        self._released = False
        # Those that came before the engine has forgotten the other clip.
        self._questions: list[str] = []

    def release(self) -> None:
        """Leave the engine to another clip."""
        self._released = True

    @property
    def config(self) -> "StreamConfig":
        """The settings that the next second runs under."""
        return self._engine.config

    async def play(
        self, chunks: "AsyncIterable[Chunk]", due: Callable[[float, float], Awaitable[bool]]
    ) -> "AsyncGenerator[Event]":
        """Generate commentary as the engine does; at first forget the clip before."""
        from streaming_vlm_mlx.stream.events import Ready

        if self._used:
            self._engine.configure(self._begins_with)
            await self._engine.reset()
            self._used = False
            for question in self._questions:
                self._engine.ask(question)
            if self._engine.ready:
                # The engine says so once.
                yield Ready(self._name, 0)
        async with aclosing(self._engine.play(chunks, due)) as events:
            async for event in events:
                yield event

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""
        if self._used:
            self._questions.append(question)
        else:
            self._engine.ask(question)

    def configure(self, config: "StreamConfig") -> None:
        """Change the settings from the next second on."""
        self._begins_with = config
        self._engine.configure(config)

    def cancel(self) -> None:
        """End the current `play` at its next token."""
        self._engine.cancel()

    async def reanchor(self) -> None:
        """Empty the windows and keep the previous text."""
        await self._engine.reanchor()

    def close(self, timeout: float) -> None:
        """End the thread and wait for it at most `timeout` seconds, unless the engine is left to another clip."""
        if not self._released:
            self._engine.close(timeout)


class OneModel:
    """Makes the commentators of a playlist; all of them run the same model."""

    def __init__(self, make: "Callable[[Note], Reusable]", name: str, config: "StreamConfig") -> None:
        """Use the engine that `make` returns, of the checkpoint `name`; each clip begins with `config`."""
        self._make, self._name, self._config = make, name, config
        self._engine: Reusable | None = None
        self._last: ClipEngine | None = None
        # Each clip has a thread that makes its commentator, and the one of a clip that was left may still work.
        self._lock = threading.Lock()

    def make(self, note: "Note") -> Commentator:
        """Return the commentator of one more clip; may block, and raise `SvmError`."""
        with self._lock:
            if self._last:
                self._last.release()
            self._engine = self._engine or self._make(note)
            self._last = ClipEngine(self._engine, self._name, self._config, used=self._last is not None)
            return self._last

    def release(self) -> None:
        """Keep the model when the clip that has it is closed, since another one follows; may block."""
        with self._lock:
            if self._last:
                self._last.release()


class Playlist:
    """Opens clips by their number."""

    def __init__(self, clips: Sequence[str], open_clip: "Callable[[str, int], PlayerSpec]", loop: bool = False) -> None:
        """Play `clips`; `open_clip` returns the session of a clip and its number, and may raise `SvmError`.

        With `loop`, the first follows the last.
        """
        self._clips, self._open, self._loop = clips, open_clip, loop

    def open(self, number: int) -> "PlayerSpec":
        """Return the session of clip `number`, from which those beside it are found; may block.

        Raises:
            SvmError: the clip cannot be played.
        """
        spec = self._open(self._clips[number], number)
        if len(self._clips) == 1:
            return spec
        count = len(self._clips)
        name = f"{spec.clip} ({number + 1}/{count})"
        beside = (count - 1, count - 1) if self._loop else (number, count - number - 1)
        return replace(spec, clip=name, other=partial(self._other, number), beside=beside, loop=False)

    def _other(self, number: int, steps: int) -> "PlayerSpec | None":
        count = len(self._clips)
        # Once around is enough where no other clip can be played.
        if self._loop and abs(steps) <= count:
            return self.open((number + steps) % count)
        return self.open(number + steps) if 0 <= number + steps < count else None
