import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.collator import Batch, BatchConfig, Batches, Position
from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig, Windows
from streaming_vlm_mlx.data.frame_workers import FrameJob, FramePool, PixelValues
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.tokenizer import Tokenizer

PIXELS = PixelConfig(min_pixels=28 * 28)
COUNT = 11


class NoFrames:
    """Stands for a `FramePool`; gives black pictures, or fails for the clips in `broken`."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.broken = broken
        self.submitted = 0

    def submit(self, job: FrameJob) -> "Future[PixelValues]":
        self.submitted += 1
        future: Future[PixelValues] = Future()
        if Path(job.video).name in self.broken:
            future.set_exception(SvmError(f"{job.video} is damaged."))
        else:
            future.set_result(np.ones((job.count // 2 * 16, 1176), np.float32))
        return future


def record(number: int, seconds: int, video: str = "long.mp4") -> StreamingRecord:
    turns = tuple(Turn(float(s), s + 1.0, f"Time={s}.0-{s + 1}.0s ", f"\n w{number} ...") for s in range(seconds))
    return StreamingRecord(video, 0.0, float(seconds), turns, width=64, height=48)


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    path = tmp_path_factory.mktemp("batches") / "r.jsonl"
    path.write_bytes(b"".join(record(n, n % 4 + 1, f"{n}.mp4").to_line() for n in range(COUNT)))
    return Windows([RecordFile.open(path)], 4, 4)


@pytest.fixture
def builder(tokenizer: Tokenizer) -> SampleBuilder:
    return SampleBuilder(tokenizer, SampleConfig(pixels=PIXELS))


def read(batches: Batches, start: Position | None = None, epochs: int | None = 1, **frames: Any) -> Iterator[Batch]:
    return batches.read(NoFrames(**frames), start, epochs)  # type: ignore[arg-type]


def numbers(batches: Iterator[Batch]) -> list[tuple[int, ...]]:
    return [batch.numbers for batch in batches]


configs = st.builds(
    BatchConfig,
    batch_size=st.integers(1, 4),
    max_packed_tokens=st.none() | st.integers(50, 400),
    pool=st.integers(1, 15),
    shuffle=st.booleans(),
    prefetch=st.integers(0, 4),
)
fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


@fixtures
@given(config=configs, seed=st.integers(0, 5))
def test_an_epoch_has_every_window_once(
    windows: Windows, builder: SampleBuilder, config: BatchConfig, seed: int
) -> None:
    seen = numbers(read(Batches(windows, builder, config, seed)))
    assert sorted(itertools.chain(*seen)) == list(range(COUNT))


@fixtures
@given(config=configs, seed=st.integers(0, 5), stop=st.integers(0, 20))
def test_going_on_from_any_place_gives_the_same_batches(
    windows: Windows, builder: SampleBuilder, config: BatchConfig, seed: int, stop: int
) -> None:
    batches = Batches(windows, builder, config, seed)
    whole = list(read(batches, epochs=3))
    stop = min(stop, len(whole) - 1)
    rest = list(read(Batches(windows, builder, config, seed), whole[stop].following, epochs=3))
    assert [batch.numbers for batch in rest] == [batch.numbers for batch in whole[stop + 1 :]]
    assert [batch.following for batch in rest] == [batch.following for batch in whole[stop + 1 :]]
    for a, b in zip(rest, whole[stop + 1 :], strict=True):
        assert (a.tokens.input_ids == b.tokens.input_ids).all()
    assert Position.from_dict(whole[stop].following.to_dict()) == whole[stop].following


@fixtures
@given(config=configs, ranks=st.integers(2, 4))
def test_ranks_work_in_lockstep_and_share_the_dataset(
    windows: Windows, builder: SampleBuilder, config: BatchConfig, ranks: int
) -> None:
    seen = [list(read(Batches(windows, builder, config, 0, rank, ranks))) for rank in range(ranks)]
    assert len({len(batches) for batches in seen}) == 1
    assert {n for batches in seen for batch in batches for n in batch.numbers} == set(range(COUNT))
    for step in zip(*seen, strict=True):
        assert len({batch.following for batch in step}) == 1


def test_the_order_changes_with_epoch_and_seed_only(windows: Windows, builder: SampleBuilder) -> None:
    config = BatchConfig(pool=COUNT)
    first = numbers(read(Batches(windows, builder, config, 0), epochs=2))
    assert first == numbers(read(Batches(windows, builder, config, 0), epochs=2))
    assert first[:COUNT] != first[COUNT:]
    assert first[:COUNT] != numbers(read(Batches(windows, builder, config, 1)))
    lengths = [number % 4 for (number,) in first]
    assert lengths[:COUNT] != lengths[COUNT:]


def test_pools_are_drawn_again_each_epoch(windows: Windows, builder: SampleBuilder) -> None:
    seen = numbers(read(Batches(windows, builder, BatchConfig(pool=4), 0), epochs=2))
    assert set(seen[:4]) != set(seen[COUNT : COUNT + 4])


def test_without_shuffling_pools_follow_the_file_short_windows_first(windows: Windows, builder: SampleBuilder) -> None:
    seen = numbers(read(Batches(windows, builder, BatchConfig(shuffle=False, pool=4), 0)))
    assert list(itertools.chain(*seen)) == list(range(COUNT))


def test_a_batch_holds_windows_of_similar_length(windows: Windows, builder: SampleBuilder) -> None:
    batches = list(read(Batches(windows, builder, BatchConfig(batch_size=2, pool=COUNT), 3)))
    for batch in batches:
        assert len({n % 4 for n in batch.numbers}) <= 2
        assert np.count_nonzero(batch.tokens.segments < 0) <= batch.tokens.segments.shape[1]


def test_the_fields_of_a_batch(windows: Windows, builder: SampleBuilder, tokenizer: Tokenizer) -> None:
    config = BatchConfig(batch_size=COUNT, shuffle=False)
    (batch,) = read(Batches(windows, builder, config, 0))
    assert batch.seconds == sum(n % 4 + 1 for n in range(COUNT))
    assert batch.tokens.input_ids.shape[0] == COUNT
    assert batch.tokens.video_grid_thw.shape == (batch.seconds, 3)
    assert batch.pixel_values.shape == (16 * batch.seconds, 1176)
    assert (batch.epoch, batch.following) == (0, Position(epoch=1))
    pads = np.count_nonzero(batch.tokens.input_ids == tokenizer.special.video_pad)
    assert pads == batch.tokens.video_grid_thw.prod(axis=1).sum() // 4


def test_prefetch_is_bounded(windows: Windows, builder: SampleBuilder) -> None:
    frames: Any = NoFrames()
    stream = Batches(windows, builder, BatchConfig(prefetch=2), 0).read(frames)
    for taken in range(1, 6):
        next(stream)
        assert frames.submitted == taken + 2


class TestBadWindows:
    def test_frames_that_cannot_be_decoded_have_no_labels(self, windows: Windows, builder: SampleBuilder) -> None:
        reported: list[str] = []
        config = BatchConfig(batch_size=COUNT, shuffle=False)
        batches = Batches(windows, builder, config, 0, report=reported.append)
        (batch,) = read(batches, broken=["3.mp4"])
        (problem,) = reported
        assert problem.startswith(f"{windows[3].source}: skipped: ")
        assert windows[3].source.endswith("r.jsonl:4")
        assert "3.mp4 is damaged" in problem
        assert batches.skipped == {3}
        row = batch.numbers.index(3)
        assert (batch.tokens.labels[row] == -100).all()
        assert (np.delete(batch.tokens.labels, row, axis=0) != -100).any(axis=1).all()
        assert (batch.pixel_values == 0).all(axis=1).sum() == 4 * 16

    def test_a_clip_of_another_size_than_its_record_says(
        self, tmp_path: Path, builder: SampleBuilder, clips: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATASET_PATH", str(clips))
        path = tmp_path / "r.jsonl"
        path.write_bytes(record(0, 2, str(clips / "long.mp4")).to_line().replace(b'"width":64', b'"width":164'))
        reported: list[str] = []
        batches = Batches(Windows([RecordFile.open(path)], 4, 4), builder, BatchConfig(), 0, report=reported.append)
        with FramePool(0, 0) as frames:
            (batch,) = batches.read(frames, epochs=1)
        assert "is not of the size that its record says" in reported[0]
        assert (batch.tokens.labels == -100).all()

    def test_a_window_without_tokens_is_filtered(self, tmp_path: Path, builder: SampleBuilder) -> None:
        path = tmp_path / "r.jsonl"
        lost = record(1, 1, "absent.mp4").to_line().replace(b'"width":64', b'"width":0')
        path.write_bytes(record(0, 1).to_line() + lost)
        reported: list[str] = []
        batches = Batches(Windows([RecordFile.open(path)], 4, 4), builder, BatchConfig(), 0, report=reported.append)
        assert numbers(read(batches)) == [(0,)]
        assert reported[0].startswith(f"{path}:2: skipped: ")
        assert batches.skipped == {1}

    def test_a_window_that_is_skipped_in_every_epoch_counts_once(
        self, windows: Windows, builder: SampleBuilder
    ) -> None:
        batches = Batches(windows, builder, BatchConfig(), 0)
        assert len(list(read(batches, epochs=3, broken=["3.mp4", "5.mp4"]))) == 3 * COUNT
        assert batches.skipped == {3, 5}

    def test_a_dataset_of_which_nothing_is_left(self, tmp_path: Path, builder: SampleBuilder) -> None:
        path = tmp_path / "r.jsonl"
        path.write_bytes(record(1, 1, "absent.mp4").to_line().replace(b'"width":64', b'"width":0'))
        batches = Batches(Windows([RecordFile.open(path)], 4, 4), builder, BatchConfig(), 0)
        with pytest.raises(SvmError, match="No window of the dataset can be used"):
            list(read(batches, epochs=None))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (BatchConfig(batch_size=0), "batch_size is 0"),
        (BatchConfig(max_packed_tokens=0), "max_packed_tokens is 0"),
        (BatchConfig(workers=-1), "workers is -1"),
        (BatchConfig(pool=0), "pool is 0"),
    ],
)
def test_impossible_sizes_are_refused(
    windows: Windows, builder: SampleBuilder, config: BatchConfig, problem: str
) -> None:
    with pytest.raises(SvmError, match=problem):
        Batches(windows, builder, config, 0)


def test_real_frames_come_in_the_order_of_the_tokens(
    tmp_path: Path, builder: SampleBuilder, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_PATH", str(clips))
    path = tmp_path / "r.jsonl"
    path.write_bytes(record(0, 8, str(clips / "long.mp4")).to_line())
    windows = Windows([RecordFile.open(path)], 2, 2)
    with FramePool(2, 10**7) as frames:
        (batch,) = Batches(windows, builder, BatchConfig(batch_size=4), 7).read(frames, epochs=1)
    shown = batch.pixel_values.reshape(4, 2, 16, 1176).mean(axis=(1, 2, 3))
    assert np.argsort(shown).tolist() == np.argsort(batch.numbers).tolist()
