"""What a stream keeps and what goes, as pure functions over records of its sequence.

The rules are the published StreamingVLM program's (arXiv 2510.09608). A span knows where its tokens lie in the cache:
pruning is a matter of records, and the cache follows with one gather.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream.events import SpanKind, SpanView

Ids = npt.NDArray[np.int32]
Part = Literal["head", "previous", "open", "time", "video", "query", "close", "assistant", "scratch", "text", "end"]

USER_TURN: tuple[Part, ...] = ("open", "time", "video", "query", "close")
ASSISTANT_TURN: tuple[Part, ...] = ("assistant", "scratch", "text", "end")
SAID: tuple[Part, ...] = ("previous", "text")
# What hides a token: nothing; or that only what is spoken sees it.
SEEN, SPOKEN = 0, -1
_VIEW: dict[Part, SpanKind] = {
    "head": "system",
    "previous": "previous",
    "video": "video",
    **dict.fromkeys(("open", "time", "query", "close"), "user"),
    **dict.fromkeys(ASSISTANT_TURN, "text"),
}


@dataclass(frozen=True)
class Span:
    """A stretch of the sequence with one role.

    Attributes:
        part: its role in the layout of turns.
        round: the second that it belongs to, counted from the stream's anchor; -1 for head and previous text.
        ids: the tokens.
        slots: each token's place in the sequence before it was pruned, which is its place in the cache.
        grid: merged patches of a video span on the axes time, rows, columns.
    """

    part: Part
    round: int
    ids: Ids
    slots: Ids
    grid: tuple[int, int, int] | None = None

    def cut(self, *parts: slice) -> "Span":
        """Return the span with only the tokens in `parts`."""
        return replace(
            self,
            ids=np.concatenate([self.ids[p] for p in parts]),
            slots=np.concatenate([self.slots[p] for p in parts]),
        )

    def view(self) -> SpanView:
        """Return what leaves the engine of it."""
        return SpanView(_VIEW[self.part], self.round, len(self.ids))


Spans = tuple[Span, ...]


def new_span(part: Part, number: int, ids: Sequence[int], grid: tuple[int, int, int] | None = None) -> Span:
    """Make a span that is not in the sequence yet."""
    return Span(part, number, np.asarray(ids, np.int32), np.zeros(len(ids), np.int32), grid)


def number_slots(spans: Iterable[Span]) -> Spans:
    """Give every token its place in the sequence as it stands."""
    out, at = [], 0
    for span in spans:
        out.append(replace(span, slots=np.arange(at, at + len(span.ids), dtype=np.int32)))
        at += len(span.ids)
    return tuple(out)


def join_ids(spans: Iterable[Span]) -> Ids:
    """Return the ids of the whole sequence."""
    return np.concatenate([s.ids for s in spans])


def join_video(spans: Iterable[Span], video_pad: int) -> npt.NDArray[np.bool_]:
    """Return which tokens of the sequence stand for video; a `video_pad` that the model itself spoke does not."""
    return np.concatenate([(s.ids == video_pad) & (s.part == "video") for s in spans])


def join_slots(spans: Iterable[Span]) -> Ids:
    """Return where each token of the sequence lay before it was pruned."""
    return np.concatenate([s.slots for s in spans])


def hidden_from_looking(spans: Spans) -> Ids:
    """Return what hides each token of the sequence from what only looks, a question or a scratchpad, int32 [n].

    `SEEN` where all behind it see it, `SPOKEN` where it was said, so that it sees all; on a scratchpad the line's
    number, from 1 up, since a line sees itself and no other. The token that ends a line is the first that speaks.
    """
    return np.concatenate([_hidden(span) for span in spans])


def _hidden(span: Span) -> Ids:
    value = span.round + 1 if span.part == "scratch" else SPOKEN if span.part in SAID else SEEN
    hidden = np.full(len(span.ids), value, np.int32)
    if span.part == "scratch":
        hidden[-1:] = SPOKEN
    return hidden


def merge_views(spans: Iterable[Span]) -> tuple[SpanView, ...]:
    """Return the sequence as a viewer sees it, neighbours of one kind and round joined, empty ones left out."""
    out: list[SpanView] = []
    for view in (s.view() for s in spans if len(s.ids)):
        if out and (out[-1].kind, out[-1].round) == (view.kind, view.round):
            out[-1] = replace(out[-1], tokens=out[-1].tokens + view.tokens)
        else:
            out.append(view)
    return tuple(out)


def prune(spans: Spans, now: int, config: StreamConfig) -> tuple[Spans, Spans]:
    """Return what is kept for second `now` and what is dropped, each in order.

    Commentary that is older than `text_round` moves to the end of the previous text without its last token, the
    closing `` ...``; video that is older than `window` goes; a user turn goes when both of its halves are old; the
    previous text keeps its first `sink` and last `slide` tokens. A scratchpad's line goes after `scratch_round`.
    """
    if config.mode == "window":
        return _prune_window(spans, now, config)
    if config.mode == "full" or now == 0:
        return spans, ()
    text_before = now - config.text_round
    kept, moved, dropped = [], [], []
    for span in spans:
        if span.part == "text" and span.round <= text_before:
            moved.append(span.cut(slice(0, -1)))
            dropped.append(span.cut(slice(max(len(span.ids) - 1, 0), None)))
        elif _is_old(span, now, config):
            dropped.append(span)
        else:
            kept.append(span)
    at = next(k for k, span in enumerate(kept) if span.part == "previous")
    kept[at] = replace(
        kept[at],
        ids=np.concatenate([kept[at].ids, *(m.ids for m in moved)]),
        slots=np.concatenate([kept[at].slots, *(m.slots for m in moved)]),
    )
    kept[at], middle = trim_previous(kept[at], config)
    return tuple(kept), (middle, *dropped)


def _prune_window(spans: Spans, now: int, config: StreamConfig) -> tuple[Spans, Spans]:
    """Drop every turn when a window of `window` seconds is full."""
    if now == 0 or now % config.window:
        return spans, ()
    return tuple(s for s in spans if s.round < 0), tuple(s for s in spans if s.round >= 0)


def _is_old(span: Span, now: int, config: StreamConfig) -> bool:
    if span.round < 0:
        return False
    age = now - span.round
    if span.part == "scratch":
        return age >= config.scratch_round
    if span.part in ASSISTANT_TURN:
        return age >= config.text_round
    if age >= max(config.window, config.text_round):
        return True
    if span.part == "video":
        return age >= config.window
    return span.part == "time" and age >= config.text_round


def trim_previous(previous: Span, config: StreamConfig) -> tuple[Span, Span]:
    """Cut the previous text to its first `sink` and last `slide` tokens; return what is kept and what goes.

    The published program counts the turn's end mark among the last `slide`.
    """
    size = len(previous.ids)
    if config.sink is None or config.slide is None or size + 1 <= config.sink + config.slide:
        return previous, previous.cut(slice(0, 0))
    tail = size - max(config.slide - 1, 0)
    return previous.cut(slice(0, config.sink), slice(tail, None)), previous.cut(slice(config.sink, tail))


def reanchor(spans: Spans, config: StreamConfig) -> tuple[Spans, Spans]:
    """Empty the windows after a seek: commentary moves to the previous text, every turn goes."""
    now = max(s.round for s in spans) + 1
    return prune(spans, now, replace(config, mode="streaming", window=1, text_round=1, scratch_round=1))


def positions(spans: Iterable[Span], start: int, config: StreamConfig, steps_per_grid: float) -> npt.NDArray[np.int64]:
    """Return M-RoPE positions [3, n] of `spans`, which begin at `start` (Qwen2.5-VL's rule).

    Args:
        spans: text counts up on all axes; the patches of a video take (time, row, column) from its start, and what
            follows goes on behind its largest position.
        start: position of the first token.
        config: with `all_text`, video counts up like text.
        steps_per_grid: positions that one temporal step of a video takes (tokens a second × seconds a step).
    """
    out = []
    for span in spans:
        size = len(span.ids)
        if span.grid is None or config.all_text:
            rows = np.broadcast_to(np.arange(start, start + size), (3, size))
        else:
            rows = _video_positions(span.grid, start, steps_per_grid)
        out.append(rows)
        start = int(rows.max()) + 1 if size else start
    return np.concatenate(out, axis=1, dtype=np.int64)


def _video_positions(grid: tuple[int, int, int], start: int, steps_per_grid: float) -> npt.NDArray[np.int64]:
    """Return positions [3, 1 + patches + 1]: the span's start mark, its patches, its end mark."""
    time, row, column = np.indices(grid).reshape(3, -1)
    patches = np.stack([np.floor(time * steps_per_grid).astype(np.int64), row, column]) + start + 1
    mark = np.full((3, 1), start)
    return np.concatenate([mark, patches, np.full((3, 1), patches.max() + 1)], axis=1)
