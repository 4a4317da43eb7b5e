"""Writes the turns of a stream as spans: the head, a user turn and its reply."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.positions import Grid
from streaming_vlm_mlx.stream.spans import Span, Spans, new_span
from streaming_vlm_mlx.text.chat_template import SAID_BEFORE, ChatTemplate
from streaming_vlm_mlx.text.detokenizer import clean_commentary
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import Vocabulary

Encode = Callable[[str], Sequence[int]]


def video_spans(
    template: ChatTemplate, encode: Encode, number: int, start: float, grid: Grid, fps: float, temporal_patch_size: int
) -> Spans:
    """Return the video of turn `number`: one span, or where the template stamps times, two for each temporal step.

    A stamp is the mean time of the first and the last frame of its step, as Qwen3-VL's processor (transformers) writes.

    Args:
        template: how a video is written.
        encode: text to ids.
        number: counted from the stream's start or last seek.
        start: time of the first frame, in seconds from the clip's beginning.
        grid: merged patches in time, rows and columns.
        fps: frames a second.
        temporal_patch_size: frames in a temporal step; the last step of a second is filled with its last frame.
    """
    if not template.has_stamps:
        return (new_span("video", number, template.video(math.prod(grid)), grid),)
    steps, rows, columns = grid
    spans: list[Span] = []
    frames = max(int(fps), 1)
    steps_per_second = math.ceil(frames / temporal_patch_size)
    for step in range(steps):
        second, number_in_second = divmod(step, steps_per_second)
        first = number_in_second * temporal_patch_size
        last = min(first + temporal_patch_size, frames) - 1
        time = start + second + (first + last) / 2 / fps
        spans.append(new_span("stamp", number, encode(template.stamp(time))))
        spans.append(new_span("video", number, template.video(rows * columns), (1, rows, columns)))
    return tuple(spans)


def _leave_out(spans: Spans, kept: npt.NDArray[np.bool_]) -> Spans:
    """Return the video `spans` of a turn with only those of their tokens that are `kept`; their marks stay."""
    out, at = list[Span](), 0
    for span in spans:
        if span.part != "video":
            out.append(span)
            continue
        end = at + len(span.ids) - 2
        shown = np.concatenate([[True], kept[at:end], [True]])
        out.append(replace(span, ids=span.ids[shown], slots=span.slots[shown], shown=shown))
        at = end
    return tuple(out)


class TurnWriter:
    """Writes spans in the markup of one chat template and the ids of one vocabulary."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._template, self._tokenizer, self._vocabulary = template, tokenizer, vocabulary

    def head(self, previous: str) -> Spans:
        """Return what comes before the first second: the system turn and, where there is one, that of `previous`."""
        template = self._template
        system_turn = self._known(template.system_turn)
        if template.rules.one_turn:
            line = (new_span("previous", -1, self._line(previous)),) if previous.strip() else ()
            return (new_span("head", -1, (*system_turn, *template.user_open)), *line)
        if not template.has_previous:
            return (new_span("head", -1, system_turn),)
        return (
            new_span("head", -1, (*system_turn, *template.previous_open)),
            new_span("previous", -1, self._encode(previous)),
            new_span("head", -1, template.turn_close),
        )

    def video(
        self,
        number: int,
        start: float,
        grid: Grid,
        fps: float,
        temporal_patch_size: int,
        kept: npt.NDArray[np.bool_] | None = None,
    ) -> Spans:
        """Return the video of turn `number`; see `video_spans`. Where it counts up like text, it has no grid.

        With `kept`, [patches], only these tokens are written.
        """
        spans = video_spans(self._template, self._encode, number, start, grid, fps, temporal_patch_size)
        spans = spans if kept is None else _leave_out(spans, kept)
        if number == 0 or self._template.rules.later_grids:
            return spans
        return tuple(replace(span, grid=None) for span in spans)

    def user(self, number: int, start: float, end: float, video: Spans, question: str, query: str) -> Spans:
        """Return the user turn `number` and the opening of its assistant turn.

        Args:
            number: counted from the stream's start or last seek.
            start: start of its first second, in seconds from the clip's beginning.
            end: end of its last second.
            video: the turn's video, empty without one.
            question: the question that its reply begins to answer, or empty.
            query: the viewer's request, where it is new; a template without a place for it ignores it.
        """
        template = self._template
        if template.rules.asks_after_video:
            query, question = question or query, ""
        has_query = bool(query) and template.has_query
        return (
            new_span("open", number, template.user_open),
            new_span("time", number, self._encode(template.time(start, end, question, not number))),
            *video,
            *([new_span("query", number, self._encode(query))] if has_query else []),
            new_span("close", number, template.turn_close),
            new_span("assistant", number, template.assistant_open(bool(question))),
        )

    def one_turn(self, kept: Spans, number: int, video: Spans, question: str, query: str) -> Spans:
        """Return the whole sequence of turn `number`, whose user turn holds all that is kept.

        Args:
            kept: the spans that `prune` kept: the head, earlier video and commentary.
            number: counted from the stream's start or last seek.
            video: the turn's video, empty without one.
            question: the viewer's question, or empty.
            query: the viewer's standing request.
        """
        template = self._template
        head, *spoken = (s for s in kept if s.part in ("head", "previous", "text") and len(s.ids))
        lines = [replace(s, ids=np.array(self._line(self._tokenizer.decode(s.ids)), np.int32)) for s in spoken]
        return (
            head,
            *([new_span("open", number, self._encode(SAID_BEFORE))] if lines else []),
            *lines,
            *(s for s in kept if s.part in ("stamp", "video")),
            *video,
            new_span("query", number, self._encode(template.request(query, question))),
            new_span("close", number, template.turn_close),
            new_span("assistant", number, template.assistant_open()),
        )

    def reply(self, number: int, said: Sequence[int], scratch: Sequence[int]) -> Spans:
        """Return the reply to turn `number`: the ids of its scratchpad and commentary, and the turn's end mark."""
        return (
            new_span("scratch", number, scratch),
            new_span("text", number, said),
            new_span("end", number, self._template.turn_close),
        )

    def _encode(self, text: str) -> list[int]:
        """Return the ids of `text` that the model's vocabulary has."""
        return self._known(self._tokenizer.encode(text))

    def _line(self, text: str) -> list[int]:
        """Return the ids of `text` as a line of its own."""
        return self._encode(clean_commentary(text) + "\n")

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Return `ids`, with the vocabulary's substitute for those that it does not have."""
        return [int(i) for i in self._vocabulary.to_ids(self._vocabulary.to_rows(ids))]
