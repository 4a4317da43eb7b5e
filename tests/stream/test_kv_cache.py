"""Compares the KV cache with NumPy: the same tokens, appended, gathered and rotated."""

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.models.language import CACHE_STEP as STEP
from streaming_vlm_mlx.models.language import layers_at_once
from streaming_vlm_mlx.models.rope import MRope
from streaming_vlm_mlx.stream import kv_cache
from streaming_vlm_mlx.stream.kv_cache import KVCache

CONFIG = TextConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, mrope_section=(1, 1, 2)
)
ROPE = MRope(CONFIG.head_dim, 10_000.0, CONFIG.mrope_section)

Array = npt.NDArray[np.float32]
# How many tokens come, or which part of those that are held stays.
moves = st.lists(st.integers(1, 90) | st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=9)


def turn(keys: Array, positions: npt.NDArray[np.int64]) -> Array:
    """Turn [1, heads, n, width] as complex numbers, in double precision."""
    half = CONFIG.head_dim // 2
    speeds = 10_000.0 ** (-np.arange(half) / half)
    turned = (keys[..., :half] + 1j * keys[..., half:]) * np.exp(1j * speeds * positions[[0, 1, 2, 2]].T)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def tokens(count: int, seed: int) -> Array:
    """Return keys, rotated keys and values of new tokens, [3, 1, heads, count, width]."""
    return np.random.default_rng([count, seed]).standard_normal((3, 1, 2, count, 8), dtype=np.float32)


def append(cache: KVCache, new: Array) -> list[tuple[mx.array, mx.array]]:
    cache.reserve(cache.length + new.shape[3])
    return [layer.update_and_fetch(*(mx.array(a + number) for a in new)) for number, layer in enumerate(cache.layers)]


@pytest.mark.parametrize("keep_unrotated", [True, False])
@settings(max_examples=40, deadline=None)
@given(steps=moves)
def test_it_holds_what_a_list_would(keep_unrotated: bool, steps: list[int | list[bool]]) -> None:
    cache = KVCache(CONFIG, mx.float32, keep_unrotated=keep_unrotated)
    held = np.zeros((3, 1, 2, 0, 8), np.float32)
    for seed, step in enumerate(steps):
        if isinstance(step, int):
            new = tokens(step, seed)
            held = np.concatenate([held, new], axis=3)
            for number, (rotated, values) in enumerate(append(cache, new)):
                assert np.array_equal(np.array(rotated), held[1] + number)
                assert np.array_equal(np.array(values), held[2] + number)
        else:
            slots = np.flatnonzero(np.resize(step, held.shape[3])).astype(np.int32)
            cache.keep(slots)
            held = held[:, :, :, slots]
            moved = not np.array_equal(slots, np.arange(len(slots)))
            assert cache.needs_rotation == (keep_unrotated and moved)
            if cache.needs_rotation:
                # At position 0 a key is not turned.
                cache.rotate(*ROPE(np.zeros((3, len(slots)), np.int64)))
                held[1] = held[0]
            assert not cache.needs_rotation
        assert cache.length == held.shape[3] <= cache.capacity
    for number, layer in enumerate(cache.layers):
        blocks = held if keep_unrotated else held[1:]
        for block, expected in zip(layer.state, blocks + number, strict=True):
            assert np.allclose(np.array(block)[:, :, : cache.length], expected)


def test_tokens_are_kept_in_the_order_asked_for() -> None:
    cache = KVCache(CONFIG, mx.float32)
    new = tokens(5, 0)
    append(cache, new)
    cache.keep(np.array([0, 4, 2], np.int32))
    cache.keep(np.array([0, 2, 1], np.int32))
    assert np.array_equal(np.array(cache.layers[0].values)[:, :, :3], new[2][:, :, [0, 2, 4]])


def test_keys_are_rotated_again_from_the_unrotated_ones() -> None:
    cache = KVCache(CONFIG, mx.float32)
    new = tokens(7, 0)
    append(cache, new)
    cache.keep(np.array([0, 1, 4, 6], np.int32))
    for positions in (np.arange(12).reshape(3, 4), np.arange(12)[::-1].reshape(3, 4)):
        cache.rotate(*ROPE(positions))
        for number, layer in enumerate(cache.layers):
            expected = turn(new[0][:, :, [0, 1, 4, 6]] + number, positions)
            assert np.allclose(np.array(layer.rotated)[:, :, :4], expected, atol=1e-5)


@pytest.mark.parametrize("keep_unrotated", [True, False])
def test_bytes_are_those_of_the_blocks(keep_unrotated: bool) -> None:
    cache = KVCache(CONFIG, mx.bfloat16, capacity=300, keep_unrotated=keep_unrotated)
    blocks = 2 * (3 if keep_unrotated else 2)
    assert cache.capacity == 2 * STEP
    assert len(cache.state) == blocks
    assert cache.nbytes == blocks * 2 * STEP * 2 * 8 * 2


def test_it_grows_by_steps_and_keeps_what_it_holds() -> None:
    cache = KVCache(CONFIG, mx.float32)
    new = tokens(STEP, 0)
    append(cache, new)
    cache.reserve(STEP)
    assert cache.capacity == STEP
    cache.reserve(STEP + 1)
    assert cache.capacity == 2 * STEP
    assert np.array_equal(np.array(cache.layers[1].values)[:, :, :STEP], new[2] + 1)


def test_pruning_frees_no_memory() -> None:
    cache = KVCache(CONFIG, mx.float32)
    append(cache, tokens(9, 0))
    before = cache.nbytes
    cache.keep(np.zeros(0, np.int32))
    assert (cache.length, cache.nbytes) == (0, before)


@pytest.mark.parametrize(("at_once", "waits"), [(1, 2), (2, 1), (9, 1)])
def test_layers_that_are_changed_together_are_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int, waits: int
) -> None:
    monkeypatch.setattr(kv_cache, "layers_at_once", lambda *_: at_once)
    cache, evaluated = KVCache(CONFIG, mx.float32), list[object]()
    append(cache, tokens(5, 0))
    evaluate = mx.eval
    monkeypatch.setattr(mx, "eval", lambda *arrays: (evaluated.append(arrays), evaluate(*arrays)))
    cache.keep(np.array([0, 4, 2], np.int32))
    assert len(evaluated) == waits
    cache.rotate(*ROPE(np.zeros((3, 3), np.int64)))
    assert len(evaluated) == 2 * waits


def test_a_gpu_changes_more_layers_at_once_the_smaller_they_are() -> None:
    sizes = [layers_at_once(numbers, gpu=True) for numbers in (2**20, 2**18, 2**10)]
    assert sizes == [2, 10, 2730]
    assert layers_at_once(2**40, gpu=True) == layers_at_once(1, gpu=False) == 1
