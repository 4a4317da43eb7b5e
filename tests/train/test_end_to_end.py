"""A real clip with subtitles, overfitted: the whole way from an SRT file to the commentary."""

import json
from pathlib import Path

import pytest
import yaml

from streaming_vlm_mlx.eval.text_metrics import plain_words, word_error_rate
from tests.train.running import BASE
from tui.cli import main

SRT = """1
00:00:00,200 --> 00:00:02,900
The crowd is on its feet as they bring it up

2
00:00:03,100 --> 00:00:06,900
He drives left, stops, and up it goes: off the rim
"""


def test_a_real_clip_is_overfitted(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_PATH", str(shared / "clips"))
    clip, records, out = shared / "clips" / "basketball.mp4", tmp_path / "clip.jsonl", tmp_path / "run1"
    (tmp_path / "clip.srt").write_text(SRT)
    assert main(["convert", str(clip), str(tmp_path / "clip.srt"), "--out", str(records)]) == 0
    over = {
        "data": {"seconds": 8, "pixels": {"max_pixels": 56 * 84}},
        "schedule": {"steps": 60, "warmup_steps": 5},
        "checkpointing": {"every": 60},
        "stream": {"sampling": {"repetition_penalty": 1.0}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE.merged(over).to_dict()))
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--records", str(records), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["infer", str(clip), "--ckpt", str(out)]) == 0
    heard = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    (line,) = records.read_text().splitlines()
    for turn in json.loads(line)["turns"]:
        truth = plain_words(turn["assistant_text"])
        assert word_error_rate(truth, plain_words(heard[f"00:00:{int(turn['start']):02}"])) == 0, turn
