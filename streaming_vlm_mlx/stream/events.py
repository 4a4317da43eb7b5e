"""What leaves the engine: plain Python, no arrays, safe to hand to another thread."""

from dataclasses import dataclass
from typing import Literal

from streaming_vlm_mlx.memory import Memory

SpanKind = Literal["system", "previous", "user", "video", "text"]


@dataclass(frozen=True, slots=True)
class SpanView:
    """One stretch of the kept sequence, for the cache strip.

    Attributes:
        kind: ``system`` (the sink's head and markup), ``previous`` (the long memory), ``user`` (times and queries),
            ``video``, ``text`` (commentary).
        round: the second that it belongs to, -1 for the head.
        tokens: how many tokens it holds.
    """

    kind: SpanKind
    round: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one second's work; `first_text_ms` counts from its start to its first text piece."""

    vision_ms: float
    prefill_ms: float
    decode_ms: float
    first_text_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read: `done` of `total` steps, and what is read now."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; `checkpoint` is its name, `parameters` its number of weights."""

    checkpoint: str
    parameters: int


@dataclass(frozen=True, slots=True)
class SecondStarted:
    """Work on a second began."""

    index: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of commentary of the second under way; pieces of a second join to its text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class SpanMap:
    """What the model remembers at the start of a second, in order, and what just went."""

    index: int
    spans: tuple[SpanView, ...]
    dropped: tuple[SpanView, ...]


@dataclass(frozen=True, slots=True)
class SecondDone:
    """A second is spoken.

    Attributes:
        index: the second, as in its chunk.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        text: the commentary, its markup and closing `` ...`` removed; empty when the model kept silent.
        tokens: tokens generated, the closing ones counted.
        video_tokens: tokens of video that were prefilled.
        cache_tokens: tokens in the cache afterwards.
        cache_bytes: bytes of the cache's blocks.
        query: the question that went into this second, else empty.
        timings: milliseconds.
        memory: bytes.
        noted: what the model told itself on its scratchpad before it spoke.
    """

    index: int
    start: float
    end: float
    text: str
    tokens: int
    video_tokens: int
    cache_tokens: int
    cache_bytes: int
    query: str
    timings: Timings
    memory: Memory
    noted: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine stopped; `message` is one line that names the thing and the way out."""

    message: str


Event = Loading | Ready | SecondStarted | TextPiece | SpanMap | SecondDone | Failed
