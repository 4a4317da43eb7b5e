"""Engines with scripted tokens, whose thread can be held before any of them."""

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence

import numpy as np

from streaming_vlm_mlx.config import PixelConfig, SamplingConfig, StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.async_engine import Engine, Loader
from streaming_vlm_mlx.stream.events import Event, GenerationResult, Loading, SpanMap, SpanView
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, Ids
from streaming_vlm_mlx.video.chunk import Chunk
from tests.stream.streams import make_bundle

PATIENCE = 30.0
TEXT = "one two three"
ONE, TWO, THREE, SILENCE, IM_END = 825, 1378, 2326, 2503, 151645
SCRIPT = (ONE, TWO, THREE, SILENCE, IM_END)
CONFIG = StreamConfig(
    window=2,
    text_round=2,
    sink=None,
    pixels=PixelConfig(min_pixels=28 * 28),
    sampling=SamplingConfig(max_new_tokens=9),
)


class Script:
    """A vocabulary that returns the next token of `words` for any row, and waits where the test holds it.

    Attributes:
        said: how many tokens were returned.
    """

    def __init__(self, inner: CompactVocabulary, words: Sequence[int] = SCRIPT) -> None:
        self._inner, self._words = inner, itertools.cycle(words)
        self.said = 0
        self._hold_at: int | None = None
        self._held, self._go = threading.Event(), threading.Event()

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def digest(self) -> str:
        """See the inner vocabulary."""
        return self._inner.digest

    def to_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """See the inner vocabulary."""
        return self._inner.to_rows(ids)

    def to_ids(self, rows: Sequence[int] | Ids) -> Ids:
        """See the inner vocabulary."""
        return self._inner.to_ids(rows)

    def to_id(self, row: int) -> int:
        """Return the script's next token."""
        if self.said == self._hold_at:
            self._held.set()
            assert self._go.wait(PATIENCE)
        self.said += 1
        return next(self._words)

    def hold_at(self, word: int) -> None:
        """Hold the engine's thread before the token of that number, counted from 0."""
        self._hold_at = word
        self._held.clear()
        self._go.clear()

    async def held(self) -> None:
        """Return when the thread waits."""
        assert await asyncio.to_thread(self._held.wait, PATIENCE)

    def go(self) -> None:
        """Release the thread."""
        self._hold_at = None
        self._go.set()


def make_loader(tokenizer: Tokenizer, script: Script) -> Loader:
    """Return a loader of a small model that generates `script`."""

    def load(report: Callable[[Loading], None]) -> tuple[str, ModelBundle]:
        report(Loading("weights", 0, 1))
        return "small", make_bundle(tokenizer, script)

    return load


def make_chunk(index: int, height: int = 28, width: int = 56) -> Chunk:
    """Return a second of two grey frames."""
    frames = np.full((2, height, width, 3), 40 * index % 256, np.uint8)
    return Chunk(index, float(index), index + 1.0, frames, (float(index), index + 0.5))


def make_chunks(count: int, start: int = 0) -> Iterator[Chunk]:
    """Yield seconds."""
    return map(make_chunk, range(start, start + count))


async def as_they_come(chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    """Yield `chunks` as a live feed does."""
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def gather(engine: Engine, chunks: Iterable[Chunk] | AsyncIterable[Chunk]) -> list[Event]:
    """Play to the end."""
    return [event async for event in engine.play(chunks)]


async def next_of(events: AsyncIterator[Event], kind: type) -> Event:
    """Return the next event of that kind."""
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} came")


async def gather_rest(events: AsyncIterator[Event]) -> list[Event]:
    """Play on to the end."""
    return [event async for event in events]


async def finish_submitted(engine: Engine) -> None:
    """Return when the thread has finished all submitted work."""
    await asyncio.wrap_future(engine.submit(lambda: None))


def done_texts(events: Iterable[Event]) -> list[str]:
    """Return the text of every result."""
    return [event.text for event in events if isinstance(event, GenerationResult)]


def views(event: Event) -> tuple[SpanView, ...]:
    """Return the spans of a span map."""
    assert isinstance(event, SpanMap)
    return event.spans


def rounds(event: Event, kind: str) -> list[int]:
    """Return the rounds of the spans of that kind."""
    return [view.round for view in views(event) if view.kind == kind]


def plain(value: object) -> bool:
    """Return whether `value` holds plain Python values only."""
    if dataclasses.is_dataclass(value):
        return all(plain(getattr(value, f.name)) for f in dataclasses.fields(value))
    if type(value) is tuple:
        return all(map(plain, value))
    return type(value) in (int, float, str, bool, type(None))


def engine_threads() -> list[threading.Thread]:
    """Return the engine threads of this process."""
    return [t for t in threading.enumerate() if t.name == "svm-engine"]
