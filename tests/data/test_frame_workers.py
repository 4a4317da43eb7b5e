import os
import signal
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data import frame_workers as loading
from streaming_vlm_mlx.data.clip_metadata import probe_clip
from streaming_vlm_mlx.data.frame_workers import (
    Encoder,
    FrameDecoder,
    FrameJob,
    FramePool,
    FrameWorker,
    count_seconds,
    read_frames,
)
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import write_clip

PIXELS = PixelConfig(min_pixels=28 * 28)
T = TypeVar("T", float, Fraction)


def lmm_frames(times: Sequence[T], start: float, end: float, fps: int) -> list[T]:
    """The published rule, spelled out: a grid from the first frame on, each point's first frame at or after it."""
    inside = [time for time in times if start <= time <= end]
    if not inside:
        return []
    chosen = []
    while inside[0] + Fraction(len(chosen), fps) <= inside[-1]:
        point = inside[0] + Fraction(len(chosen), fps)
        chosen.append(next(time for time in inside if time >= point))
    return chosen + chosen[-1:] * (-len(chosen) % fps)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.sampled_from([24, 25, 30, 50]),
    st.integers(0, 8),
    st.integers(1, 8),
    st.integers(1, 4),
)
# In floats, the second point is after the last frame.
@example([7, 10, 40], 25, 0, 3, 1)
def test_seconds_are_counted_as_the_rule_chooses_frames(
    gaps: list[int], rate: int, start: int, length: int, fps: int
) -> None:
    times = [Fraction(int(n), rate) for n in np.cumsum(gaps)]
    want = len(lmm_frames(times, start, start + length, fps)) // fps
    assert count_seconds(np.array(times, float), start, start + length, fps) == want


def test_more_frames_than_the_limit_are_filtered() -> None:
    times = np.arange(0, 400, 0.04)
    assert count_seconds(times, 0, 399, 2) == 400
    assert count_seconds(times, 0, 399, 2, max_frames=480) == 240


