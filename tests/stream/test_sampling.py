"""Sampling on the host and on the device, compared with Hugging Face's processors, and LiveCC's rule of silence."""

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.sampling import TokenSampler, draw, hold_silence, keep_top_p, penalise, read_row

# Few enough for many examples, and more than are sorted at once.
ROWS, MANY = 30, 5000
SILENCE = 4

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]

scores = st.integers(0, 10**6).map(lambda seed: (np.random.default_rng(seed).standard_normal(ROWS) * 3).astype("f4"))
SEEN = np.zeros(1, np.int32)

places = pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
seen_rows = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40).map(lambda rows: np.array(rows, np.int32))


def reference(name: str, value: float, logits: Scores, seen: Rows) -> Scores:
    """Return what Hugging Face's processor of that name makes of `logits`."""
    torch = pytest.importorskip("torch")
    process = getattr(pytest.importorskip("transformers"), name)
    return process(value)(torch.tensor(seen[None].astype(np.int64)), torch.tensor(logits[None]))[0].numpy()


def probabilities(logits: Scores) -> npt.NDArray[np.float64]:
    powers = np.e ** logits.astype(np.float64)
    return powers / powers.sum()


def placed(on_host: bool, logits: Scores) -> Any:
    """Return `logits` as the rules take them there."""
    return logits if on_host else mx.array(logits)


def kept(on_host: bool, logits: Scores, top_p: float) -> npt.NDArray[np.bool_]:
    """Return which rows `top_p` keeps."""
    return np.array(keep_top_p(placed(on_host, logits), top_p)) > 0


def draws(config: SamplingConfig, logits: Scores, count: int, on_host: bool, seen: Rows = SEEN) -> list[int]:
    sampler = TokenSampler(config, SILENCE, on_host)
    return [read_row(sampler.sample(mx.array(logits), seen, step)) for step in range(count)]


@places
@settings(deadline=None)
@given(logits=scores, seen=seen_rows, penalty=st.floats(0.5, 2.0))
def test_the_penalty_is_hugging_faces(on_host: bool, logits: Scores, seen: Rows, penalty: float) -> None:
    found = reference("RepetitionPenaltyLogitsProcessor", penalty, logits, seen)
    assert np.allclose(
        penalise(placed(on_host, logits), seen if on_host else mx.array(seen), penalty), found, rtol=1e-6
    )


@places
@settings(deadline=None)
@given(logits=scores, top_p=st.floats(0.01, 0.99))
def test_top_p_is_hugging_faces(on_host: bool, logits: Scores, top_p: float) -> None:
    found = reference("TopPLogitsWarper", top_p, logits, SEEN)
    assert np.array_equal(kept(on_host, logits, top_p), np.isfinite(found))


@places
@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 9), top_p=st.floats(0.05, 0.95))
def test_top_p_of_many_rows_is_hugging_faces(on_host: bool, seed: int, spread: float, top_p: float) -> None:
    """Whether the best rows alone reach the probability or not; rounding decides on the last rows only."""
    logits = (np.random.default_rng(seed).standard_normal(MANY) * spread).astype(np.float32)
    found = reference("TopPLogitsWarper", top_p, logits, SEEN)
    differing = kept(on_host, logits, top_p) != np.isfinite(found)
    assert differing.sum() <= 1 or probabilities(logits)[differing].sum() < 1e-5
    powers = np.array(keep_top_p(placed(on_host, logits), top_p))
    assert np.allclose(powers[powers > 0], np.exp(logits - logits.max())[powers > 0], rtol=1e-5)


@places
def test_of_rows_with_one_score_top_p_rules_out_the_first(on_host: bool) -> None:
    logits = np.array([1, 0, 1, 1, 0, 1], np.float32)
    assert np.flatnonzero(kept(on_host, logits, 0.5)).tolist() == [2, 3, 5]
    assert np.flatnonzero(kept(on_host, np.zeros(4, np.float32), 0.5)).tolist() == [2, 3]
    close = np.array([0, 1e-9, 2e-9, 1e-9], np.float32)
    assert np.flatnonzero(kept(on_host, close, 0.7)).tolist() == [1, 2, 3]


@places
def test_top_p_keeps_the_best_whatever_it_is(on_host: bool) -> None:
    logits = np.array([0, 9, 0], np.float32)
    assert kept(on_host, logits, 1e-18).tolist() == [False, True, False]
    assert kept(on_host, logits, 1.0).all()


