"""What a run begins with."""

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.data.dataset import SampleBuilder
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import save_checkpoint
from streaming_vlm_mlx.taught_questions import read_questions
from streaming_vlm_mlx.train.initial_checkpoint import load_initial_checkpoint, make_stream
from streaming_vlm_mlx.train.setup import (
    make_builder,
    make_windows,
    open_records,
    with_pixels_of,
)
from tests.train.running import BASE, write_records


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[RecordFile]:
    return open_records([str(write_records(tmp_path_factory.mktemp("records")))], print)


def test_what_is_said_has_rows(files: list[RecordFile]) -> None:
    checkpoint = load_initial_checkpoint(BASE.merged({"model": {"vocab_size": 400}}), files)
    assert len(checkpoint.vocabulary) == 400 == checkpoint.model.config.text_config.vocab_size
    said = {turn.assistant_text for turn in (*files[0][0].turns, *files[0][1].turns)}
    assert len(said) > 8
    for text in said:
        ids = checkpoint.tokenizer.encode(text)
        assert len(checkpoint.vocabulary.to_rows(ids)) == len(ids), text


def test_a_sample_has_a_row_for_every_id_and_says_the_same(files: list[RecordFile]) -> None:
    """Words without a row of their own are written in pieces, labels with them."""
    checkpoint = load_initial_checkpoint(BASE, [])
    window = make_windows(files, BASE)[1]
    whole = SampleBuilder(checkpoint.tokenizer, make_builder(checkpoint, BASE).config).build(window)
    split = make_builder(checkpoint, BASE).build(window)
    assert len(split) > len(whole)
    assert np.array_equal(checkpoint.vocabulary.to_ids(checkpoint.vocabulary.to_rows(split.input_ids)), split.input_ids)
    for a, b in ((split.input_ids, whole.input_ids), (split.labels, whole.labels)):
        said = [checkpoint.tokenizer.decode(ids[ids >= 0], markup=True) for ids in (a, b)]
        assert said[0] == said[1]


def test_the_same_seed_is_the_same_model(files: list[RecordFile]) -> None:
    first, same, other = (
        load_initial_checkpoint(BASE.merged({"model": {"seed": seed}}), files).model for seed in (1, 1, 2)
    )
    for (name, a), (_, b), (_, c) in zip(*(m.named_arrays() for m in (first, same, other)), strict=True):
        assert mx.array_equal(a, b), name
        assert a.ndim == 1 or not mx.array_equal(a, c), name


def test_the_stream_has_the_records_rate(tmp_path: Path, files: list[RecordFile]) -> None:
    path = tmp_path / "fast.jsonl"
    path.write_bytes(files[0].path.read_bytes().replace(b'"fps":2.0', b'"fps":4.0'))
    fast = open_records([str(path)], print)
    assert (make_stream(BASE, files).fps, make_stream(BASE, fast).fps) == (2.0, 4.0)
    assert make_stream(BASE.merged({"stream": {"fps": 1.0}}), fast).fps == 1.0


def with_questions(file: RecordFile, name: str, questions: list[str]) -> list[RecordFile]:
    """Write the first record of `file` beside it, with one of the `questions` in each of its seconds, and open it."""
    record, path = file[0], file.path.with_name(f"{name}.jsonl")
    turns = [replace(turn, question=asked) for turn, asked in zip(record.turns, questions, strict=False)]
    path.write_bytes(replace(record, turns=tuple(turns)).to_line())
    return open_records([str(path)], print)


def test_a_new_model_names_the_questions_of_its_records(tmp_path: Path, files: list[RecordFile]) -> None:
    config = BASE.merged({"stream": {"scratchpad": "What is seen?"}})
    asked = with_questions(files[0], "asked", ["", "Who leads?", "What is seen?", "Why?", "Why?"])
    checkpoint = load_initial_checkpoint(config, asked)
    assert checkpoint.questions == ("Why?", "Who leads?")
    save_checkpoint(tmp_path / "run", checkpoint)
    assert read_questions(tmp_path / "run") == ("Why?", "Who leads?")
    # What it can answer stays, and more is learnt; the records without questions name none.
    more = with_questions(files[0], "more", ["Who serves?", "Why?"])
    start = BASE.merged({"model": {"checkpoint": str(tmp_path / "run")}})
    assert load_initial_checkpoint(start, more).questions == ("Why?", "Who leads?", "Who serves?")
    assert load_initial_checkpoint(start, files).questions == ("Why?", "Who leads?")
    assert load_initial_checkpoint(BASE, files).questions == ()


def test_a_checkpoint_that_names_no_questions_may_be_asked_anything_afterwards(
    tmp_path: Path, files: list[RecordFile]
) -> None:
    save_checkpoint(tmp_path / "base", load_initial_checkpoint(BASE, files))
    asked = with_questions(files[0], "asked", ["Who leads?"])
    start = BASE.merged({"model": {"checkpoint": str(tmp_path / "base")}})
    assert load_initial_checkpoint(start, asked).questions == ()


def test_patches_are_those_of_the_checkpoint_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}', encoding="utf-8")
    pixels = with_pixels_of(BASE, tmp_path).data.pixels
    assert (pixels.patch_size, pixels.image_mean, pixels.min_pixels) == (16, (0.5, 0.5, 0.5), 784)
    assert pixels.max_pixels == 384 * 32 * 32


def test_patches_of_another_size_than_the_model_takes_are_refused(files: list[RecordFile]) -> None:
    checkpoint = load_initial_checkpoint(BASE, [])
    with pytest.raises(SvmError, match=r"^pixels\.patch_size is 16; it must be 14, as in this checkpoint"):
        make_builder(checkpoint, BASE.merged({"data": {"pixels": {"patch_size": 16}}}))


def test_bad_lines_are_told_of(tmp_path: Path, files: list[RecordFile]) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"{}\n" + files[0].path.read_bytes())
    messages: list[str] = []
    assert len(open_records([str(path)], messages.append)[0]) == 2
    assert len(messages) == 1
    assert "1 lines of" in messages[0]
    assert "some.jsonl:1" in messages[0]
