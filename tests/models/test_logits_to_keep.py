"""The decoder asked for some places alone, and long sequences taken in stretches: both change nothing."""

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.models.attention import attention
from streaming_vlm_mlx.models.language import DeepStack, LogitsToKeep, StreamingDecoder
from streaming_vlm_mlx.models.sizes import seed_weights
from tests.small import small_config

N = 20


@pytest.fixture(scope="module")
def decoder() -> StreamingDecoder:
    made = StreamingDecoder(small_config(300).text_config)
    seed_weights(made, 1)
    return made


@pytest.mark.parametrize("layers", [0, 1, 2, 3], ids="DeepStack in {} layers".format)
def test_asked_places_are_those_of_all(decoder: StreamingDecoder, layers: int) -> None:
    draw = np.random.default_rng(0)
    x = mx.array(draw.standard_normal((2, N, 32), np.float32))
    positions = np.sort(draw.integers(0, 30, (3, N)), axis=1)
    cos, sin = decoder.rope(positions)
    video = np.array([1, 4, 5, N + 2, N + 6])
    features = mx.array(draw.standard_normal((5, layers * 32), np.float32))
    deepstack = DeepStack(mx.array(video), features) if layers else None
    whole = np.array(decoder(x, (cos, sin), deepstack=deepstack))
    assert np.array_equal(whole, np.array(decoder(x, (cos, sin)))) == (not layers)
    places = np.array([[0, 4, 19], [7, 8, 2]])
    mask = np.where(np.arange(N) <= places[:, :, None], 0.0, -1e9).astype(np.float32)[:, None]
    turned = [mx.array(np.array(a)[places][:, None]) for a in (cos, sin)]
    logits_to_keep = LogitsToKeep(mx.array(places + np.array([[0], [N]])), (turned[0], turned[1]), mx.array(mask))
    some = np.array(decoder(x, (cos, sin), logits_to_keep=logits_to_keep, deepstack=deepstack))
    assert some.shape == (2, 3, 32)
    assert np.abs(some - np.take_along_axis(whole, places[:, :, None], axis=1)).max() < 1e-5


@pytest.mark.parametrize("n", [128, 129, 300])
@pytest.mark.parametrize("cached", [0, 50])
def test_stretches_are_the_whole(n: int, cached: int) -> None:
    draw = np.random.default_rng(n + cached)
    q = mx.array(draw.standard_normal((2, 4, n, 8), np.float32))
    k, v = mx.array(draw.standard_normal((2, 2, 2, n + cached, 8), np.float32))
    ours = attention(q, k, v, scale=0.4, mask="causal")
    theirs = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.4, mask="causal")
    assert mx.abs(ours - theirs).max().item() < 1e-5
