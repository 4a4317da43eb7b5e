"""What leaves the engine: plain Python, no arrays, safe to hand to another thread."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from streaming_vlm_mlx.config_io import FromDict, demand
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST
from streaming_vlm_mlx.memory import Memory

# The most characters of a second.
LONGEST_TEXT = 100_000

SpanKind = Literal["system", "previous", "user", "video", "text"]


@dataclass(frozen=True, slots=True)
class SpanView:
    """One stretch of the kept sequence, for the cache strip.

    Attributes:
        kind: ``system`` (the head and its markup), ``previous`` (the long memory), ``user`` (times and queries),
            ``video``, ``text`` (commentary).
        round: the turn that it belongs to, counted from the stream's start or last seek; -1 for the head.
        tokens: how many tokens it holds.
        left_out: how many tokens of its video were left out, because their patches had not changed.
    """

    kind: SpanKind
    round: int
    tokens: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Timings(FromDict):
    """Milliseconds of one second's work.

    Attributes:
        vision_ms: of the vision tower, including work done before the second's turn.
        prefill_ms: of pruning and prefill.
        decode_ms: of generating tokens.
        first_text_ms: from the start of the second's turn to its first text piece.
        total_ms: of all the work.
    """

    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    first_text_ms: float = 0.0
    total_ms: float = 0.0


@dataclass
class StepTimes:
    """When the steps of a second's work were done, by the session's clock.

    Attributes:
        begun: the start of the second's turn.
        seen: the end of the vision tower's work.
        ahead: seconds of that work that were done before.
        prefilled: the end of prefill; 0 where nothing is generated.
        first_text: the first piece of text; 0 without any.
        done: the end of all work; 0 where nothing is generated.
    """

    begun: float
    seen: float
    ahead: float = 0.0
    prefilled: float = 0.0
    first_text: float = 0.0
    done: float = 0.0

    def timings(self) -> Timings:
        """Return the durations."""
        prefilled, done = self.prefilled or self.seen, self.done or self.seen
        return Timings(
            vision_ms=1e3 * (self.seen - self.begun + self.ahead),
            prefill_ms=1e3 * (prefilled - self.seen),
            decode_ms=1e3 * (done - prefilled),
            first_text_ms=1e3 * ((self.first_text or done) - self.begun),
            total_ms=1e3 * (done - self.begun + self.ahead),
        )


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is loading: `done` of `total` steps, and the step under way."""

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
    """A piece of commentary of the second under way; the pieces of a second join to its text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class SpanMap:
    """What the model remembers at the start of a second, in order, and what it just dropped."""

    index: int
    spans: tuple[SpanView, ...]
    dropped: tuple[SpanView, ...]


@dataclass(frozen=True)
class GenerationResult(FromDict):
    """The record of one second.

    A session yields it, the journal and the exports keep it, and the player replays it.

    Attributes:
        index: the second's number, as in its chunk.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        text: the commentary without markup and closing `` ...``; empty when the model stayed silent. When the viewer
            asked a question, the first line is the answer.
        tokens: tokens generated, including the closing ones and those of the scratchpad.
        video_tokens: tokens of video that were prefilled.
        still_tokens: tokens of video that were left out, because their patches had not changed (`drop_still`).
        cache_tokens: tokens in the cache afterwards.
        cache_bytes: bytes of the cache's blocks.
        query: the viewer's question in this second, else empty.
        timings: how long the work took.
        memory: bytes in use afterwards; None where nobody measured them.
        notes: what the model wrote on its scratchpad before the commentary.
    """

    index: int
    start: float
    end: float
    text: str
    tokens: int = 0
    video_tokens: int = 0
    cache_tokens: int = 0
    cache_bytes: int = 0
    query: str = ""
    timings: Timings = field(default_factory=Timings)
    memory: Memory | None = None
    notes: str = ""
    still_tokens: int = 0

    def check(self) -> None:
        """Check the times and the length of the text.

        Raises:
            SvmError: a time is not a number of seconds of a clip, or the text is too long for a second.
        """
        _check_times(self)
        for name in ("text", "query", "notes"):
            demand(len(getattr(self, name)) <= LONGEST_TEXT, f"{name} of a second", "too long", "a second's text")

    @property
    def answer(self) -> str:
        """The answer to the viewer's question; empty when nobody asked."""
        return self.text.partition("\n")[0] if self.query else ""

    @property
    def commentary(self) -> str:
        """The text without the answer to the viewer's question."""
        return self.text.partition("\n")[2] if self.query else self.text

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: the second lacks its index, times or text, or a value is of another type than its field.
        """
        _require(values, "index", "start", "end", "text")
        # Format 1 of the session files calls the notes "noted".
        return super().from_dict({"notes": values.get("noted"), **values})


def still_share(seconds: Iterable[GenerationResult]) -> float | None:
    """Return the share of the video tokens of `seconds` that were left out; None without video."""
    counts = [(second.still_tokens, second.video_tokens) for second in seconds]
    still = sum(left_out for left_out, _ in counts)
    whole = still + sum(shown for _, shown in counts)
    return still / whole if whole else None


@dataclass(frozen=True)
class Skipped(FromDict):
    """A second without commentary, because the model had no time for it.

    Attributes:
        index: the second's number, as in its chunk.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
    """

    index: int
    start: float
    end: float

    def check(self) -> None:
        """Check the times.

        Raises:
            SvmError: a time is not a number of seconds of a clip.
        """
        _check_times(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: the second lacks its index or times, or a value is of another type than its field.
        """
        _require(values, "index", "start", "end")
        return super().from_dict(values)


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine stopped; `message` is one line that names the cause and the way out."""

    message: str


Event = Loading | Ready | SecondStarted | TextPiece | SpanMap | GenerationResult | Skipped | Failed


def _check_times(second: GenerationResult | Skipped) -> None:
    for name in ("start", "end"):
        time = getattr(second, name)
        # NaN is neither above nor below.
        demand(-LONGEST <= time <= LONGEST, f"{name} of a second", time, "a time in a clip, in seconds")


def _require(values: Mapping[str, Any], *names: str) -> None:
    if not isinstance(values, Mapping):
        raise SvmError("a second is not an object; choose a file that svm-tui exported.")
    missing = [name for name in names if values.get(name) is None]
    if missing:
        raise SvmError(f"a second lacks its {missing[0]}; choose a file that svm-tui exported.")
