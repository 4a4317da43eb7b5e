"""Streams that leave out the video tokens of patches that did not change."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from streaming_vlm_mlx.video.image_processor import Patches
from tests.small import small_config, small_model
from tests.stream.streams import GREEDY, Forced, Said, generate, make_bundle

Grid = tuple[int, int, int]
Bools = npt.NDArray[np.bool_]

LIMIT = 1e-3
VIDEO_PAD, VISION_START, VISION_END = 151656, 151652, 151653
WORDS = (825, 1378, 2503)
GRID = (2, 4, 6)
UNITS = 6
LEVEL = 8.0


def make_seconds(
    changes: Sequence[Sequence[Collection[int]]], grid: Grid = GRID, patch: int = 14, noise: float = 0.0
) -> list[SecondRequest]:
    """Return seconds of `grid` in which, at each temporal step, the merged patches of `changes` get new pixels."""
    random = np.random.default_rng(7)
    size = grid[1] * grid[2] // 4
    picture = random.standard_normal((size, 4 * 3 * 2 * patch**2), dtype=np.float32)
    seconds = []
    for index, steps in enumerate(changes):
        video = np.empty((grid[0], *picture.shape), np.float32)
        for step, changed in enumerate(steps):
            for unit in changed:
                picture[unit] = random.standard_normal(picture.shape[1], dtype=np.float32)
            video[step] = picture + noise * random.standard_normal(picture.shape, dtype=np.float32)
        pixels = Patches(video.reshape(math.prod(grid), -1), grid)
        seconds.append(SecondRequest(index, float(index), index + 1.0, pixels))
    return seconds


@dataclass
class Oracle:
    """What is shown, one patch at a time: its last shown version, the turn that has it, and the levels of 255."""

    config: StreamConfig
    shown: dict[int, tuple[int, npt.NDArray[np.float32]]]

    def see(self, turn: int, second: SecondRequest, kept_turns: Collection[int]) -> Bools:
        """Return which tokens of `second` are shown as `turn`, while the video of `kept_turns` is kept."""
        assert second.patches is not None
        steps, rows, columns = second.patches.grid_thw
        size = rows * columns // 4
        video = second.patches.pixel_values.reshape(steps * size, 4, 3, -1).astype(np.float64)
        video = video * np.array(self.config.pixels.image_std)[:, None] * 255
        answer = []
        for place, pixels in enumerate(video):
            held, last = self.shown.get(place % size, (-1, pixels))
            is_new = held not in (*kept_turns, turn) or bool(np.sqrt(np.mean((pixels - last) ** 2)) > LEVEL)
            answer.append(is_new)
            if is_new:
                self.shown[place % size] = turn, pixels
        return np.array(answer)


@dataclass
class Watch(Forced):
    """Keeps the sequence and its positions as they were at the prefill."""

    session: Session | None = None
    ids: Any = None
    positions: Any = None

    def sample(self, logits: mx.array, seen: npt.NDArray[np.int32], step: int) -> int:
        """Return the row of the next token."""
        if step == 0 and self.session is not None:
            self.ids, self.positions = self.session.ids, self.session.positions
        return super().sample(logits, seen, step)


def watch(session: Session, bundle: ModelBundle, second: SecondRequest) -> tuple[Watch, Said]:
    """Generate a second with forced words."""
    limit = replace(session.config.sampling, max_new_tokens=len(WORDS))
    session.configure(replace(session.config, sampling=limit))
    seen = Watch(bundle.vocabulary, WORDS, session=session)
    return seen, generate(session, second, seen)


def video_turns(spans: SpanMap) -> list[int]:
    return sorted({span.round for span in spans.spans if span.kind == "video"})


def is_video(ids: npt.NDArray[np.int32]) -> Bools:
    """Return which ids are video: those between two marks."""
    inside: Bools = np.cumsum(ids == VISION_START) > np.cumsum(ids == VISION_END)
    return inside & (ids == VIDEO_PAD)


@pytest.fixture(scope="module")
def shallow(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    """A model of one layer, whose keys and values depend on their token alone."""
    return make_bundle(tokenizer, vocabulary, layers=1)


def features_of(bundle: ModelBundle, second: SecondRequest) -> npt.NDArray[np.float32]:
    assert second.patches is not None
    return np.array(bundle.model.visual(mx.array(second.patches.pixel_values), second.patches.grid_thw))


def read_whole(bundle: ModelBundle, seen: Watch, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the last token's logits of the watched sequence, read whole with `features`."""
    model = bundle.model
    x = model.embed(bundle.vocabulary.to_rows(seen.ids), mx.array(features), is_video(seen.ids))
    hidden = model.model(x, model.model.rope(seen.positions))
    return np.array(model.head(hidden[:, -1])[0])


