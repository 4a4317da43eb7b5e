import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.text.chat_template import Layout, layout_ids
from streaming_vlm_mlx.text.detokenizer import CommentaryCleaner, clean_commentary

CASES = ["append", "balanced", "full_attention", "recompute", "text_longer", "vision_longer"]


def _head(layout, tokenizer, previous):
    return [*layout.head_open, *tokenizer.encode(previous), *layout.head_close]


@pytest.mark.parametrize("case", CASES)
def test_the_published_inference_writes_the_same_ids(shared, tokenizer, case):
    recorded = json.loads((shared / "conformance" / f"{case}.json").read_text())
    params, chunks = recorded["params"], recorded["chunks"]
    layout = Layout.of(tokenizer)
    patches = chunks[0]["ids"].count(tokenizer.special.video_pad)
    turn = [*layout.user_open, *tokenizer.encode(layout.time(0.0, 1.0)), *layout.video(patches)]
    query = tokenizer.encode(params.get("query", "Commentate on this match"))
    turn += [*query, *layout.turn_close, *layout.assistant_open()]
    assert chunks[0]["ids"] == _head(layout, tokenizer, params.get("prev", "")) + turn

    last = len(chunks) - 1
    turn = [*layout.user_open, *tokenizer.encode(layout.time(last, last + 1)), *layout.video(patches)]
    turn += [*layout.turn_close, *layout.assistant_open()]
    assert chunks[last]["ids"][-len(turn) - 2 :] == [*layout.turn_close, *turn]


def _written(layout, tokenizer, conversation, patches):
    """Return the ids of a conversation in which a question's answer stands before the first line break."""
    ids = _head(layout, tokenizer, conversation[0]["text"])
    turns = conversation[1:]
    for number, (user, assistant) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        time, _, question = user["content"][0]["text"].partition("s")
        start, end = time.removeprefix("Time=").split("-")
        answer, _, words = assistant["content"][0]["text"].partition("\n")
        ids += layout.user_open
        ids += tokenizer.encode(layout.time(float(start), float(end), question, first=number == 0))
        ids += [*layout.video(patches), *layout.turn_close, *layout.assistant_open(bool(answer))]
        ids += [*tokenizer.encode(layout.commentary(words.removesuffix(" ..."), answer)), *layout.turn_close]
    return ids


@pytest.mark.parametrize("sample", range(3))
def test_the_published_training_data_has_the_same_ids(shared, tokenizer, sample):
    expected = json.loads((shared / "lmm/expected.json").read_text())["plain"][sample]
    patches = expected["input_ids"].count(tokenizer.special.video_pad) // len(expected["video_grid_thw"])
    written = _written(Layout.of(tokenizer, "training"), tokenizer, expected["conversation"], patches)
    assert written == expected["input_ids"]


@pytest.mark.parametrize(
    ("style", "question", "first", "text"),
    [
        ("inference", "", True, "Time=0.5-1.5s"),
        ("inference", "", False, "Time=0.5-1.5s"),
        ("inference", "Who?", False, "Time=0.5-1.5s Who?"),
        ("inference", " \n", False, "Time=0.5-1.5s"),
        ("training", "", True, "Time=0.5-1.5s"),
        ("training", "", False, "Time=0.5-1.5s "),
        ("training", " Who? ", False, "Time=0.5-1.5s Who?"),
        ("training", "Who?", True, "Time=0.5-1.5sWho?"),
    ],
)
def test_time_and_question(tokenizer, style, question, first, text):
    assert Layout.of(tokenizer, style).time(0.5, 1.5, question, first) == text


def test_a_stream_may_be_long(tokenizer):
    assert Layout.of(tokenizer).time(35999.0, 36000.0) == "Time=35999.0-36000.0s"


def test_only_inference_has_a_query(tokenizer):
    assert Layout.of(tokenizer, "inference").has_query
    assert not Layout.of(tokenizer, "training").has_query


def test_a_commentary_stops_at_the_end_of_turn(tokenizer):
    layout = Layout.of(tokenizer)
    assert layout.stop_ids == (151645, 151643)
    assert tokenizer.encode(layout.commentary("")) == [layout.silence_id]


@given(words=st.text(st.sampled_from("a é.!\n")).map(str.strip), answer=st.sampled_from(["", "The seventh."]))
def test_what_training_writes_a_viewer_reads(words, answer):
    read = clean_commentary("\n" + Layout(()).commentary(words, answer))
    assert read == clean_commentary(f"{answer}\n{words}")


def test_layout_ids_are_all_that_a_layout_writes(tokenizer):
    ids = set(layout_ids(tokenizer))
    for style in ("inference", "training"):
        layout = Layout.of(tokenizer, style)
        written = [*layout.head_open, *layout.head_close, *layout.user_open, *layout.video(2), *layout.stop_ids]
        written += [*layout.assistant_open(), *layout.assistant_open(answers=True), *layout.turn_close]
        for second in range(100):
            written += tokenizer.encode(layout.time(second, second + 1))
        assert set(written) <= ids


@pytest.mark.parametrize(
    ("generated", "read"),
    [
        ("\n The crowd ...", "The crowd"),
        ("\n ...", ""),
        (" ...", ""),
        ("...", ""),
        ("", ""),
        (" and he scores!", "and he scores!"),
        ("\n the floor , ...<|im_end|>", "the floor ,"),
        ("It is the seventh inning.\n the pitch and it ...", "It is the seventh inning.\nthe pitch and it"),
        (" he waits ... and shoots ...", "he waits ... and shoots"),
        (" what a goal... ...", "what a goal..."),
        (" what a goal...", "what a goal..."),
        (" well ... ...", "well"),
        ("<|im_start|>assistant", "assistant"),
        (" 3 < 4 <", "3 < 4 <"),
        (" ....", "...."),
        (" cut off ..", "cut off .."),
    ],
)
def test_what_a_viewer_reads(generated, read):
    assert clean_commentary(generated) == read


@example(pieces=["<|im", "<|im_end|>", "_end|>"])
@given(
    pieces=st.lists(
        st.sampled_from(
            ["\n", " ", ".", " ...", "..", "a", "<", "|", "im_end", "<|im_end|>", "\n\n", ">", "<|im", "_end|>"]
        )
    )
)
def test_shown_pieces_join_to_what_a_viewer_reads(pieces):
    cleaner = CommentaryCleaner()
    shown = [cleaner.push(piece) for piece in pieces]
    assert "".join(shown) + cleaner.flush() == clean_commentary("".join(pieces))
    assert cleaner.flush() == ""


@given(text=st.text(st.sampled_from("ab .\n")))
def test_what_a_viewer_reads_is_clean_already(text):
    read = clean_commentary(text)
    assert read == read.strip()
    assert clean_commentary(read) == read
    assert not read.endswith(" ...")


def test_markup_in_pieces_never_shows():
    cleaner = CommentaryCleaner()
    assert [cleaner.push(p) for p in ["He", " scores", "<|", "im_end", "|>"]] == ["He", " scores", "", "", ""]
    assert cleaner.flush() == ""


def test_words_show_as_soon_as_they_can():
    cleaner = CommentaryCleaner()
    assert [cleaner.push(p) for p in ["\n", " He", " shoots", " ...", " and"]] == ["", "He", " shoots", "", " ... and"]
