import itertools
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data import convert_dataset
from streaming_vlm_mlx.data.convert_dataset import ConversionSummary, DatasetConversion, Filters
from streaming_vlm_mlx.data.livecc_annotations import open_samples
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import conversation, convert, write_annotations, write_clip

WORDS = [[0.2, 0.8, "He"], [0.9, 1.6, "shoots"]]
END = 3.9


def job(path: Path, out: Path, videos: Path, **filters: Any) -> DatasetConversion:
    return DatasetConversion(open_samples([path]), out, videos, Filters(**filters))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "r.jsonl"


def many(count: int) -> list[Any]:
    """Samples that contain their number; every third is of another clip."""
    names = itertools.cycle(["short.mp4", "short.mp4", "long.mp4"])
    return [conversation(next(names), 0, 2.9, [[0, 1, f"w{n}"]] * (n % 4 + 1)) for n in range(count)]


def said(path: Path) -> list[str]:
    return [record["turns"][0]["assistant_text"].split()[0] for record in lines(path)]


def test_a_record(tmp_path: Path, out: Path, clips: Path) -> None:
    sample = conversation("short.mp4", 0, 1.9, WORDS, [[0.5, 1.5, "Who?", "He."]], "Before.")
    annotations = write_annotations(tmp_path / "a.jsonl", [sample])
    summary = convert(replace(job(annotations, out, clips), pixels=PixelConfig()))
    (record,) = lines(out)
    assert record == {
        "version": 1,
        "video": str(clips / "short.mp4"),
        "video_start": 0.0,
        "video_end": 1.9,
        "width": 64,
        "height": 48,
        "fps": 2.0,
        "query": "Commentate",
        "previous": "Before.",
        "turns": [
            {
                "start": 0.0,
                "end": 1.0,
                "user_text": "Time=0.0-1.0s",
                "assistant_text": "\n He ...",
                "vision_tokens": 108,
            },
            {
                "start": 1.0,
                "end": 2.0,
                "user_text": "Time=1.0-2.0s Who?",
                "assistant_text": "He.\n shoots ...",
                "question": "Who?",
                "answer": "He.",
                "vision_tokens": 108,
            },
        ],
    }
    assert summary == ConversionSummary(samples=1, seconds=2, silent=0, words=2, questions=1)


