"""The mixer: speech over the clip, volume, and sound that stays whole under whatever is asked of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.audio.clip_track import FADE, RATE, Run, Samples
from streaming_vlm_mlx.audio.mixer import DUCK_TIME, DUCKED, MOST_VOLUME, Mixer
from streaming_vlm_mlx.audio.motion import Motion


def steady(seconds: float, level: float = 0.5) -> Samples:
    return np.full((round(seconds * RATE), 2), level, np.float32)


def play(mixer: Mixer, count: int, time: float = 0.0, block: int = 480) -> Samples:
    out = np.full((count, 2), np.nan, np.float32)
    for begin in range(0, count, block):
        mixer.fill(out[begin : begin + block], time + begin / RATE)
    return out


def playing(level: float = 0.5, **changes: float) -> Mixer:
    mixer = Mixer(**changes)
    mixer.clip.run = Run(0, 1.0).add(0.0, steady(10.0, level))
    mixer.clip.motion = Motion(0.0, 0.0, moving=True)
    return mixer


def test_a_new_mixer_is_silent() -> None:
    assert not play(Mixer(), 4800).any()


def test_speech_lowers_the_clip_and_the_clip_comes_back() -> None:
    mixer = playing()
    play(mixer, 4800)
    mixer.play_speech(np.zeros((RATE // 4, 2), np.float32))
    assert mixer.speaking
    during = play(mixer, RATE // 4, 0.1)
    assert not mixer.speaking
    after = play(mixer, RATE // 4, 0.35)
    settled = round(DUCK_TIME * RATE)
    np.testing.assert_allclose(during[settled:], 0.5 * DUCKED, rtol=1e-5)
    np.testing.assert_allclose(after[settled:], 0.5, rtol=1e-5)
    assert np.abs(np.diff(np.concatenate([during, after]), axis=0)).max() < 1e-3


def test_speech_is_played_whole_and_without_gaps() -> None:
    mixer, rng = Mixer(), np.random.default_rng(1)
    parts = [rng.uniform(-0.5, 0.5, (count, 2)).astype(np.float32) for count in (700, 100, 3000)]
    mixer.play_speech(parts[0])
    played = [play(mixer, 480)]
    mixer.play_speech(parts[1])
    mixer.play_speech(parts[2])
    played.append(play(mixer, 4800))
    np.testing.assert_allclose(np.concatenate(played)[:3800], np.concatenate(parts), atol=1e-6)
    assert mixer.spoken == 3800


def test_speech_is_cut_at_once_or_at_a_sample_of_it() -> None:
    mixer = Mixer()
    mixer.play_speech(steady(1.0))
    play(mixer, 960)
    mixer.cut_speech(4800)
    heard = np.concatenate([np.zeros((960, 2)), play(mixer, 9600)])
    assert heard[4800 - FADE - 1, 0] == 0.5
    assert not heard[4800:].any()
    mixer.play_speech(steady(1.0))
    play(mixer, 960)
    mixer.cut_speech()
    assert not play(mixer, 4800)[FADE:].any()
    assert not mixer.speaking


def test_the_volume_is_a_cube_and_mute_is_silence_without_a_click() -> None:
    mixer = playing(volume=50)
    np.testing.assert_allclose(play(mixer, 4800)[FADE:], 0.5 / 8, rtol=1e-5)
    mixer.muted = True
    muted = play(mixer, 4800, 0.1)
    assert not muted[2400:].any()
    assert np.abs(np.diff(muted, axis=0)).max() < 1e-3
    mixer.muted, mixer.volume = False, MOST_VOLUME
    np.testing.assert_allclose(play(mixer, 4800, 0.2)[2400:], 0.5, rtol=1e-5)


@given(st.data())
def test_whatever_is_asked_the_sound_is_finite_and_within_bounds(data: st.DataObject) -> None:
    mixer = playing(level=0.9)
    time = 0.0
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["speak", "cut", "volume", "mute", "move", "run", "play"])):
            case "speak":
                mixer.play_speech(steady(data.draw(st.floats(0, 0.1)), 0.9))
            case "cut":
                mixer.cut_speech(data.draw(st.none() | st.integers(0, 10_000)))
            case "volume":
                mixer.volume = data.draw(st.integers(0, MOST_VOLUME))
            case "mute":
                mixer.muted = data.draw(st.booleans())
            case "move":
                at, speed = time + data.draw(st.floats(-2, 1)), data.draw(st.sampled_from([0.25, 1.0, 4.0]))
                end = data.draw(st.floats(0, 20) | st.just(float("inf")))
                mixer.clip.motion = Motion(at, data.draw(st.floats(0, 12)), speed, data.draw(st.booleans()), end)
            case "run":
                speed = data.draw(st.sampled_from([0.25, 1.0, 4.0]))
                run = Run(data.draw(st.integers(0, 3)), speed)
                for _ in range(data.draw(st.integers(0, 3))):
                    run = run.add(data.draw(st.floats(0, 12)), steady(data.draw(st.floats(0, 1)), 0.9))
                mixer.clip.run = run
            case _:
                count = data.draw(st.integers(1, 2000))
                heard = play(mixer, count, time, block=2000)
                assert np.isfinite(heard).all()
                assert np.abs(heard).max() <= 1.0
                time += count / RATE
