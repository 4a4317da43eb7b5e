import os
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data import frame_workers as loading
from streaming_vlm_mlx.data.frame_workers import FrameDecoder, FrameJob, FramePool, FrameWorker
from streaming_vlm_mlx.errors import SvmError

PIXELS = PixelConfig(min_pixels=28 * 28)
FRAME_BYTES = 56 * 56 * 3


def job(clips: Path, start: float, name: str = "long.mp4") -> FrameJob:
    return FrameJob(str(clips / name), start, start + 2, 4, 2, PIXELS)


class Deadly:
    """A job that ends the process that reads it."""

    video = "deadly.mp4"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


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
            assert sum(frames.nbytes for frames in decoder._kept.values()) == decoder.cached_bytes <= room


class TestWorkers:
    def test_they_decode_what_a_thread_decodes(self, clips: Path) -> None:
        jobs = [job(clips, start) for start in range(4)]
        with FramePool(0, 0) as here, FramePool(2, 10**6) as there:
            mine = [here.submit(j).result() for j in jobs]
            theirs = [future.result() for future in [there.submit(j) for j in jobs]]
        assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))

    def test_work_is_shared_out_and_a_window_keeps_its_worker(self, clips: Path) -> None:
        with FramePool(2, 0) as pool:
            pool._loads = [lambda _: np.zeros(1, np.float32), lambda _: np.ones(1, np.float32)]
            rounds = [[pool.submit(job(clips, n)).result()[0] for n in range(8)] for _ in range(2)]
        assert set(rounds[0]) == {0.0, 1.0}
        assert rounds[0] == rounds[1]

    def test_a_bad_video_is_told_and_the_worker_lives(self, clips: Path) -> None:
        with FramePool(1, 0) as pool:
            bad, good = pool.submit(job(clips, 0, "absent.mp4")), pool.submit(job(clips, 0))
            with pytest.raises(SvmError, match=r"absent.mp4 does not exist"):
                bad.result()
            assert good.result().shape == (32, 1176)

    def test_a_worker_that_dies_is_told_and_replaced(self, clips: Path) -> None:
        worker = FrameWorker(0)
        with pytest.raises(SvmError, match=r"A worker that decodes deadly\.mp4 died; with 0 workers"):
            worker.load(Deadly())  # type: ignore[arg-type]
        worker._process.join()
        assert worker.load(job(clips, 0)).shape == (32, 1176)
        worker.close()

    def test_closing_drops_what_is_still_to_do(self, clips: Path) -> None:
        pool = FramePool(1, 0)
        futures = [pool.submit(job(clips, n % 9)) for n in range(200)]
        pool.close()
        assert any(future.cancelled() for future in futures)
        assert all(future.done() for future in futures)
