"""A clip's seconds and frames."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import make_clip, number_of
from tui.player.clip import BlankSeconds, ClipSeconds, FrameGrabber, fit

RATE = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, four frames each, each with a number in it."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", count=10 * RATE, rate=RATE)


@pytest.fixture(scope="module")
def grabber(clip: Path) -> FrameGrabber:
    return FrameGrabber(str(clip))


def frames(seconds: ClipSeconds, number: int) -> tuple[int, int, list[int]]:
    chunk = seconds.read(number)
    assert chunk is not None
    return chunk.index, int(chunk.start), [number_of(frame) for frame in chunk.frames]


@pytest.mark.parametrize("numbers", [[0, 1, 2], [0, 2, 5], [9, 0], [3, 3], [0, 8, 1, 9]])
def test_seconds_are_read_in_any_order(clip: Path, numbers: list[int]) -> None:
    seconds = ClipSeconds(open_video(clip))
    for number in numbers:
        assert frames(seconds, number) == (number, number, [RATE * number, RATE * number + RATE // 2])
    seconds.close()


def test_there_is_nothing_past_the_end(clip: Path) -> None:
    seconds = ClipSeconds(open_video(clip))
    assert seconds.duration == 10
    assert seconds.read(10) is None
    assert seconds.read(99) is None
    assert frames(seconds, 9)[0] == 9
    assert seconds.read(10) is None
    seconds.close()


def test_blank_seconds_have_the_clip_s_length() -> None:
    seconds = BlankSeconds(2.5)
    chunks = [seconds.read(number) for number in range(4)]
    assert [(c.start, c.end, len(c.frames)) for c in chunks if c] == [(0, 1, 0), (1, 2, 0), (2, 2.5, 0)]
    assert chunks[3] is None


@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.floats(0, 12), max_size=8))
def test_a_still_is_the_frame_that_is_shown_then(grabber: FrameGrabber, times: list[float]) -> None:
    for time in times:
        frame = grabber.at(time, (8, 6))
        assert frame is not None
        assert frame.pixels.shape == (6, 8, 3)
        assert number_of(frame.pixels) == min(int(time * RATE + 1e-6), 10 * RATE - 1)


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), st.tuples(st.integers(1, 300), st.integers(1, 200)))
def test_a_picture_fits_its_box_and_keeps_its_shape(picture: tuple[int, int], box: tuple[int, int]) -> None:
    width, height = fit(picture, box)
    assert 1 <= width <= box[0]
    assert 1 <= height <= box[1]
    assert width == box[0] or height == box[1]
    assert width == pytest.approx(picture[0] * height / picture[1], abs=max(picture[0] / picture[1], 1) + 1)
