"""Commentary over a clip's sound: places, lengths, levels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.audio.clip_track import RATE, Samples
from streaming_vlm_mlx.audio.commentary import (
    BLOCK,
    EARLY,
    FASTEST,
    PlacedSound,
    SoundTimeline,
    change_tempo,
    fit,
    mix,
    place_speech,
)
from streaming_vlm_mlx.audio.voice import SILENT, Utterance


def tone(seconds: float, pitch: float = 440.0, level: float = 0.5) -> Samples:
    wave = level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


def utterance(*ends: float) -> Utterance:
    """Return a tone in which words end after `ends` seconds."""
    return Utterance(tone(ends[-1]), tuple(round(end * RATE) for end in ends))


def test_a_phrase_that_fits_stays() -> None:
    spoken = utterance(0.5, 1.0)
    assert fit(spoken, 1.0) is spoken


def test_a_phrase_that_is_a_little_long_becomes_faster_at_its_pitch() -> None:
    fitted = fit(utterance(1.0, 1.2), 1.0)
    assert fitted.seconds == pytest.approx(1.0, abs=0.02)
    assert fitted.seconds <= 1.0
    spectrum = np.abs(np.fft.rfft(fitted.samples[:, 0]))
    assert spectrum.argmax() / fitted.seconds == pytest.approx(440, abs=5)


def test_a_phrase_that_is_far_too_long_is_cut_behind_a_word() -> None:
    fitted = fit(utterance(0.7, 1.4, 2.8), 1.2)
    assert fitted.seconds == pytest.approx(1.4 / FASTEST, abs=0.02)
    assert abs(fitted.samples[-1]).max() < 0.01
    # The first word is longer than the time.
    assert fit(utterance(2.8), 0.5).seconds == pytest.approx(0.5, abs=0.01)
    assert fit(utterance(1.0), 0.0).seconds == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 60))
def test_no_phrase_is_longer_than_its_time(words: list[int], room: int) -> None:
    fitted = fit(utterance(*(end / 20 for end in itertools.accumulate(words))), room / 20)
    assert fitted.seconds <= max(room / 20, 0)
    assert list(fitted.word_ends) == sorted(fitted.word_ends)


@pytest.mark.parametrize("tempo", [0.5, 1.1, 2.0])
def test_a_change_of_tempo_moves_the_ends_of_words(tempo: float) -> None:
    changed = change_tempo(utterance(1.0, 2.0), tempo)
    assert changed.seconds == pytest.approx(2.0 / tempo, abs=0.02)
    assert changed.word_ends[0] / RATE == pytest.approx(1.0 / tempo, abs=0.001)


def test_phrases_begin_where_they_were_said_and_end_before_the_next() -> None:
    phrases = [(-0.1, "a"), (1.0, "b"), (1.5, ""), (2.0, "c")]
    lengths = {"a": utterance(0.4), "b": utterance(0.3, 0.9), "": SILENT, "c": utterance(0.2, 1.4)}
    first, second, third = place_speech(phrases, 2.3, lengths.__getitem__)
    assert first.first == 0
    assert second.first == RATE
    assert second.end <= 1.5 * RATE
    assert third.first == 2 * RATE
    assert third.end <= 2.3 * RATE


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3000)), max_size=8), st.lists(st.integers(1, 900)))
def test_a_timeline_reads_every_sample_once(places: list[tuple[int, int]], counts: list[int]) -> None:
    sounds = [PlacedSound(first, np.full((count, 2), 1.0, np.float32)) for first, count in sorted(places)]
    expected = np.zeros((9000, 2), np.float32)
    for sound in sounds:
        expected[sound.first : sound.end] += 1
    timeline, position = SoundTimeline(iter(sounds)), 0
    for count in (*counts, 9000):
        count = min(count, 9000 - position)
        read = timeline.read(count)
        wanted = expected[position : position + count]
        assert np.array_equal(np.zeros_like(wanted) if read is None else read, wanted)
        position += count


def test_the_clip_is_lowered_by_12_db_from_the_first_sample_of_speech_to_its_last() -> None:
    clip = SoundTimeline(iter([PlacedSound(0, tone(5))]))
    speech = SoundTimeline(iter([PlacedSound(2 * RATE, np.full((RATE, 2), 1e-9, np.float32))]))
    mixed = np.concatenate(list(itertools.islice(mix(clip, speech), 5 * RATE // BLOCK)))
    level = np.abs(mixed[:, 0]) / 0.5

    def loudest(begin: float, end: float) -> float:
        return float(20 * np.log10(level[round(begin * RATE) : round(end * RATE)].max()))

    assert loudest(2.0, 3.0) == pytest.approx(-12, abs=0.1)
    assert loudest(0.0, 2.0 - EARLY - 0.1) == pytest.approx(0, abs=0.1)
    assert loudest(3.1, 4.9) == pytest.approx(0, abs=0.1)


def test_a_sum_that_is_too_loud_is_limited() -> None:
    clip, speech = (SoundTimeline(iter([PlacedSound(0, tone(1, level=level))])) for level in (1.0, 0.95))
    mixed = np.concatenate(list(itertools.islice(mix(clip, speech), 20)))
    assert np.abs(mixed).max() == 1.0
