"""A scratchpad line in training is visible where it is in a stream."""

from dataclasses import replace

import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.collator import Batch, Position, collate
from streaming_vlm_mlx.data.dataset import Sample, SampleBuilder, SampleConfig
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.stream.masks import NEVER, SPOKEN, can_see
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


def sees(sample: Sample) -> np.ndarray:
    """Return which tokens each token of `sample` can see, bool [n, n]."""
    n = len(sample)
    return can_see(np.arange(n), n, sample.visibility, sample.dropped_at)


def test_an_answer_is_seen_by_its_own_commentary_alone(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer)
    assert sample.dropped_at is not None
    lines = np.flatnonzero(sample.dropped_at < NEVER)
    assert tokenizer.decode(sample.input_ids[lines]) == "Red near.\nBlue far, a pause.\nGreen.\n"
    for place in lines:
        dropped_at = int(sample.dropped_at[place])
        rest = tokenizer.decode(sample.input_ids[place:dropped_at], markup=True)
        assert rest.endswith(" ...")
        assert sample.input_ids[dropped_at] == 151645
    # All of it is still learned.
    assert (sample.labels[lines] == sample.input_ids[lines]).all()


def test_commentary_is_seen_by_commentary_alone(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer, previous="They lead")
    assert sample.visibility is not None
    assert sample.dropped_at is not None
    spoken = sample.visibility == SPOKEN
    assert tokenizer.decode(sample.input_ids[spoken]) == "They lead.\n word0 ....\n word1 ....\n word2 ..."
    assert not sees(sample)[np.ix_(~spoken, spoken)].any()
    kept = spoken & (sample.dropped_at == NEVER)
    assert tokenizer.decode(sample.input_ids[kept]) == "They lead word0 ... word1 ... word2 ..."


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_answer_is_seen_by_the_commentary_of_so_many_seconds(rounds: int, tokenizer: Tokenizer) -> None:
    sample = build(tokenizer, rounds=rounds)
    assert sample.visibility is not None
    first = int(np.flatnonzero(sample.visibility > 0)[0])
    by = sees(sample)[:, first] & (np.arange(len(sample)) > first)
    spoken = sample.visibility == SPOKEN
    speaking, looking = (tokenizer.decode(sample.input_ids[by & flags]) for flags in (spoken, ~spoken))
    assert speaking.replace("\n", "").split("...")[:-1] == [f". word{s} " for s in range(rounds)]
    # The full stop and the line feed after it are one token, which ends the line.
    assert looking == " near"


def test_without_the_setting_nothing_is_masked(tokenizer: Tokenizer) -> None:
    plain, masked = build(tokenizer, ""), build(tokenizer)
    assert plain.visibility is None
    assert plain.dropped_at is None
    assert plain.input_ids.tolist() == masked.input_ids.tolist()
    assert plain.labels.tolist() == masked.labels.tolist()


def test_masks_of_a_packed_batch(tokenizer: Tokenizer) -> None:
    sample = build(tokenizer)
    other = SampleBuilder(tokenizer, SampleConfig(pixels=replace(PIXELS, min_pixels=784))).build(record("Long " * 9))
    tokens = collate([[sample], [other, sample]], 151643, pad_to_multiple_of=16)
    pixels = np.zeros((tokens.video_grid_thw.prod(axis=1).sum(), 1176), np.float32)
    batch = Batch(tokens, pixels, (0, 1), 5, 0, Position())
    (microbatch,) = make_microbatches(batch, {}, FullVocabulary(len(tokenizer)), 151656, 1)
    assert microbatch.mask is not None
    n, expected = len(sample), sees(sample)
    assert ((microbatch.mask[0, 0, :n, :n] == 0) == expected).all()
    second = slice(len(other), len(other) + n)
    assert ((microbatch.mask[1, 0, second, second] == 0) == expected).all()
    assert not (microbatch.mask[1, 0, second, : len(other)] == 0).any()
    places = microbatch.places[0][microbatch.is_target[0]]
    assert ((microbatch.logits_mask[0, 0, : len(places), :n] == 0) == expected[places]).all()
