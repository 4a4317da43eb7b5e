"""What a cache must not change.

With one layer, keys and values depend on a token's embedding alone. Whatever was pruned, moved or turned, the logits
must then be those of a model that reads the kept sequence from its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import SpanMap
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.stream.streams import Forced, Grid, force, generate, make_bundle, make_second

LIMIT = 1e-3
VIDEO_PAD = 151656
# " one", " two", " three", " ...", and a patch's id, which a model may say as well as any other.
WORDS = [825, 1378, 2326, 2503, VIDEO_PAD]

commentaries = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(tuple), min_size=2, max_size=7)
keeps = st.none() | st.integers(1, 6)
configs = st.builds(
    StreamConfig,
    window=st.integers(1, 3),
    text_round=st.integers(1, 3),
    sink=keeps,
    slide=keeps,
    all_text=st.booleans(),
    previous=st.sampled_from(["", " one two three"]),
)
grids = st.sampled_from([(1, 2, 4), (1, 4, 4), (2, 2, 6)])


@dataclass
class Watch(Forced):
    """Keeps the sequence and its positions as they were at the prefill."""

    session: Session | None = None
    ids: npt.NDArray[np.int32] | None = None
    positions: npt.NDArray[np.int64] | None = None

    def sample(self, logits: mx.array, seen: npt.NDArray[np.int32], step: int) -> int:
        """Return the row of the next token."""
        if step == 0:
            assert self.session is not None
            self.ids, self.positions = self.session.ids, self.session.positions
        return super().sample(logits, seen, step)


@pytest.fixture(scope="module")
def shallow(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    """A model of one layer."""
    return make_bundle(tokenizer, vocabulary, layers=1)


def from_scratch(bundle: ModelBundle, watch: Watch, kept: Sequence[SecondRequest]) -> npt.NDArray[np.float32]:
    """Return the last token's logits of the watched sequence, read whole at the watched positions."""
    assert watch.ids is not None
    assert watch.positions is not None
    model, wanted = bundle.model, sum(watch.ids == VIDEO_PAD)
    seen = [s.patches for s in kept if s.patches]
    features = mx.concatenate([model.visual(mx.array(p.pixel_values), p.grid_thw) for p in seen])
    opened = np.cumsum(watch.ids == 151652) > np.cumsum(watch.ids == 151653)
    is_video = opened & (watch.ids == VIDEO_PAD)
    assert is_video.sum() == len(features) <= wanted
    x = model.embed(bundle.vocabulary.to_rows(watch.ids), features, is_video)
    hidden = model.model(x, model.model.rope(watch.positions))
    return np.array(model.head(hidden[:, -1])[0])


def kept_rounds(spans: SpanMap) -> list[int]:
    return sorted({s.round for s in spans.spans if s.kind == "video"})


def force_watched(
    session: Session, bundle: ModelBundle, second: SecondRequest, forced: Sequence[int]
) -> tuple[Watch, SpanMap]:
    limit = replace(session.config.sampling, max_new_tokens=len(forced))
    session.configure(replace(session.config, sampling=limit))
    watch = Watch(bundle.vocabulary, forced, session=session)
    return watch, generate(session, second, watch).spans


@settings(max_examples=15, deadline=None)
@given(config=configs, said=commentaries, grid=grids)
def test_streaming_says_what_recomputing_says(
    shallow: ModelBundle, config: StreamConfig, said: list[tuple[int, ...]], grid: Grid
) -> None:
    streamed = Session(shallow, config)
    recomputed = Session(shallow, replace(config, mode="recompute"))
    for index, forced in enumerate(said):
        second = make_second(index, grid)
        ours, theirs = (force(session, shallow, second, forced) for session in (streamed, recomputed))
        assert np.array_equal(streamed.ids, recomputed.ids)
        assert np.array_equal(streamed.positions, recomputed.positions)
        assert (streamed.prefilled_from > 0) == (index > 0)
        assert recomputed.prefilled_from == 0
        assert np.abs(np.array(ours.logits) - np.array(theirs.logits)).max() < LIMIT


@settings(max_examples=15, deadline=None)
@given(
    config=configs,
    said=commentaries,
    grid=grids,
    pos_mode=st.sampled_from(["shrink", "append"]),
    mode=st.sampled_from(["streaming", "window", "full"]),
)
def test_the_cache_holds_what_reading_from_scratch_makes(
    shallow: ModelBundle, config: StreamConfig, said: list[tuple[int, ...]], grid: Grid, pos_mode: str, mode: str
) -> None:
    config = StreamConfig.from_dict({**config.to_dict(), "pos_mode": pos_mode, "mode": mode})
    session = Session(shallow, config)
    seconds = [make_second(index, grid) for index in range(len(said))]
    for second, forced in zip(seconds, said, strict=True):
        watch, spans = force_watched(session, shallow, second, forced)
        expected = from_scratch(shallow, watch, [seconds[r] for r in kept_rounds(spans)])
        assert np.abs(watch.logits[0] - expected).max() < LIMIT


@settings(max_examples=15, deadline=None)
@given(config=configs, said=commentaries)
def test_appended_positions_never_move(shallow: ModelBundle, config: StreamConfig, said: list[tuple[int, ...]]) -> None:
    """A kept token keeps its position, and every new one lies behind all that were cached."""
    session = Session(shallow, replace(config, pos_mode="append"))
    for index, forced in enumerate(said):
        before, largest = session.positions, session.positions.max(initial=-1)
        watch, _ = force_watched(session, shallow, make_second(index), forced)
        assert watch.positions is not None
        cached = session.prefilled_from
        places = {tuple(column) for column in before.T.tolist()}
        assert all(tuple(column) in places for column in watch.positions[:, :cached].T.tolist())
        if cached:
            survivors = watch.positions[:, :cached].max()
            assert watch.positions[:, cached:].min() == survivors + 1 <= largest + 1


@settings(max_examples=15, deadline=None)
@given(config=configs, said=commentaries)
def test_positions_stay_within_the_kept_sequence(
    shallow: ModelBundle, config: StreamConfig, said: list[tuple[int, ...]]
) -> None:
    """Counted again from zero, no position passes the sequence's length, however long the stream is."""
    session = Session(shallow, config)
    for index, forced in enumerate(said):
        force(session, shallow, make_second(index), forced)
        assert session.positions[:, 0].tolist() == [0, 0, 0]
        assert session.positions.max() < len(session.ids)


@pytest.mark.parametrize("pos_mode", ["shrink", "append"])
def test_a_deep_model_that_drops_nothing_reads_as_from_scratch(bundle: ModelBundle, pos_mode: str) -> None:
    session = Session(bundle, StreamConfig.from_dict({"mode": "full", "pos_mode": pos_mode}))
    seconds = [make_second(index) for index in range(4)]
    for index, second in enumerate(seconds):
        watch, _ = force_watched(session, bundle, second, WORDS)
        assert np.abs(watch.logits[0] - from_scratch(bundle, watch, seconds[: index + 1])).max() < LIMIT


def test_deeper_models_remember_what_left(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    """The opposite: with two layers a cached key knows what stood before it, so pruning and recomputing differ."""
    bundle = make_bundle(tokenizer, vocabulary, layers=2)
    config = StreamConfig(window=1, text_round=1, sink=1, slide=2)
    sessions = Session(bundle, config), Session(bundle, replace(config, mode="recompute"))
    gap = 0.0
    for index in range(3):
        ours, theirs = (force(s, bundle, make_second(index), WORDS[:3]) for s in sessions)
        gap = np.abs(ours.logits[0] - theirs.logits[0]).max()
    assert gap > 10 * LIMIT
