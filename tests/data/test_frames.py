from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.clip_metadata import measure
from streaming_vlm_mlx.data.frame_workers import count_seconds, read_frames
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import write_clip

PIXELS = PixelConfig(min_pixels=28 * 28)


def lmm_frames(times: list[float], start: float, end: float, fps: int) -> list[float]:
    """The published rule, spelled out: a grid from the first frame on, each point's first frame at or after it."""
    inside = [time for time in times if start <= time <= end]
    if not inside:
        return []
    chosen = []
    while inside[0] + len(chosen) / fps <= inside[-1]:
        point = inside[0] + len(chosen) / fps
        chosen.append(next(time for time in inside if time >= point))
    return chosen + chosen[-1:] * (-len(chosen) % fps)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.sampled_from([24, 25, 30, 50]),
    st.integers(0, 8),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_seconds_are_counted_as_the_rule_chooses_frames(
    gaps: list[int], rate: int, start: int, length: int, fps: int
) -> None:
    times = [int(n) / rate for n in np.cumsum(gaps)]
    want = len(lmm_frames(times, start, start + length, fps)) // fps
    assert count_seconds(np.array(times), start, start + length, fps) == want


def test_more_frames_than_the_limit_are_left_out() -> None:
    times = np.arange(0, 400, 0.04)
    assert count_seconds(times, 0, 399, 2) == 400
    assert count_seconds(times, 0, 399, 2, max_frames=480) == 240


class TestReading:
    @pytest.fixture(scope="class")
    @staticmethod
    def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Frames at 25 a second, of which many were dropped."""
        kept = [n for n in range(150) if n % 7 not in (2, 3) and not 60 < n < 85]
        return write_clip(tmp_path_factory.mktemp("uneven") / "uneven.mp4", kept)

    @pytest.mark.parametrize(("start", "end"), [(0.0, 6.0), (0.0, 2.0), (1.3, 4.0), (2.5, 5.9), (5.0, 30.0)])
    @pytest.mark.parametrize("fps", [1, 2, 4])
    def test_the_rule_holds_for_real_files(self, uneven: Path, start: float, end: float, fps: int) -> None:
        all_times = measure(uneven).clip().times.tolist()
        want = lmm_frames(all_times, start, end, fps)
        _, times = read_frames(uneven, start, end, len(want), fps, PIXELS)
        assert times.tolist() == pytest.approx(want)

    def test_the_pictures_are_those_of_the_times(self, clips: Path) -> None:
        frames, times = read_frames(clips / "short.mp4", 1.0, 3.0, 4, 2, PIXELS)
        assert times.tolist() == pytest.approx([1.0, 1.52, 2.0, 2.52])
        assert frames.shape == (4, 56, 56, 3)
        grey = frames.reshape(4, -1).mean(axis=1)
        assert grey == pytest.approx([2 * 25 * time for time in times], abs=2)

    def test_the_last_frame_stands_in_for_missing_ones(self, clips: Path) -> None:
        frames, times = read_frames(clips / "short.mp4", 2.5, 9.0, 6, 2, PIXELS)
        assert times.tolist() == pytest.approx([2.52, 3.04, 3.04, 3.04, 3.04, 3.04])
        assert (frames[2] == frames[5]).all()

    def test_no_frame_at_all(self, clips: Path) -> None:
        with pytest.raises(SvmError, match=r"short.mp4 has no frame between 50 and 60 s"):
            read_frames(clips / "short.mp4", 50.0, 60.0, 4, 2, PIXELS)
