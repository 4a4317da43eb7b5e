"""`--via lmm`, with a stand-in that answers as LMMDataset did."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from streaming_vlm_mlx.data.annotations import open_sources
from streaming_vlm_mlx.data.convert import ConvertJob, convert
from streaming_vlm_mlx.data.record_builder import find_lmm_dataset


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
    assert find_lmm_dataset() is None
    request.getfixturevalue("installed")
    assert find_lmm_dataset() is LMMDataset


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_records_are_the_same_as_ours(
    shared: Path, tmp_path: Path, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv("DATASET_PATH", before)
    else:
        monkeypatch.delenv("DATASET_PATH", raising=False)
    sources = open_sources([shared / "lmm" / "games_with_seeks.jsonl"])
    ours, theirs, told = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl", list[str]()
    convert(ConvertJob(sources, ours, shared / "clips"))
    job = ConvertJob(sources, theirs, shared / "clips", dataset_class=find_lmm_dataset())
    summary = convert(job, report=told.append)
    first, _, third = ours.read_text().splitlines()
    assert theirs.read_text().splitlines() == [first, third]
    assert summary.skipped == {"LMMDataset cannot read it": 1}
    assert told[0].endswith("games_with_seeks.jsonl:2: LMMDataset cannot read it: Video broken not found")
    assert os.environ.get("DATASET_PATH") == before


@pytest.mark.usefixtures("installed")
def test_its_words_win(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any) -> None:
    changed = json.loads(json.dumps(expected).replace("The crowd", "THE CROWD"))
    monkeypatch.setattr(LMMDataset, "expected", changed)
    sources = open_sources([shared / "lmm" / "games_with_seeks.jsonl"])
    out = tmp_path / "r.jsonl"
    convert(ConvertJob(sources, out, shared / "clips", dataset_class=LMMDataset))
    assert json.loads(out.read_text().splitlines()[0])["turns"][0]["assistant_text"] == "\n THE CROWD ..."
