import argparse
import json
from pathlib import Path

import pytest

from streaming_vlm_mlx.data.resumable_file import ResumableFile
from streaming_vlm_mlx.errors import SHOWN, SvmError
from tests.data.making import conversation, write_annotations
from tui.commands import convert

WORDS = [[0.2, 0.8, "He"], [0.9, 1.6, "shoots"]]


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args([str(word) for word in words]))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    videos = ["short.mp4", "long.mp4", "absent.mp4", "short.mp4"]
    samples = [conversation(video, 0, 1.9, WORDS) for video in videos]
    return write_annotations(tmp_path / "a_with_seeks.jsonl", samples, index=True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


def test_the_summary_goes_to_stdout_and_complaints_to_stderr(
    annotations: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(annotations, "--out", out, "--videos", clips) == 0
    said = capsys.readouterr()
    assert said.out.startswith("samples         3\n")
    assert "1 × absent video" in said.out
    assert said.err == f"{annotations}:3: absent video: {clips / 'absent.mp4'}\n"
    assert len(lines(out)) == 3


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--games", "short*"], 2),
        (["--max-samples", "1"], 1),
        (["--every", "3"], 2),
        (["--min-words", "2"], 3),
        (["--shard", "1/2"], 1),
        (["--shard", "2/2"], 2),
        (["--split", "train", "--held-out", "0"], 3),
        (["--via", "lmm"], 3),
    ],
)
def test_options_reach_the_selection(annotations: Path, out: Path, clips: Path, options: list[str], count: int) -> None:
    run(annotations, "--out", out, "--videos", clips, *options)
    assert len(lines(out)) == count


def test_vision_tokens_are_counted_on_request(annotations: Path, out: Path, clips: Path) -> None:
    run(annotations, "--out", out, "--videos", clips, "--vision-tokens", "--max-samples", "1")
    assert b'"vision_tokens":108' in out.read_bytes()


@pytest.mark.parametrize("named", [True, False])
def test_where_videos_are_looked_for(
    annotations: Path, out: Path, clips: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setenv("DATASET_PATH", str(clips))
        moved = annotations
    else:
        monkeypatch.delenv("DATASET_PATH", raising=False)
        moved = write_annotations(clips / "a.jsonl", [conversation("short.mp4", 0, 1.9, WORDS)] * 3)
    assert run(moved, "--out", out) == 0
    assert len(lines(out)) == 3


def test_a_package_that_is_not_there_is_told(
    annotations: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(annotations, "--out", out, "--videos", clips, "--via", "lmm")
    assert "StreamingVLM's package cannot be imported" in capsys.readouterr().err


def test_a_clip_with_its_transcript(tmp_path: Path, out: Path, clips: Path) -> None:
    (tmp_path / "t.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHe shoots\n")
    run(clips / "short.mp4", tmp_path / "t.srt", "--out", out, "--query", "Speak", "--previous", "Before")
    (record,) = lines(out)
    assert (record["query"], record["previous"]) == ("Speak", "Before")


def test_nothing_to_write_is_an_error(
    annotations: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SvmError, match=r"r.jsonl holds no record"):
        run(annotations, "--out", out, "--videos", tmp_path)
    assert "4 × absent video" in capsys.readouterr().out


def test_endless_complaints_are_cut(tmp_path: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = conversation("short.mp4", 0, 1.9, WORDS)
    annotations = write_annotations(tmp_path / "a.jsonl", [*["{}"] * 300, good])
    run(annotations, "--out", out, "--videos", clips)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == SHOWN + 1
    assert told[-1] == "Further complaints are not shown."


def test_ctrl_c_says_how_to_go_on(
    annotations: Path, out: Path, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(file: ResumableFile, piece: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFile, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(annotations, "--out", out, "--videos", clips)
    assert "--resume goes on from here" in capsys.readouterr().err
    run(annotations, "--out", out, "--videos", clips, "--resume")
    assert len(lines(out)) == 3


@pytest.mark.parametrize("shard", ["3", "1/", "a/b", "1/2/3"])
def test_a_shard_that_is_none(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("a.jsonl", "--out", "r.jsonl", "--shard", shard)
    assert "is no part such as 1/4" in capsys.readouterr().err
