"""A stream whose replies are limited or dropped: what is shown is what the model keeps."""

import itertools
from dataclasses import replace

import numpy as np

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.generate import Session
from tests.stream.streams import Forced, generate, make_second

ONE, TWO, THREE, SILENCE, IM_END, ASSISTANT = 825, 1378, 2326, 2503, 151645, 77091
FREE = StreamConfig(window=9, text_round=9, sampling=SamplingConfig(max_new_tokens=9))


def session_with(bundle: ModelBundle, **sampling: float) -> Session:
    return Session(bundle, replace(FREE, sampling=replace(FREE.sampling, **sampling)))


def play(session: Session, bundle: ModelBundle, *replies: list[int]) -> list[str]:
    return [
        generate(session, make_second(index), Forced(bundle.vocabulary, reply)).text
        for index, reply in enumerate(replies)
    ]


def assert_same_next(one: Session, other: Session, bundle: ModelBundle, index: int) -> None:
    """Check that both sessions keep the same, and see the same in the next second."""
    assert one.ids.tolist() == other.ids.tolist()
    samplers = [Forced(bundle.vocabulary, [THREE, IM_END]) for _ in range(2)]
    for session, sampler in zip((one, other), samplers, strict=True):
        generate(session, make_second(index), sampler)
    assert np.allclose(samplers[0].logits, samplers[1].logits, atol=1e-5)
    assert one.positions.tolist() == other.positions.tolist()


def test_a_limited_reply_is_kept_as_it_is_shown(bundle: ModelBundle) -> None:
    limited, free = session_with(bundle, max_words=2), session_with(bundle)
    assert play(limited, bundle, [ONE, TWO, THREE, ONE, IM_END]) == ["one two"]
    assert play(free, bundle, [ONE, TWO, IM_END]) == ["one two"]
    assert_same_next(limited, free, bundle, 1)


def test_at_the_token_limit_a_word_that_may_go_on_is_dropped(bundle: ModelBundle) -> None:
    limited, free = session_with(bundle, max_words=9, max_new_tokens=3), session_with(bundle)
    assert play(limited, bundle, [ONE, TWO, THREE]) == ["one two"]
    play(free, bundle, [ONE, TWO, IM_END])
    assert_same_next(limited, free, bundle, 1)


def test_a_repetition_is_kept_as_silence(bundle: ModelBundle) -> None:
    guarded, free = session_with(bundle, repetition_window=2.0), session_with(bundle)
    replies = [[ONE, TWO, IM_END], [ONE, TWO, IM_END], [TWO, IM_END]]
    assert play(guarded, bundle, *replies) == ["one two", "", "two"]
    assert play(free, bundle, replies[0], [SILENCE, IM_END], replies[2]) == ["one two", "", "two"]
    assert_same_next(guarded, free, bundle, 3)
    assert play(session_with(bundle, repetition_window=2.0), bundle, *[replies[0]] * 4) == [
        "one two",
        "",
        "",
        "one two",
    ]


def test_an_answer_may_repeat_and_a_seek_forgets(bundle: ModelBundle) -> None:
    session = session_with(bundle, repetition_window=9.0)
    reply = [ONE, TWO, IM_END]
    assert play(session, bundle, reply) == ["one two"]
    assert generate(session, make_second(1, question="?"), Forced(bundle.vocabulary, reply)).text == "one two"
    assert generate(session, make_second(2), Forced(bundle.vocabulary, reply)).text == ""
    session.reanchor()
    assert generate(session, make_second(2), Forced(bundle.vocabulary, reply)).text == "one two"


def test_while_decoding_no_ngram_comes_twice(bundle: ModelBundle) -> None:
    def pairs(size: int) -> list[tuple[int, int]]:
        session = session_with(bundle, no_repeat_ngram_size=size, repetition_window=9.0, repetition_penalty=1.0)
        said = []
        for index in range(4):
            generate(session, make_second(index))
            ids = session.ids.tolist()
            reply = ids[len(ids) - ids[::-1].index(ASSISTANT) + 1 : -2]
            said += itertools.pairwise(reply)
        return said

    free, guarded = pairs(0), pairs(2)
    assert len(free) > len(set(free))
    assert len(guarded) > 9
    # A reply may begin with a copy; here none does.
    assert len(guarded) == len(set(guarded))
    assert pairs(2) == guarded
