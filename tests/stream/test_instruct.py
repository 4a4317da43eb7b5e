"""The stream of an instruct model: one turn a second over the last frames, for as long as the video runs."""

from dataclasses import replace

import numpy as np
import pytest

from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.stream_settings import INSTRUCT, PRESETS
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.stream.streams import Forced, generate, make_bundle, make_second

ONE, TWO, THREE, SILENCE, IM_END, VIDEO_PAD = 825, 1378, 2326, 2503, 151645, 151656
DOTS = 1112
CONFIG = PRESETS[INSTRUCT]


@pytest.fixture(scope="module")
def bundle(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    """A small model with vision and the instruct template."""
    return make_bundle(tokenizer, vocabulary, style="instruct")


def say(session: Session, bundle: ModelBundle, index: int, words: list[int], question: str = "") -> str:
    return generate(session, make_second(index, question=question), Forced(bundle.vocabulary, [*words, IM_END])).text


def test_twelve_seconds_stay_flat_and_well_formed(bundle: ModelBundle) -> None:
    session = Session(bundle, CONFIG)
    lengths = []
    for index in range(12):
        said = generate(session, make_second(index))
        kinds = [(view.kind, view.round) for view in said.spans.spans]
        assert session.prefilled_from == 0
        videos = [number for kind, number in kinds if kind == "video"]
        assert videos == list(range(max(index - 1, 0), index + 1))
        texts = [number for kind, number in kinds if kind == "text"]
        assert texts == sorted(texts)
        assert set(texts) <= set(range(index - 7, index + 1))
        assert kinds.index(("video", videos[0])) > max(
            (kinds.index(k) for k in kinds if k[0] == "text" and k[1] != index), default=0
        )
        text = bundle.tokenizer.decode(session.ids, markup=True)
        assert [text.count(mark) for mark in ("<|im_start|>", "<|im_start|>user", "<|im_end|>")] == [3, 1, 3]
        assert text.count("<|vision_start|>") == len(videos)
        assert len(said.text.split()) <= 20
        lengths.append(len(session.ids))
    assert max(lengths[8:]) - min(lengths[8:]) <= 7 * CONFIG.sampling.max_new_tokens
    assert session.positions.max() < len(session.ids)


def test_nothing_older_than_the_windows_is_seen(bundle: ModelBundle) -> None:
    config = replace(CONFIG, text_round=1, sampling=replace(CONFIG.sampling, repetition_window=0.0))
    long, short = Session(bundle, config), Session(bundle, config)
    for index in range(6):
        say(long, bundle, index, [(ONE, TWO, THREE)[index % 3]])
    say(short, bundle, 4, [ONE])
    samplers = [Forced(bundle.vocabulary, [TWO, IM_END]) for _ in range(2)]
    say(short, bundle, 5, [ONE])
    for session, sampler in zip((long, short), samplers, strict=True):
        generate(session, make_second(6), sampler)
    assert long.ids.tolist() == short.ids.tolist()
    assert np.allclose(samplers[0].logits, samplers[1].logits, atol=1e-5)


def test_a_silent_second_leaves_no_line(bundle: ModelBundle) -> None:
    spoken, silent = Session(bundle, CONFIG), Session(bundle, CONFIG)
    assert [say(silent, bundle, 0, [DOTS]), say(silent, bundle, 1, [SILENCE]), say(silent, bundle, 2, [ONE])] == [
        "",
        "",
        "one",
    ]
    assert [say(spoken, bundle, 0, []), say(spoken, bundle, 1, []), say(spoken, bundle, 2, [ONE])] == ["", "", "one"]
    assert say(silent, bundle, 3, [TWO]) == say(spoken, bundle, 3, [TWO])
    assert silent.ids.tolist() == spoken.ids.tolist()


def test_a_repetition_is_silent_and_an_answer_is_not(bundle: ModelBundle) -> None:
    session = Session(bundle, CONFIG)
    assert [say(session, bundle, k, [ONE, TWO]) for k in range(2)] == ["one two", ""]
    assert say(session, bundle, 2, [ONE, TWO], question="Who has the ball?") == "one two"
    assert [say(session, bundle, k, [ONE, TWO]) for k in (18, 19)] == ["", "one two"]


def test_the_query_is_asked_in_every_second_and_a_question_in_its_place(bundle: ModelBundle) -> None:
    session = Session(bundle, replace(CONFIG, query="Who has the ball?"))
    held = bundle.vocabulary.to_ids(bundle.vocabulary.to_rows(bundle.tokenizer.encode(" has the ball?"))).tolist()
    for index, question in enumerate(("", "", "shot?", "")):
        say(session, bundle, index, [ONE], question)
        ids = session.ids.tolist()
        tail = ids[len(ids) - ids[::-1].index(VIDEO_PAD) :]
        asked = any(tail[k : k + len(held)] == held for k in range(len(tail)))
        assert asked == (not question)


def test_a_seek_forgets_what_was_seen_and_said(bundle: ModelBundle) -> None:
    session, fresh = Session(bundle, CONFIG), Session(bundle, CONFIG)
    for index in range(3):
        say(session, bundle, index, [ONE, TWO])
    session.reanchor()
    for one in (session, fresh):
        assert say(one, bundle, 9, [ONE, TWO]) == "one two"
    assert session.ids.tolist() == fresh.ids.tolist()


def test_other_modes_make_no_difference_to_the_one_turn(bundle: ModelBundle) -> None:
    sessions = [Session(bundle, replace(CONFIG, mode=mode)) for mode in ("recompute", "streaming", "window", "full")]
    for session in sessions:
        for index in range(4):
            say(session, bundle, index, [(ONE, TWO, THREE)[index % 3]])
    assert len({tuple(session.ids.tolist()) for session in sessions}) == 1
