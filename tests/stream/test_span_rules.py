"""The span rules under random windows, modes, styles, seeks and changed settings, against a slow model of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import Mode, StreamConfig, Style
from streaming_vlm_mlx.stream import pruning
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.text.chat_template import STYLES, ChatTemplate
from tests.stream.span_model import Token, count_positions, keep_after_seek, keep_before, tokens_of

STEPS_PER_GRID = 1.5
Words = tuple[int, ...]
words = st.lists(st.integers(1000, 1999), max_size=5).map(tuple)
keeps = st.none() | st.integers(0, 9)
rounds = st.integers(1, 6)


@dataclass(frozen=True)
class Turn:
    """A second: its video, what is asked, and what the model writes and says."""

    grid: tuple[int, int, int] | None
    shown: int
    asks: bool
    scratch: Words
    said: Words


@dataclass(frozen=True)
class Change:
    """New windows, from the next second on."""

    window: int
    text_round: int
    scratch_round: int
    sink: int | None
    slide: int | None


Event = Turn | Change | Literal["seek"]

grids = st.none() | st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
turns = st.builds(Turn, grids, st.integers(0, 4095), st.booleans(), words, words)
changes = st.builds(Change, rounds, rounds, rounds, keeps, keeps)
# Mostly turns, so that windows fill.
events = st.lists(st.one_of(turns, turns, turns, turns, turns, changes, st.just("seek")), min_size=6, max_size=24)
configs = st.builds(
    StreamConfig,
    mode=st.sampled_from(["streaming", "recompute", "window", "full"]),
    style=st.sampled_from(["inference", "training", "livecc", "instruct"]),
    window=rounds,
    text_round=rounds,
    scratch_round=rounds,
    sink=keeps,
    slide=keeps,
    all_text=st.booleans(),
)


def begin(template: ChatTemplate, previous: Sequence[int]) -> sp.Spans:
    """Return what comes before the first second."""
    if template.rules.one_turn:
        head = sp.new_span("head", -1, (*template.system_turn, *template.user_open))
        return sp.number_slots([head, sp.new_span("previous", -1, previous)])
    if not template.has_previous:
        return sp.number_slots([sp.new_span("head", -1, template.system_turn)])
    return sp.number_slots(
        [
            sp.new_span("head", -1, (*template.system_turn, *template.previous_open)),
            sp.new_span("previous", -1, previous),
            sp.new_span("head", -1, template.turn_close),
        ]
    )


def video(template: ChatTemplate, number: int, turn: Turn) -> list[sp.Span]:
    """Return the video of a turn, of which the bits of `turn.shown` tell which patches are shown."""
    if turn.grid is None:
        return []
    ids = np.array(template.video(int(np.prod(turn.grid))), np.int32)
    shown = np.array([True, *(bool(turn.shown >> k & 1) for k in range(len(ids) - 2)), True])
    whole = sp.new_span("video", number, ids, turn.grid)
    return [
        sp.new_span("stamp", number, [27, 15]),
        whole if shown.all() else replace(whole, ids=ids[shown], slots=whole.slots[shown], shown=shown),
    ]


def add_turn(kept: sp.Spans, template: ChatTemplate, number: int, turn: Turn) -> sp.Spans:
    """Return the sequence at the end of turn `number`."""
    query = [sp.new_span("query", number, [10677, 349])] if turn.asks else []
    inside = [sp.new_span("open", number, template.user_open), sp.new_span("time", number, [1462, 28, 15])]
    close = [sp.new_span("close", number, template.turn_close)]
    close.append(sp.new_span("assistant", number, template.assistant_open()))
    reply = [
        sp.new_span("scratch", number, turn.scratch),
        sp.new_span("text", number, turn.said),
        sp.new_span("end", number, template.turn_close),
    ]
    return sp.number_slots((*kept, *inside, *video(template, number, turn), *query, *close, *reply))


def check_split(before: sp.Spans, after: tuple[sp.Spans, sp.Spans], expected: list[Token]) -> None:
    """Check that what is kept is as `expected`, and that each token before is kept or dropped once."""
    kept, dropped = after
    assert tokens_of(kept) == expected
    places = [token.place for token in tokens_of((*kept, *dropped))]
    assert sorted(places) == list(range(len(sp.join_ids(before))))


def check_windows(kept: sp.Spans, number: int, config: StreamConfig) -> None:
    """Check what the settings promise, whatever came before; the second that begins counts as one."""
    held = {part: {s.round for s in kept if s.part == part and len(s.ids)} for part in ("video", "text", "scratch")}
    if config.mode == "window" and config.style != "instruct":
        assert len({s.round for s in kept if s.round >= 0}) < config.window
    elif config.mode != "full" or config.style == "instruct":
        assert held["video"] <= set(range(number - config.window + 1, number))
        assert held["text"] <= set(range(number - config.text_round + 1, number))
        assert held["scratch"] <= set(range(number - config.scratch_round + 1, number))


@settings(max_examples=200)
@given(configs, words, events)
def test_spans_are_kept_as_documented(config: StreamConfig, previous: Words, story: list[Event]) -> None:
    template = ChatTemplate(system=(7, 8), style=config.style)
    spans, number = begin(template, previous), 0
    for event in story:
        if isinstance(event, Change):
            config = replace(config, **vars(event))
        elif isinstance(event, Turn):
            after = pruning.prune(spans, number, config)
            check_split(spans, after, keep_before(tokens_of(spans), number, config))
            check_windows(after[0], number, config)
            spans = add_turn(after[0], template, number, event)
            number += 1
        else:
            after = pruning.reanchor(spans, config)
            check_split(spans, after, keep_after_seek(tokens_of(spans), config))
            spans, number = sp.number_slots(after[0]), 0
        assert sp.join_slots(spans).tolist() == list(range(len(sp.join_ids(spans))))


@given(configs, words, st.lists(turns, max_size=12), st.integers(0, 99))
def test_positions_are_counted_as_documented(
    config: StreamConfig, previous: Words, story: list[Turn], start: int
) -> None:
    template = ChatTemplate(system=(7, 8), style=config.style)
    spans = begin(template, previous)
    for number, turn in enumerate(story):
        spans = add_turn(pruning.prune(spans, number, config)[0], template, number, turn)
        found = sp.positions(spans, start, config, STEPS_PER_GRID)
        assert found.T.tolist() == [list(place) for place in count_positions(spans, start, config, STEPS_PER_GRID)]


def test_a_window_that_shrinks_is_full_at_once() -> None:
    config, template = StreamConfig(mode="window", window=6), ChatTemplate(system=(7, 8))
    spans = begin(template, ())
    for number in range(4):
        spans = add_turn(pruning.prune(spans, number, config)[0], template, number, Turn(None, 0, False, (), (1000,)))
    kept, _ = pruning.prune(spans, 4, replace(config, window=3))
    assert {span.round for span in kept} == {-1}


def test_the_stories_cover_every_mode_and_style() -> None:
    assert {*Mode.__args__} == {"streaming", "recompute", "window", "full"}
    assert {*Style.__args__} == {*STYLES}
