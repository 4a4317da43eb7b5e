"""The repetition guard: which tokens it bans, as Hugging Face does, and which replies it takes for repetitions."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.reply import RepetitionGuard
from streaming_vlm_mlx.stream.sampling import rule_out

ROWS = 5

Scores = npt.NDArray[np.float32]


def guard_of(size: int, window: float) -> RepetitionGuard:
    return RepetitionGuard(SamplingConfig(no_repeat_ngram_size=size, repetition_window=window))


def ban(guard: RepetitionGuard, logits: Scores, reply: Sequence[int]) -> Scores:
    return np.array(rule_out(mx.array(logits), guard.banned(reply)))


def random_scores(seed: list[int], rows: int = ROWS) -> Scores:
    return np.random.default_rng(seed).standard_normal(rows).astype(np.float32)


@given(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12), st.integers(2, 4))
def test_within_a_reply_the_ban_is_hugging_faces(reply: list[int], size: int) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits = random_scores([7])
    process = transformers.NoRepeatNGramLogitsProcessor(size)
    theirs = process(torch.tensor([reply]), torch.tensor(logits[None]))[0].numpy()
    found = ban(guard_of(size, 0.0), logits, reply)
    assert np.array_equal(found, theirs if np.isfinite(theirs).any() else logits)


def ngrams(tokens: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]


@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 4),
    window=st.integers(0, 5),
    rows=st.integers(2, 9),
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=10),
)
def test_no_ngram_of_the_last_seconds_is_completed_but_by_a_copy_from_the_beginning(
    seed: int, size: int, window: int, rows: int, lengths: list[int]
) -> None:
    guard, said = guard_of(size, float(window)), list[list[int]]()
    for second, length in enumerate(lengths):
        guard.forget_before(float(second))
        recent = said[max(second - window, 0) :]
        reply = list[int]()
        for step in range(length):
            logits = random_scores([seed, second, step], rows)
            row = int(ban(guard, logits, reply).argmax())
            known = {gram for text in (*recent, reply) for gram in ngrams(text, size)}
            copied = any(text[: step + 1] == [*reply, row] for text in recent)
            gram = tuple([*reply, row][-size:])
            all_banned = all((*gram[:-1], other) in known for other in range(rows))
            assert gram not in known or copied or all_banned
            reply.append(row)
        said.append(reply)
        guard.add(float(second), reply, "said" if reply else "")


def test_where_all_rows_are_banned_none_is() -> None:
    guard = guard_of(2, 9.0)
    guard.add(0.0, [0, 0, 1, 0], "a")
    logits = np.array([1, 2], np.float32)
    assert ban(guard, logits, [1, 0]).tolist() == logits.tolist()


def test_the_end_of_a_reply_is_never_banned() -> None:
    guard = RepetitionGuard(SamplingConfig(no_repeat_ngram_size=2, repetition_window=9.0), [2])
    guard.add(0.0, [1, 2, 1, 3], "a")
    assert np.isinf(ban(guard, random_scores([1]), [0, 1])).tolist() == [False, False, False, True, False]


def test_what_was_said_before_the_window_may_be_said_again() -> None:
    guard = guard_of(2, 3.0)
    guard.add(0.0, [4, 1, 2], "He shoots!")
    for now, repeated in ((3.0, True), (3.5, False)):
        guard.forget_before(now)
        assert np.isinf(ban(guard, random_scores([1]), [3, 1])[2]) == repeated
        assert guard.repeats("he shoots") == repeated


def test_a_copy_is_known_by_its_words() -> None:
    guard = guard_of(0, 9.0)
    guard.add(0.0, [1], "He shoots, and it is wide.")
    guard.add(1.0, [2], "")
    assert all(map(guard.may_repeat, ("", "He", "he sho", "He shoots and", "He shoots, and it is wide!")))
    assert not any(map(guard.may_repeat, ("She", "He shoots and scores", "He shoots, and it is wide. He")))
    assert guard.repeats("HE SHOOTS AND IT IS WIDE")
    assert not guard.repeats("He shoots")
    assert not guard.repeats("")
    guard.clear()
    assert not guard.may_repeat("He")


def test_the_settings_can_change() -> None:
    guard = guard_of(0, 9.0)
    guard.add(0.0, [1, 2], "He shoots.")
    assert np.isfinite(ban(guard, random_scores([1]), [3, 1])).all()
    guard.configure(SamplingConfig(no_repeat_ngram_size=2, repetition_window=9.0))
    assert np.isinf(ban(guard, random_scores([1]), [3, 1])[2])