changes = st.lists(
    st.lists(st.sets(st.integers(0, UNITS - 1), max_size=3), min_size=2, max_size=2), min_size=2, max_size=7
)
configs = st.builds(
    StreamConfig,
    mode=st.sampled_from(["streaming", "recompute", "window", "full"]),
    window=st.integers(1, 3),
    text_round=st.integers(1, 3),
    sink=st.none() | st.integers(1, 6),
    slide=st.none() | st.integers(1, 6),
    pos_mode=st.sampled_from(["shrink", "append"]),
    all_text=st.booleans(),
    fps=st.just(4.0),
    drop_still=st.just(LEVEL),
)


@settings(max_examples=25, deadline=None)
@given(config=configs, changes=changes)
def test_a_stream_is_the_whole_one_without_the_tokens_that_did_not_change(
    shallow: ModelBundle, config: StreamConfig, changes: list[list[set[int]]]
) -> None:
    """Ids and positions are those of the stream that shows all, and logits are those of reading what is kept."""
    session, whole = Session(shallow, config), Session(shallow, replace(config, drop_still=None))
    oracle, shown, features = Oracle(config, {}), list[Bools](), list[npt.NDArray[np.float32]]()
    for turn, second in enumerate(make_seconds(changes, noise=0.01)):
        seen, said = watch(session, shallow, second)
        everything, _ = watch(whole, shallow, second)
        turns = video_turns(said.spans)
        shown.append(oracle.see(turn, second, [t for t in turns if t != turn]))
        features.append(features_of(shallow, second))
        kept = np.ones(len(everything.ids), np.bool_)
        kept[is_video(everything.ids)] = np.concatenate([shown[t] for t in turns])
        assert np.array_equal(seen.ids, everything.ids[kept])
        assert np.array_equal(seen.positions, everything.positions[:, kept])
        expected = read_whole(shallow, seen, np.concatenate([features[t][shown[t]] for t in turns]))
        assert np.abs(seen.logits[0] - expected).max() < LIMIT
        assert (said.sum.video_tokens, said.sum.still_tokens) == (shown[turn].sum(), (~shown[turn]).sum())


def play(bundle: ModelBundle, config: StreamConfig, seconds: Sequence[SecondRequest]) -> Iterator[GenerationResult]:
    session = Session(bundle, config)
    for second in seconds:
        yield generate(session, second).sum


STILL: list[list[set[int]]] = [[set(), set()]] * 6
STREAM = StreamConfig(fps=4.0, window=3, text_round=3, drop_still=LEVEL, sampling=GREEDY)


def test_a_still_picture_is_shown_again_when_the_window_drops_it(bundle: ModelBundle) -> None:
    seconds = list(play(bundle, STREAM, make_seconds(STILL)))
    assert [s.video_tokens for s in seconds] == [UNITS, 0, 0, UNITS, 0, 0]
    assert [s.still_tokens for s in seconds] == [UNITS, 2 * UNITS, 2 * UNITS, UNITS, 2 * UNITS, 2 * UNITS]


