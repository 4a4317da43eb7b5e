"""Where the truth is found, and what is odd about it."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import write
from streaming_vlm_mlx.stream.events import GenerationResult
from tui.commands.play import read_clip_truth
from tui.player.truth import find_truth, mismatch_warning, read_truth


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "game.mp4"
    path.write_bytes(b"video")
    return path


def record(clip: str, *texts: str) -> bytes:
    turns = (Turn(n, n + 1.0, f"Time={n}.0-{n + 1}.0s", f" {text} ...") for n, text in enumerate(texts))
    return StreamingRecord(clip, 0.0, float(len(texts)), tuple(turns)).to_line()


def test_the_transcript_beside_a_clip_is_found(clip: Path) -> None:
    assert find_truth(str(clip)) is None
    for ending in (".truth.json", ".jsonl", ".json", ".srt", ".vtt"):
        clip.with_suffix(ending).write_text("")
        assert find_truth(str(clip)) == clip.with_suffix(ending)
    assert find_truth("https://example.com/game.mp4") is None
    assert find_truth(str(clip.with_name("absent.mp4"))) is None


@pytest.mark.parametrize("ending", [".vtt", ".srt", ".json"])
def test_commentary_that_was_exported_beside_a_clip_is_not_its_truth(clip: Path, ending: str) -> None:
    said = SessionRecord(clip=str(clip), seconds=(GenerationResult(0, 0.0, 1.0, "he scores"),))
    write(clip.with_suffix(ending), said)
    assert find_truth(str(clip)) is None
    clip.with_suffix(".truth.json").write_text("{}")
    assert find_truth(str(clip)) == clip.with_suffix(".truth.json")


def test_exported_commentary_that_is_named_as_truth_is_noted(clip: Path) -> None:
    path = clip.with_suffix(".vtt")
    write(path, SessionRecord(clip=str(clip), seconds=(GenerationResult(0, 0.0, 1.0, "he scores"),)))
    notes: list[str] = []
    assert [word for *_, word in read_clip_truth(path, str(clip), 1.0, notes.append)] == ["he", "scores"]
    assert notes == ["game.vtt is commentary that svm-tui exported, not a reference transcript."]


def test_subtitles_are_read_as_words(clip: Path) -> None:
    path = clip.with_suffix(".vtt")
    path.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhe scores\n")
    assert read_truth(path, str(clip)) == ((1.0, 1.5, "he"), (1.5, 2.0, "scores"))


def test_records_of_this_clip_are_read_and_others_are_not(clip: Path) -> None:
    path = clip.with_suffix(".jsonl")
    path.write_bytes(record("other.mp4", "wrong") + record("game.mp4", "he scores", "", "again"))
    assert read_truth(path, str(clip)) == ((0.0, 0.5, "he"), (0.5, 1.0, "scores"), (2.0, 3.0, "again"))
    path.write_bytes(record("other.mp4", "wrong") + record("a\0b.mp4", "clip"))
    with pytest.raises(SvmError, match="no record of"):
        read_truth(path, str(clip))


def test_a_broken_transcript_is_refused(clip: Path) -> None:
    clip.with_suffix(".srt").write_bytes(b"\x00\xff nothing")
    with pytest.raises(SvmError, match="holds no timed words"):
        read_truth(clip.with_suffix(".srt"), str(clip))


def test_a_transcript_that_runs_on_for_long_looks_like_another_clip_s(clip: Path) -> None:
    words = ((1.0, 2.0, "a"), (100.0, 101.0, "b"))
    assert mismatch_warning(words, clip.with_suffix(".vtt"), 100.0) == ""
    assert "is it the truth of another clip?" in mismatch_warning(words, clip.with_suffix(".vtt"), 60.0)
    assert mismatch_warning(words, clip.with_suffix(".vtt"), None) == ""


def test_a_record_that_is_silent_throughout_is_an_empty_truth(clip: Path) -> None:
    path = clip.with_suffix(".jsonl")
    path.write_bytes(record("game.mp4", "", ""))
    assert read_truth(path, str(clip)) == ()
    assert mismatch_warning((), path, 60.0) == "game.jsonl has no words for this clip."
