"""Which tokens are pruned each second: the attention sink, the text window and the video window.

The rules are those of the published StreamingVLM program (arXiv 2510.09608). Pruning changes the spans; the KV cache
follows with one gather, `KVCache.keep`.
"""

from dataclasses import replace

import numpy as np

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream.spans import ASSISTANT_TURN, Span, Spans
from streaming_vlm_mlx.text.chat_template import STYLES, ChatTemplate
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS


def prune(spans: Spans, now: int, config: StreamConfig) -> tuple[Spans, Spans]:
    """Return the spans kept for second `now` and the spans dropped, each in order.

    - Commentary older than `text_round` moves to the end of the previous text, without its last token, the closing
      `` ...``.
    - Video older than `window` is dropped with its stamps (see `ChatTemplate.stamp`), a scratchpad line after
      `scratch_round`.
    - A user turn is dropped when it is older than both.
    - The previous text keeps its first `sink` and last `slide` tokens.

    A sequence without previous text drops the commentary that others move. The one turn of the instruct style keeps
    video and commentary by the same rules, and nothing else but the head.
    """
    if STYLES[config.style].one_turn:
        return _prune_one_turn(spans, now, config)
    if config.mode == "window":
        return _prune_window(spans, config)
    if config.mode == "full" or now == 0:
        return spans, ()
    text_before = now - config.text_round
    has_previous = any(span.part == "previous" for span in spans)
    kept, moved, dropped = [], [], []
    for span in spans:
        if has_previous and span.part == "text" and span.round <= text_before:
            moved.append(span.cut(slice(0, -1)))
            dropped.append(span.cut(slice(max(len(span.ids) - 1, 0), None)))
        elif _is_old(span, now, config):
            dropped.append(span)
        else:
            kept.append(span)
    if not has_previous:
        return tuple(kept), tuple(dropped)
    at = next(k for k, span in enumerate(kept) if span.part == "previous")
    kept[at] = replace(
        kept[at],
        ids=np.concatenate([kept[at].ids, *(m.ids for m in moved)]),
        slots=np.concatenate([kept[at].slots, *(m.slots for m in moved)]),
    )
    kept[at], middle = trim_previous(kept[at], config)
    return tuple(kept), (middle, *dropped)


def _prune_one_turn(spans: Spans, now: int, config: StreamConfig) -> tuple[Spans, Spans]:
    """Keep the head, the video of the last `window` seconds and the commentary of the last `text_round`.

    The text before the stream counts as commentary of the second before the first, and keeps its last `slide` tokens.
    """
    rounds = {"stamp": config.window, "video": config.window, "previous": config.text_round, "text": config.text_round}
    kept, dropped = [], []
    for span in spans:
        is_kept = span.part == "head" or now - span.round < rounds.get(span.part, 0)
        if is_kept and span.part == "previous":
            last, beginning = trim_previous(span, replace(config, sink=0))
            kept.append(last)
            dropped.append(beginning)
        else:
            (kept if is_kept else dropped).append(span)
    return tuple(kept), tuple(dropped)


def _prune_window(spans: Spans, config: StreamConfig) -> tuple[Spans, Spans]:
    """Drop all turns once there are `window` of them."""
    if len({s.round for s in spans if s.round >= 0}) < config.window:
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
    if span.part in ("stamp", "video"):
        return age >= config.window
    return span.part == "time" and age >= config.text_round


def trim_previous(previous: Span, config: StreamConfig) -> tuple[Span, Span]:
    """Cut the previous text to its first `sink` and last `slide` tokens; return the kept and the dropped part.

    As in the published program, the turn's end mark counts among the last `slide`.
    """
    size = len(previous.ids)
    if config.sink is None or config.slide is None or size + 1 <= config.sink + config.slide:
        return previous, previous.cut(slice(0, 0))
    tail = size - max(config.slide - 1, 0)
    return previous.cut(slice(0, config.sink), slice(tail, None)), previous.cut(slice(config.sink, tail))


def reanchor(spans: Spans, config: StreamConfig) -> tuple[Spans, Spans]:
    """Empty the windows after a seek: commentary moves to the previous text, if any, and all turns are dropped."""
    now = max(s.round for s in spans) + 1
    return prune(spans, now, replace(config, mode="streaming", window=1, text_round=1, scratch_round=1))


def count_window_tokens(spans: Spans, config: StreamConfig, template: ChatTemplate) -> int:
    """Return how many tokens a stream that begins with `spans`, the head and the first turn, keeps at most.

    Only what the settings bound is counted: in mode ``full``, one second beside `spans`.
    """
    rules, bounds = template.rules, config.sink is not None and config.slide is not None and template.has_previous
    previous = (config.sink or 0) + (config.slide or 0) if bounds else 0
    rounds = 1 if config.mode == "full" else max(config.window, config.text_round)
    # A first turn of several seconds has as much more video.
    video = sum(span.whole for span in spans if span.part == "video")
    turn = sum(span.whole for span in spans if span.round >= 0) - video + -(-video // rules.first_seconds)
    reply = config.sampling.max_new_tokens + len(template.turn_close)
    reply += SCRATCH_TOKENS if config.scratchpad else 0
    if rules.one_turn:
        said = config.text_round * config.sampling.max_new_tokens
        return sum(span.whole for span in spans) + (config.window - 1) * turn + said + reply
    # The first turn's time has fewer tokens than a later one may have.
    longest_time = 16
    # Lines of the scratchpad may outlive their turns.
    lines = max(config.scratch_round - rounds, 0) * SCRATCH_TOKENS if config.scratchpad else 0
    return sum(span.whole for span in spans) + previous + rounds * (turn + reply + longest_time) + lines
