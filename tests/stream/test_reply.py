"""What is shown and kept of a reply: limits of words and sentences, silence, repetition."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.reply import RepetitionGuard, Reply
from streaming_vlm_mlx.text.tokenizer import Tokenizer

IM_END = 151645
STOPS = (IM_END, 151643)
ONE_SENTENCE = SamplingConfig(max_sentences=1)


def push_all(reply: Reply, ids: Sequence[int]) -> list[str]:
    """Push ids until the reply is full; return the pieces with the last one."""
    pieces = []
    for token in ids:
        pieces.append(reply.push(token))
        if reply.is_full:
            break
    return [*pieces, reply.flush()]


def reply_to(tokenizer: Tokenizer, text: str, limits: SamplingConfig, ended: bool = True) -> Reply:
    reply = Reply(tokenizer, STOPS, limits=limits)
    push_all(reply, [*tokenizer.encode(text), *([IM_END] if ended else [])])
    return reply


@pytest.mark.parametrize(
    ("generated", "words", "shown"),
    [
        ("He shoots and scores.", 9, "He shoots and scores."),
        ("He shoots and scores.", 4, "He shoots and scores."),
        ("He shoots and scores.", 3, "He shoots and"),
        ("He shoots and scores.", 1, "He"),
        ("He shoots - and scores", 3, "He shoots - and"),
        ("Unbelievable counterattack", 1, "Unbelievable"),
        ("他射门得分", 3, "他射门"),
        ("", 1, ""),
        (" ...", 1, ""),
    ],
)
def test_a_limit_of_words(tokenizer: Tokenizer, generated: str, words: int, shown: str) -> None:
    reply = reply_to(tokenizer, generated, SamplingConfig(max_words=words))
    assert reply.text == shown
    assert not shown or tokenizer.decode(reply.said).strip() == shown


@pytest.mark.parametrize(
    ("generated", "sentences", "shown"),
    [
        ("He shoots. She saves. Corner.", 1, "He shoots."),
        ("He shoots. She saves. Corner.", 2, "He shoots. She saves."),
        ("He shoots\n\n- she saves", 1, "He shoots"),
        ('"What a goal!" he cries.', 1, '"What a goal!"'),
        ("Mr. Smith scores 2.5 points. Great.", 1, "Mr. Smith scores 2.5 points."),
        ("No. 10 waits ... and shoots! Wide.", 1, "No. 10 waits ... and shoots!"),
        ("He shoots.", 1, "He shoots."),
        ("\n\nHe shoots.\n\nWide", 1, "He shoots."),
        ("他射门。她扑住了。", 1, "他射门。"),
    ],
)
def test_a_limit_of_sentences(tokenizer: Tokenizer, generated: str, sentences: int, shown: str) -> None:
    reply = reply_to(tokenizer, generated, SamplingConfig(max_sentences=sentences))
    assert reply.text == shown
    assert tokenizer.decode(reply.said).strip() == shown


def test_a_reply_that_is_cut_short_ends_with_a_word(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" An unbelievable counterattack")
    assert [len(tokenizer.decode([i])) for i in ids] == [3, 13, 8, 6]
    cut = Reply(tokenizer, STOPS, limits=SamplingConfig(max_words=9))
    assert push_all(cut, ids[:3]) == ["", "An", " unbelievable", ""]
    assert cut.said == ids[:2]
    free = Reply(tokenizer, STOPS)
    assert "".join(push_all(free, ids[:3])) == "An unbelievable counter"
    assert free.said == ids[:3]
    single = Reply(tokenizer, STOPS, limits=SamplingConfig(max_words=9))
    assert "".join(push_all(single, ids[2:3])) == "counter"


@given(
    words=st.lists(
        st.sampled_from([" He", " shoots", " un", "believ", "able", ".", "!", "\n", " ...", " 2", "他", "。"])
    ),
    limit=st.integers(1, 5),
    sentences=st.sampled_from([None, 1, 2]),
    ended=st.booleans(),
)
def test_what_is_shown_is_what_is_kept(
    tokenizer: Tokenizer, words: list[str], limit: int, sentences: int | None, ended: bool
) -> None:
    ids = [i for word in words for i in tokenizer.encode(word)]
    limits = SamplingConfig(max_words=limit, max_sentences=sentences)
    reply, free = Reply(tokenizer, STOPS, limits=limits), Reply(tokenizer, STOPS)
    pieces = push_all(reply, [*ids, *([IM_END] if ended else [])])
    kept = Reply(tokenizer, STOPS)
    push_all(kept, [*reply.said, IM_END])
    assert "".join(pieces) == reply.text == kept.text
    assert reply.said == ids[: len(reply.said)]
    push_all(free, [*ids, IM_END])
    assert free.text.startswith(reply.text)


@pytest.mark.parametrize("generated", ["...", " ...", "…", ". . .", "-", "", "\n...\n", '"..."', "***"])
def test_a_reply_without_a_word_is_silence_where_words_are_needed(tokenizer: Tokenizer, generated: str) -> None:
    reply = Reply(tokenizer, STOPS, needs_word=True)
    assert "".join(push_all(reply, [*tokenizer.encode(generated), IM_END])) == reply.text == ""


def test_a_reply_with_a_word_is_shown_whole_where_words_are_needed(tokenizer: Tokenizer) -> None:
    reply = Reply(tokenizer, STOPS, needs_word=True)
    assert "".join(push_all(reply, [*tokenizer.encode('- "... Goal!" ...'), IM_END])) == '- "... Goal!"'


@pytest.mark.parametrize(
    ("generated", "pieces"),
    [
        ("He shoots, and scores", ["", "", "", "", "", ""]),
        ("HE SHOOTS AND SCORES!", [""] * 9),
        ("He shoots, and misses", ["", "", "", "", "He shoots, and misses", ""]),
        ("He shoots", ["", "", "He shoots"]),
        ("She shoots", ["She", " shoots", ""]),
    ],
)
def test_a_text_is_held_back_while_it_may_be_a_repetition(
    tokenizer: Tokenizer, generated: str, pieces: list[str]
) -> None:
    guard = RepetitionGuard(SamplingConfig(repetition_window=9.0))
    guard.add(0.0, [], "He shoots and scores.")
    reply = Reply(tokenizer, STOPS, guard=guard)
    found = push_all(reply, tokenizer.encode(generated))
    assert "".join(found) == "".join(pieces) == reply.text
    assert [bool(piece) for piece in found] == [bool(piece) for piece in pieces]
    assert reply.is_repeated == (not reply.text)
