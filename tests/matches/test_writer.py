import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

from streaming_vlm_mlx.data.livecc_annotations import Annotation
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.matches.match_truth import TEST_SEEDS, Truth, read_truth
from streaming_vlm_mlx.matches.tennis.match import Tennis, TennisMatch
from streaming_vlm_mlx.matches.writer import (
    ANNOTATIONS,
    DESCRIPTIONS,
    DESCRIPTIONS_INDEX,
    INDEX,
    Made,
    check,
    make_matches,
    write_annotations,
)
from tui.commands import matches as command

SECONDS = 3.0
# Seconds after which what a test waits for will not come.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matches") / "made"
    assert len(list(make_matches(folder, Tennis(), range(3, 5), SECONDS))) == 2
    return folder


def lines(folder: Path) -> list[str]:
    return (folder / ANNOTATIONS).read_text().splitlines()


def test_a_clip_has_its_length_and_size(folder: Path) -> None:
    with av.open(str(folder / "match_000003.mp4")) as clip:
        stream = clip.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 640, 360)
        times = [frame.time for frame in clip.decode(stream)]
        duration = clip.duration / av.time_base
    assert times == pytest.approx([i / 25 for i in range(75)])
    assert duration == pytest.approx(SECONDS, abs=0.05)


def test_the_clip_shows_what_was_drawn(folder: Path) -> None:
    first = next(TennisMatch(3, SECONDS).frames()).astype(int)
    with av.open(str(folder / "match_000003.mp4")) as clip:
        decoded = next(clip.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert abs(first - decoded).mean() < 8


def test_annotations_have_the_form_of_streamingvlm_s(folder: Path, shared: Path) -> None:
    laws = map(json.loads, (shared / "lmm" / "games_with_seeks.jsonl").read_text().splitlines())
    law = next(games for games in laws if "qa_stream" in games[1]["content"][0])
    ours = json.loads(lines(folder)[0])
    assert [turn["role"] for turn in ours] == [turn["role"] for turn in law]
    for own, theirs in zip(ours, law, strict=True):
        assert [set(part) for part in own["content"]] == [set(part) for part in theirs["content"]]
    assert ours[0]["content"][0] == {"type": "video", "video": "match_000003.mp4", "video_start": 0.0, "video_end": 3.0}
    assert ours[0]["content"][1]["text"] == law[0]["content"][1]["text"]
    stream = ours[1]["content"][0]["text_stream"]
    assert all(0 <= start < end <= SECONDS and isinstance(word, str) for start, end, word in stream)


def test_the_index_gives_the_byte_where_each_line_begins(folder: Path) -> None:
    content = (folder / ANNOTATIONS).read_bytes()
    for offset, line in zip(json.loads((folder / INDEX).read_text()), lines(folder), strict=True):
        assert content[offset:].split(b"\n")[0].decode() == line


def test_sights_are_asked_for_in_every_second_of_the_same_commentary(folder: Path) -> None:
    content = (folder / DESCRIPTIONS).read_bytes()
    annotations = [Annotation.from_line(line) for line in content.splitlines()]
    assert [a.video for a in annotations] == ["match_000003.mp4", "match_000004.mp4"]
    offsets = json.loads((folder / DESCRIPTIONS_INDEX).read_text())
    assert [content[offset:].splitlines()[0] for offset in offsets] == content.splitlines()
    for annotation, line in zip(annotations, lines(folder), strict=True):
        assert annotation.words == Annotation.from_line(line.encode()).words
        assert [int(start) for start, *_ in annotation.questions] == list(range(int(SECONDS)))
        assert {asked for _, _, asked, _ in annotation.questions} == {"What do you see?"}


def test_a_viewer_s_question_takes_the_place_of_what_there_is_to_see(tmp_path: Path) -> None:
    list(make_matches(tmp_path, Tennis(4), [3], 6.0, every=3.0))
    annotated = (
        Annotation.from_line((tmp_path / file).read_bytes().splitlines()[0]) for file in (DESCRIPTIONS, ANNOTATIONS)
    )
    descriptions, asked = (file.questions for file in annotated)
    assert len(asked) == 2
    seconds = {int(start) for start, *_ in asked}
    assert [int(start) for start, *_ in descriptions] == list(range(6))
    assert [question for question in descriptions if int(question[0]) in seconds] == list(asked)
    assert {q for start, _, q, _ in descriptions if int(start) not in seconds} == {"What do you see?"}


def test_a_match_is_reported_in_as_many_ways_as_are_asked_for(folder: Path, tmp_path: Path) -> None:
    list(make_matches(tmp_path, Tennis(), range(3, 5), SECONDS, paraphrases=3))
    listed = [Annotation.from_line(line.encode()) for line in lines(tmp_path)]
    assert [a.video for a in listed] == ["match_000003.mp4"] * 3 + ["match_000004.mp4"] * 3
    assert lines(tmp_path)[::3] == lines(folder)
    # Within three seconds one of the two matches has nothing to tell yet.
    assert len({a.words for a in listed if a.words}) == 3
    list(make_matches(tmp_path, Tennis(), [3], SECONDS))
    assert [Annotation.from_line(line.encode()).video for line in lines(tmp_path)][:2] == [
        "match_000003.mp4",
        "match_000004.mp4",
    ]


def test_the_sidecar_reads_back_and_holds_the_words(folder: Path) -> None:
    path = folder / "match_000004.truth.json"
    truth = read_truth(path)
    assert truth == TennisMatch(4, SECONDS).truth("match_000004.mp4")
    words = json.loads(lines(folder)[1])[1]["content"][0]["text_stream"]
    assert words == [[w.start, w.end, w.text] for w in truth.words]
    assert truth.frame_at(0.0) == 0
    assert truth.frame_at(0.2) == truth.frames.times.index(0.2)
    assert truth.board_at(99.0) == truth.states[-1]


def test_what_is_there_is_not_filmed_again(folder: Path) -> None:
    before = (folder / "match_000003.mp4").stat().st_mtime_ns
    kept = list(make_matches(folder, Tennis(), [3], SECONDS))
    assert [m.new for m in kept] == [False]
    assert (folder / "match_000003.mp4").stat().st_mtime_ns == before
    assert len(lines(folder)) == 2


def test_a_match_is_filmed_again_where_its_sidecar_is_another(tmp_path: Path) -> None:
    first = made_once(tmp_path, 8, 1.0)
    content = first.clip.read_bytes()
    assert made_once(tmp_path, 8, 2.0).new
    again = made_once(tmp_path, 8, 1.0)
    assert again.new
    assert again.clip.read_bytes() == content
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def made_once(folder: Path, seed: int, seconds: float) -> Made:
    return next(iter(list(make_matches(folder, Tennis(), [seed], seconds))))


def test_a_run_that_is_stopped_lists_what_it_made(tmp_path: Path) -> None:
    run = make_matches(tmp_path, Tennis(), range(20, 30), 1.0)
    next(run)
    run.close()
    assert [json.loads(line)[0]["content"][0]["video"] for line in lines(tmp_path)] == ["match_000020.mp4"]


def test_workers_make_the_same(folder: Path, tmp_path: Path) -> None:
    made = list(make_matches(tmp_path, Tennis(), range(3, 5), SECONDS, workers=2))
    assert {m.clip.name for m in made} == {"match_000003.mp4", "match_000004.mp4"}
    for name in ("match_000003.mp4", "match_000004.truth.json", ANNOTATIONS, INDEX):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_workers_end_with_a_parent_that_is_killed(number: signal.Signals, status: int, tmp_path: Path) -> None:
    words = ["matches", str(tmp_path), "--count", "500", "--seconds", "1", "--workers", "2"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "tui.cli", *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline().startswith(str(tmp_path))
        parent.send_signal(number)
        # Workers have the same output: it ends when the last of them does.
        parent.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == status
    # What a run that was stopped has made is listed.
    assert (tmp_path / ANNOTATIONS).is_file() == (number == signal.SIGTERM)


@pytest.mark.parametrize(
    ("seeds", "seconds", "workers", "named"),
    [
        (range(0), 60.0, 1, "--count"),
        (range(-1, 2), 60.0, 1, "--seed"),
        (range(2), 0.2, 1, "--seconds"),
        (range(2), 1e9, 1, "--seconds"),
        (range(2), float("nan"), 1, "--seconds"),
        (range(2), 60.0, 0, "--workers"),
        (range(TEST_SEEDS - 1, TEST_SEEDS + 1), 60.0, 1, str(TEST_SEEDS)),
    ],
)
def test_what_cannot_be_made_is_refused(seeds: range, seconds: float, workers: int, named: str) -> None:
    with pytest.raises(SvmError, match=named):
        check(seeds, seconds, workers)


def test_seeds_for_testing_alone_are_fine_by_themselves() -> None:
    check(range(TEST_SEEDS, TEST_SEEDS + 5), 60.0, 1)
    assert TEST_SEEDS == 900_000


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(SvmError, match="file cannot be made"):
        list(make_matches(tmp_path / "file", Tennis(), [1], 1.0))


def test_an_annotation_file_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ANNOTATIONS).write_text('{"some": "thing"}\n')
    with pytest.raises(SvmError, match=ANNOTATIONS):
        write_annotations(tmp_path / ANNOTATIONS, tmp_path / INDEX, {"match_000001.mp4": ("[]",)})
    assert (tmp_path / ANNOTATIONS).read_text() == '{"some": "thing"}\n'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1}', "\x00", "layout"])
