"""Tests the tiny sizes and seeded weights."""

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.models.sizes import TinyStreamingDecoder, seed_weights, tiny_config
from tests.small import small_config, small_model


@pytest.mark.parametrize("vision", [True, False])
def test_its_sizes_fit_one_another(vision: bool) -> None:
    config = tiny_config(500, vision)
    config.check()
    model = TinyStreamingDecoder(500, vision)
    assert model.config == config
    assert any(name.startswith("visual.") for name, _ in model.named_arrays()) is vision
    assert model.model.embed_tokens.weight.shape == (500, config.text_config.hidden_size)


def test_a_seed_is_a_model() -> None:
    config = small_config(300, tied=False)
    one, same, other = (small_model(config, seed) for seed in (3, 3, 4))
    for (name, array), (_, again), (_, different) in zip(
        one.named_arrays(), same.named_arrays(), other.named_arrays(), strict=True
    ):
        assert mx.array_equal(array, again), name
        assert mx.array_equal(array, different) == (array.ndim == 1), name


def test_the_global_seed_is_left_alone() -> None:
    model = small_model(small_config(300))
    before = np.array(mx.random.state[0])
    seed_weights(model, 3)
    assert np.array_equal(np.array(mx.random.state[0]), before)


def test_weights_are_as_wide_as_their_fan_in_asks_for() -> None:
    """So that a product with numbers of the order of 1 is of that order."""
    for name, array in small_model(small_config(300, tied=False)).named_arrays():
        values = np.array(array)
        if array.ndim == 1:
            assert np.all(values == (1 if name.endswith("weight") else 0)), name
        else:
            fan_in = values.size / len(values)
            assert values.std() == pytest.approx(fan_in**-0.5, rel=0.2), name
            assert abs(values.mean()) < 0.2 * fan_in**-0.5, name
