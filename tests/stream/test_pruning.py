"""Pruning, compared with a second implementation of the rules and with bookkeeping; views and positions of spans."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream import pruning
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.stream.events import SpanView
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from tests.stream.oracle import Oracle

LAYOUT = ChatTemplate(system=(7, 8))
TIME, QUERY = [1462, 28, 15], [10677, 349]
VIDEO_PAD = 151656

words = st.lists(st.integers(1000, 1999), max_size=6)
keeps = st.none() | st.integers(0, 9)


@dataclass(frozen=True)
class Story:
    """A stream's settings, and of each second its patches and its words."""

    config: StreamConfig
    previous: list[int]
    seconds: list[tuple[int, list[int]]]


stories = st.builds(
    Story,
    st.builds(
        StreamConfig,
        window=st.integers(1, 5),
        text_round=st.integers(1, 5),
        sink=keeps,
        slide=st.none() | st.integers(1, 9),
    ),
    words,
    st.lists(st.tuples(st.integers(1, 4), words), min_size=1, max_size=14),
)


def begin(previous: list[int]) -> sp.Spans:
    head = (
        sp.new_span("head", -1, (*LAYOUT.system_turn, *LAYOUT.previous_open)),
        sp.new_span("previous", -1, previous),
        sp.new_span("head", -1, LAYOUT.turn_close),
    )
    return sp.number_slots(head)


def user_turn(now: int, patches: int) -> list[sp.Span]:
    return [
        sp.new_span("open", now, LAYOUT.user_open),
        sp.new_span("time", now, TIME),
        sp.new_span("video", now, LAYOUT.video(patches), (1, 1, patches)),
        *([] if now else [sp.new_span("query", now, QUERY)]),
        sp.new_span("close", now, LAYOUT.turn_close),
        sp.new_span("assistant", now, LAYOUT.assistant_open()),
    ]


def commentary(now: int, said: list[int]) -> list[sp.Span]:
    return [sp.new_span("text", now, said), sp.new_span("end", now, LAYOUT.turn_close)]


def play(story: Story, has_previous: bool = True) -> sp.Spans:
    """Return the sequence at the story's end, with or without a turn of previous text."""
    spans = begin(story.previous) if has_previous else sp.number_slots([sp.new_span("head", -1, LAYOUT.system_turn)])
    for now, (patches, said) in enumerate(story.seconds):
        kept, _ = pruning.prune(spans, now, story.config)
        spans = sp.number_slots((*kept, *user_turn(now, patches), *commentary(now, said)))
    return spans


@settings(max_examples=200, deadline=None)
@given(stories)
def test_the_sequence_is_that_of_the_published_rules(story: Story) -> None:
    c = story.config
    oracle = Oracle(c.window, c.text_round, c.sink, c.slide, story.previous)
    spans = begin(story.previous)
    for now, (patches, said) in enumerate(story.seconds):
        inside = [*TIME, *LAYOUT.video(patches), *([] if now else QUERY)]
        spans = sp.number_slots((*pruning.prune(spans, now, c)[0], *user_turn(now, patches)))
        assert sp.join_ids(spans).tolist() == oracle.second(now, inside)
        spans = sp.number_slots((*spans, *commentary(now, said)))
        assert sp.join_ids(spans).tolist() == oracle.generate(said)


@given(stories, st.sampled_from(["streaming", "recompute", "window", "full"]), st.booleans())
def test_every_token_is_kept_or_dropped_once(story: Story, mode: str, has_previous: bool) -> None:
    config = StreamConfig.from_dict({**story.config.to_dict(), "mode": mode})
    spans = play(story, has_previous)
    kept, dropped = pruning.prune(spans, len(story.seconds), config)
    slots = np.concatenate([sp.join_slots(kept), sp.join_slots(dropped)]) if dropped else sp.join_slots(kept)
    assert sorted(slots.tolist()) == list(range(len(sp.join_ids(spans))))
    ids = sp.join_ids(spans)
    for span in (*kept, *dropped):
        assert np.array_equal(ids[span.slots], span.ids)


@given(stories)
def test_windows_hold_no_more_than_their_rounds(story: Story) -> None:
    now, c = len(story.seconds), story.config
    kept, _ = pruning.prune(play(story), now, c)
    rounds = {part: [s.round for s in kept if s.part == part] for part in ("video", "text")}
    assert rounds["video"] == list(range(max(0, now - max(c.window, 1) + 1), now))
    assert rounds["text"] == list(range(max(0, now - c.text_round + 1), now))
    previous = next(s for s in kept if s.part == "previous")
    if c.sink is not None and c.slide is not None:
        assert len(previous.ids) < c.sink + c.slide


@given(stories)
def test_the_long_memory_keeps_its_head_and_its_tail(story: Story) -> None:
    whole = Story(StreamConfig(**{**vars(story.config), "sink": None}), story.previous, story.seconds)
    now = len(story.seconds)
    full = next(s for s in pruning.prune(play(whole), now, whole.config)[0] if s.part == "previous").ids
    kept = next(s for s in pruning.prune(play(story), now, story.config)[0] if s.part == "previous").ids
    sink, slide = story.config.sink, story.config.slide
    if sink is None or slide is None:
        assert np.array_equal(kept, full)
    else:
        assert np.array_equal(kept[:sink], full[:sink])
        tail = len(kept) - min(sink, len(kept))
        assert np.array_equal(kept[len(kept) - tail :], full[len(full) - tail :])