class TestReading:
    @pytest.fixture(scope="class")
    @staticmethod
    def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Frames at 25 a second, many of which are missing."""
        kept = [n for n in range(150) if n % 7 not in (2, 3) and not 60 < n < 85]
        return write_clip(tmp_path_factory.mktemp("uneven") / "uneven.mp4", kept)

    @pytest.mark.parametrize(("start", "end"), [(0.0, 6.0), (0.0, 2.0), (1.3, 4.0), (2.5, 5.9), (5.0, 30.0)])
    @pytest.mark.parametrize("fps", [1, 2, 4])
    def test_the_rule_holds_for_real_files(self, uneven: Path, start: float, end: float, fps: int) -> None:
        all_times = probe_clip(uneven).times.tolist()
        want = lmm_frames(all_times, start, end, fps)
        _, times = read_frames(uneven, start, end, len(want), fps, PIXELS)
        assert times.tolist() == pytest.approx(want)

    def test_the_pictures_are_those_of_the_times(self, clips: Path) -> None:
        frames, times = read_frames(clips / "short.mp4", 1.0, 3.0, 4, 2, PIXELS)
        assert times.tolist() == pytest.approx([1.0, 1.52, 2.0, 2.52])
        assert frames.shape == (4, 56, 56, 3)
        grey = frames.reshape(4, -1).mean(axis=1)
        assert grey == pytest.approx([2 * 25 * time for time in times], abs=2)

    def test_missing_frames_repeat_the_last_one(self, clips: Path) -> None:
        frames, times = read_frames(clips / "short.mp4", 2.5, 9.0, 6, 2, PIXELS)
        assert times.tolist() == pytest.approx([2.52, 3.04, 3.04, 3.04, 3.04, 3.04])
        assert (frames[2] == frames[5]).all()

    def test_no_frame_at_all(self, clips: Path) -> None:
        with pytest.raises(SvmError, match=r"short.mp4 has no frame between 50 and 60 s"):
            read_frames(clips / "short.mp4", 50.0, 60.0, 4, 2, PIXELS)


PIXELS = PixelConfig(min_pixels=28 * 28)
FRAME_BYTES = 56 * 56 * 3


def job(clips: Path, start: float, name: str = "long.mp4") -> FrameJob:
    return FrameJob(str(clips / name), start, start + 2, 4, 2, PIXELS)


class Deadly:
    """A job that ends the process that reads it."""

    video = "deadly.mp4"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return signal.raise_signal, (signal.SIGKILL,)


def process_encoder() -> Encoder:
    """Features that tell which process computed them."""
    return lambda values, grid: np.array([[os.getpid() % 2039]], np.float16)


def test_pixels_are_the_processors(clips: Path) -> None:
    values = FrameDecoder(0).load(job(clips, 1.0))
    assert values.shape == (2 * 4 * 4, 1176)
    assert values.dtype == np.float32
    mean, std = PIXELS.image_mean, PIXELS.image_std
    greys = values.reshape(2, 16, 3, 2, 14, 14).mean(axis=(1, 4, 5))
    shown = [[(greys[s, c, f] * std[c] + mean[c]) * 255 for f in range(2)] for s in range(2) for c in range(3)]
    assert shown == pytest.approx(np.array([[50, 76]] * 3 + [[100, 126]] * 3), abs=2)


class TestCache:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Starts of the windows that were decoded, as it happens."""
        starts, real = list[float](), loading.read_frames

        def watched(video: Path, start: float, *rest: object) -> object:
            starts.append(start)
            return real(video, start, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(loading, "read_frames", watched)
        return starts

    def test_what_came_first_stays(self, clips: Path, decoded: list[float]) -> None:
        decoder = FrameDecoder(2 * 4 * FRAME_BYTES)
        first = decoder.load(job(clips, 0))
        for start in (1, 2, 0, 1, 2, 0):
            decoder.load(job(clips, start))
        assert decoded == [0, 1, 2, 2]
        assert (decoder.load(job(clips, 0)) == first).all()

    @pytest.mark.parametrize("room", [0, 1, 4 * FRAME_BYTES, 9 * FRAME_BYTES])
    def test_it_never_holds_more_than_it_may(self, clips: Path, room: int) -> None:
        decoder = FrameDecoder(room)
        for start in range(4):
            decoder.load(job(clips, start))
        window = 4 * FRAME_BYTES
        assert decoder.cached_bytes == room // window * window


class TestWorkers:
    def test_they_decode_what_a_thread_decodes(self, clips: Path) -> None:
        jobs = [job(clips, start) for start in range(4)]
        with FramePool(0, 0) as here, FramePool(2, 10**6) as there:
            mine = [here.submit(j).result() for j in jobs]
            theirs = [future.result() for future in [there.submit(j) for j in jobs]]
        assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))

    def test_work_is_shared_out_and_a_window_keeps_its_worker(self, clips: Path) -> None:
        with FramePool(2, 0, process_encoder) as pool:
            rounds = [[pool.submit(job(clips, n)).result().item() for n in range(8)] for _ in range(2)]
        assert len(set(rounds[0])) == 2
        assert rounds[0] == rounds[1]

    def test_a_bad_video_is_reported_and_the_worker_lives(self, clips: Path) -> None:
        with FramePool(1, 0) as pool:
            bad, good = pool.submit(job(clips, 0, "absent.mp4")), pool.submit(job(clips, 0))
            with pytest.raises(SvmError, match=r"absent.mp4 does not exist"):
                bad.result()
            assert good.result().shape == (32, 1176)

    def test_a_worker_that_dies_is_reported_and_replaced(self, clips: Path) -> None:
        worker = FrameWorker(0)
        with pytest.raises(SvmError, match=r"The worker that decodes deadly\.mp4 died; set workers to 0"):
            worker.load(Deadly())  # type: ignore[arg-type]
        assert worker.load(job(clips, 0)).shape == (32, 1176)
        worker.close()

    def test_closing_drops_what_is_still_to_do(self, clips: Path) -> None:
        pool = FramePool(1, 0)
        futures = [pool.submit(job(clips, n % 9)) for n in range(200)]
        pool.close()
        assert any(future.cancelled() for future in futures)
        assert all(future.done() for future in futures)
