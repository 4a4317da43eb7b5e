import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.convert_dataset import DatasetConversion
from streaming_vlm_mlx.data.livecc_annotations import Annotation, Question, open_samples
from streaming_vlm_mlx.data.record_builder import load_lmm_dataset, make_turns
from streaming_vlm_mlx.data.transcripts import Word
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import convert


def annotation(words: list[Word], questions: list[Question] | None = None, start: float = 0.0) -> Annotation:
    return Annotation("a.mp4", start, start + 9, tuple(words), tuple(questions or []))


def said(made: Annotation, count: int) -> list[str]:
    return [turn.assistant_text for turn in make_turns(made, count)]


def test_a_word_is_said_in_the_second_it_ends_in() -> None:
    made = annotation([(0.0, 1.0, "on"), (0.9, 1.01, "time"), (1.0, 3.5, "late"), (3.0, 9.9, "never")])
    assert said(made, 4) == ["\n on ...", "\n time ...", "\n ...", "\n late ..."]


def test_what_was_said_before_the_stretch_comes_in_its_first_second() -> None:
    made = annotation([(3.0, 4.0, "before"), (5.0, 5.5, "now")], start=5.0)
    assert said(made, 1) == ["\n before now ..."]


def test_a_word_waits_for_one_that_ends_later() -> None:
    made = annotation([(0.0, 2.5, "slow"), (0.5, 0.9, "quick")])
    assert said(made, 3) == ["\n ...", "\n ...", "\n slow quick ..."]


def test_times_have_one_decimal_and_a_space_from_the_second_on() -> None:
    texts = [turn.user_text for turn in make_turns(annotation([], start=1.25), 3)]
    assert texts == ["Time=1.2-2.2s", "Time=2.2-3.2s ", "Time=3.2-4.2s "]


class TestQuestions:
    def test_in_the_first_second_and_later(self) -> None:
        made = make_turns(annotation([(0, 1, "w")], [(0.0, 0.5, "Who?", "He."), (1.0, 2.0, "What?", "It.")]), 3)
        assert [turn.user_text for turn in made] == ["Time=0.0-1.0sWho?", "Time=1.0-2.0s What?", "Time=2.0-3.0s "]
        assert [turn.assistant_text for turn in made] == ["He.\n w ...", "It.\n ...", "\n ..."]
        assert [(turn.question, turn.answer) for turn in made] == [("Who?", "He."), ("What?", "It."), ("", "")]

    def test_two_in_a_second_lose_all_that_follow(self) -> None:
        made = make_turns(annotation([], [(0, 1, "1?", ""), (0, 1, "2?", ""), (1, 2, "3?", "")]), 3)
        assert [turn.question for turn in made] == ["1?", "", ""]

    def test_one_before_the_stretch_loses_all_that_follow(self) -> None:
        made = make_turns(annotation([], [(0, 5, "1?", ""), (6, 7, "2?", "")], start=5.0), 3)
        assert [turn.question for turn in made] == ["", "", ""]


words = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 1), st.sampled_from("abcde")), max_size=20)


@given(words, st.integers(1, 12), st.integers(0, 3))
def test_every_word_in_time_is_said_once_in_order(raw: list[tuple[float, float, str]], count: int, start: int) -> None:
    stream = sorted((begin, begin + length, word) for begin, length, word in raw)
    stream.sort(key=lambda word: word[1])
    made = make_turns(annotation(list(stream), start=float(start)), count)
    assert [word for turn in made for word in turn.commentary.split()] == [
        w for _, e, w in stream if e <= start + count
    ]
    for turn in made[1:]:
        assert turn.commentary.split() == [w for _, e, w in stream if turn.start < e <= turn.end]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_seconds_follow_one_another(count: int) -> None:
    made = make_turns(annotation([], start=2.0), count)
    assert [(turn.start, turn.end) for turn in made] == [(2.0 + n, 3.0 + n) for n in range(count)]