@given(stories)
def test_after_a_seek_only_commentary_is_left(story: Story) -> None:
    config = StreamConfig(**{**vars(story.config), "sink": None, "mode": "full"})
    spans = play(Story(config, story.previous, story.seconds))
    kept, dropped = pruning.reanchor(spans, config)
    said = [token for _, words in story.seconds for token in words[:-1]]
    expected = [*LAYOUT.system_turn, *LAYOUT.previous_open, *story.previous, *said, *LAYOUT.turn_close]
    assert sp.join_ids(kept).tolist() == expected
    assert len(sp.join_ids(kept)) + len(sp.join_ids(dropped)) == len(sp.join_ids(spans))


@settings(max_examples=50, deadline=None)
@given(stories)
def test_a_stamp_goes_with_its_video(story: Story) -> None:
    spans = begin(story.previous)
    for now, (patches, said) in enumerate(story.seconds):
        opening, time, video, *rest = user_turn(now, patches)
        stamped = [
            opening,
            time,
            sp.new_span("stamp", now, [27, 15]),
            video,
            sp.new_span("stamp", now, [27, 16]),
            video,
        ]
        kept, _ = pruning.prune(spans, now, story.config)
        spans = sp.number_slots((*kept, *stamped, *rest, *commentary(now, said)))
    visible = [span for span in spans if span.part in ("stamp", "video")]
    assert [span.part for span in visible] == ["stamp", "video"] * (len(visible) // 2)
    assert {span.round for span in visible} == {s.round for s in spans if s.part == "video"}
    oldest = len(story.seconds) - max(story.config.window, 1)
    assert min(span.round for span in visible) == max(oldest, 0)


@given(stories)
def test_without_previous_text_the_same_turns_stay(story: Story) -> None:
    now = len(story.seconds)
    with_it, without = (pruning.prune(play(story, has), now, story.config)[0] for has in (True, False))
    turns = [(s.part, s.round, s.ids.tolist()) for s in with_it if s.round >= 0]
    assert [(s.part, s.round, s.ids.tolist()) for s in without] == [("head", -1, [*LAYOUT.system_turn]), *turns]


@given(stories)
def test_after_a_seek_without_previous_text_nothing_said_is_left(story: Story) -> None:
    spans = play(story, has_previous=False)
    kept, dropped = pruning.reanchor(spans, story.config)
    assert sp.join_ids(kept).tolist() == [*LAYOUT.system_turn]
    assert len(sp.join_ids(kept)) + len(sp.join_ids(dropped)) == len(sp.join_ids(spans))
    assert pruning.reanchor(kept, story.config) == (kept, ())


def test_a_full_window_takes_every_turn_with_it() -> None:
    config = StreamConfig(mode="window", window=3)
    spans = play(Story(config, [1000], [(1, [1001, 1002])] * 2))
    assert pruning.prune(spans, 2, config) == (spans, ())
    spans = play(Story(config, [1000], [(1, [1001, 1002])] * 3))
    kept, dropped = pruning.prune(spans, 3, config)
    assert sp.join_ids(kept).tolist() == [*LAYOUT.system_turn, *LAYOUT.previous_open, 1000, *LAYOUT.turn_close]
    assert {s.round for s in dropped} == {0, 1, 2}


def test_views_join_neighbours_of_one_kind_and_round() -> None:
    spans = play(Story(StreamConfig(), [], [(2, [1000, 1001])]))
    head = len(LAYOUT.system_turn) + len(LAYOUT.previous_open) + len(LAYOUT.turn_close)
    assert sp.merge_views(spans) == (
        SpanView("system", -1, head),
        SpanView("user", 0, 6),
        SpanView("video", 0, 4),
        SpanView("user", 0, 4),
        SpanView("text", 0, 3 + 2 + 2),
    )


def test_views_of_two_rounds_stay_apart() -> None:
    """Once commentary and video are gone, one user turn stands beside the next."""
    config = StreamConfig(window=1, text_round=3)
    silent = Story(config, [], [(1, [])] * 2)
    kept, _ = pruning.prune(play(silent), 2, StreamConfig(window=3, text_round=1))
    assert [(v.kind, v.round) for v in sp.merge_views(kept)][1:3] == [("user", 0), ("user", 1)]


@pytest.mark.parametrize("start", [0, 40])
def test_text_follows_the_largest_position_of_a_video(start: int) -> None:
    """Four steps of two positions each reach further than a picture of 2 × 3."""
    spans = [sp.new_span("video", 0, [1, *[VIDEO_PAD] * 24, 2], (4, 2, 3)), sp.new_span("text", 0, [5, 6])]
    found = sp.positions(spans, start, StreamConfig(), steps_per_grid=2.0) - start
    patches = [[1 + 2 * t, 1 + y, 1 + x] for t in range(4) for y in range(2) for x in range(3)]
    assert found.T.tolist() == [[0] * 3, *patches, [8] * 3, [9] * 3, [10] * 3]


@given(stories, st.integers(0, 99))
def test_positions_on_one_axis_are_a_count(story: Story, start: int) -> None:
    spans = play(story)
    found = sp.positions(spans, start, StreamConfig(all_text=True), steps_per_grid=2.0)
    assert np.array_equal(found, [np.arange(start, start + len(sp.join_ids(spans)))] * 3)


def test_only_patches_of_a_video_stand_for_video() -> None:
    spans = (sp.new_span("text", 0, [5, VIDEO_PAD]), *user_turn(0, 2)[2:3])
    assert sp.join_video(spans, VIDEO_PAD).tolist() == [False, False, False, True, True, False]
