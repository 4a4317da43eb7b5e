"""The visibility mask against a slow and obvious reference, over random conversations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.stream.masks import (
    MASKED,
    NEVER,
    OPEN,
    SPOKEN,
    can_see,
    drop_places,
    token_visibility,
    visibility_mask,
)
from streaming_vlm_mlx.stream.spans import Part, Span, new_span

sizes = st.integers(1, 3)
seconds = st.lists(st.tuples(sizes, sizes, st.integers(0, 4), sizes), min_size=1, max_size=4)


def conversation(previous: int, rounds: list[tuple[int, int, int, int]]) -> list[Span]:
    """Return the spans of a conversation; 0 tokens of scratchpad leave it out."""
    spans = [new_span("head", -1, [1]), new_span("previous", -1, [2] * previous), new_span("head", -1, [1])]
    for number, (time, video, line, text) in enumerate(rounds):
        sizes: list[tuple[Part, int]] = [("time", time), ("video", video), ("assistant", 1)]
        sizes += [("scratch", line)] * bool(line) + [("text", text), ("end", 2)]
        spans += [new_span(part, number, [3] * size) for part, size in sizes]
    return spans


def reference(spans: list[Span], scratch_round: int) -> np.ndarray:
    """Decide for each pair of tokens by the words of the rule."""
    tokens = [(span, place + 1 == len(span.ids)) for span in spans for place in range(len(span.ids))]
    last_of_text = {span.round: k for k, (span, _) in enumerate(tokens) if span.part == "text"}
    seen = np.zeros((len(tokens), len(tokens)), bool)
    for q, (query, is_last) in enumerate(tokens):
        speaks = query.part in ("previous", "text") or (query.part == "scratch" and is_last)
        for k, (key, ends_line) in enumerate(tokens[: q + 1]):
            if key.part == "scratch":
                over = last_of_text.get(key.round + scratch_round - 1, len(tokens))
                noted = key is query and not ends_line
                seen[q, k] = q <= over and (speaks or noted)
            else:
                seen[q, k] = speaks or key.part not in ("previous", "text")
    return seen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), seconds, st.integers(1, 3))
def test_the_mask_is_the_rule(previous: int, rounds: list[tuple[int, int, int, int]], scratch_round: int) -> None:
    spans = conversation(previous, rounds)
    expected = reference(spans, scratch_round)
    n = len(expected)
    args = n, token_visibility(spans), drop_places(spans, scratch_round)
    assert np.array_equal(can_see(np.arange(n), *args), expected)
    some = np.arange(n)[::2]
    assert np.array_equal(visibility_mask(some, *args), np.where(expected[some], np.float32(0), MASKED))


def test_visibility_by_part() -> None:
    spans = conversation(1, [(1, 1, 3, 2)])
    line, text, end = [1, 1, SPOKEN], [SPOKEN] * 2, [OPEN] * 2
    assert token_visibility(spans).tolist() == [OPEN, SPOKEN, OPEN, OPEN, OPEN, OPEN, *line, *text, *end]


@pytest.mark.parametrize(("scratch_round", "place"), [(1, 7), (2, 14), (3, NEVER)])
def test_a_line_is_dropped_after_the_commentary_of_its_last_round(scratch_round: int, place: int) -> None:
    spans = conversation(0, [(1, 1, 1, 1)] * 2)
    dropped = drop_places(spans, scratch_round)
    assert dropped[5] == place
    assert set(np.delete(dropped, [5, 12])) == {NEVER}


def test_packed_samples_do_not_see_each_other() -> None:
    segments = np.array([[0, 0, 1, 1, -1]], np.int32)
    seen = can_see(np.array([[1, 3]]), 5, segments=segments)
    assert seen.tolist() == [[[True, True, False, False, False], [False, False, True, True, False]]]
