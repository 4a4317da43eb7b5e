"""Sampling, compared with Hugging Face's processors, and LiveCC's rule of silence."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.sampling import TokenSampler, hold_silence, keep_top_p, penalise

ROWS = 30
SILENCE = 4

Scores = npt.NDArray[np.float32]

scores = st.integers(0, 10**6).map(lambda seed: (np.random.default_rng(seed).standard_normal(ROWS) * 3).astype("f4"))
seen_rows = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40).map(lambda rows: np.array(rows, np.int32))


def reference(name: str, value: float, logits: Scores, seen: npt.NDArray[np.int32]) -> Scores:
    """Return what Hugging Face's processor of that name makes of `logits`."""
    torch = pytest.importorskip("torch")
    process = getattr(pytest.importorskip("transformers"), name)
    return process(value)(torch.tensor(seen[None].astype(np.int64)), torch.tensor(logits[None]))[0].numpy()


def probabilities(logits: Scores) -> npt.NDArray[np.float64]:
    powers = np.e ** logits.astype(np.float64)
    return powers / powers.sum()


def draw(config: SamplingConfig, logits: Scores, count: int) -> list[int]:
    sampler = TokenSampler(config, SILENCE)
    return [sampler.sample(logits, np.zeros(1, np.int32), step) for step in range(count)]


@settings(deadline=None)
@given(scores, seen_rows, st.floats(0.5, 2.0))
def test_the_penalty_is_hugging_faces(logits: Scores, seen: npt.NDArray[np.int32], penalty: float) -> None:
    found = reference("RepetitionPenaltyLogitsProcessor", penalty, logits, seen)
    assert np.allclose(penalise(logits, seen, penalty), found, rtol=1e-6)


@settings(deadline=None)
@given(scores, st.floats(0.01, 0.99))
def test_top_p_is_hugging_faces(logits: Scores, top_p: float) -> None:
    found = reference("TopPLogitsWarper", top_p, logits, np.zeros(1, np.int32))
    assert np.array_equal(keep_top_p(logits, top_p), found)


def test_top_p_keeps_the_best_whatever_it_is() -> None:
    logits = np.array([0, 9, 0], np.float32)
    assert np.isfinite(keep_top_p(logits, 1e-18)).tolist() == [False, True, False]
    assert np.isfinite(keep_top_p(logits, 1.0)).all()


@settings(deadline=None, max_examples=25)
@given(scores, seen_rows, st.floats(0.3, 2.0), st.floats(0.2, 0.95))
def test_draws_come_from_hugging_faces_distribution(
    logits: Scores, seen: npt.NDArray[np.int32], temperature: float, top_p: float
) -> None:
    """Penalty, temperature and top-p apply in this order."""
    chain = logits
    for name, value in (
        ("RepetitionPenaltyLogitsProcessor", 1.3),
        ("TemperatureLogitsWarper", temperature),
        ("TopPLogitsWarper", top_p),
    ):
        chain = reference(name, value, chain, seen)
    expected = probabilities(chain)
    sampler = TokenSampler(
        SamplingConfig(temperature=temperature, top_p=top_p, repetition_penalty=1.3, seed=1), SILENCE
    )
    count = 400
    drawn = np.bincount([sampler.sample(logits, seen, step) for step in range(count)], minlength=ROWS) / count
    assert np.all(drawn[expected == 0] == 0)
    # Five deviations of a binomial draw.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / count) + 1 / count)


@given(scores, seen_rows)
def test_greedy_takes_the_best_after_the_penalty(logits: Scores, seen: npt.NDArray[np.int32]) -> None:
    sampler = TokenSampler(SamplingConfig(repetition_penalty=1.5), SILENCE)
    rows = set(seen.tolist())
    held = [s / 1.5 if k in rows and s > 0 else s * 1.5 if k in rows else s for k, s in enumerate(logits.tolist())]
    assert held[sampler.sample(logits, seen, 0)] == pytest.approx(max(held), abs=1e-5)


@given(scores, st.floats(0, 1))
def test_silence_must_be_likelier_than_its_threshold(logits: Scores, threshold: float) -> None:
    held = hold_silence(logits, SILENCE, threshold)
    others = np.arange(ROWS) != SILENCE
    assert np.array_equal(held[others], logits[others])
    assert (held[SILENCE] == logits[SILENCE]) == (probabilities(logits)[SILENCE] > threshold)
    assert held[SILENCE] in (logits[SILENCE], -np.inf)


def test_the_threshold_rises_with_every_token_of_a_second() -> None:
    """Silence has a probability of 0.7 here: more than 0.5 + 0.1 × 1, not more than 0.5 + 0.1 × 2 or × 3."""
    logits = np.full(ROWS, np.log(0.3 / (ROWS - 1)), np.float32)
    logits[SILENCE] = np.log(0.7)
    logits[9] += 1e-3
    sampler = TokenSampler(SamplingConfig(repetition_penalty=1, silence_threshold=0.5, silence_step=0.11), SILENCE)
    seen = np.zeros(1, np.int32)
    assert [sampler.sample(logits, seen, step) for step in range(4)] == [SILENCE, SILENCE, 9, 9]
    patient = TokenSampler(SamplingConfig(repetition_penalty=1), SILENCE)
    assert patient.sample(logits, seen, 99) == SILENCE


def test_a_penalty_of_silence_comes_before_its_threshold() -> None:
    logits = np.zeros(ROWS, np.float32)
    logits[SILENCE] = 4.0
    config = SamplingConfig(repetition_penalty=2.0, silence_threshold=0.5)
    assert TokenSampler(config, SILENCE).sample(logits, np.array([9], np.int32), 0) == SILENCE
    assert TokenSampler(config, SILENCE).sample(logits, np.array([SILENCE], np.int32), 0) != SILENCE


def test_the_seed_decides_the_draws() -> None:
    flat = np.zeros(ROWS, np.float32)
    one, same, other = (draw(SamplingConfig(temperature=1.0, seed=seed), flat, count=50) for seed in (5, 5, 6))
    assert one == same != other


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    draw(SamplingConfig(temperature=1.0), np.zeros(ROWS, np.float32), count=5)
    assert np.array_equal(np.random.get_state()[1], before)
