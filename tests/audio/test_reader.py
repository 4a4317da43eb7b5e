"""Reading a clip's sound: its place in time, its pitch, and clips that have none."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE, Samples
from streaming_vlm_mlx.audio.reader import Sound, open_sound, tempos
from streaming_vlm_mlx.errors import SvmError
from tests.audio.sounds import TONES, frequency, make_clip_with_sound, second_of, tone_of
from tests.video.clips import make_clip
from tui.player.playhead import SPEEDS

CODECS = [
    ("clip.mp4", "aac", 48_000),
    ("clip.mp4", "aac", 44_100),
    ("clip.mkv", "libopus", 48_000),
    ("clip.mkv", "pcm_s16le", 22_050),
    ("clip.ts", "mp2", 48_000),
    ("clip.mov", "pcm_s16le", 48_000),
]


def read(path: Path, time: float, seconds: float, speed: float = 1.0) -> list[Sound]:
    """Return the sounds from `time` on, for at least `seconds` of sound."""
    reader = open_sound(str(path))
    assert reader is not None
    try:
        sounds: list[Sound] = []
        for sound in reader.sounds(time, speed):
            sounds.append(sound)
            if sum(len(part.samples) for part in sounds) >= seconds * RATE:
                break
        return sounds
    finally:
        reader.close()


def join(sounds: list[Sound]) -> Samples:
    return np.concatenate([sound.samples for sound in sounds])


def change(samples: Samples, first: int) -> int:
    """Return the sample at which the tone of second `first` ends and the next one begins, within 2 ms."""
    length = RATE // 50
    time = np.arange(length) / RATE
    probes = [np.exp(-2j * np.pi * tone_of(second) * time) * np.hanning(length) for second in (first, first + 1)]
    starts = range(0, len(samples) - length, RATE // 1000)
    levels = np.array([[abs(samples[at : at + length, 0] @ probe) for probe in probes] for at in starts])
    later = levels[:, 1] > levels[:, 0]
    return round(int(np.argmax(later)) * RATE / 1000) + length // 2


@pytest.mark.parametrize(("name", "codec", "rate"), CODECS)
@pytest.mark.parametrize("start", [0.0, 2.5, 4.25])
def test_sound_is_where_it_belongs(tmp_path: Path, name: str, codec: str, rate: int, start: float) -> None:
    path = make_clip_with_sound(tmp_path / name, codec=codec, rate=rate)
    sounds = read(path, start, 1.5)
    assert sounds[0].time == pytest.approx(start, abs=0.03 if start == 0 else 1e-4)
    begin = int(start)
    heard = sounds[0].time + change(join(sounds), begin) / RATE
    assert heard == pytest.approx(begin + 1, abs=0.006)


@pytest.mark.parametrize("speed", [speed for speed in SPEEDS if speed != 1.0])
def test_another_speed_keeps_the_pitch_and_the_time(tmp_path: Path, speed: float) -> None:
    path = make_clip_with_sound(tmp_path / "clip.mp4", 10.0)
    sounds = read(path, 2.0, 1.6 / speed, speed)
    samples = join(sounds)
    at = change(samples, 2)
    assert 2.0 + at * speed / RATE == pytest.approx(3.0, abs=0.045 * max(speed, 1))
    clear = samples[round(0.1 * at) : round(0.9 * at)]
    assert frequency(clear) == pytest.approx(tone_of(2), abs=8)
    for before, after in itertools.pairwise(sounds):
        assert after.time == pytest.approx(before.time + len(before.samples) * speed / RATE)


def test_a_reader_goes_back_and_forth(tmp_path: Path) -> None:
    reader = open_sound(str(make_clip_with_sound(tmp_path / "clip.mp4", 12.0)))
    assert reader is not None
    for second in (9, 0, 11, 3, 3, 8):
        sounds = reader.sounds(second + 0.25)
        samples = join([next(sounds) for _ in range(20)])[: RATE // 3]
        assert second_of(samples) == second % TONES
    assert list(reader.sounds(12.5)) == []
    assert next(reader.sounds(5.1)).time == pytest.approx(5.1, abs=1e-4)
    reader.close()


def test_sound_that_begins_late_has_its_time(tmp_path: Path) -> None:
    path = make_clip_with_sound(tmp_path / "clip.mkv", delay=1.5, codec="pcm_s16le")
    sounds = read(path, 0.0, 1.0)
    assert sounds[0].time == pytest.approx(1.5, abs=0.005)
    assert second_of(join(sounds)[: RATE // 3]) == 1


def test_more_channels_are_mixed_to_two(tmp_path: Path) -> None:
    path = make_clip_with_sound(tmp_path / "clip.mp4", layout="5.1")
    assert second_of(join(read(path, 1.2, 0.5))) == 1


def test_a_clip_without_sound_has_no_reader(tmp_path: Path) -> None:
    assert open_sound(str(make_clip(tmp_path / "silent.mp4"))) is None


def test_a_clip_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="does not exist"):
        open_sound(str(tmp_path / "gone.mp4"))


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempos_are_those_that_a_filter_does_well(speed: float) -> None:
    assert np.prod(tempos(speed)) == pytest.approx(speed)
    assert all(0.5 - 1e-9 <= tempo <= 2 + 1e-9 for tempo in tempos(speed))
