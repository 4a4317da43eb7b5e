"""One stream: its input and output second by second, and its state after a second is cut short."""

import gc
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import Mode, SamplingConfig, StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, TextPiece, Timings
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.small import small_model
from tests.stream.oracle import Oracle
from tests.stream.streams import GREEDY, Forced, Grid, force, generate, make_bundle, make_second

ONE, TWO, THREE, SILENCE, IM_END = 825, 1378, 2326, 2503, 151645
VIDEO_PAD = 151656
SMALL = StreamConfig(window=2, text_round=3, sink=4, slide=4, sampling=GREEDY)
WARM = replace(SMALL, sampling=SamplingConfig(temperature=1.0, max_new_tokens=8))


def texts(session: Session, seconds: Sequence[int]) -> list[str]:
    return [generate(session, make_second(index)).text for index in seconds]


def written(session: Session, bundle: ModelBundle) -> str:
    return bundle.tokenizer.decode(session.ids, markup=True).replace("<|video_pad|>", "")


def held(bundle: ModelBundle, text: str) -> list[int]:
    """Return the ids of `text` that are in the model's vocabulary."""
    ids: list[int] = bundle.vocabulary.to_ids(bundle.vocabulary.to_rows(bundle.tokenizer.encode(text))).tolist()
    return ids


def test_the_first_second_is_written_as_the_published_program_writes_it(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, previous="The reds lead"))
    force(session, bundle, make_second(0), [ONE, SILENCE, IM_END])
    assert written(session, bundle) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>previous text\nThe reds lead<|im_end|>\n"
        "<|im_start|>user\nTime=0.0-1.0s<|vision_start|><|vision_end|>Commentate on this match<|im_end|>\n"
        "<|im_start|>assistant\n one ...<|im_end|>\n"
    )


def test_a_question_is_written_as_models_were_trained_on_it(
    tokenizer: Tokenizer, vocabulary: CompactVocabulary
) -> None:
    bundle = make_bundle(tokenizer, vocabulary, style="training")
    session = Session(bundle, replace(SMALL, window=9, text_round=9))
    force(session, bundle, make_second(0), [ONE, SILENCE, IM_END])
    force(session, bundle, make_second(1, question="Who has the ball?"), [TWO, IM_END])
    force(session, bundle, make_second(2), [THREE, IM_END])
    _, *turns = written(session, bundle).split("<|im_start|>user\n")
    vision, reply = "<|vision_start|><|vision_end|><|im_end|>\n", "<|im_start|>assistant\n"
    assert turns == [
        f"Time=0.0-1.0s{vision}{reply}\n one ...<|im_end|>\n",
        f"Time=1.0-2.0s Who has the ball?{vision}{reply} two<|im_end|>\n",
        f"Time=2.0-3.0s {vision}{reply}\n three<|im_end|>\n",
    ]


def test_the_video_that_is_written_is_seen_whatever_id_a_config_gives_it(
    tokenizer: Tokenizer, vocabulary: CompactVocabulary
) -> None:
    bundle = make_bundle(tokenizer, vocabulary)
    model = small_model(replace(bundle.model.config, video_token_id=9))
    others = replace(bundle, model=model)
    first, second = (force(Session(one, SMALL), one, make_second(0), [ONE, IM_END]) for one in (bundle, others))
    assert np.array_equal(first.logits, second.logits)


def test_a_session_keeps_what_the_published_rules_keep(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, previous=" one two three"))
    oracle = Oracle(
        SMALL.window, SMALL.text_round, SMALL.sink, SMALL.slide, [ONE, TWO, THREE], system=bundle.template.system
    )
    video = [151652, VIDEO_PAD, VIDEO_PAD, 151653]
    for index, forced in enumerate(
        [[ONE, SILENCE], [TWO], [THREE, ONE, TWO, SILENCE], [SILENCE], [ONE] * 4, [TWO] * 3]
    ):
        time, query = held(bundle, f"Time={index}.0-{index + 1}.0s"), [] if index else held(bundle, SMALL.query)
        before = list(oracle.second(index, [*time, *video, *query]))
        force(session, bundle, make_second(index), [*forced, IM_END])
        assert session.ids[: len(before)].tolist() == before
        assert session.ids.tolist() == oracle.generate(forced)


def test_greedy_is_the_same_every_time(bundle: ModelBundle) -> None:
    one, same = (texts(Session(bundle, SMALL), range(4)) for _ in range(2))
    assert one == same
    assert any(one)


def test_the_seed_decides_the_text(bundle: ModelBundle) -> None:
    other = replace(WARM, sampling=replace(WARM.sampling, seed=1))
    one, same, different = (texts(Session(bundle, config), range(3)) for config in (WARM, WARM, other))
    assert one == same != different


