"""The rules of docs/streaming.md over single tokens: slow, obvious, and written from the words of the document alone.

`oracle.Oracle` says what the published program does with fixed windows; this says what is documented for all modes,
styles, seeks, and windows that change.
"""

from collections.abc import Iterable
from typing import NamedTuple

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream.spans import Span, Spans

# A user turn's parts that are neither its time nor its video.
USER = ("open", "query", "close")


class Token(NamedTuple):
    """A token, its role, the second that it belongs to (-1 before the first), and its place before pruning."""

    part: str
    second: int
    id: int
    place: int


def tokens_of(spans: Spans) -> list[Token]:
    """Return the tokens of `spans` in order."""
    return [Token(s.part, s.round, int(i), int(p)) for s in spans for i, p in zip(s.ids, s.slots, strict=True)]


def keep_before(tokens: list[Token], second: int, config: StreamConfig) -> list[Token]:
    """Return what is kept of `tokens` when `second` begins, in order."""
    if config.style == "instruct":
        return _keep_one_turn(tokens, second, config)
    if config.mode == "full" or second == 0:
        return tokens
    if config.mode == "window":
        is_full = len({t.second for t in tokens if t.second >= 0}) >= config.window
        return [t for t in tokens if t.second < 0 or not is_full]
    moved = _as_previous([t for t in tokens if t.part == "text" and second - t.second >= config.text_round])
    return _remember([t for t in tokens if _stays(t, second - t.second, config)], moved, config)


def keep_after_seek(tokens: list[Token], config: StreamConfig) -> list[Token]:
    """Return what is kept of `tokens` after a seek: the commentary joins the previous text, and all turns go."""
    before = [t for t in tokens if t.second < 0]
    if config.style == "instruct":
        return [t for t in before if t.part == "head"]
    if len(before) == len(tokens):
        return tokens
    return _remember(before, _as_previous([t for t in tokens if t.part == "text"]), config)


def _stays(token: Token, age: int, config: StreamConfig) -> bool:
    """Return whether `token`, whose second is `age` seconds old, stays where it is."""
    if token.second < 0:
        return True
    if token.part in ("video", "stamp"):
        return age < config.window
    if token.part == "scratch":
        return age < config.scratch_round
    if token.part in USER:
        return age < config.window or age < config.text_round
    # The time, and what belongs to the commentary.
    return age < config.text_round


def _as_previous(said: list[Token]) -> list[Token]:
    """Return `said` as previous text, without the last token of each second, the closing `` ...``."""
    last = {t.second: t.place for t in said}
    return [Token("previous", -1, t.id, t.place) for t in said if t.place != last[t.second]]


def _remember(kept: list[Token], moved: list[Token], config: StreamConfig) -> list[Token]:
    """Return `kept` with `moved` at the end of its previous text, which keeps its first and its last tokens."""
    if config.style == "livecc":
        # It has no turn of previous text.
        return kept
    head = [t for t in kept if t.part == "head"]
    turns = [t for t in kept if t.part not in ("head", "previous")]
    text = [t for t in kept if t.part == "previous"] + moved
    # The end mark of the turn, an id and a line feed, ends the head; it is the last of the `slide` tokens.
    if config.sink is not None and config.slide is not None and len(text) + 1 > config.sink + config.slide:
        text = text[: config.sink] + _last(text, config.slide - 1)
    return head[:-2] + text + head[-2:] + turns


def _keep_one_turn(tokens: list[Token], second: int, config: StreamConfig) -> list[Token]:
    """Return what the one turn of an instruct model keeps: the head, and video and sentences of the last seconds."""
    # What was said before the stream was said in the second before the first.
    rounds = {"video": config.window, "stamp": config.window, "text": config.text_round, "previous": config.text_round}
    kept = [t for t in tokens if t.part == "head" or second - t.second < rounds.get(t.part, 0)]
    previous = [t for t in kept if t.part == "previous"]
    if config.slide is not None and len(previous) + 1 > config.slide:
        last = _last(previous, config.slide - 1)
        return [t for t in kept if t.part != "previous" or t in last]
    return kept


def _last(tokens: list[Token], count: int) -> list[Token]:
    return tokens[len(tokens) - count :] if count > 0 else []


Place = tuple[int, int, int]


def count_positions(spans: Iterable[Span], start: int, config: StreamConfig, steps_per_grid: float) -> list[Place]:
    """Return (time, row, column) of each token of `spans`, the first one at `start`.

    Text counts up on all three axes; patches have their time, row and column behind the video's start mark; what
    follows goes on behind the largest position. A token that is left out keeps its position free.
    """
    found: list[Place] = []
    for span in spans:
        whole = range(len(span.ids)) if span.shown is None else range(len(span.shown))
        places: list[Place] = [(start + k,) * 3 for k in whole]
        if span.grid is not None and not config.all_text:
            steps, rows, columns = span.grid
            patches = [
                (start + 1 + int(step * steps_per_grid), start + 1 + row, start + 1 + column)
                for step in range(steps)
                for row in range(rows)
                for column in range(columns)
            ]
            places = [(start,) * 3, *patches, (max(map(max, patches)) + 1,) * 3]
        start = max(places[-1]) + 1 if places else start
        found += [place for k, place in enumerate(places) if span.shown is None or span.shown[k]]
    return found
