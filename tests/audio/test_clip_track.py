"""Sound in step with a motion: each sample of the clip is its own position, so that what is heard says where it is."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.audio.clip_track import FADE, JUMP, LOOSE, RATE, STRETCH, ClipTrack, Run, Samples
from streaming_vlm_mlx.audio.motion import LONGEST, Motion

# Samples that the device asks for at once.
COUNT = 1024


def ramp(begin: float, seconds: float, speed: float = 1.0) -> Samples:
    """Return sound whose samples are their own positions in seconds of clip."""
    positions = begin + np.arange(round(seconds * RATE)) * speed / RATE
    return np.stack([positions, positions], axis=1).astype(np.float32)


def run_of(begin: float, seconds: float, number: int = 0, speed: float = 1.0, block: float = 0.1) -> Run:
    """Return a run of `seconds` of sound from `begin` on, in blocks."""
    run = Run(number, speed)
    for index in range(math.ceil(seconds / block - 1e-9)):
        time = begin + index * block * speed
        run = run.add(time, ramp(time, block, speed))
    return run


class Device:
    """A device with a clock of its own, which asks a track for sound."""

    def __init__(self, track: ClipTrack, rate: float = 1.0) -> None:
        self.track, self.time, self._rate = track, 0.0, rate

    def play(self, seconds: float) -> npt.NDArray[np.float64]:
        """Return time and position of each sample that is heard in the next `seconds`."""
        parts = []
        for _ in range(math.ceil(seconds * RATE / COUNT)):
            times = self.time + np.arange(COUNT) / RATE * self._rate
            parts.append(np.stack([times, self.track.render(COUNT, self.time)[:, 0]], axis=1))
            self.time = float(times[-1]) + self._rate / RATE
        return np.concatenate(parts)


def track(run: Run, motion: Motion) -> ClipTrack:
    made = ClipTrack()
    made.run, made.motion = run, motion
    return made


def errors(heard: npt.NDArray[np.float64], motion: Motion) -> npt.NDArray[np.float64]:
    """Return by how many seconds of clip what is heard is early."""
    result: npt.NDArray[np.float64] = heard[:, 1] - (motion.position + (heard[:, 0] - motion.at) * motion.speed)
    return result


@pytest.mark.parametrize("speed", [0.25, 1.0, 4.0])
def test_sound_begins_where_the_playhead_is(speed: float) -> None:
    motion = Motion(0.0, 3.0, speed, moving=True)
    device = Device(track(run_of(2.0, 3.0 + 3.0 / speed, speed=speed), motion))
    heard = device.play(0.5)
    assert abs(errors(heard[FADE:], motion)).max() < 1e-3
    assert device.track.jumps == device.track.gaps == 0


def follow(device: Device, motion: Motion, seconds: float) -> npt.NDArray[np.float64]:
    """Play on, with a motion that is told anew many times a second."""
    parts, end = [], device.time + seconds
    while device.time < end:
        position = motion.position + (device.time - motion.at) * motion.speed
        device.track.motion = Motion(device.time, position, motion.speed, moving=True)
        parts.append(device.play(COUNT / RATE))
    return np.concatenate(parts)


@pytest.mark.parametrize("rate", [0.998, 1.0, 1.0005])
def test_a_device_that_is_too_fast_or_slow_does_not_drift(rate: float) -> None:
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run_of(0.0, 32.0), motion), rate)
    heard = follow(device, motion, 30.0)
    assert device.track.jumps == 0
    assert abs(errors(heard[FADE:], motion)).max() < LOOSE + 0.001
    # Nobody hears it: the pitch changes by no more than the stretch.
    assert abs(np.diff(heard[FADE::COUNT, 1]) * RATE / COUNT - 1).max() < STRETCH + 0.001


def test_a_small_error_is_stretched_away_and_a_large_one_jumps() -> None:
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run_of(0.0, 50.0), motion))
    device.play(0.2)
    for shift, jumps in ((0.8 * JUMP, 0), (-0.8 * JUMP, 0), (1.5 * JUMP, 1), (-1.5 * JUMP, 2)):
        motion = Motion(motion.at, motion.position + shift, moving=True)
        heard = follow(device, motion, 0.1)
        assert device.track.jumps == jumps
        is_in_place = abs(errors(heard[-COUNT:], motion)).max() < 0.002
        assert is_in_place == (jumps > 0)
        heard = follow(device, motion, abs(shift) / STRETCH * 1.2)
        assert abs(errors(heard[-COUNT:], motion)).max() < 0.002


def test_a_pause_is_silence_and_what_follows_goes_on_there() -> None:
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run_of(0.0, 5.0), motion))
    device.play(0.5)
    device.track.motion = Motion(device.time, 1.4, moving=False)
    assert not device.play(0.5)[FADE:, 1].any()
    motion = device.track.motion = Motion(device.time, 1.4, moving=True)
    assert abs(errors(device.play(0.2)[FADE:], motion)).max() < 1e-3


def test_sound_ends_exactly_where_the_motion_does() -> None:
    motion = Motion(0.0, 1.0, moving=True, end=1.5)
    device = Device(track(run_of(0.0, 5.0), motion))
    heard = device.play(1.0)
    last = np.flatnonzero(heard[:, 1])[-1] / RATE
    assert last == pytest.approx(0.5, abs=0.001)


def test_a_screen_that_hangs_stops_the_sound() -> None:
    device = Device(track(run_of(0.0, 5.0), Motion(0.0, 1.0, moving=True)))
    heard = device.play(2 * LONGEST)
    assert np.flatnonzero(heard[:, 1])[-1] / RATE == pytest.approx(LONGEST, abs=2 * COUNT / RATE)


def test_a_seek_or_another_speed_is_silence_until_its_sound_is_there() -> None:
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run_of(0.0, 3.0), motion))
    device.play(0.2)
    motion = device.track.motion = Motion(device.time, 20.0, moving=True)
    assert not device.play(0.1)[FADE:, 1].any()
    device.track.run = run_of(20.0, 3.0, number=1)
    assert abs(errors(device.play(0.2)[FADE:], motion)).max() < 1e-3
    motion = device.track.motion = Motion(device.time, 20.5, 2.0, moving=True)
    assert not device.play(0.1)[FADE:, 1].any()
    device.track.run = run_of(20.0, 3.0, number=2, speed=2.0)
    assert abs(errors(device.play(0.2)[FADE:], motion)).max() < 1e-3


def test_a_gap_in_the_clip_is_silent_and_what_follows_is_in_its_place() -> None:
    run = Run(0, 1.0).add(1.0, ramp(1.0, 0.5)).add(2.0, ramp(2.0, 1.0))
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run, motion))
    follow(device, motion, 0.6)
    assert not follow(device, motion, 0.3)[:, 1].any()
    heard = follow(device, motion, 0.5)
    sounding = heard[heard[:, 1] > 0]
    assert sounding[0, 0] == pytest.approx(1.0, abs=0.002)
    assert abs(errors(sounding[FADE:], motion)).max() < 1e-3


def test_sound_that_comes_late_is_in_its_place() -> None:
    motion = Motion(0.0, 1.0, moving=True)
    device = Device(track(run_of(1.0, 0.3), motion))
    follow(device, motion, 0.5)
    assert device.track.gaps >= 1
    device.track.run = run_of(1.0, 3.0)
    assert abs(errors(follow(device, motion, 0.3)[FADE:], motion)).max() < 1e-3


@given(st.data())
def test_what_is_heard_after_any_seek_pause_and_speed_is_in_its_place(data: st.DataObject) -> None:
    device = Device(ClipTrack())
    for number in range(data.draw(st.integers(1, 5))):
        speed = data.draw(st.sampled_from([0.5, 1.0, 1.5, 2.0]))
        position = data.draw(st.floats(0.5, 50.0))
        device.track.run = run_of(position - 0.3, 1.5, number, speed)
        device.track.motion = Motion(device.time, position, speed, moving=False)
        device.play(data.draw(st.floats(0.03, 0.2)))
        motion = device.track.motion = Motion(device.time, position, speed, moving=True)
        heard = device.play(data.draw(st.floats(0.05, 0.3)))
        assert abs(errors(heard[FADE:], motion)).max() < 1e-3 * speed
