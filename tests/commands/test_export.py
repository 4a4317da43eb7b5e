"""Files that exports may replace, and those that they may not."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import exported_clip
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.video.clips import make_clip
from tui import cli

BY_HAND = "WEBVTT\n\n00:00.000 --> 00:01.000\nwhat was really said\n"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "game.mp4", count=10, rate=10)


@pytest.fixture
def words(request: pytest.FixtureRequest, clip: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command without its ``--out``, by its name."""
    if request.param == "infer":
        monkeypatch.setattr("tui.commands.options.CHECKPOINT", untrained)
        return ["infer", str(clip)]
    session = clip.with_suffix(".session.json")
    session.write_text(SessionRecord(clip=str(clip), seconds=(GenerationResult(0, 0.0, 1.0, "he scores"),)).to_json())
    return ["export", str(session)]


@pytest.mark.parametrize("words", ["infer", "export"], indirect=True)
def test_a_transcript_is_not_replaced_by_commentary(
    words: list[str], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = clip.with_suffix(".vtt")
    out.write_text(BY_HAND)
    assert cli.main([*words, "--out", str(out)]) == 2
    assert f"{out} exists and is not an earlier export of game.mp4" in capsys.readouterr().err
    assert out.read_text() == BY_HAND
    assert cli.main([*words, "--out", str(out), "--force"]) == 0
    assert exported_clip(out) == "game.mp4"
    assert cli.main([*words, "--out", str(out)]) == 0


@pytest.mark.parametrize("words", ["export"], indirect=True)
def test_another_film_is_not_replaced(words: list[str], clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make_clip(clip.with_name("holiday.mp4"), count=10, rate=10)
    before = out.read_bytes()
    assert cli.main([*words, "--out", str(out)]) == 2
    assert "is not an earlier export of game.mp4" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert cli.main([*words, "--out", str(out), "--force"]) == 0
    assert cli.main([*words, "--out", str(out)]) == 0