def test_a_slow_drift_does_not_hide(bundle: ModelBundle) -> None:
    """Each step differs from the one before by a third of the level, and is shown whenever three steps add up."""
    seconds = make_seconds(STILL)
    by = LEVEL / 3 * 1.01 / 255 / np.array(STREAM.pixels.image_std, np.float32)
    for number, second in enumerate(seconds):
        assert second.patches is not None
        video = second.patches.pixel_values.reshape(2, -1, 3, 2 * 14 * 14)
        for step in range(2):
            video[step] += (2 * number + step) * by[:, None]
    found = list(play(bundle, replace(STREAM, window=16), seconds))
    assert [s.video_tokens // UNITS for s in found] == [1, 1, 0, 1, 1, 0]


def test_a_small_strong_change_shows(bundle: ModelBundle) -> None:
    """A ball of 4×4 white pixels in one frame of one merged patch of 28×28, on black."""
    seconds = make_seconds([[set(), set()]] * 2)
    for second in seconds:
        assert second.patches is not None
        second.patches.pixel_values[:] = 0
    assert seconds[1].patches is not None
    patch = seconds[1].patches.pixel_values[4 * UNITS + 9].reshape(3, 2, 14, 14)
    patch[:, 1, 3:7, 3:7] += 1 / np.array(STREAM.pixels.image_std, np.float32)[:, None, None]
    assert [s.video_tokens for s in play(bundle, STREAM, seconds)] == [UNITS, 1]


@pytest.mark.parametrize("change", [Session.reset, Session.reanchor])
def test_all_is_shown_after_a_seek(bundle: ModelBundle, change: Any) -> None:
    session, seconds = Session(bundle, replace(STREAM, window=16)), make_seconds(STILL)
    before = [generate(session, second).sum.video_tokens for second in seconds[:2]]
    change(session)
    after = [generate(session, second).sum.video_tokens for second in seconds[2:4]]
    assert before == after == [UNITS, 0]


def test_all_is_shown_when_the_picture_has_another_size_or_the_option_is_new(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(STREAM, window=16))
    small, large = make_seconds(STILL), make_seconds(STILL, (2, 4, 8))
    assert [generate(session, s).sum.video_tokens for s in (small[0], large[1], small[2])] == [UNITS, 8, UNITS]
    shown = []
    for level in (LEVEL, None, LEVEL, LEVEL):
        session.configure(replace(session.config, drop_still=level))
        shown.append(generate(session, small[0]).sum.video_tokens)
    assert shown == [0, 2 * UNITS, UNITS, 0]


def test_a_quantized_cache_differs_by_its_rounding_alone(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    sizes = small_config(len(vocabulary))
    assert sizes.vision_config is not None
    text = replace(sizes.text_config, hidden_size=64, head_dim=16, mrope_section=(2, 3, 3))
    sizes = replace(sizes, text_config=text, vision_config=replace(sizes.vision_config, out_hidden_size=64))
    bundle = replace(make_bundle(tokenizer, vocabulary), model=small_model(sizes))
    plain, quantized = (Session(bundle, replace(STREAM, kv_bits=b)) for b in (None, 8))
    for second in make_seconds([[{1}, {2}]] * 5):
        (ours, said), (theirs, _) = (watch(session, bundle, second) for session in (quantized, plain))
        assert said.sum.still_tokens >= UNITS - 1
        assert np.array_equal(ours.positions, theirs.positions)
        gap = np.abs(np.array(ours.logits) - np.array(theirs.logits)).max()
        assert 0 < gap < 0.1 * theirs.logits[0].std()


def test_livecc_joins_its_first_seconds(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    """Three seconds in one turn are compared with each other; later video counts up like text, places left free."""
    livecc = make_bundle(tokenizer, vocabulary, style="livecc")
    config = StreamConfig(mode="full", pos_mode="append", style="livecc", fps=4.0, drop_still=LEVEL, sampling=GREEDY)
    session, whole = Session(livecc, config), Session(livecc, replace(config, drop_still=None))
    for number, second in enumerate(make_seconds([[{0}, {1}]] * 5)):
        seen, said = watch(session, livecc, second)
        everything, _ = watch(whole, livecc, second)
        if number < 2:
            continue
        assert (said.sum.video_tokens, said.sum.still_tokens) == ((11, 25) if number == 2 else (2, 10))
        ids = everything.ids
        kept = ~is_video(ids)
        shown = [
            *range(6),
            7,
            *(6 * step + step % 2 for step in range(2, 6)),
            *(12 * s + k for s in (3, 4) for k in (0, 7)),
        ]
        kept[np.flatnonzero(is_video(ids))[[s for s in shown if s < is_video(ids).sum()]]] = True
        assert np.array_equal(seen.ids, ids[kept])
        assert np.array_equal(seen.positions, everything.positions[:, kept])


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(SvmError, match="drop_still is -1"):
        StreamConfig.from_dict({"drop_still": -1})


# In transformers' models

SECONDS = 8
MOVING: list[list[Collection[int]]] = [[{k % UNITS}, {(3 * k) % UNITS, 4}] for k in range(SECONDS)]


def reference_logits(reference: Any, rows: npt.NDArray[np.int64], positions: Any, seconds: Any, kept: Bools) -> Any:
    """Return the reference's logits of each token, where the tower's features are those of the tokens `kept`."""
    import torch

    model = reference.model
    pixels = np.concatenate([s.patches.pixel_values for s in seconds])
    with torch.no_grad():
        grids = torch.tensor([s.patches.grid_thw for s in seconds])
        found = model.get_video_features(torch.tensor(pixels), grids, return_dict=True)
        found.pooler_output = (torch.cat(found.pooler_output)[kept],)
        if getattr(found, "deepstack_features", None):
            found.deepstack_features = [(torch.cat(part)[kept],) for part in found.deepstack_features]
        out = reference(
            input_ids=torch.tensor(rows[None]),
            attention_mask=torch.ones((1, len(rows)), dtype=torch.int64),
            position_ids=torch.tensor(positions[:, None]),
            mm_encoder_outputs={"video": found},
        )
    return out.logits[0].numpy()


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("untied, two queries a key", 2),
        ("tied, one query a key, two DeepStack layers", 2),
        ("untied, heads wider than the model", 1),
        ("tied, seven queries a key, last block full", 1),
    ],
)
def test_a_stream_equals_one_prefill_in_transformers(
    name: str, layers: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """With two layers nothing may be dropped from the cache; with one, what is kept does not depend on what was."""
    pytest.importorskip("torch", reason="transformers' models need torch")
    from tests.models import hugging_face as hf
    from tests.stream.test_qwen3_stream import make_pair

    sizes = {**hf.SIZES, **hf.QWEN3_SIZES}[name]
    sizes = replace(sizes, layers=layers, deepstack=sizes.deepstack[:layers])
    reference, bundle = make_pair(sizes, tmp_path, tokenizer)
    window = SECONDS if layers == 2 else 3
    config = StreamConfig(fps=4.0, window=window, text_round=window, sink=6, slide=6, drop_still=LEVEL, sampling=GREEDY)
    patch = 16 if sizes.family == "qwen3_vl" else 14
    session, oracle, shown = Session(bundle, config), Oracle(config, {}), list[Bools]()
    seconds = make_seconds(MOVING, patch=patch, noise=0.01)
    for turn, second in enumerate(seconds):
        seen, said = watch(session, bundle, second)
        turns = video_turns(said.spans)
        shown.append(oracle.see(turn, second, [t for t in turns if t != turn]))
        kept = np.concatenate([shown[t] for t in turns])
        rows = bundle.vocabulary.to_rows(seen.ids).astype(np.int64)
        expected = reference_logits(reference, rows, seen.positions, [seconds[t] for t in turns], kept)
        assert np.abs(seen.logits[0] - expected[-1]).max() < 2e-3
    assert sum(s.sum() for s in shown[1:]) < sum(s.size for s in shown[1:]) / 2