@places
@settings(deadline=None, max_examples=25)
@given(logits=scores, seen=seen_rows, temperature=st.floats(0.3, 2.0), top_p=st.floats(0.2, 0.95))
def test_draws_come_from_hugging_faces_distribution(
    on_host: bool, logits: Scores, seen: Rows, temperature: float, top_p: float
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
    config = SamplingConfig(temperature=temperature, top_p=top_p, repetition_penalty=1.3, seed=1)
    count = 400
    drawn = np.bincount(draws(config, logits, count, on_host, seen), minlength=ROWS) / count
    assert np.all(drawn[expected == 0] == 0)
    # Five deviations of a binomial draw.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / count) + 1 / count)


many_scores = st.integers(0, 10**6).map(lambda s: (np.random.default_rng(s).standard_normal(MANY) * 3).astype("f4"))


@settings(deadline=None, max_examples=50)
@given(logits=many_scores, silence=st.sampled_from([None, 1e-3]))
def test_host_and_device_take_the_same_best_token(logits: Scores, silence: float | None) -> None:
    config = SamplingConfig(silence_threshold=silence)
    assert draws(config, logits, 1, on_host=True) == draws(config, logits, 1, on_host=False)


@settings(deadline=None, max_examples=50)
@given(logits=many_scores, point=st.floats(0.001, 0.999), top_p=st.sampled_from([0.9, 1.0]))
def test_host_and_device_draw_the_same_up_to_rounding(logits: Scores, point: float, top_p: float) -> None:
    """A larger point never draws an earlier row."""
    device = int(draw(keep_top_p(mx.array(logits), top_p), point))
    low, high = (draw(keep_top_p(logits, top_p), point + shift) for shift in (-1e-4, 1e-4))
    assert low <= device <= high


@places
def test_the_next_number_of_the_seed_is_the_point_of_the_draw(on_host: bool) -> None:
    logits, random = np.zeros(ROWS, np.float32), np.random.default_rng(3)
    expected = [int(random.random() * ROWS) for _ in range(20)]
    config = SamplingConfig(temperature=1.0, repetition_penalty=1, seed=3)
    assert draws(config, logits, 20, on_host) == expected


@places
@given(seed=st.integers(0, 10**6), point=st.floats(0, 1, exclude_max=True), size=st.integers(1, 2000))
def test_a_draw_takes_no_row_that_is_ruled_out(on_host: bool, seed: int, point: float, size: int) -> None:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(size) * 3).astype(np.float32)
    logits[random.permutation(size)[1:][: size * 2 // 3]] = -np.inf
    assert np.isfinite(logits[int(draw(keep_top_p(placed(on_host, logits), 1.0), point))])


@pytest.mark.parametrize("point", [0.0, 0.5, 1 - 2**-53])
@places
def test_the_ends_of_the_draw_are_the_first_and_the_last_row(on_host: bool, point: float) -> None:
    logits = np.array([-np.inf, 0, -np.inf, 0, -np.inf], np.float32)
    assert int(draw(keep_top_p(placed(on_host, logits), 1.0), point)) == (1 if point == 0 else 3)


@places
@given(logits=scores, seen=seen_rows)
def test_greedy_takes_the_best_after_the_penalty(on_host: bool, logits: Scores, seen: Rows) -> None:
    rows = set(seen.tolist())
    held = [s / 1.5 if k in rows and s > 0 else s * 1.5 if k in rows else s for k, s in enumerate(logits.tolist())]
    (chosen,) = draws(SamplingConfig(repetition_penalty=1.5), logits, 1, on_host, seen)
    assert held[chosen] == pytest.approx(max(held), abs=1e-5)


@places
@given(logits=scores, threshold=st.floats(0, 1))
def test_silence_must_be_likelier_than_its_threshold(on_host: bool, logits: Scores, threshold: float) -> None:
    held = np.array(hold_silence(placed(on_host, logits), SILENCE, threshold))
    others = np.arange(ROWS) != SILENCE
    assert np.array_equal(held[others], logits[others])
    assert (held[SILENCE] == logits[SILENCE]) == (probabilities(logits)[SILENCE] > threshold)
    assert held[SILENCE] in (logits[SILENCE], -np.inf)


@places
def test_the_threshold_rises_with_every_token_of_a_second(on_host: bool) -> None:
    """Silence has a probability of 0.7 here: more than 0.5 + 0.1 × 1, not more than 0.5 + 0.1 × 2 or × 3."""
    logits = np.full(ROWS, np.log(0.3 / (ROWS - 1)), np.float32)
    logits[SILENCE] = np.log(0.7)
    logits[9] += 1e-3
    rising = SamplingConfig(repetition_penalty=1, silence_threshold=0.5, silence_step=0.11)
    assert draws(rising, logits, 4, on_host) == [SILENCE, SILENCE, 9, 9]
    patient = TokenSampler(SamplingConfig(repetition_penalty=1), SILENCE, on_host)
    assert read_row(patient.sample(mx.array(logits), SEEN, 99)) == SILENCE


@places
def test_a_penalty_of_silence_comes_before_its_threshold(on_host: bool) -> None:
    logits = np.zeros(ROWS, np.float32)
    logits[SILENCE] = 4.0
    config = SamplingConfig(repetition_penalty=2.0, silence_threshold=0.5)
    assert draws(config, logits, 1, on_host, np.array([9], np.int32)) == [SILENCE]
    assert draws(config, logits, 1, on_host, np.array([SILENCE], np.int32)) != [SILENCE]


@places
def test_the_seed_decides_the_draws(on_host: bool) -> None:
    flat = np.zeros(ROWS, np.float32)
    one, same, other = (draws(SamplingConfig(temperature=1.0, seed=seed), flat, 50, on_host) for seed in (5, 5, 6))
    assert one == same != other


@places
def test_the_global_generators_are_left_alone(on_host: bool) -> None:
    before = np.random.get_state()[1].copy(), np.array(mx.random.state[0])
    draws(SamplingConfig(temperature=1.0), np.zeros(ROWS, np.float32), 5, on_host)
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert np.array_equal(mx.random.state[0], before[1])
