"""What comes with the package is small, whole, and used where nothing else is named."""

from pathlib import Path

import pytest
import webvtt

from streaming_vlm_mlx.matches.match_truth import TEST_SEEDS, read_truth
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.shipped import CHECKPOINT, SAMPLE, notice, recommendation
from streaming_vlm_mlx.video.video_file import open_video
from tui import cli

MB = 1_000_000


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def test_checkpoint_and_sample_are_small() -> None:
    assert size(CHECKPOINT) <= 15 * MB
    assert size(SAMPLE) <= 3 * MB
    assert size(CHECKPOINT.parent) <= 20 * MB


def test_the_sample_is_a_match_that_no_model_was_trained_on() -> None:
    truth = read_truth(SAMPLE.with_suffix(".truth.json"))
    assert truth.seed >= TEST_SEEDS
    with open_video(str(SAMPLE), 2) as source:
        assert source.duration == pytest.approx(truth.seconds, abs=0.1)
        assert source.duration == pytest.approx(40.0, abs=0.1)


def test_infer_alone_speaks_about_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "--duration", "8", "--out", str(tmp_path / "a.vtt")]) == 0
    captions = list(webvtt.read(tmp_path / "a.vtt"))
    assert captions
    assert captions[-1].end_in_seconds <= 8.0
    assert "knows simulated matches only" not in capsys.readouterr().err


def test_other_clips_and_only_they_get_a_word_about_the_checkpoint(tmp_path: Path) -> None:
    assert notice(CHECKPOINT, [str(SAMPLE)], 16 << 30) == ""
    assert notice(tmp_path, ["game.mp4"], 16 << 30) == ""
    for clip in ("game.mp4", "https://example.com/live", "/dev/video0", "lavfi:testsrc"):
        assert "--ckpt" in notice(CHECKPOINT, [str(SAMPLE), clip], 16 << 30)


def test_the_hint_names_a_checkpoint_that_fits_the_machine() -> None:
    hints = {memory: recommendation(memory << 30) for memory in (8, 16, 32, 64)}
    for memory, hint in hints.items():
        needs = float(hint.partition("needs ")[2].partition(" GiB")[0])
        assert needs <= memory * 2 / 3, hint
        model = PUBLISHED["Qwen2.5-VL 3B" if "3B" in hint else "Qwen2.5-VL 7B"]
        gigabytes = 2e-9 * VisionLanguageModel(model).parameter_count()
        # Weights of 16 bits, without tokenizer files.
        assert f"downloads {gigabytes:.{0 if gigabytes > 10 else 1}f} GB" in hint
    assert "3B-Instruct small --bits 4" in hints[8]
    assert "StreamingVLM small --bits 4" in hints[16]
    assert "StreamingVLM small --bits 8" in hints[32]
    assert "--bits" not in hints[64]
