"""Tests the scratchpad: it is in the sequence for its rounds, is never shown, and never enters the previous text."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, Vocabulary
from tests.stream.streams import GREEDY, generate, make_bundle, make_second

ONE, TWO, THREE, SILENCE, IM_END, LINE = 825, 1378, 2326, 2503, 151645, 198
THINKS = StreamConfig(
    window=2, text_round=2, sink=64, slide=64, style="training", scratchpad="Who has the ball?", sampling=GREEDY
)


@dataclass
class ScriptedSampler:
    """Says one token after another, whatever their number within the second."""

    vocabulary: Vocabulary
    ids: Sequence[int]
    at: int = 0
    logits: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def sample(self, logits: mx.array, seen: npt.NDArray[np.int32], step: int) -> int:
        """Return the row of the next token."""
        self.at += 1
        self.logits.append(np.array(logits))
        return int(self.vocabulary.to_rows([self.ids[self.at - 1]])[0])


@pytest.fixture
def training(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    return make_bundle(tokenizer, vocabulary, style="training")


def written(session: Session, bundle: ModelBundle) -> str:
    return bundle.tokenizer.decode(session.ids, markup=True).replace("<|video_pad|>", "")


def test_the_answer_is_written_as_trained_and_not_shown(training: ModelBundle) -> None:
    session = Session(training, THINKS)
    sampler = ScriptedSampler(training.vocabulary, [ONE, LINE, TWO, THREE, IM_END])
    said = generate(session, make_second(0), sampler)
    assert said.text == "two three"
    assert "".join(said.pieces) == "two three"
    assert said.sum.tokens == 5
    assert said.sum.notes == "one"
    vision = "<|vision_start|><|vision_end|><|im_end|>\n"
    assert written(session, training).endswith(
        f"Time=0.0-1.0sWho has the ball?{vision}<|im_start|>assistant\n one\n two three<|im_end|>\n"
    )


def test_commentary_alone_is_remembered(training: ModelBundle) -> None:
    session = Session(training, THINKS)
    for index in range(4):
        generate(session, make_second(index), ScriptedSampler(training.vocabulary, [ONE, LINE, TWO, SILENCE, IM_END]))
    head, *turns = written(session, training).split("<|im_start|>user\n")
    assert head.endswith("previous text\n two two<|im_end|>\n")
    assert len(turns) == 2
    # What was on the scratchpad is gone before the next second is seen.
    assert "assistant\n two ...<|im_end|>" in turns[0]
    assert "assistant\n one\n two ...<|im_end|>" in turns[1]


def test_a_line_stays_for_its_rounds(training: ModelBundle) -> None:
    session = Session(training, replace(THINKS, scratch_round=2, window=4, text_round=4))
    for index in range(4):
        generate(session, make_second(index), ScriptedSampler(training.vocabulary, [ONE, LINE, TWO, SILENCE, IM_END]))
    _, *turns = written(session, training).split("<|im_start|>user\n")
    assert ["one" in turn for turn in turns] == [False, False, True, True]
    session.reanchor()
    assert " one" not in written(session, training)


def test_the_cache_has_room_for_lines_that_outlive_their_turns(training: ModelBundle) -> None:
    session = Session(training, replace(THINKS, window=1, text_round=1, scratch_round=20))
    sizes = []
    for index in range(24):
        sampler = ScriptedSampler(training.vocabulary, [*[ONE] * (SCRATCH_TOKENS - 1), LINE, TWO, IM_END])
        sizes.append(generate(session, make_second(index), sampler).sum.cache_bytes)
    assert session.cache_length > 20 * SCRATCH_TOKENS
    assert len(set(sizes)) == 1


def test_a_line_changes_the_commentary_and_no_later_line(training: ModelBundle) -> None:
    heard: list[list[npt.NDArray[np.float32]]] = []
    for noted in ([ONE, TWO], [THREE, THREE]):
        session = Session(training, replace(THINKS, scratch_round=2, window=4, text_round=4))
        for index, line in enumerate((noted, [ONE, ONE])):
            sampler = ScriptedSampler(training.vocabulary, [*line, LINE, TWO, IM_END])
            generate(session, make_second(index), sampler)
        heard.append(sampler.logits)
    ours, theirs = heard
    # The line's own three tokens, then what is said.
    for seen, other in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(seen, other, atol=1e-5)
    assert np.abs(ours[3] - theirs[3]).max() > 1e-3


def test_recomputing_sees_what_streaming_saw(training: ModelBundle) -> None:
    """While nothing goes, a deep model that reads all of it again must see in each token what was seen then."""
    heard = []
    for mode in ("streaming", "recompute"):
        config = {**THINKS.to_dict(), "mode": mode, "scratch_round": 6, "window": 6, "text_round": 6}
        session = Session(training, StreamConfig.from_dict(config))
        for index in range(4):
            sampler = ScriptedSampler(training.vocabulary, [ONE, THREE, LINE, TWO, SILENCE, IM_END])
            generate(session, make_second(index), sampler)
        heard.append(np.array(sampler.logits))
    np.testing.assert_allclose(*heard, atol=1e-4)


def test_a_question_is_answered_aloud(training: ModelBundle) -> None:
    session = Session(training, replace(THINKS, sampling=replace(GREEDY, max_new_tokens=9)))
    said = generate(
        session, make_second(0, question="Who?"), ScriptedSampler(training.vocabulary, [ONE, LINE, TWO, IM_END])
    )
    assert said.text == "one\ntwo"


def test_a_line_that_does_not_end_is_cut(training: ModelBundle) -> None:
    session = Session(training, THINKS)
    sampler = ScriptedSampler(training.vocabulary, [ONE] * SCRATCH_TOKENS + [TWO, IM_END])
    assert generate(session, make_second(0), sampler).text == "two"


def test_ending_the_turn_within_the_line_is_silence(training: ModelBundle) -> None:
    session = Session(training, THINKS)
    assert generate(session, make_second(0), ScriptedSampler(training.vocabulary, [ONE, IM_END])).text == ""
    assert (
        generate(session, make_second(1), ScriptedSampler(training.vocabulary, [ONE, LINE, TWO, IM_END])).text == "two"
    )


def test_the_cache_has_room_for_it(training: ModelBundle) -> None:
    session = Session(training, THINKS)
    limit = THINKS.sampling.max_new_tokens
    sizes = set()
    for index in range(6):
        generate(
            session, make_second(index), ScriptedSampler(training.vocabulary, [ONE] * SCRATCH_TOKENS + [TWO] * limit)
        )
        sizes.add(session.cache_bytes)
    assert len(sizes) == 1


@pytest.mark.parametrize("previous", ["", " The reds lead"])
def test_earlier_commentary_changes_no_line(previous: str, training: ModelBundle) -> None:
    heard: list[list[npt.NDArray[np.float32]]] = []
    for words in ([TWO, TWO, TWO], [THREE, ONE, SILENCE]):
        session = Session(training, replace(THINKS, previous=previous, window=4, text_round=2))
        for index in range(4):
            sampler = ScriptedSampler(training.vocabulary, [ONE, THREE, LINE, *words, IM_END])
            generate(session, make_second(index), sampler)
        heard.append(sampler.logits)
    ours, theirs = heard
    for seen, other in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(seen, other, atol=1e-5)
    # What is said next does depend on it.
    assert np.abs(ours[3] - theirs[3]).max() > 1e-3
