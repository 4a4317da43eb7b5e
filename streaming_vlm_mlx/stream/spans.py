"""The spans of a stream's sequence: runs of tokens with one role, which know where their tokens lie in the cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.positions import mrope_positions
from streaming_vlm_mlx.stream.events import SpanKind, SpanView

Ids = npt.NDArray[np.int32]
Part = Literal[
    "head", "previous", "open", "time", "stamp", "video", "query", "close", "assistant", "scratch", "text", "end"
]

USER_TURN: tuple[Part, ...] = ("open", "time", "stamp", "video", "query", "close")
ASSISTANT_TURN: tuple[Part, ...] = ("assistant", "scratch", "text", "end")
SAID: tuple[Part, ...] = ("previous", "text")
_VIEW: dict[Part, SpanKind] = {
    "head": "system",
    "previous": "previous",
    **dict.fromkeys(("stamp", "video"), "video"),
    **dict.fromkeys(("open", "time", "query", "close"), "user"),
    **dict.fromkeys(ASSISTANT_TURN, "text"),
}


@dataclass(frozen=True)
class Span:
    """A run of tokens with one role.

    Attributes:
        part: its role in the chat template.
        round: the turn that it belongs to, counted from the stream's start or last seek; -1 for the head and the
            previous text.
        ids: the token ids.
        slots: each token's place in the sequence before pruning, which is its place in the cache.
        grid: merged patches of a video span in time, rows and columns.
        shown: which tokens of the whole video, marks included, a span has that others were left out of; else None.
    """

    part: Part
    round: int
    ids: Ids
    slots: Ids
    grid: tuple[int, int, int] | None = None
    shown: npt.NDArray[np.bool_] | None = None

    @property
    def whole(self) -> int:
        """Tokens of the span and of its video that were left out."""
        return len(self.ids) if self.shown is None else len(self.shown)

    def cut(self, *parts: slice) -> "Span":
        """Return the span with only the tokens in the slices `parts`."""
        return replace(
            self,
            ids=np.concatenate([self.ids[p] for p in parts]),
            slots=np.concatenate([self.slots[p] for p in parts]),
        )

    def view(self) -> SpanView:
        """Return the plain record of this span that leaves the engine."""
        return SpanView(_VIEW[self.part], self.round, len(self.ids), self.whole - len(self.ids))


Spans = tuple[Span, ...]


def new_span(part: Part, number: int, ids: Sequence[int], grid: tuple[int, int, int] | None = None) -> Span:
    """Return a span that is not in a sequence yet; all of its slots are 0."""
    return Span(part, number, np.asarray(ids, np.int32), np.zeros(len(ids), np.int32), grid)


def number_slots(spans: Iterable[Span]) -> Spans:
    """Return `spans` with each token's slot set to its place in the sequence."""
    out, at = [], 0
    for span in spans:
        out.append(replace(span, slots=np.arange(at, at + len(span.ids), dtype=np.int32)))
        at += len(span.ids)
    return tuple(out)


def join_ids(spans: Iterable[Span]) -> Ids:
    """Return the token ids of the whole sequence, int32 [n]."""
    return np.concatenate([s.ids for s in spans])


def join_video(spans: Iterable[Span], video_pad: int) -> npt.NDArray[np.bool_]:
    """Return which tokens stand for video, bool [n]; a `video_pad` that the model generated does not."""
    return np.concatenate([(s.ids == video_pad) & (s.part == "video") for s in spans])


def join_slots(spans: Iterable[Span]) -> Ids:
    """Return each token's place in the sequence before pruning, int32 [n]."""
    return np.concatenate([s.slots for s in spans])


def merge_views(spans: Iterable[Span]) -> tuple[SpanView, ...]:
    """Return the sequence for display: neighbours of one kind and round are joined, empty spans are left out."""
    out: list[SpanView] = []
    for view in (s.view() for s in spans if len(s.ids)):
        if out and (out[-1].kind, out[-1].round) == (view.kind, view.round):
            last = out[-1]
            out[-1] = replace(last, tokens=last.tokens + view.tokens, left_out=last.left_out + view.left_out)
        else:
            out.append(view)
    return tuple(out)


def positions(spans: Iterable[Span], start: int, config: StreamConfig, steps_per_grid: float) -> npt.NDArray[np.int64]:
    """Return the M-RoPE positions [3, n] of `spans`, the first token at `start`; see `mrope_positions`.

    With `config.all_text`, video counts up like text. `steps_per_grid` is the number of positions that one temporal
    step of a video takes. Tokens of video that are left out keep their positions free.
    """
    spans = list(spans)
    shown = [np.ones(len(span.ids), np.bool_) if span.shown is None else span.shown for span in spans]
    pieces = [(len(s), None if config.all_text else span.grid) for s, span in zip(shown, spans, strict=True)]
    whole = mrope_positions(pieces, start, steps_per_grid)
    return whole[:, np.concatenate(shown)] if spans else whole
