"""Which token can attend to which: the visibility of a sequence with scratchpads, and the masks made from it.

While the model writes a scratchpad line, a note to itself about the frame, it cannot attend to its earlier commentary.
A stream and a training batch use the same rule. NumPy only.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.stream.spans import SAID, Span

# Visibility of a token, one number each. A scratchpad line has the number of its round + 1 instead.
OPEN, SPOKEN = 0, -1
# As the place where a token is dropped: never. No sequence is this long.
NEVER = 2**30
# Added to the scores of the keys that a query cannot see.
MASKED = np.float32(-1e9)

Ids = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def token_visibility(spans: Iterable[Span]) -> Ids:
    """Return the visibility of each token of the sequence, int32 [n].

    - `OPEN` (markup, time, video, questions): is seen by all later tokens, and sees `OPEN` tokens only.
    - `SPOKEN` (commentary, previous text): is seen by later `SPOKEN` tokens only, and sees all earlier tokens.
    - a line number, 1 or more (scratchpad): is seen by `SPOKEN` tokens and by its own line, and sees `OPEN` tokens and
      its own line. The last token of a line is `SPOKEN`, because the commentary is predicted from it.
    """
    return np.concatenate([_span_visibility(span) for span in spans])


def _span_visibility(span: Span) -> Ids:
    value = span.round + 1 if span.part == "scratch" else SPOKEN if span.part in SAID else OPEN
    visibility = np.full(len(span.ids), value, np.int32)
    if span.part == "scratch":
        visibility[-1:] = SPOKEN
    return visibility


def drop_places(spans: Iterable[Span], scratch_round: int) -> Ids:
    """Return the place from which on each token of a whole conversation is dropped, int32 [n].

    A stream drops a scratchpad line when its `scratch_round` rounds are over. A training sample holds the tokens of all
    rounds at once, so later tokens must not see the line: from the end of the commentary of its last round on. `NEVER`
    for all other tokens.
    """
    spans = list(spans)
    starts = np.cumsum([0, *(len(span.ids) for span in spans)])
    text_ends = {span.round: starts[k + 1] for k, span in enumerate(spans) if span.part == "text"}
    places = [text_ends.get(s.round + scratch_round - 1, NEVER) if s.part == "scratch" else NEVER for s in spans]
    return np.repeat(np.array(places, np.int32), [len(span.ids) for span in spans])


def can_see(
    queries: Places,
    length: int,
    visibility: Ids | None = None,
    dropped_at: Ids | None = None,
    segments: Ids | None = None,
) -> Bools:
    """Return which of `length` tokens each query can attend to, bool [..., q, length].

    A query sees the tokens up to its own place, itself included, that the other arguments do not rule out.

    Args:
        queries: the queries' places in the sequence, int [..., q].
        length: tokens of the sequence, n.
        visibility: of each token, as `token_visibility` gives it, [..., n]; None for all `OPEN`.
        dropped_at: the place from which on each token is dropped, [..., n]; None for never.
        segments: the sample that each token of a packed row belongs to, [..., n]; samples do not see each other.
    """
    at = queries[..., :, None]
    seen = np.arange(length) <= at
    if segments is not None:
        seen &= _at(segments, queries) == segments[..., None, :]
    if visibility is not None:
        own, keys = _at(visibility, queries), visibility[..., None, :]
        allowed = own == keys
        allowed |= keys == OPEN
        allowed |= own == SPOKEN
        seen &= allowed
    if dropped_at is not None:
        seen &= at < dropped_at[..., None, :]
    return seen


def visibility_mask(
    queries: Places,
    length: int,
    visibility: Ids | None = None,
    dropped_at: Ids | None = None,
    segments: Ids | None = None,
) -> Floats:
    """Return the additive attention mask of `can_see`: float32 [..., q, length], 0 where seen and -1e9 elsewhere."""
    return np.where(can_see(queries, length, visibility, dropped_at, segments), np.float32(0), MASKED)


def _at(values: Ids, queries: Places) -> Ids:
    """Return `values` [..., n] at the places `queries` [..., q], as a column [..., q, 1]."""
    return np.take_along_axis(values, queries, axis=-1)[..., None]
