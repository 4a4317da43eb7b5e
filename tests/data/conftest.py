import json
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.data.convert_dataset import DatasetConversion
from streaming_vlm_mlx.data.livecc_annotations import open_samples
from streaming_vlm_mlx.data.records import RecordFile
from tests.data.making import convert, write_clip


@pytest.fixture(scope="session")
def expected(shared: Path) -> Any:
    """What LMMDataset itself made of the annotation file."""
    return json.loads((shared / "lmm" / "expected.json").read_text())


@pytest.fixture(scope="session")
def games(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordFile:
    """The same annotation file, converted."""
    out = tmp_path_factory.mktemp("games") / "games.jsonl"
    annotations = open_samples([shared / "lmm" / "games_with_seeks.jsonl"])
    clips = out.parent / "clips"
    clips.symlink_to(shared / "clips")
    convert(DatasetConversion(annotations, out, clips))
    return RecordFile.open(out)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``long.mp4`` (12 s) and ``short.mp4`` (3.2 s), 25 frames a second."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "long.mp4", range(300))
    write_clip(folder / "short.mp4", range(80))
    return folder
