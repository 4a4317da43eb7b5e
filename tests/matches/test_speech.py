from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.matches.speech import FASTEST, MOST_LAG, SLOWEST, Utterance, Voice, sentence, timed

texts = st.lists(st.text("abcdefgh.,", min_size=1, max_size=12), min_size=1, max_size=9).map(" ".join)


@given(texts, st.floats(0, 100), st.floats(0.1, 20))
def test_words_follow_one_another_at_a_speakable_pace(text: str, start: float, pace: float) -> None:
    words = timed(text, start, pace)
    assert [w.text for w in words] == text.split()
    assert all(a.end == b.start for a, b in pairwise(words))
    assert all(w.start < w.end for w in words)
    rate = len(words) / (words[-1].end - words[0].start)
    assert SLOWEST * 0.95 <= rate <= FASTEST * 1.05


@given(st.lists(st.tuples(st.floats(0, 30), texts), max_size=30), st.integers(0, 1000))
def test_a_voice_says_one_thing_at_a_time_and_nothing_late(cues: list[tuple[float, str]], seed: int) -> None:
    voice = Voice(np.random.default_rng(seed), 3.0)
    said = [time for time, text in cues if voice.say(Utterance(time, lambda text=text: text, 31.0))]
    words = voice.words()
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(words))
    assert len(voice.phrases) == len(said)
    for phrase in voice.phrases:
        assert any(0.49 <= phrase[0].start - time <= MOST_LAG + 0.01 for time in said)
        assert phrase[-1].end <= 31.0


def test_what_comes_too_late_is_dropped() -> None:
    voice = Voice(np.random.default_rng(0), 2.0)
    assert voice.say(Utterance(1.0, lambda: "a sentence that takes a good while to say", 60.0))
    assert not voice.say(Utterance(1.2, lambda: "late", 60.0))
    assert not voice.say(Utterance(20.0, lambda: "no room before the end", 20.8))
    assert not voice.say(Utterance(-1.0, lambda: "before the beginning", 60.0))
    assert voice.say(Utterance(30.0, lambda: "in time", 60.0))


def test_a_phrase_that_does_not_fit_is_drawn_again() -> None:
    voice = Voice(np.random.default_rng(0), 3.0)
    drafts = iter(["no", "no", "yes"])
    assert voice.say(Utterance(1.0, lambda: next(drafts), 60.0, fits=lambda words: words[0].text == "yes"))
    assert [w.text for w in voice.words()] == ["yes"]


def test_sentences_begin_and_end() -> None:
    assert sentence("ace from red") == "Ace from red."
    assert sentence("ace!") == "Ace!"
