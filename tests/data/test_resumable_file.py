"""Resuming an interrupted conversion gives the same file, wherever it was interrupted."""

import contextlib
import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.data.convert_dataset import ConversionSummary, DatasetConversion, Filters
from streaming_vlm_mlx.data.livecc_annotations import open_samples
from streaming_vlm_mlx.data.resumable_file import ResumableFile
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import conversation, convert, write_annotations

ROOT = Path(__file__).parents[2]


class PowerCutError(Exception):
    """Stands for the end of the process."""


def samples(count: int) -> list[Any]:
    """Samples of different lengths, some bad."""
    made: list[Any] = []
    for n in range(count):
        video = "absent.mp4" if n % 11 == 5 else "short.mp4"
        made.append("{" if n % 17 == 3 else conversation(video, 0, 1 + n % 3, [[0, 1, f"w{n}"]] * (n % 3)))
    return made


@pytest.fixture
def job(tmp_path: Path, clips: Path) -> DatasetConversion:
    path = write_annotations(tmp_path / "a_with_seeks.jsonl", samples(30), index=True)
    return DatasetConversion(open_samples([path]), tmp_path / "r.jsonl", clips)


def made(job: DatasetConversion, resume: bool, **options: Any) -> tuple[ConversionSummary, str]:
    """Convert to the end; return the summary and a digest of the file, which is removed."""
    summary = convert(job, resume, **options)
    digest = hashlib.sha256(job.out.read_bytes()).hexdigest()
    job.out.unlink()
    return summary, digest


@pytest.fixture
def whole(job: DatasetConversion, tmp_path: Path) -> tuple[ConversionSummary, str]:
    """What an uninterrupted run makes."""
    return made(replace(job, out=tmp_path / "whole.jsonl"), resume=False)


def cut_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the `number`-th of the calls that touch the disk fail, after half of a write got through."""
    calls = 0
    for name in ("write", "checkpoint", "finish"):
        real = getattr(ResumableFile, name)

        def failing(self: ResumableFile, value: Any, real: Any = real, name: str = name) -> None:
            nonlocal calls
            calls += 1
            if calls < number:
                real(self, value)
                return
            if name == "write":
                real(self, value[: len(value) // 2])
            raise PowerCutError

        patch.setattr(ResumableFile, name, failing)


@pytest.mark.parametrize("checkpoint", [3, 1000])
def test_every_write_may_be_the_last(
    job: DatasetConversion, whole: tuple[ConversionSummary, str], checkpoint: int
) -> None:
    finished, number = False, 0
    while not finished:
        number += 1
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, number)
            try:
                convert(job, checkpoint_every=checkpoint)
                finished = True
            except PowerCutError:
                assert not job.out.exists()
        assert made(job, resume=True, checkpoint_every=checkpoint) == whole
    assert number > 30


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 15), max_size=5))
def test_several_times_in_a_row(job: DatasetConversion, whole: tuple[ConversionSummary, str], cuts: list[int]) -> None:
    for cut in cuts:
        with pytest.MonkeyPatch.context() as cutting:
            cut_at(cutting, cut)
            with contextlib.suppress(PowerCutError):
                convert(job, resume=True, checkpoint_every=4)
    assert made(job, resume=True, checkpoint_every=4) == whole


PROGRAM = """
    import sys
    from pathlib import Path
    from streaming_vlm_mlx.data.livecc_annotations import open_samples
    from streaming_vlm_mlx.data.convert_dataset import DatasetConversion
    from tests.data.making import convert

    annotations, out, videos = map(Path, sys.argv[1:4])
    job = DatasetConversion(open_samples([annotations]), out, videos)
    print("ready", flush=True)
    progress = lambda done, total: print(done, flush=True)
    convert(job, "--resume" in sys.argv, progress=progress, checkpoint_every=50)
"""


def test_a_killed_process(tmp_path: Path, clips: Path) -> None:
    path = write_annotations(tmp_path / "a_with_seeks.jsonl", samples(3000), index=True)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    convert(DatasetConversion(open_samples([path]), whole, clips))
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path), str(out), str(clips)]
    chance = random.Random(8)
    for resume in ([], ["--resume"], ["--resume"]):
        with subprocess.Popen([*command, *resume], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(2, 15)):
                process.stdout.readline()
            process.kill()
        assert not out.exists()
    (tmp_path / "..r.jsonl.progress.json.k7x").touch()  # as a kill within a checkpoint leaves it
    subprocess.run([*command, "--resume"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if "r.jsonl." in p.name] == [".r.jsonl.progress.json"]


class TestOtherStates:
    def interrupted(self, job: DatasetConversion) -> None:
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, 20)
            with pytest.raises(PowerCutError):
                convert(job, checkpoint_every=5)

    def test_another_job_is_refused(self, job: DatasetConversion) -> None:
        self.interrupted(job)
        other = DatasetConversion(job.sources, job.out, job.videos, Filters(every=2))
        with pytest.raises(SvmError, match=r"was started with other inputs or options.*omit --resume"):
            convert(other, resume=True)

    def test_another_input_is_refused(self, job: DatasetConversion, tmp_path: Path) -> None:
        self.interrupted(job)
        path = write_annotations(tmp_path / "a_with_seeks.jsonl", samples(31), index=True)
        with pytest.raises(SvmError, match="was started with other inputs"):
            convert(DatasetConversion(open_samples([path]), job.out, job.videos), resume=True)

    def test_without_resume_everything_is_converted_again(
        self, job: DatasetConversion, whole: tuple[ConversionSummary, str]
    ) -> None:
        self.interrupted(job)
        assert made(job, resume=False) == whole

    @pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"job": {}, "bytes": 9999999, "progress": {}}'])
    def test_a_note_that_is_not_borne_out(
        self, job: DatasetConversion, whole: tuple[ConversionSummary, str], note: str
    ) -> None:
        self.interrupted(job)
        job.out.with_name(".r.jsonl.progress.json").write_text(note)
        assert made(job, resume=True) == whole

    def test_a_finished_file_stays_until_the_new_one_is_whole(self, job: DatasetConversion) -> None:
        job.out.write_text('{"version": 1} what was there before')
        self.interrupted(job)
        assert job.out.read_text() == '{"version": 1} what was there before'
        convert(job, resume=True)
        assert json.loads(job.out.read_text().splitlines()[0])["version"] == 1


def test_a_note_of_a_run_before_the_last_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with ResumableFile(path, {}, resume=False) as file:
        file.write(b"first")
        file.checkpoint({})
    with ResumableFile(path, {}, resume=False) as file:
        file.write(b"second, longer")
    with ResumableFile(path, {}, resume=True) as file:
        assert file.progress is None
        file.finish({})
    assert path.read_bytes() == b""


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with ResumableFile(tmp_path / "r.jsonl", {}, resume=False) as file:
        file.write(b"x")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(SvmError, match=r"r.jsonl cannot be written: No space left"):
            file.checkpoint({})


def test_a_finished_job_is_recognised_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with ResumableFile(path, {"a": 1}, resume=False) as file:
        file.write(b"whole")
        file.finish({"done": 5})
    with ResumableFile(path, {"a": 1}, resume=True) as file:
        assert (file.is_finished, file.progress) == (True, {"done": 5})
    assert path.read_bytes() == b"whole"
    with pytest.raises(SvmError, match="was started with other inputs or options"):
        ResumableFile(path, {"a": 2}, resume=True)
    path.write_bytes(b"edited")
    with ResumableFile(path, {"a": 1}, resume=True) as file:
        assert (file.is_finished, file.progress) == (False, None)
