"""Compares the quantized KV cache with the plain one: contents, size and logits."""

import itertools
from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_vlm_mlx.config import ModelConfig, Positions, StreamConfig, TextConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.language import CACHE_STEP as STEP
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.models.rope import MRope
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.stream.kv_cache import KVCache
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.small import small_config, small_model
from tests.stream.streams import GREEDY, force, make_second

CONFIG = TextConfig(
    hidden_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, mrope_section=(8, 8, 8)
)
GROUP = 32
ROPE = MRope(CONFIG.head_dim, 10_000.0, CONFIG.mrope_section)

Array = npt.NDArray[np.float32]
moves = st.lists(st.integers(1, 40) | st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=7)


def tokens(count: int, seed: int) -> Array:
    """Return keys, rotated keys and values of new tokens, [3, 1, heads, count, head_dim]."""
    return np.random.default_rng([count, seed]).standard_normal((3, 1, 2, count, 48), dtype=np.float32)


def append(cache: KVCache, new: Array) -> list[tuple[Array, Array]]:
    cache.reserve(cache.length + new.shape[3])
    found = [layer.update_and_fetch(*(mx.array(part) for part in new)) for layer in cache.layers]
    return [(np.array(rotated), np.array(values)) for rotated, values in found]


def half_a_step(x: Array, bits: int) -> Array:
    """Return how far rounding to `bits` can be off at most, for each number of `x` [1, heads, n, width]."""
    rows = x.transpose(0, 2, 1, 3).reshape(x.shape[2], -1, GROUP)
    step = (rows.max(axis=-1) - rows.min(axis=-1)) / (2**bits - 1)
    # MLX bends the step a little, so that zero is met exactly: at most by one part of the range.
    spread = np.repeat(1.1 * step, GROUP, axis=-1).reshape(1, x.shape[2], x.shape[1], x.shape[3])
    return spread.transpose(0, 2, 1, 3)


@pytest.mark.parametrize("bits", [8, 4])
@settings(max_examples=25, deadline=None)
@given(steps=moves)
def test_it_holds_what_the_full_cache_does_but_for_rounding(bits: int, steps: list[int | list[bool]]) -> None:
    full, cache = KVCache(CONFIG, mx.float32), KVCache(CONFIG, mx.float32, bits=bits)
    for seed, step in enumerate(steps):
        if isinstance(step, int):
            exact, found = (append(each, tokens(step, seed)) for each in (full, cache))
            for pair in zip(exact, found, strict=True):
                for whole, rounded in zip(*pair, strict=True):
                    assert rounded.shape == whole.shape
                    assert (np.abs(rounded - whole) <= half_a_step(whole, bits) + 1e-6).all()
        else:
            slots = np.flatnonzero(np.resize(step, full.length)).astype(np.int32)
            full.keep(slots)
            cache.keep(slots)
        assert (cache.length, cache.capacity) == (full.length, full.capacity)


def test_kept_tokens_are_not_rounded_again() -> None:
    cache = KVCache(CONFIG, mx.float32, bits=4)
    _, values = append(cache, tokens(12, 0))[1]
    for slots in ([0, 2, 3, 7, 9, 11], [0, 1, 5, 4]):
        cache.keep(np.array(slots, np.int32))
    _, after = append(cache, tokens(1, 1))[1]
    assert np.array_equal(after[:, :, :4], values[:, :, [0, 2, 11, 9]])


def test_keys_are_rotated_from_the_unrotated_ones_each_time() -> None:
    cache = KVCache(CONFIG, mx.float32, bits=8)
    new = tokens(6, 0)
    append(cache, new)
    there, back = np.arange(18).reshape(3, 6), np.arange(18)[::-1].reshape(3, 6).copy()
    held = []
    for positions in (there, back, back, back, there):
        cache.rotate(*ROPE(positions))
        held.append([np.array(array) for array in cache.state])
    full = KVCache(CONFIG, mx.float32)
    append(full, new)
    full.rotate(*ROPE(there))
    for first, last in zip(held[0], held[-1], strict=True):
        assert np.array_equal(first, last)
    (exact, _), (found, _) = (append(each, tokens(1, 1))[1] for each in (full, cache))
    assert np.abs(exact - found).max() < 0.06
    assert np.abs(exact - append(KVCache(CONFIG, mx.float32), np.concatenate([new, tokens(1, 1)], 3))[1][0]).max() > 1


@pytest.mark.parametrize(("bits", "a_number"), [(8, 9 / 8), (4, 5 / 8)])
@pytest.mark.parametrize("keep_unrotated", [True, False])
def test_bytes_are_those_of_the_bits_and_of_a_scale_and_a_bias_a_group(
    bits: int, a_number: float, keep_unrotated: bool
) -> None:
    """Two bfloat16 to 32 numbers are one bit more a number."""
    cache = KVCache(CONFIG, mx.bfloat16, capacity=300, keep_unrotated=keep_unrotated, bits=bits)
    numbers = CONFIG.num_hidden_layers * (3 if keep_unrotated else 2) * 2 * STEP * 2 * 48
    assert cache.nbytes == numbers * a_number
    cache.reserve(2 * STEP + 1)
    assert cache.nbytes == numbers * a_number * 1.5


def test_a_model_whose_keys_do_not_divide_is_refused_in_one_line() -> None:
    odd = replace(CONFIG, hidden_size=40, head_dim=20, mrope_section=(4, 3, 3), num_key_value_heads=2)
    with pytest.raises(SvmError, match=r"kv_bits is 4, .*40 numbers a token") as refused:
        KVCache(odd, mx.float32, bits=4)
    assert "\n" not in str(refused.value)


def wide(rows: int) -> ModelConfig:
    """Return the small sizes with heads of 16."""
    base = small_config(rows)
    assert base.vision_config is not None
    return replace(
        base,
        text_config=replace(base.text_config, hidden_size=64, head_dim=16, mrope_section=(2, 3, 3)),
        vision_config=replace(base.vision_config, out_hidden_size=64),
    )


def play(tokenizer: Tokenizer, vocabulary: CompactVocabulary, config: StreamConfig, seed: int) -> Array:
    """Return every logit of a stream that goes on long after its windows are full, [tokens, vocab]."""
    clock = map(float, itertools.count()).__next__
    model = small_model(wide(len(vocabulary)), seed)
    bundle = ModelBundle(model, tokenizer, vocabulary, ChatTemplate.of(tokenizer), clock)
    session = Session(bundle, config)
    forced = [int(i) for i in vocabulary.to_ids(vocabulary.to_rows(tokenizer.encode(" one two three goal ...")))]
    return np.concatenate([force(session, bundle, make_second(number), forced).logits for number in range(9)])


@pytest.mark.parametrize("pos_mode", ["shrink", "append"])
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_over_it_are_close(
    tokenizer: Tokenizer, vocabulary: CompactVocabulary, pos_mode: Positions, seed: int
) -> None:
    config = StreamConfig(window=3, text_round=4, sink=4, slide=5, pos_mode=pos_mode, sampling=GREEDY)
    exact, *rounded = (play(tokenizer, vocabulary, replace(config, kv_bits=bits), seed) for bits in (None, 8, 4))
    off = [float(np.abs(each - exact).mean() / exact.std()) for each in rounded]
    assert off[0] < 0.012
    # A step of 4 bits is 17 times as wide as one of 8.
    assert off[1] / off[0] == pytest.approx(17, rel=0.25)
    assert (rounded[0].argmax(axis=1) == exact.argmax(axis=1)).mean() >= 0.95