def test_reset_is_a_new_stream(bundle: ModelBundle) -> None:
    session = Session(bundle, WARM)
    first = texts(session, range(3))
    assert session.cache_length > 0
    session.reset()
    assert (session.cache_length, session.cache_bytes) == (0, 0)
    assert texts(session, range(3)) == first


def test_only_new_sampling_settings_restart_the_draws(bundle: ModelBundle) -> None:
    whole, wider, reseeded, cooled = (Session(bundle, WARM) for _ in range(4))
    for session in (whole, wider, reseeded, cooled):
        texts(session, [0])
    wider.configure(replace(WARM, window=5))
    reseeded.configure(replace(WARM, sampling=replace(WARM.sampling, seed=9)))
    cooled.configure(SMALL)
    text = texts(whole, [1])
    assert texts(wider, [1]) == text
    assert texts(reseeded, [1]) != text
    assert texts(cooled, [1]) != text


def test_the_query_is_written_once_and_again_when_it_changes(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    found = []
    for index in range(4):
        if index == 2:
            session.configure(replace(SMALL, query="Who has the ball?"))
        texts(session, [index])
        turn = written(session, bundle).rsplit("<|im_start|>user\n", 1)[1]
        found.append(turn.split("<|vision_end|>")[1].split("<|im_end|>")[0])
    assert found == ["Commentate on this match", "", "Who has the ball?", ""]


def test_a_silent_second(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    session.configure(replace(SMALL, sampling=replace(GREEDY, max_new_tokens=9)))
    said = generate(session, make_second(0), Forced(bundle.vocabulary, [SILENCE, IM_END]))
    assert (said.text, said.pieces, said.sum.tokens) == ("", (), 2)
    assert generate(session, make_second(1), Forced(bundle.vocabulary, [ONE, SILENCE, IM_END])).text == "one"


def test_pieces_join_to_the_text_and_show_no_markup(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, sampling=replace(GREEDY, max_new_tokens=9)))
    said = generate(session, make_second(0), Forced(bundle.vocabulary, [ONE, TWO, VIDEO_PAD, THREE, SILENCE, IM_END]))
    assert "".join(said.pieces) == said.text == "one two three"
    assert len(said.pieces) > 1


@pytest.mark.parametrize("stop_id", [IM_END, 151643])
def test_a_stop_token_ends_the_second_and_is_not_text(bundle: ModelBundle, stop_id: int) -> None:
    session = Session(bundle, SMALL)
    said = generate(session, make_second(0), Forced(bundle.vocabulary, [ONE, stop_id, TWO]))
    assert said.sum.tokens == 2
    assert session.ids[-3:].tolist() == [ONE, IM_END, 198]
    assert session.cache_length == len(session.ids) - 2


def test_at_its_limit_a_second_is_closed_for_the_model(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    said = generate(session, make_second(0), Forced(bundle.vocabulary, [ONE] * 9))
    assert said.sum.tokens == GREEDY.max_new_tokens
    assert session.ids[-7:].tolist() == [*[ONE] * 5, IM_END, 198]
    assert session.cache_length == len(session.ids) - 3


def test_seen_tokens_are_the_kept_sequence_and_the_new_tokens(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    force(session, bundle, make_second(0), [ONE, IM_END])
    sampler = Forced(bundle.vocabulary, [TWO, THREE, IM_END])
    generate(session, make_second(1), sampler)
    start = len(session.ids) - 4
    for step, seen in enumerate(sampler.seen):
        assert bundle.vocabulary.to_ids(seen).tolist() == session.ids[: start + step].tolist()


@pytest.mark.parametrize("way", ["stopped", "closed"])
def test_a_second_cut_short_equals_one_with_that_limit(bundle: ModelBundle, way: str) -> None:
    forced, cut = [ONE, TWO, THREE, SILENCE, IM_END], 3
    free = replace(SMALL, sampling=SamplingConfig(max_new_tokens=9))
    cut_session, limited = Session(bundle, free), Session(bundle, free)
    force(limited, bundle, make_second(0), forced[:cut])
    sampler = Forced(bundle.vocabulary, forced)
    if way == "stopped":
        *_, last = cut_session.generate(make_second(0), sampler, stopped=lambda: len(sampler.logits) >= cut)
        assert isinstance(last, GenerationResult)
        assert (last.tokens, last.text) == (cut, "one two three")
    else:
        events = cut_session.generate(make_second(0), sampler)
        while len(sampler.logits) < cut:
            next(events)
        events.close()  # type: ignore[attr-defined]
    assert cut_session.ids.tolist() == limited.ids.tolist()
    for index in (1, 2, 3, 4):
        ours, theirs = (force(s, bundle, make_second(index), [TWO, ONE, IM_END]) for s in (cut_session, limited))
        assert np.array_equal(ours.logits, theirs.logits)
        assert cut_session.positions.tolist() == limited.positions.tolist()


def test_closed_before_its_first_word_a_second_is_silent(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    events = session.generate(make_second(0))
    assert isinstance(next(events), SpanMap)
    events.close()  # type: ignore[attr-defined]
    assert written(session, bundle).endswith("<|im_start|>assistant\n<|im_end|>\n")
    assert generate(session, make_second(1)).sum.tokens > 0


@pytest.mark.parametrize(
    ("mode", "pos_mode"),
    [
        ("streaming", "shrink"),
        ("streaming", "append"),
        ("recompute", "shrink"),
        ("window", "shrink"),
        ("full", "shrink"),
    ],
)
def test_reanchor_empties_the_video_and_keeps_the_words(bundle: ModelBundle, mode: Mode, pos_mode: str) -> None:
    config = StreamConfig.from_dict({**SMALL.to_dict(), "sink": None, "mode": mode, "pos_mode": pos_mode})
    session = Session(bundle, config)
    for index, word in enumerate([ONE, TWO]):
        force(session, bundle, make_second(index), [word, SILENCE, IM_END])
    session.reanchor()
    assert written(session, bundle).endswith("<|im_start|>previous text\n one two<|im_end|>\n")
    assert session.cache_length <= len(session.ids)
    said = generate(session, make_second(2))
    assert [(s.kind, s.round) for s in said.spans.spans if s.kind == "video"] == [("video", 0)]
    assert "Commentate on this match" in written(session, bundle)
    assert session.positions.shape[1] == session.cache_length


def test_reanchor_before_the_first_second_does_nothing(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    before = session.ids.tolist()
    session.reanchor()
    assert session.ids.tolist() == before
    assert texts(session, [0]) == texts(Session(bundle, SMALL), [0])


def test_a_model_without_a_vision_tower_gets_times_only(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    bundle = make_bundle(tokenizer, vocabulary, vision=False)
    session = Session(bundle, SMALL)
    for index in range(5):
        second = make_second(index)
        said = generate(session, second if index % 2 else replace(second, patches=None))
        assert said.sum.video_tokens == 0
        assert VIDEO_PAD not in session.ids
    assert "Time=4.0-5.0s<|im_end|>" in written(session, bundle)


def test_a_second_without_frames_has_no_video_span(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    said = generate(session, replace(make_second(0), patches=None))
    assert said.sum.video_tokens == 0
    assert generate(session, make_second(1, grid=(1, 4, 6))).sum.video_tokens == 6


@pytest.mark.parametrize(("fps", "step"), [(1.0, 4), (2.0, 2), (4.0, 1)])
def test_time_steps_of_a_second_are_as_far_apart_as_its_frames(bundle: ModelBundle, fps: float, step: int) -> None:
    """Two positions a second of video, two frames a step."""
    session = Session(bundle, replace(SMALL, fps=fps))
    force(session, bundle, make_second(0, grid=(3, 2, 4)), [ONE, IM_END])
    video = session.positions[0, np.flatnonzero(session.ids == VIDEO_PAD)]
    assert (video - video[0]).tolist() == [0, 0, step, step, 2 * step, 2 * step]


def test_the_span_map_shows_the_sequence_and_the_dropped_spans(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    for index in range(6):
        before = len(session.ids)
        events = session.generate(make_second(index), Forced(bundle.vocabulary, [ONE, TWO, SILENCE, IM_END]))
        spans = next(events)
        assert isinstance(spans, SpanMap)
        assert spans.index == index
        assert sum(s.tokens for s in spans.spans) == len(session.ids)
        turn = [s.round for s in spans.spans].index(index)
        new = sum(s.tokens for s in spans.spans[turn:])
        assert sum(s.tokens for s in spans.dropped) == before + new - len(session.ids)
        rounds = {kind: [s.round for s in spans.spans if s.kind == kind] for kind in ("video", "text")}
        assert rounds["video"] == list(range(max(0, index - 1), index + 1))
        assert rounds["text"] == list(range(max(0, index - 2), index + 1))
        assert [s.round for s in spans.dropped if s.kind == "video"] == ([index - 2] if index >= 2 else [])
        assert sum(1 for _ in events) > 0


def test_a_window_without_overlap_starts_with_the_query(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, mode="window", window=2))
    counts = []
    for index in range(4):
        force(session, bundle, make_second(index), [ONE, IM_END])
        counts.append(written(session, bundle).count("Time="))
        assert written(session, bundle).count("Commentate on this match") == 1
    assert counts == [1, 2, 1, 2]


def test_full_attention_drops_nothing(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, mode="full", window=1, text_round=1))
    for index in range(4):
        assert generate(session, make_second(index)).spans.dropped == ()
    assert written(session, bundle).count("<|vision_start|>") == 4


def test_the_cache_does_not_grow_after_its_allocation(bundle: ModelBundle) -> None:
    """Windows and long memory are each longer than the rounding of the blocks."""
    session = Session(bundle, replace(SMALL, window=5, text_round=2, sink=200, slide=500))
    sizes, tokens = set(), []
    for index in range(18):
        force(session, bundle, make_second(index, grid=(1, 24, 24)), [ONE] * (60 - index % 2))
        sizes.add(session.cache_bytes)
        tokens.append(session.cache_length)
    assert len(sizes) == 1
    assert tokens[-1] > tokens[0] + 4 * 144 + 600
    assert tokens[-1] == tokens[-3]


def test_recomputing_keeps_no_features_of_dropped_video(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(SMALL, mode="recompute"))
    active = []
    for index in range(10, 22):
        force(session, bundle, make_second(index, grid=(1, 24, 24)), [ONE, IM_END])
        if index in (15, 21):
            gc.collect()
            active.append(mx.get_active_memory())
    features = 12 * 12 * bundle.model.config.text_config.hidden_size * 4
    assert active[1] - active[0] < 2 * features


def test_timings_come_from_the_clock(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    """The bundle's clock advances by a second at each reading."""
    bundle = make_bundle(tokenizer, vocabulary)
    session = Session(bundle, SMALL)
    said = generate(session, make_second(0), Forced(bundle.vocabulary, [ONE, TWO, SILENCE, IM_END])).sum
    assert said.timings == Timings(vision_ms=1e3, prefill_ms=1e3, decode_ms=2e3, first_text_ms=3e3, total_ms=4e3)
    silent = generate(session, make_second(1), Forced(bundle.vocabulary, [SILENCE, IM_END])).sum
    assert silent.timings.first_text_ms == silent.timings.total_ms


def test_encoding_ahead_does_not_change_a_second(bundle: ModelBundle) -> None:
    """Not even when other seconds are encoded in between."""
    ahead, plain = Session(bundle, SMALL), Session(bundle, SMALL)
    for index in range(3):
        second = make_second(index)
        ahead.encode_ahead(make_second(7))
        ahead.encode_ahead(second)
        ours, theirs = (force(s, bundle, second, [ONE, TWO, IM_END]) for s in (ahead, plain))
        assert np.array_equal(ours.logits, theirs.logits)
    ahead.encode_ahead(make_second(8))
    ours, theirs = (force(s, bundle, make_second(9), [ONE, IM_END]) for s in (ahead, plain))
    assert np.array_equal(ours.logits, theirs.logits)


@pytest.mark.parametrize("run_ahead", [False, True])
def test_encoding_beside_the_decode_does_not_change_a_second(
    bundle: ModelBundle, run_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, plain = Session(bundle, SMALL, run_ahead), Session(bundle, SMALL)
    encoded: list[Grid] = []
    tower = type(bundle.model.visual)
    encode = tower.__call__
    for index in range(5):
        events = beside.generate(make_second(index), Forced(bundle.vocabulary, [ONE, TWO, IM_END]))
        assert [next(events) for _ in range(2)][1] == TextPiece(index, "one")
        monkeypatch.setattr(tower, "__call__", lambda *args: (encoded.append(args[2]), encode(*args))[1])
        beside.encode_beside(None)
        following = make_second(index + 1)
        for _ in range(2):
            beside.encode_beside(following)
        monkeypatch.setattr(tower, "__call__", encode)
        assert len(encoded) == run_ahead * (index + 1)
        list(events)
        force(plain, bundle, make_second(index), [ONE, TWO, IM_END])
        ours, theirs = Forced(bundle.vocabulary, [THREE, IM_END]), Forced(bundle.vocabulary, [THREE, IM_END])
        generate(beside, following, ours)
        generate(plain, following, theirs)
        assert np.array_equal(ours.logits, theirs.logits)


def test_encoding_ahead_counts_as_work_of_its_second(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    bundle = make_bundle(tokenizer, vocabulary)
    session = Session(bundle, SMALL)
    second = make_second(0)
    session.encode_ahead(second)
    said = generate(session, second, Forced(bundle.vocabulary, [ONE, SILENCE, IM_END])).sum
    assert said.timings == Timings(vision_ms=2e3, prefill_ms=1e3, decode_ms=2e3, first_text_ms=3e3, total_ms=5e3)


def test_pieces_come_as_they_are_generated(bundle: ModelBundle) -> None:
    session = Session(bundle, SMALL)
    sampler = Forced(bundle.vocabulary, [ONE, TWO, THREE, SILENCE, IM_END])
    for event in session.generate(make_second(0), sampler):
        if isinstance(event, TextPiece):
            break
    assert 0 < len(sampler.logits) < 4
