"""Files that exports may replace, and those that they may not."""

from pathlib import Path

import av
import pytest

from streaming_vlm_mlx.data.transcripts import TimedText
from streaming_vlm_mlx.data.transcripts import read_cues as read_timed_texts
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import exported_clip
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.audio.voices import voice_command
from tests.sessions.test_mp4 import read_cues
from tests.sessions.test_mp4_voice import SAID as SPOKEN
from tests.sessions.test_mp4_voice import check_levels, make_clip_with_tone
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


SAID = ("Red", "to serve. That's", "a fault.")


@pytest.mark.parametrize(
    ("per_second", "cues"),
    [
        (False, [(0.0, 1.667, "Red to serve."), (1.667, 3.0, "That's a fault.")]),
        (True, [(float(number), number + 1.0, said) for number, said in enumerate(SAID)]),
    ],
)
def test_subtitles_hold_sentences_or_seconds(
    tmp_path: Path, per_second: bool, cues: list[tuple[float, float, str]]
) -> None:
    clip = make_clip(tmp_path / "game.mp4", count=30, rate=10)
    seconds = tuple(GenerationResult(number, float(number), number + 1.0, said) for number, said in enumerate(SAID))
    session = tmp_path / "session.json"
    session.write_text(SessionRecord(clip=str(clip), seconds=seconds).to_json())
    for ending in (".vtt", ".srt", ".json", ".mp4"):
        out = tmp_path / f"out{ending}"
        assert cli.main(["export", str(session), "--out", str(out), *(["--per-second"] if per_second else [])]) == 0
        if ending == ".json":
            assert SessionRecord.load(out).seconds == seconds
            continue
        read = read_cues(out) if ending == ".mp4" else list(read_timed_texts(out.read_text()))
        found = [(cue.start, cue.end, cue.pieces[0][2]) if isinstance(cue, TimedText) else cue for cue in read]
        assert [(round(start, 3), round(end, 3), text) for start, end, text in found] == cues


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A saved session on a clip with sound."""
    clip = make_clip_with_tone(tmp_path / "game.mp4")
    path = tmp_path / "session.json"
    path.write_text(SessionRecord(clip=str(clip), seconds=tuple(SPOKEN)).to_json())
    return path


def test_commentary_is_spoken_and_drawn(session: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "out.mp4", tmp_path / "heard"
    words = ["export", str(session), "--out", str(out), "--language", "deu"]
    assert cli.main([*words, "--voice-command", voice_command(tmp_path, heard=heard), "--burn"]) == 0
    assert heard.read_text() == "he cuts inside.\nand scores!\n"
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio", "subtitle"]
    check_levels(out, 1)
    assert exported_clip(out) == "game.mp4"
    # Without the switches, it is the clip with subtitles again.
    assert cli.main(words) == 0
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle"]


@pytest.mark.parametrize("switch", ["--voice", "--burn"])
def test_only_a_film_has_sound_and_pictures(
    session: Path, tmp_path: Path, switch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.srt"
    assert cli.main(["export", str(session), "--out", str(out), switch]) == 2
    assert "end the name with .mp4" in capsys.readouterr().err
    assert not out.exists()


def test_a_voice_that_fails_leaves_nothing(session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, before = tmp_path / "out.mp4", sorted(tmp_path.iterdir())
    command = voice_command(tmp_path, fail="noise")
    assert cli.main(["export", str(session), "--out", str(out), "--voice", "--voice-command", command]) == 2
    assert "wrote no WAV" in capsys.readouterr().err
    assert cli.main(["export", str(session), "--out", str(out), "--voice-command", "no-such-program"]) == 2
    assert "no-such-program, which speaks the commentary, is not installed" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.iterdir() if path.name != "voice.py") == before