class LMMDataset:
    """Gives the recorded conversations, found as the real one finds them."""

    expected: Any
    folder: str

    def __init__(self, *, train_annotation_paths: list[str], processor: Any) -> None:
        assert train_annotation_paths == []
        assert "Qwen2VL" in processor.__class__.__name__
        self.im_start_id, self.assistant_id, self.newline_id, self.im_end_id = processor.tokenizer(
            "<|im_start|>assistant\n<|im_end|>"
        ).input_ids
        self.handles: list[tuple[str, int]] = []

    def getitem(self, index: int, return_text: bool = False) -> Any:
        assert return_text
        assert os.environ["DATASET_PATH"] == self.folder
        path, seek = self.handles[index]
        offsets = json.loads(Path(path).with_name("games_seeks.jsonl").read_text())
        number = offsets.index(seek)
        if number == 1:
            raise ValueError("Video broken\nnot found")
        previous, *messages = self.expected["plain"][number]["conversation"]
        return [{"role": "previous text", "content": previous["text"]}, *messages]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, expected: Any, shared: Path) -> None:
    for name in ("streaming_vlm", "streaming_vlm.data"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module: Any = ModuleType("streaming_vlm.data.lmm_dataset")
    module.LMMDataset = LMMDataset
    monkeypatch.setitem(sys.modules, "streaming_vlm.data.lmm_dataset", module)
    monkeypatch.setattr(LMMDataset, "expected", expected, raising=False)
    monkeypatch.setattr(LMMDataset, "folder", str(shared / "clips"), raising=False)


def test_it_is_found_only_where_it_is_installed(request: pytest.FixtureRequest) -> None:
    with pytest.raises(SvmError, match="LMMDataset cannot be imported"):
        load_lmm_dataset()
    request.getfixturevalue("installed")
    assert load_lmm_dataset() is LMMDataset


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_records_are_the_same_as_ours(
    shared: Path, tmp_path: Path, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv("DATASET_PATH", before)
    else:
        monkeypatch.delenv("DATASET_PATH", raising=False)
    sources = open_samples([shared / "lmm" / "games_with_seeks.jsonl"])
    ours, theirs, reported = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl", list[str]()
    convert(DatasetConversion(sources, ours, shared / "clips"))
    job = DatasetConversion(sources, theirs, shared / "clips", dataset_class=load_lmm_dataset())
    summary = convert(job, report=reported.append)
    first, _, third = ours.read_text().splitlines()
    assert theirs.read_text().splitlines() == [first, third]
    assert summary.skipped == {"LMMDataset cannot read it": 1}
    assert reported[0].endswith("games_with_seeks.jsonl:2: LMMDataset cannot read it: Video broken not found")
    assert os.environ.get("DATASET_PATH") == before


@pytest.mark.usefixtures("installed")
def test_its_words_win(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any) -> None:
    changed = json.loads(json.dumps(expected).replace("The crowd", "THE CROWD"))
    monkeypatch.setattr(LMMDataset, "expected", changed)
    sources = open_samples([shared / "lmm" / "games_with_seeks.jsonl"])
    out = tmp_path / "r.jsonl"
    convert(DatasetConversion(sources, out, shared / "clips", dataset_class=LMMDataset))
    assert json.loads(out.read_text().splitlines()[0])["turns"][0]["assistant_text"] == "\n THE CROWD ..."


@pytest.mark.usefixtures("installed")
def test_turns_after_the_end_of_a_record_are_dropped_and_counted(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    """As with decord's pre-roll frames: three turns more than the stretch has seconds."""
    longer = json.loads(json.dumps(expected))
    turns = longer["plain"][0]["conversation"]
    turns.extend(turns[-2:] * 3)
    monkeypatch.setattr(LMMDataset, "expected", longer)
    sources = open_samples([shared / "lmm" / "games_with_seeks.jsonl"])
    ours, theirs, reported = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl", list[str]()
    convert(DatasetConversion(sources, ours, shared / "clips"))
    summary = convert(
        DatasetConversion(sources, theirs, shared / "clips", dataset_class=LMMDataset), report=reported.append
    )
    assert theirs.read_text().splitlines()[0] == ours.read_text().splitlines()[0]
    assert summary.dropped_turns == 3
    assert "turns dropped   3" in summary.lines()
    assert reported[0].endswith("games_with_seeks.jsonl:1: dropped 3 turns of LMMDataset after the record's end at 7 s")
