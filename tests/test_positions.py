"""Positions at which clips were left."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from tui.positions import MOST_CLIPS, Positions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "positions.json"


def test_a_position_on_the_way_is_kept_and_one_near_an_end_is_forgotten(path: Path) -> None:
    positions = Positions(path)
    assert positions.find("a.mp4") is None
    positions.remember("a.mp4", 4.0, 60.0)
    assert not path.exists()
    positions.remember("a.mp4", 31.25, 60.0)
    positions.remember("b.mp4", 12.0, 60.0)
    assert Positions(path).find("./a.mp4") == 31.25
    positions.remember("a.mp4", 55.0, 60.0)
    assert positions.find("a.mp4") is None
    assert positions.find("b.mp4") == 12.0


def test_the_clips_of_longest_ago_are_forgotten(path: Path) -> None:
    positions = Positions(path)
    for number in range(MOST_CLIPS + 1):
        positions.remember(f"{number}.mp4", 20.0, 60.0)
    assert positions.find("0.mp4") is None
    assert positions.find("1.mp4") == 20.0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"%s": "x"}', '{"%s": -3}', '{"%s": NaN}', '{"%s": 1e999}', "\x00"])
def test_a_damaged_file_counts_as_empty(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text.replace("%s", str(Path.cwd() / "a.mp4")))
    positions = Positions(path)
    assert positions.find("a.mp4") is None
    positions.remember("a.mp4", 20.0, 60.0)
    assert positions.find("a.mp4") == 20.0


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(SvmError, match="cannot be written"):
        Positions(tmp_path / "state" / "positions.json").remember("a.mp4", 20.0, 60.0)
