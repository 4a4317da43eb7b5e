import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.chat_template import ChatTemplate, assistant_text, template_ids
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary, build, count_ids
from tests.small import small_vocabulary

ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])
CORPUS = ["and he cuts inside, it's a shot!", "the keeper parries the volley", "the crowd is on its feet"] * 3


@pytest.fixture(scope="module", params=["preset", "corpus", "smallest"])
def vocabulary(request, tokenizer):
    if request.param == "preset":
        return small_vocabulary(tokenizer, 2000)
    if request.param == "corpus":
        return build(tokenizer, count_ids(tokenizer, CORPUS), 400)
    return CompactVocabulary(tokenizer.byte_ids(), tokenizer)


@settings(max_examples=200, deadline=None)
@given(text=st.text(ASSIGNED, max_size=80))
def test_any_text_can_be_said(vocabulary, tokenizer, text):
    rows = vocabulary.to_rows(tokenizer.encode(text))
    assert rows.dtype == np.int32
    assert tokenizer.decode(vocabulary.to_ids(rows)) == unicodedata.normalize("NFC", text)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 151664), max_size=30))
def test_every_id_keeps_its_text(vocabulary, tokenizer, ids):
    back = vocabulary.to_ids(vocabulary.to_rows(ids))
    assert tokenizer.decode(back, markup=True) == tokenizer.decode(ids, markup=True)
    assert np.array_equal(vocabulary.to_ids(vocabulary.to_rows(back)), back)


def test_rows_and_ids_are_each_others_inverse(vocabulary):
    rows = np.arange(len(vocabulary), dtype=np.int32)
    assert np.array_equal(vocabulary.to_rows(vocabulary.to_ids(rows)), rows)
    assert vocabulary.to_id(3) == vocabulary.ids[3]


def test_an_absent_token_becomes_its_largest_pieces(tokenizer):
    keeper = tokenizer.encode(" keeper")
    assert len(keeper) == 1
    pieces = tokenizer.split(keeper[0])
    with_pieces = CompactVocabulary([*tokenizer.byte_ids(), *(p for p in pieces if p > 255)], tokenizer)
    assert with_pieces.to_ids(with_pieces.to_rows(keeper)).tolist() == pieces


def test_the_turns_of_a_stream_are_not_split(tokenizer):
    small = small_vocabulary(tokenizer, 320)
    template = ChatTemplate.of(tokenizer, "training")
    turns = [
        *template.system_turn,
        *template.previous_open,
        *template.user_open,
        *template.video(3),
        *template.turn_close,
        *template.assistant_open(),
    ]
    turns += tokenizer.encode(template.time(59.0, 60.0)) + tokenizer.encode(assistant_text(()).removeprefix("\n"))
    assert small.to_ids(small.to_rows(turns)).tolist() == turns


def test_the_most_used_ids_get_the_rows(tokenizer):
    counts = count_ids(tokenizer, CORPUS)
    required = {*tokenizer.byte_ids(), *template_ids(tokenizer)}
    extra = set(build(tokenizer, counts, len(required) + 2).ids.tolist()) - required
    assert extra == {tokenizer.encode("the")[0], tokenizer.encode(" the")[0]}
    assert counts[tokenizer.encode(" the")[0]] == 3


def test_a_preset_is_the_first_ranks(tokenizer):
    ids = small_vocabulary(tokenizer, 4096).ids
    required = {*tokenizer.byte_ids(), *template_ids(tokenizer)}
    ranks = [i for i in ids.tolist() if i not in required]
    assert len(ids) == 4096
    assert ids[-1] == tokenizer.special.video_pad
    assert set(range(max(ranks) + 1)) <= set(ids.tolist())


def test_extra_ids_get_a_row(tokenizer):
    assert 151000 in build(tokenizer, count_ids(tokenizer, []), 400, extra=[151000]).ids


@pytest.mark.parametrize("size", [0, 256, 151666])
def test_an_impossible_size_names_the_possible_ones(tokenizer, size):
    with pytest.raises(SvmError, match=rf"of {size} rows is not possible; choose \d+ to 151665"):
        small_vocabulary(tokenizer, size)


def test_a_saved_vocabulary_is_the_same(vocabulary, tokenizer, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = CompactVocabulary.load(tmp_path / "vocabulary.json", tokenizer)
    assert np.array_equal(loaded.ids, vocabulary.ids)
    assert loaded.digest == vocabulary.digest
    assert [p.name for p in tmp_path.iterdir()] == ["vocabulary.json"]


def test_the_digest_follows_the_rows(tokenizer):
    ids = tokenizer.byte_ids()
    assert CompactVocabulary(ids, tokenizer).digest != CompactVocabulary(ids[::-1], tokenizer).digest
    assert CompactVocabulary(ids, tokenizer).digest == FullVocabulary(256).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("ids"), "lacks a list 'ids'"),
        (lambda c: c.update(ids=["1"]), "lacks a list 'ids'"),
        (lambda c: c.update(ids=[2**40]), "lacks a list 'ids'"),
        (lambda c: c.update(version=2), "has version 2, this program reads 1"),
        (lambda c: c["ids"].pop(), "is damaged"),
    ],
)
def test_a_damaged_file_is_named(tokenizer, tmp_path, change, message):
    path = tmp_path / "vocabulary.json"
    small_vocabulary(tokenizer, 320).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SvmError, match=message) as caught:
        CompactVocabulary.load(path, tokenizer)
    assert "vocabulary.json" in str(caught.value)


def test_an_unreadable_file_is_named(tokenizer, tmp_path):
    with pytest.raises(SvmError, match="cannot be read: No such file"):
        CompactVocabulary.load(tmp_path / "none.json", tokenizer)
    (tmp_path / "half.json").write_text('{"ids": [1')
    with pytest.raises(SvmError, match=r"half\.json is not JSON"):
        CompactVocabulary.load(tmp_path / "half.json", tokenizer)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (lambda b: [*b, 7], "lists an id twice"),
        (lambda b: [*b, 151665], "beyond the tokenizer's 151665"),
        (lambda b: b[1:], "no row for the single byte of id 0"),
    ],
)
def test_a_vocabulary_that_cannot_say_everything_is_refused(tokenizer, ids, message):
    with pytest.raises(SvmError, match=message):
        CompactVocabulary(ids(tokenizer.byte_ids()), tokenizer)


def test_unknown_ids_are_a_defect(vocabulary):
    with pytest.raises(ValueError, match="the tokenizer's end before 151665"):
        vocabulary.to_rows([151665])
    with pytest.raises(ValueError, match="from -1"):
        vocabulary.to_rows([-1])


def test_in_a_full_vocabulary_rows_are_ids():
    full = FullVocabulary(152064)
    assert len(full) == 152064
    assert full.to_rows([872, 198]).tolist() == full.to_ids([872, 198]).tolist() == [872, 198]
    assert full.to_rows([1]).dtype == np.int32
    assert full.to_id(np.int32(5)) == 5
