"""What a sample's scratchpad hides in training is what a stream has forgotten."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.collator import Batch, Position, collate
from streaming_vlm_mlx.data.dataset import ALWAYS, Sample, SampleBuilder, SampleConfig
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.models.attention import Causal, attention
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.microbatch import make_microbatches

ASKED = "What do you see?"
PIXELS = StreamConfig().pixels


def record(*answers: str) -> StreamingRecord:
    turns = tuple(
        Turn(
            float(s),
            s + 1.0,
            f"Time={s}.0-{s + 1}.0s {ASKED}",
            f"{answer}\n word{s} ...",
            question=ASKED,
            answer=answer,
        )
        for s, answer in enumerate(answers)
    )
    return StreamingRecord("a.mp4", 0.0, float(len(answers)), turns, width=56, height=56)


def build(tokenizer: Tokenizer, scratchpad: str = ASKED, rounds: int = 1, previous: str = "") -> Sample:
    config = SampleConfig(scratchpad=scratchpad, scratch_round=rounds, pixels=replace(PIXELS, min_pixels=784))
    return SampleBuilder(tokenizer, config).build(
        replace(record("Red near.", "Blue far, a pause.", "Green."), previous=previous)
    )


def test_an_answer_is_seen_by_its_own_commentary_alone(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer)
    assert sample.until is not None
    hidden = np.flatnonzero(sample.until < ALWAYS)
    assert tokenizer.decode(sample.input_ids[hidden]) == "Red near.\nBlue far, a pause.\nGreen.\n"
    for place in hidden:
        until = int(sample.until[place])
        rest = tokenizer.decode(sample.input_ids[place:until], markup=True)
        assert rest.endswith(" ...")
        assert sample.input_ids[until] == 151645
    # All of it is still learnt.
    assert (sample.labels[hidden] == sample.input_ids[hidden]).all()


def test_what_was_said_is_seen_by_what_is_said_alone(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer, previous="They lead")
    assert sample.until is not None
    assert sample.looked_until is not None
    assert sample.speaks is not None
    never_seen = (sample.looked_until <= np.arange(len(sample))) & (sample.until == ALWAYS)
    said, speaks = (tokenizer.decode(sample.input_ids[flags]) for flags in (never_seen, sample.speaks))
    assert said == "They lead word0 ... word1 ... word2 ..."
    assert speaks == "They lead.\n word0 ....\n word1 ....\n word2 ..."


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_answer_is_seen_by_the_commentary_of_so_many_seconds(rounds: int, tokenizer: Tokenizer) -> None:
    sample = build(tokenizer, rounds=rounds)
    assert sample.until is not None
    assert sample.looked_until is not None
    assert sample.speaks is not None
    places = np.arange(len(sample))
    first = int(np.flatnonzero(sample.looked_until < ALWAYS)[0])
    sees = np.where(sample.speaks, places < sample.until[first], places < sample.looked_until[first]) & (places > first)
    speaking, looking = (tokenizer.decode(sample.input_ids[sees & flags]) for flags in (sample.speaks, ~sample.speaks))
    assert speaking.replace("\n", "").split("...")[:-1] == [f". word{s} " for s in range(rounds)]
    # The full stop and the line feed behind it are one token, which ends the line.
    assert looking == " near"


def test_without_the_setting_nothing_is_hidden(tokenizer: Tokenizer) -> None:
    plain, hiding = build(tokenizer, ""), build(tokenizer)
    assert plain.until is None
    assert plain.input_ids.tolist() == hiding.input_ids.tolist()
    assert plain.labels.tolist() == hiding.labels.tolist()


def test_masks_hide_it_from_later_turns(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer)
    other = SampleBuilder(tokenizer, SampleConfig(pixels=replace(PIXELS, min_pixels=784))).build(record("Long " * 9))
    tokens = collate([[sample], [other, sample]], 151643, pad_to_multiple_of=16)
    assert tokens.until is not None
    assert tokens.until[1, len(other) : len(other) + len(sample)].min() == sample.until.min() + len(other)
    batch = Batch(
        tokens, np.zeros((tokens.video_grid_thw.prod(axis=1).sum(), 1176), np.float32), (0, 1), 5, 0, Position()
    )
    (microbatch,) = make_microbatches(
        batch, {}, FullVocabulary(tokenizer.size if hasattr(tokenizer, "size") else 151936), 151656, 1
    )
    assert microbatch.mask is not None
    n, until = len(sample), sample.until
    expected = np.tril(np.ones((n, n), bool)) & (np.arange(n)[:, None] < until[None])
    assert sample.looked_until is not None
    assert sample.speaks is not None
    expected &= sample.speaks[:, None] | (np.arange(n)[:, None] < sample.looked_until[None])
    assert ((microbatch.mask[0, 0, :n, :n] == 0) == expected).all()
    logits_to_keep = microbatch.places[0][microbatch.is_target[0]]
    assert ((microbatch.logits_mask[0, 0, : len(logits_to_keep), :n] == 0) == expected[logits_to_keep]).all()


@pytest.mark.parametrize("n", [40, 300])
def test_a_causal_mask_that_hides_more_is_taken_in_stretches(n: int) -> None:
    rng = np.random.default_rng(n)
    q, k, v = (mx.array(rng.standard_normal((2, 2, n, 8)).astype(np.float32)) for _ in range(3))
    seen = np.tril(rng.random((2, 1, n, n)) < 0.7) | np.eye(n, dtype=bool)
    mask = mx.array(np.where(seen, 0, -1e9).astype(np.float32))
    ours = attention(q, k, v, 0.3, Causal(mask))
    theirs = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask)
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-5)
