import argparse
import json
import sys
from pathlib import Path
from typing import Any

import av
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


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


def test_the_summary_goes_to_stdout_and_problems_to_stderr(
    annotations: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(annotations, "--out", out, "--videos", clips) == 0
    said = capsys.readouterr()
    assert said.out.startswith("samples         3\n")
    assert "1 × absent video" in said.out
    assert said.err.splitlines() == [
        f"{annotations}:3: absent video: {clips / 'absent.mp4'}",
        f"svm-tui: {out} names clips outside of its folder; set DATASET_PATH={clips} wherever you use it.",
    ]
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
def test_options_reach_the_filters(annotations: Path, out: Path, clips: Path, options: list[str], count: int) -> None:
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


def test_a_missing_package_is_named_with_its_cause(
    annotations: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(annotations, "--out", out, "--videos", clips, "--via", "lmm")
    error = capsys.readouterr().err
    assert "LMMDataset cannot be imported (No module named 'streaming_vlm'); using the built-in reader." in error
    assert "same records" not in error


def test_an_incompatible_package_is_named_with_its_version(
    annotations: Path,
    out: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As qwen-vl-utils 0.0.14 beside StreamingVLM's package."""
    package = tmp_path / "site" / "streaming_vlm" / "data"
    package.mkdir(parents=True)
    utils, info = tmp_path / "site" / "vl_utils_stub", tmp_path / "site" / "vl_utils_stub-0.0.14.dist-info"
    utils.mkdir()
    info.mkdir()
    (utils / "__init__.py").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vl-utils-stub\nVersion: 0.0.14\n")
    (info / "top_level.txt").write_text("vl_utils_stub\n")
    (package / "lmm_dataset.py").write_text("from vl_utils_stub import VIDEO_TOTAL_PIXELS\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    try:
        run(annotations, "--out", out, "--videos", clips, "--via", "lmm")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("streaming_vlm", "vl_utils_stub")]:
            del sys.modules[name]
    assert "(vl-utils-stub 0.0.14 has no VIDEO_TOTAL_PIXELS)" in capsys.readouterr().err


@pytest.mark.parametrize("video", ["/etc/passwd", "../{name}/short.mp4", "../../short.mp4"])
def test_a_video_outside_of_its_folder_is_skipped(
    video: str, out: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = [video.format(name=clips.name), "short.mp4"]
    path = write_annotations(tmp_path / "a.jsonl", [conversation(video, 0, 1.9, WORDS) for video in videos])
    assert run(path, "--out", out, "--videos", clips) == 0
    said = capsys.readouterr()
    inside = video.startswith("../{")
    assert len(lines(out)) == 1 + inside
    assert (f"outside its folder: {video} is not below {clips}" in said.err) is not inside


def test_records_beside_their_clips_need_no_variable(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_annotations(clips / "b.jsonl", [conversation("short.mp4", 0, 1.9, WORDS)])
    assert run(path, "--out", clips / "b.records.jsonl") == 0
    assert capsys.readouterr().err == ""


def test_a_clip_with_its_transcript(tmp_path: Path, out: Path, clips: Path) -> None:
    (tmp_path / "t.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHe shoots\n")
    run(clips / "short.mp4", tmp_path / "t.srt", "--out", out, "--query", "Speak", "--previous", "Before")
    (record,) = lines(out)
    assert (record["query"], record["previous"]) == ("Speak", "Before")


def test_nothing_to_write_is_an_error(
    annotations: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SvmError, match=r"r.jsonl has no record"):
        run(annotations, "--out", out, "--videos", tmp_path)
    assert "4 × absent video" in capsys.readouterr().out


def test_endless_problems_are_cut(tmp_path: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = conversation("short.mp4", 0, 1.9, WORDS)
    annotations = write_annotations(tmp_path / "a.jsonl", [*["{}"] * 300, good])
    run(annotations, "--out", out, "--videos", clips)
    reported = capsys.readouterr().err.splitlines()
    assert len(reported) == SHOWN + 2
    assert reported[-2] == "Further messages are not shown."
    assert f"set DATASET_PATH={clips}" in reported[-1]


def test_ctrl_c_says_how_to_resume(
    annotations: Path, out: Path, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(file: ResumableFile, piece: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFile, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(annotations, "--out", out, "--videos", clips)
    assert "continue with the same command and --resume" in capsys.readouterr().err
    run(annotations, "--out", out, "--videos", clips, "--resume")
    assert len(lines(out)) == 3


@pytest.mark.parametrize("shard", ["3", "1/", "a/b", "1/2/3"])
def test_a_shard_that_is_none(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("a.jsonl", "--out", "r.jsonl", "--shard", shard)
    assert "is not a part such as 1/4" in capsys.readouterr().err


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips that were opened, in order."""
    names, real = list[str](), av.open

    def counting(file: str, *args: Any, **options: Any) -> Any:
        names.append(Path(file).name)
        return real(file, *args, **options)

    monkeypatch.setattr(av, "open", counting)
    return names


def test_a_clip_is_opened_once_for_all_outputs(
    annotations: Path, tmp_path: Path, clips: Path, opened: list[str]
) -> None:
    run(annotations, "--out", tmp_path / "one.jsonl", "--videos", clips)
    assert sorted(opened) == ["long.mp4", "short.mp4"]
    opened.clear()
    run(annotations, "--out", tmp_path / "two.jsonl", "--videos", clips)
    assert opened == []
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert [path.name for path in (tmp_path / "cache" / "svm-tui").iterdir()] == ["clips.sqlite"]


def test_resuming_a_finished_output_does_nothing(
    annotations: Path, out: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(annotations, "--out", out, "--videos", clips)
    before, summary = out.stat(), capsys.readouterr().out
    assert run(annotations, "--out", out, "--videos", clips, "--resume") == 0
    said = capsys.readouterr()
    finished = f"{out} is already finished; nothing was converted. Omit --resume to convert again."
    assert said.err.splitlines()[0] == finished
    assert said.out == summary
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_resuming_after_the_output_was_edited_converts_again(annotations: Path, out: Path, clips: Path) -> None:
    run(annotations, "--out", out, "--videos", clips)
    whole = out.read_bytes()
    out.write_bytes(b"")
    run(annotations, "--out", out, "--videos", clips, "--resume")
    assert out.read_bytes() == whole


def test_an_output_that_is_an_input_is_refused(annotations: Path, tmp_path: Path, clips: Path) -> None:
    index = tmp_path / "a_seeks.jsonl"
    clip, transcript = tmp_path / "clip.mp4", tmp_path / "t.srt"
    clip.write_bytes((clips / "short.mp4").read_bytes())
    transcript.write_text("1\n00:00:00,000 --> 00:00:01,000\nHe shoots\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(annotations)
    for inputs, out in (
        ([annotations], annotations),
        ([annotations], index),
        ([annotations], link),
        ([clip, transcript], clip),
        ([clip, transcript], transcript),
    ):
        before = out.read_bytes()
        with pytest.raises(SvmError, match=rf"{out.name} is an input of this conversion; choose another --out"):
            run(*inputs, "--out", out, "--videos", clips)
        assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["clips/short.mp4", "notes.jsonl", "game.mp4"])
def test_an_output_that_holds_no_records_is_not_replaced(
    name: str, annotations: Path, tmp_path: Path, clips: Path
) -> None:
    out = tmp_path / name
    out.parent.mkdir(exist_ok=True)
    out.write_bytes((clips / "short.mp4").read_bytes() if out.suffix == ".mp4" else b'{"text": "mine"}\n')
    before = out.read_bytes()
    with pytest.raises(SvmError, match=rf"{out.name} exists and holds no records; choose another --out"):
        run(annotations, "--out", out, "--videos", tmp_path / "clips")
    assert out.read_bytes() == before


def test_a_cache_folder_that_cannot_be_written_costs_only_time(
    annotations: Path, out: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert run(annotations, "--out", out, "--videos", clips) == 0
    assert "clips.sqlite cannot be written" in capsys.readouterr().err
    assert len(lines(out)) == 3
