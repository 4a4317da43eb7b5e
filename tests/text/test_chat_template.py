import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.text.chat_template import ChatTemplate, assistant_text, template_ids, user_text
from streaming_vlm_mlx.text.detokenizer import CommentaryCleaner, clean_commentary

CASES = ["append", "balanced", "full_attention", "recompute", "text_longer", "vision_longer"]


def _head(template, tokenizer, previous):
    return [*template.system_turn, *template.previous_open, *tokenizer.encode(previous), *template.turn_close]


@pytest.mark.parametrize("case", CASES)
def test_the_published_inference_writes_the_same_ids(shared, tokenizer, case):
    recorded = json.loads((shared / "conformance" / f"{case}.json").read_text())
    params, chunks = recorded["params"], recorded["chunks"]
    template = ChatTemplate.of(tokenizer)
    patches = chunks[0]["ids"].count(tokenizer.special.video_pad)
    turn = [*template.user_open, *tokenizer.encode(template.time(0.0, 1.0)), *template.video(patches)]
    query = tokenizer.encode(params.get("query", "Commentate on this match"))
    turn += [*query, *template.turn_close, *template.assistant_open()]
    assert chunks[0]["ids"] == _head(template, tokenizer, params.get("prev", "")) + turn

    last = len(chunks) - 1
    turn = [*template.user_open, *tokenizer.encode(template.time(last, last + 1)), *template.video(patches)]
    turn += [*template.turn_close, *template.assistant_open()]
    assert chunks[last]["ids"][-len(turn) - 2 :] == [*template.turn_close, *turn]


def _written(template, tokenizer, conversation, patches):
    """Return the ids of a conversation in which a question's answer stands before the first line break."""
    ids = _head(template, tokenizer, conversation[0]["text"])
    turns = conversation[1:]
    for number, (user, assistant) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        time, _, question = user["content"][0]["text"].partition("s")
        start, end = time.removeprefix("Time=").split("-")
        answer, _, words = assistant["content"][0]["text"].partition("\n")
        ids += template.user_open
        ids += tokenizer.encode(template.time(float(start), float(end), question, first=number == 0))
        ids += [*template.video(patches), *template.turn_close, *template.assistant_open(bool(answer))]
        said = words.strip().removesuffix("...").split()
        ids += [*tokenizer.encode(assistant_text(said, answer).removeprefix("\n")), *template.turn_close]
    return ids


@pytest.mark.parametrize("sample", range(3))
def test_the_published_training_data_has_the_same_ids(shared, tokenizer, sample):
    expected = json.loads((shared / "lmm/expected.json").read_text())["plain"][sample]
    patches = expected["input_ids"].count(tokenizer.special.video_pad) // len(expected["video_grid_thw"])
    written = _written(ChatTemplate.of(tokenizer, "training"), tokenizer, expected["conversation"], patches)
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
    assert ChatTemplate.of(tokenizer, style).time(0.5, 1.5, question, first) == text


@pytest.mark.parametrize(("question", "first"), [("", True), ("", False), ("Who?", True), ("Who?", False)])
def test_a_stream_in_the_training_style_says_what_records_say(tokenizer, question, first):
    template = ChatTemplate.of(tokenizer, "training")
    assert template.time(7.0, 8.0, question, first) == user_text(7.0, 8.0, question, first=first)


@pytest.mark.parametrize(
    ("words", "answer", "text"),
    [((), "", "\n ..."), (["a", " b"], "", "\n a  b ..."), (["goal!"], "Seven. ", "Seven. \n goal! ...")],
)
def test_an_assistant_turn_of_training_data(words, answer, text):
    assert assistant_text(words, answer) == text


def test_a_stream_may_be_long(tokenizer):
    assert ChatTemplate.of(tokenizer).time(35999.0, 36000.0) == "Time=35999.0-36000.0s"


@pytest.mark.parametrize(
    ("style", "has_query", "has_previous"),
    [("inference", True, True), ("training", False, True), ("livecc", True, False)],
)
def test_what_a_style_has_a_place_for(tokenizer, style, has_query, has_previous):
    template = ChatTemplate.of(tokenizer, style)
    assert (template.has_query, template.has_previous) == (has_query, has_previous)


def test_a_commentary_stops_at_the_end_of_turn(tokenizer):
    template = ChatTemplate.of(tokenizer)
    assert template.stop_ids == (151645, 151643)
    assert tokenizer.encode(assistant_text(()).removeprefix("\n")) == [template.silence_id]


@given(words=st.text(st.sampled_from("a é.!\n")).map(str.strip), answer=st.sampled_from(["", "The seventh."]))
def test_what_training_writes_a_viewer_reads(words, answer):
    read = clean_commentary(assistant_text([words] if words else [], answer))
    assert read == clean_commentary(f"{answer}\n{words}")


def test_layout_ids_are_all_that_a_layout_writes(tokenizer):
    ids = set(template_ids(tokenizer))
    for style in ("inference", "training", "livecc"):
        template = ChatTemplate.of(tokenizer, style)
        written = [
            *template.system_turn,
            *template.previous_open,
            *template.turn_close,
            *template.user_open,
            *template.video(2),
            *template.stop_ids,
        ]
        written += [*template.assistant_open(), *template.assistant_open(answers=True), *template.turn_close]
        for second in range(100):
            written += tokenizer.encode(template.time(second, second + 1))
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
