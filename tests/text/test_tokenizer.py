import json
import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.detokenizer import StreamDecoder
from streaming_vlm_mlx.text.tokenizer import SHIPPED, SpecialIds, Tokenizer, tokenizer_file

ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])
IDS = st.lists(st.integers(0, 255) | st.integers(0, 152063), max_size=25)

SAMPLES = [
    "",
    " ",
    "\n\n \n\t  x",
    "Time=3.0-4.0s Who scored?",
    "It's a shot!! He'd've scored... 12,345.6 metres",
    "GOOOOOAL  of  the   season \r\n next",
    "日本語の実況 解说员 مباراة كرة القدم ผู้รักษาประตู",
    "⚽🏀🤾🏽‍♀️ 👨‍👩‍👧‍👦 🇧🇷",
    "e\u0301 Å \u212b ﬁ ½ \u200b\u00a0\ufeff\ufffd",
    "def f(x):\n    return {x: [1, 2]}\n",
]


@pytest.fixture(scope="module")
def reference(shared: Path):
    return AutoTokenizer.from_pretrained(shared / "qwen_tokenizer")


@pytest.mark.parametrize("text", SAMPLES)
def test_ids_are_those_of_transformers(tokenizer, reference, text):
    assert tokenizer.encode(text) == reference(text)["input_ids"]
    assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(reference(text)["input_ids"])


@settings(max_examples=200, deadline=None)
@given(text=st.text(ASSIGNED, max_size=80))
def test_ids_of_any_text_are_those_of_transformers(tokenizer, reference, text):
    assert tokenizer.encode_markup(text) == reference(text)["input_ids"]
    assert tokenizer.encode(text) == tokenizer.encode_markup(text) or "<" in text


def test_markup_has_the_ids_of_transformers(tokenizer, reference):
    text = "<|im_start|>user\nTime=0.0-1.0s<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<tool_call>"
    assert tokenizer.encode_markup(text) == reference(text)["input_ids"]


def test_shipped_ranks_are_the_fixture_s(shared):
    shipped, fixture = (json.loads((f / "tokenizer.json").read_text()) for f in (SHIPPED, shared / "qwen_tokenizer"))
    assert shipped == fixture


@settings(max_examples=200, deadline=None)
@given(text=st.text(ASSIGNED, max_size=80))
def test_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("added", ["<|im_end|>", "<|im_start|>", "<|video_pad|>", "<|endoftext|>", "<tool_call>"])
def test_markup_in_a_viewers_text_stays_text(tokenizer, added):
    ids = tokenizer.encode(f"who is this{added}?")
    assert max(ids) < tokenizer.special.endoftext
    assert tokenizer.decode(ids) == f"who is this{added}?"
    assert max(tokenizer.encode_markup(added)) >= tokenizer.special.endoftext


@given(text=st.text(max_size=20))
def test_broken_text_is_encoded_without_complaint(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode("\udcff" + text)).startswith("\ufffd")


def test_markup_shows_only_on_request(tokenizer):
    ids = tokenizer.encode_markup("<|im_start|>goal<|im_end|>")
    assert tokenizer.decode(ids) == "goal"
    assert tokenizer.decode(ids, markup=True) == "<|im_start|>goal<|im_end|>"


@settings(max_examples=300, deadline=None)
@given(ids=IDS)
def test_streamed_pieces_join_to_the_text(tokenizer, ids):
    decoder = StreamDecoder(tokenizer)
    assert "".join(decoder.push(i) for i in ids) + decoder.flush() == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("⚽🏀日本é a🤾‍♀️"), max_size=20))
def test_half_a_character_never_shows(tokenizer, text):
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(i) for i in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert decoder.flush() == ""


def test_a_flushed_decoder_is_reset(tokenizer):
    decoder = StreamDecoder(tokenizer)
    first, *_ = tokenizer.encode(" 🏀")
    assert decoder.push(first) == ""
    assert decoder.flush() == " \ufffd"
    assert decoder.push(tokenizer.encode("goal")[0]) + decoder.flush() == "goal"


def test_merges_are_those_of_the_file(tokenizer, shared):
    model = json.loads((shared / "qwen_tokenizer/tokenizer.json").read_text())["model"]
    merges = random.Random(0).sample(model["merges"], 3000)
    made = {model["vocab"][merge.replace(" ", "")]: merge.split(" ") for merge in merges}
    assert {i: [model["vocab"][p] for p in parts] for i, parts in made.items()} == {i: tokenizer.split(i) for i in made}


def test_bytes_and_markup_are_split_too(tokenizer):
    assert tokenizer.split(tokenizer.special.newline) == [tokenizer.special.newline]
    assert tokenizer.decode(tokenizer.split(tokenizer.special.im_end)) == "<|im_end|>"
    with pytest.raises(ValueError, match="no token 151665"):
        tokenizer.split(151665)


def test_special_ids_are_the_published_ones(tokenizer):
    assert tokenizer.special == SpecialIds()
    assert tokenizer.special.video_pad == 151656
    assert len(set(tokenizer.special.all())) == 17


def test_a_folder_without_tokenizer_takes_the_shipped_one(tmp_path):
    assert tokenizer_file(tmp_path) == SHIPPED / "tokenizer.json"
    shutil.copy(SHIPPED / "tokenizer.json", tmp_path)
    assert tokenizer_file(str(tmp_path)) == tmp_path / "tokenizer.json"


def _altered(tmp_path: Path, change) -> Path:
    content = json.loads((SHIPPED / "tokenizer.json").read_text())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return tmp_path


def test_a_shifted_special_id_is_named(tmp_path):
    def without_im_end(content):
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|im_end|>"]

    with pytest.raises(SvmError, match=r"'<\|im_end\|>' is ids? .*, in Qwen2.5-VL it is id 151645"):
        Tokenizer.load(_altered(tmp_path, without_im_end))


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "Unigram"}}', "\x00", "null"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(SvmError, match=r"tokenizer\.json is no") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["no-such-folder", "./runs/none", "/nowhere/at/all", Path("gone")])
def test_an_absent_folder_is_named(source):
    with pytest.raises(SvmError, match="is not a folder"):
        Tokenizer.load(source)


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    def refuse(repo_id, filename):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(SvmError, match=r"^someone/some-model is not a folder, .* \(ConnectionError\)"):
        Tokenizer.load("someone/some-model")


def test_a_hub_id_is_fetched(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo_id, filename: str(SHIPPED / filename))
    assert Tokenizer.load("Qwen/Qwen2.5-VL-3B-Instruct").encode("user") == [872]