def test_a_sidecar_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "match.truth.json"
    if text == "layout":
        values = json.loads(TennisMatch(1, 1.0).truth("a.mp4").to_json())
        text = json.dumps({**values, "board": {**values["board"], "layout": "none"}})
    path.write_text(text)
    with pytest.raises(SvmError, match=r"match\.truth\.json is no truth"):
        read_truth(path)


def test_a_sidecar_of_another_version_is_none() -> None:
    values = json.loads(TennisMatch(1, 1.0).truth("a.mp4").to_json())
    with pytest.raises(ValueError, match="version"):
        Truth.from_json(json.dumps({**values, "version": values["version"] + 1}))


def test_a_sidecar_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="cannot be read"):
        read_truth(tmp_path / "none.truth.json")


def test_a_sidecar_whose_columns_differ_in_length_is_none() -> None:
    values = json.loads(TennisMatch(1, 1.0).truth("a.mp4").to_json())
    values["frames"]["signal"].pop()
    with pytest.raises(ValueError, match="signal"):
        Truth.from_json(json.dumps(values))


def test_the_command_makes_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args([str(tmp_path / "out"), "--count", "2", "--seed", "900000", "--seconds", "1"])
    assert command.run(args) == 0
    shown = capsys.readouterr()
    clips = [tmp_path / "out" / f"match_{seed}.mp4" for seed in (900000, 900001)]
    assert shown.out.splitlines() == [str(c) for c in clips]
    assert "2 filmed now" in shown.err
    assert all(c.is_file() for c in clips)


def test_late_matches_begin_at_game_point_or_in_a_tie_break(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [str(tmp_path), "--late", "--count", "6", "--seconds", "1", "--fps", "2"]
    assert command.run(parser.parse_args(words)) == 0
    shown = [read_truth(path).board_at(0.0).fields for path in tmp_path.glob("*.truth.json")]
    assert len(shown) == 6
    assert all("40" in board["points"] or board["games"] == ("6", "6") for board in shown)
