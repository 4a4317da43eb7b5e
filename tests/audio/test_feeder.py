"""Decoding ahead of the playhead: from where, how far, and again after a failure."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE, ClipTrack
from streaming_vlm_mlx.audio.feeder import AHEAD, BEHIND, Feeder, open_feeder
from streaming_vlm_mlx.audio.motion import Motion
from streaming_vlm_mlx.audio.reader import Sound
from streaming_vlm_mlx.errors import SvmError
from tests.audio.sounds import make_clip_with_sound, second_of
from tests.video.clips import make_clip

BLOCK = 0.05


class Reader:
    """A reader of a clip of silence, which notes where it is asked to begin."""

    def __init__(self, duration: float = 100.0) -> None:
        self.begun: list[tuple[float, float]] = []
        self.duration, self.fails = duration, False
        self.closed = False

    def sounds(self, time: float, speed: float = 1.0) -> Iterator[Sound]:
        self.begun.append((time, speed))
        while time < self.duration:
            if self.fails:
                raise SvmError("the clip is gone; look for it.")
            yield Sound(time, np.zeros((round(BLOCK * RATE), 2), np.float32))
            time += BLOCK * speed

    def close(self) -> None:
        self.closed = True


class Harness:
    def __init__(self, reader: Reader) -> None:
        self.now, self.reader, self.track = 100.0, reader, ClipTrack()
        self.feeder = Feeder(reader, self.track, lambda: self.now)  # type: ignore[arg-type]

    def go(self, position: float, speed: float = 1.0, moving: bool = True) -> None:
        self.track.motion = Motion(self.now, position, speed, moving)
        self.fill()

    def fill(self) -> int:
        steps = 0
        while self.feeder.step():
            steps += 1
            assert steps < 1000
        return steps

    @property
    def span(self) -> tuple[float, float]:
        """Where what is kept begins and ends."""
        assert self.track.run is not None
        blocks = self.track.run.blocks
        return blocks[0].time, self.track.run.end_time(blocks[-1])


@pytest.fixture
def harness() -> Harness:
    return Harness(Reader())


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_it_decodes_a_second_of_sound_ahead(harness: Harness, speed: float) -> None:
    harness.go(7.0, speed)
    begin, end = harness.span
    assert begin == 7.0
    assert AHEAD * speed <= end - 7.0 <= (AHEAD + 2 * BLOCK) * speed


def test_it_follows_without_a_new_run_and_keeps_little(harness: Harness) -> None:
    for tenth in range(300):
        harness.go(5.0 + tenth / 10)
        harness.now += 0.1
    assert harness.reader.begun == [(5.0, 1.0)]
    begin, end = harness.span
    assert begin >= 34.9 - BEHIND - 2 * BLOCK
    assert end <= 34.9 + AHEAD + 2 * BLOCK


def test_a_short_way_back_needs_no_new_run_and_a_longer_one_does(harness: Harness) -> None:
    for tenth in range(20):
        harness.go(5.0 + tenth / 10)
    harness.go(6.6, moving=False)
    assert len(harness.reader.begun) == 1
    harness.go(3.0)
    assert harness.reader.begun[1:] == [(3.0, 1.0)]


def test_seeks_and_speeds_begin_a_run_there(harness: Harness) -> None:
    harness.go(5.0)
    harness.go(50.0)
    harness.go(50.0, 2.0)
    assert harness.reader.begun == [(5.0, 1.0), (50.0, 1.0), (50.0, 2.0)]
    assert harness.track.run is not None
    assert harness.track.run.number == 3


def test_at_the_end_it_rests(harness: Harness) -> None:
    harness.go(99.5)
    harness.go(99.9)
    assert harness.fill() == 0
    harness.go(100.0, moving=False)
    assert len(harness.reader.begun) == 1
    harness.go(10.0)
    assert harness.span[0] == 10.0


def test_after_a_failure_it_tries_again(harness: Harness) -> None:
    harness.go(5.0)
    harness.reader.fails = True
    with pytest.raises(SvmError):
        harness.go(60.0)
    harness.reader.fails = False
    harness.fill()
    assert harness.span[0] == 60.0


def test_it_opens_a_clip(tmp_path: Path) -> None:
    track = ClipTrack()
    feeder = open_feeder(str(make_clip_with_sound(tmp_path / "clip.mp4")), track, lambda: 0.0)
    assert feeder is not None
    track.motion = Motion(0.0, 3.2)
    while feeder.step():
        pass
    assert track.run is not None
    found = track.run.find(3.3)
    assert found is not None
    assert second_of(track.run.read(found[1], RATE // 3)) == 3
    feeder.close()
    assert open_feeder(str(make_clip(tmp_path / "silent.mp4")), track, lambda: 0.0) is None