def test_a_clip_in_the_records_folder_is_referred_to_by_a_relative_path(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", range(50))
    annotations = write_annotations(tmp_path / "a.jsonl", [conversation("clips/a.mp4", 0, 2, WORDS)])
    convert(job(annotations, tmp_path / "r.jsonl", tmp_path))
    assert lines(tmp_path / "r.jsonl")[0]["video"] == "clips/a.mp4"
    assert RecordFile.open(tmp_path / "r.jsonl")[0].video == str(tmp_path / "clips" / "a.mp4")


def test_several_files_are_counted_through(tmp_path: Path, out: Path, clips: Path) -> None:
    samples = many(10)
    paths = [
        write_annotations(tmp_path / "a_with_seeks.jsonl", samples[:7], index=True),
        write_annotations(tmp_path / "b.jsonl", samples[7:]),
    ]
    convert(DatasetConversion(open_samples(paths), out, clips, Filters(every=2)))
    assert said(out) == ["w0", "w2", "w4", "w6", "w8"]


class TestFilters:
    @pytest.fixture
    def annotations(self, tmp_path: Path) -> Path:
        return write_annotations(tmp_path / "a_with_seeks.jsonl", many(24), index=True)

    def convert(self, annotations: Path, out: Path, clips: Path, **filters: Any) -> tuple[list[str], ConversionSummary]:
        summary = convert(job(annotations, out, clips, **filters))
        return said(out), summary

    def test_all(self, annotations: Path, out: Path, clips: Path) -> None:
        assert self.convert(annotations, out, clips)[0] == [f"w{n}" for n in range(24)]

    def test_games(self, annotations: Path, out: Path, clips: Path) -> None:
        found, summary = self.convert(annotations, out, clips, games="*ong.mp4")
        assert found == [f"w{n}" for n in range(2, 24, 3)]
        assert summary.filtered == {"another game": 16}

    def test_every_and_max_samples(self, annotations: Path, out: Path, clips: Path) -> None:
        found, summary = self.convert(annotations, out, clips, every=5, max_samples=3)
        assert found == ["w0", "w5", "w10"]
        assert summary.samples == 3

    def test_min_words(self, annotations: Path, out: Path, clips: Path) -> None:
        found, summary = self.convert(annotations, out, clips, min_words=4)
        assert found == [f"w{n}" for n in range(3, 24, 4)]
        assert summary.filtered == {"fewer than 4 words": 18}

    @pytest.mark.parametrize("shards", [1, 3, 5, 30])
    def test_shards_share_out_all_samples(self, annotations: Path, out: Path, clips: Path, shards: int) -> None:
        parts = [self.convert(annotations, out, clips, shard=n + 1, shards=shards)[0] for n in range(shards)]
        assert sorted(itertools.chain(*parts)) == sorted(f"w{n}" for n in range(24))

    def test_a_split_parts_the_clips(self, annotations: Path, out: Path, clips: Path) -> None:
        seen = {"train": set[str](), "valid": set[str]()}
        for split, videos in seen.items():
            self.convert(annotations, out, clips, split=split, held_out=0.5)
            videos.update(record["video"] for record in lines(out))
        assert not seen["train"] & seen["valid"]
        assert {Path(video).name for video in seen["train"] | seen["valid"]} == {"short.mp4", "long.mp4"}

    def test_the_share_held_out(self, clips: Path) -> None:
        from streaming_vlm_mlx.data.livecc_annotations import Annotation

        taken = Filters(split="valid", held_out=0.1)
        paths = [Annotation(f"game{n}.mp4", 0, 1, ()) for n in range(2000)]
        held = [a for a in paths if taken.reason_to_skip(a) is None]
        assert len(held) == pytest.approx(200, abs=50)

    @pytest.mark.parametrize(
        ("filters", "problem"),
        [
            ({"every": 0}, "every is 0"),
            ({"shard": 0, "shards": 4}, "shard is 0/4"),
            ({"shard": 5, "shards": 4}, "shard is 5/4"),
            ({"held_out": 2.0}, "held_out is 2.0"),
            ({"max_samples": 0}, "max_samples is 0"),
        ],
    )
    def test_numbers_without_sense(self, annotations: Path, out: Path, clips: Path, filters: Any, problem: str) -> None:
        with pytest.raises(SvmError, match=problem):
            self.convert(annotations, out, clips, **filters)


class TestBadInput:
    def skipped(self, tmp_path: Path, out: Path, clips: Path, sample: Any) -> tuple[str, ConversionSummary]:
        """Convert `sample` between two good ones; return what was reported."""
        good = conversation("short.mp4", 0, END, WORDS)
        annotations = write_annotations(tmp_path / "a.jsonl", [good, sample, good])
        reported: list[str] = []
        summary = convert(job(annotations, out, clips), report=reported.append)
        assert len(lines(out)) == summary.samples
        (problem,) = reported
        assert problem.startswith(f"{annotations}:2: ")
        return problem, summary

    @pytest.mark.parametrize(
        ("sample", "reason"),
        [
            ("{not json", "not JSON"),
            ("{}", "not a streamed conversation"),
            (conversation("absent.mp4", 0, 2, WORDS), "absent video"),
            (conversation("empty.mp4", 0, 2, WORDS), "empty video"),
            (conversation("text.mp4", 0, 2, WORDS), "unreadable video"),
            (conversation("short.mp4", 3, 2, WORDS), "reversed times"),
            (conversation("short.mp4", 100, 110, [[101, 102, "late"]]), "outside its clip"),
            (conversation("short.mp4", 0, END, []), "no words"),
            (conversation("short.mp4", 0, END, None), "no words"),
            (conversation("short.mp4", 0, 2, [[1, 0, "back"]]), "reversed times"),
            (conversation("short.mp4", 0, 2, [[0, 1, "a" * 1_000_100]]), "text too long"),
        ],
    )
    def test_is_named_skipped_and_counted(
        self, tmp_path: Path, out: Path, clips: Path, sample: Any, reason: str
    ) -> None:
        (clips / "empty.mp4").touch()
        (clips / "text.mp4").write_text("no video")
        problem, summary = self.skipped(tmp_path, out, clips, sample)
        assert reason in problem
        assert summary.samples == 2
        assert summary.skipped == {reason: 1}

    def test_a_file_of_another_kind_is_not_read_to_its_end(
        self, tmp_path: Path, out: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(convert_dataset, "MOST_UNREADABLE", 3)
        good = conversation("short.mp4", 0, END, WORDS)
        path = write_annotations(tmp_path / "a.jsonl", ["{}"] * 4 + [good])
        with pytest.raises(SvmError, match=r"a.jsonl:4: not a streamed .*, as in the 3 samples before it; give"):
            convert(job(path, out, clips))
        assert convert(job(write_annotations(path, ["{}"] * 3 + [good] + ["{}"] * 9), out, clips)).samples == 1

    def test_an_end_after_the_end_of_the_clip_cuts_the_record_and_is_reported(
        self, tmp_path: Path, out: Path, clips: Path
    ) -> None:
        problem, summary = self.skipped(tmp_path, out, clips, conversation("short.mp4", 1, 60, [[1, 2, "x"]]))
        assert "cut at 4 s" in problem
        assert summary.cut == 1
        assert len(lines(out)[1]["turns"]) == 3

    def test_silent_samples_can_be_kept(self, tmp_path: Path, out: Path, clips: Path) -> None:
        annotations = write_annotations(tmp_path / "a.jsonl", [conversation("short.mp4", 0, 2.9, [])])
        assert convert(job(annotations, out, clips, min_words=0)).silent == 3

    def test_an_output_that_is_a_folder(self, tmp_path: Path, clips: Path) -> None:
        annotations = write_annotations(tmp_path / "a.jsonl", many(1))
        with pytest.raises(SvmError, match="is a folder"):
            convert(job(annotations, tmp_path, clips))

    def test_an_output_below_a_file(self, tmp_path: Path, clips: Path) -> None:
        annotations = write_annotations(tmp_path / "a.jsonl", many(1))
        with pytest.raises(SvmError, match="cannot be written"):
            convert(job(annotations, annotations / "r.jsonl", clips))


SRT = "1\n00:00:00,500 --> 00:00:02,000\nHe takes it on\n\n2\n00:00:03,000 --> 00:00:09,000\nshot and missed wide\n"


class TestAClipWithItsTranscript:
    def record(self, tmp_path: Path, clips: Path, srt: str, name: str = "short.mp4") -> tuple[Any, list[str]]:
        (tmp_path / "t.srt").write_text(srt)
        reported: list[str] = []
        sources = open_samples([clips / name, tmp_path / "t.srt"], query="Speak", previous="Before")
        convert(DatasetConversion(sources, tmp_path / "r.jsonl", tmp_path), report=reported.append)
        return lines(tmp_path / "r.jsonl")[0], reported

    def test_the_whole_clip_is_one_record(self, tmp_path: Path, clips: Path) -> None:
        record, reported = self.record(tmp_path, clips, SRT.replace("00:00:09", "00:00:03"))
        assert (record["video_start"], record["video_end"], record["query"]) == (0.0, 3.0, "Speak")
        assert record["previous"] == "Before"
        said = [turn["assistant_text"] for turn in record["turns"]]
        assert said == ["\n He ...", "\n takes it on ...", "\n shot and missed wide ..."]
        assert reported == []

    def test_words_after_the_end_are_reported(self, tmp_path: Path, clips: Path) -> None:
        record, reported = self.record(tmp_path, clips, SRT)
        assert [turn["assistant_text"] for turn in record["turns"]][-1] == "\n shot ..."
        (note,) = reported
        assert note.startswith(f"{tmp_path / 't.srt'}: dropped 3 words after the end of")

    def test_a_last_second_of_half_a_second_counts(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "a.mp4", range(63))  # 2.52 s
        record, _ = self.record(tmp_path, tmp_path, SRT, "a.mp4")
        assert len(record["turns"]) == 3

    def test_no_more_seconds_than_a_player_shows(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "a.mp4", range(60))  # 2.4 s
        record, _ = self.record(tmp_path, tmp_path, SRT, "a.mp4")
        assert len(record["turns"]) == 2

    def test_bad_cues_are_reported(self, tmp_path: Path, clips: Path) -> None:
        _, reported = self.record(tmp_path, clips, SRT.replace("00:00:09", "00:00:01"))
        assert reported == [f"{tmp_path / 't.srt'}:6: reversed times, 3 to 1 s"]

    def test_a_transcript_of_something_else(self, tmp_path: Path, clips: Path) -> None:
        (tmp_path / "t.srt").write_text("1\n01:00:00,000 --> 01:00:01,000\nlater\n")
        sources = open_samples([clips / "short.mp4", tmp_path / "t.srt"])
        summary = convert(DatasetConversion(sources, tmp_path / "r.jsonl", tmp_path))
        assert summary.skipped == {"outside its clip": 1}

    def test_an_absent_clip(self, tmp_path: Path) -> None:
        (tmp_path / "t.srt").write_text(SRT)
        sources = open_samples([tmp_path / "absent.mp4", tmp_path / "t.srt"])
        assert convert(DatasetConversion(sources, tmp_path / "r.jsonl", tmp_path)).skipped == {"absent video": 1}

    def test_several_in_one_file(self, tmp_path: Path, clips: Path) -> None:
        (tmp_path / "t.srt").write_text(SRT)
        pairs = [clips / "short.mp4", tmp_path / "t.srt", clips / "long.mp4", tmp_path / "t.srt"]
        convert(DatasetConversion(open_samples(pairs), tmp_path / "r.jsonl", tmp_path))
        assert [len(record["turns"]) for record in lines(tmp_path / "r.jsonl")] == [3, 12]

    @pytest.mark.parametrize("rest", [[], ["a.jsonl"]])
    def test_a_clip_alone(self, tmp_path: Path, rest: list[str]) -> None:
        with pytest.raises(SvmError, match=r"a.mp4 has no transcript"):
            open_samples([tmp_path / "a.mp4", *(tmp_path / name for name in rest)])


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path, out: Path, clips: Path) -> None:
    peaks = []
    for count in (300, 300, 3000):
        work = job(write_annotations(tmp_path / "a_with_seeks.jsonl", many(count), index=True), out, clips)
        tracemalloc.start()
        convert(work)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 2700 * 100


def test_a_clip_whose_timestamps_say_years_is_skipped(tmp_path: Path, out: Path) -> None:
    clip, words = write_clip(tmp_path / "late.mkv", [0, 25 * 90_000]), tmp_path / "late.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\na goal\n")
    heard: list[str] = []
    summary = convert(DatasetConversion(open_samples([clip, words]), out, tmp_path), report=heard.append)
    assert summary.skipped == {"clip too long": 1}
    assert heard[0].endswith("has 90000 s; cut it into clips of a day at most")


def test_progress_ends_with_all_samples(tmp_path: Path, out: Path, clips: Path) -> None:
    seen = []
    annotations = write_annotations(tmp_path / "a.jsonl", many(5))
    convert(job(annotations, out, clips), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)


def test_the_summary_comes_back_and_reads_well() -> None:
    summary = ConversionSummary(samples=1234, seconds=7325, silent=732, words=5)
    summary.skipped["absent video"] = 3
    assert ConversionSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    text = "\n".join(summary.lines())
    for part in ("1,234", "2:02:05", "732 (10%)", "3 × absent video"):
        assert part in text
    assert "%" not in "\n".join(ConversionSummary().lines())
