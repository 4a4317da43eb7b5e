"""What a stretch of a clip is held against: the words that are truly said in it, and what happens, where that is known.

Words of a model have no times of their own within their second; they are spread evenly over it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import floor

from streaming_vlm_mlx.data.records import StreamingRecord
from streaming_vlm_mlx.matches.tennis.questions import descriptions
from streaming_vlm_mlx.matches.truth import Event, Truth, Word
from streaming_vlm_mlx.stream.events import GenerationResult

# Seconds by which the words about an event may come behind it.
LAG = 3.0


@dataclass(frozen=True, slots=True)
class Reference:
    """The truth of a stretch of a clip.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        words: what is said.
        events: what happens, as a simulated match's sidecar has it, and what happened so shortly before that it may be
            spoken of; None where nobody wrote that down.
        descriptions: what is to be seen, as `matches.tennis.description` puts it, by whole seconds of the clip.
    """

    start: float
    end: float
    words: tuple[Word, ...]
    events: tuple[Event, ...] | None = None
    descriptions: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of_truth(cls, truth: Truth, start: float, end: float) -> "Reference":
        """Return what a sidecar says of the stretch from `start` to `end`."""
        words = tuple(w for w in truth.words if start <= w.start < end)
        events = tuple(e for e in truth.events if start - LAG <= e.time < end)
        return cls(start, end, words, events, {floor(begun): answer for begun, _, _, answer in descriptions(truth)})

    @classmethod
    def of_record(cls, record: StreamingRecord) -> "Reference":
        """Return what a record says, which knows of words alone."""
        words = [word for turn in record.turns for word in spread(turn.commentary, turn.start, turn.end)]
        return cls(record.video_start, record.video_end, tuple(words))


def said_words(seconds: Iterable[GenerationResult]) -> tuple[Word, ...]:
    """Return what was said, word by word."""
    return tuple(word for second in seconds for word in spread(second.commentary, second.start, second.end))


def spread(text: str, start: float, end: float) -> Iterator[Word]:
    """Yield the words of `text`, spread evenly from `start` to `end`."""
    words = text.split()
    step = (end - start) / max(len(words), 1)
    return (Word(start + i * step, start + (i + 1) * step, word) for i, word in enumerate(words))
