"""The steps of decode: one that starts ahead changes nothing, and what they wait for and copy to the host."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.models.rope import MRope
from streaming_vlm_mlx.stream import generate as generating
from streaming_vlm_mlx.stream import kv_cache, reply, runner, sampling
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, TextPiece
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.stream.sampling import TokenSampler
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.small import SMALL_VISION, small_model
from tests.stream.streams import Forced, make_bundle, make_second

ONE, TWO, THREE, SILENCE, IM_END = 825, 1378, 2326, 2503, 151645
SMALL = StreamConfig(window=2, text_round=3, sink=4, slide=4, sampling=SamplingConfig(max_new_tokens=8))
WARM = replace(SMALL, sampling=SamplingConfig(temperature=1.5, top_p=0.9, silence_threshold=0.01, max_new_tokens=8))
GUARDED = replace(SMALL.sampling, repetition_penalty=1.0, no_repeat_ngram_size=2, repetition_window=9.0)
STREAMS = {
    "greedy": SMALL,
    "warm": WARM,
    "append": replace(WARM, pos_mode="append"),
    "recompute": replace(WARM, mode="recompute"),
    "window": replace(WARM, mode="window"),
    "8 bits": replace(WARM, kv_bits=8),
    "guarded": replace(SMALL, sampling=GUARDED),
    "limited": replace(SMALL, sampling=replace(WARM.sampling, max_words=3, max_sentences=1)),
    "scratchpad": replace(WARM, scratchpad="Who has the ball?", style="training"),
    "livecc": replace(WARM, style="livecc"),
}
on_each = pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
in_each = pytest.mark.parametrize("name", STREAMS)
Event = SpanMap | TextPiece | GenerationResult


@pytest.fixture
def open_stream(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> Callable[..., tuple[Session, TokenSampler]]:
    """Opens a stream by its name, with a sampler that chooses on the host or on the device."""

    def open_one(name: str, on_host: bool, run_ahead: bool) -> tuple[Session, TokenSampler]:
        config = STREAMS[name]
        bundle = make_bundle(tokenizer, vocabulary, style=config.style)
        if config.kv_bits:
            small = bundle.model.config
            # Keys that divide into groups.
            text = replace(small.text_config, hidden_size=64, head_dim=16, mrope_section=(2, 3, 3))
            vision = replace(SMALL_VISION, out_hidden_size=64)
            bundle = replace(bundle, model=small_model(replace(small, text_config=text, vision_config=vision)))
        silence = int(vocabulary.to_rows([SILENCE])[0])
        return Session(bundle, config, run_ahead), TokenSampler(config.sampling, silence, on_host)

    return open_one


def state(session: Session) -> list[Any]:
    return [session.ids.tolist(), session.positions.tolist(), session.cache_length, session.cache_bytes]


@in_each
@on_each
def test_a_step_ahead_changes_nothing(open_stream: Any, name: str, on_host: bool) -> None:
    streams = [open_stream(name, on_host, run_ahead) for run_ahead in (False, True)]
    for index in range(7):
        second = make_second(index, question="Who?" if index == 4 else "")
        behind, ahead = (list(session.generate(second, sampler)) for session, sampler in streams)
        assert behind == ahead
        assert state(streams[0][0]) == state(streams[1][0])


@in_each
@pytest.mark.parametrize("way", ["stopped", "closed"])
def test_a_step_ahead_is_taken_back_where_a_second_is_cut_short(open_stream: Any, name: str, way: str) -> None:
    streams = [open_stream(name, False, run_ahead) for run_ahead in (False, True)]
    for index in range(6):
        cut = index % 4
        said = []
        for session, sampler in streams:
            left = iter([False] * cut + [True] * 9)
            events = session.generate(
                make_second(index), sampler, partial(next, left) if way == "stopped" else lambda: False
            )
            if way == "stopped":
                said.append(list(events))
            else:
                said.append([next(events) for _ in range(min(cut, 2))])
                events.close()
        assert said[0] == said[1]
        assert state(streams[0][0]) == state(streams[1][0])


@pytest.mark.parametrize("name", ["greedy", "append", "guarded", "limited", "scratchpad", "8 bits"])
def test_what_a_gpu_does_otherwise_says_the_same(open_stream: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """MLX's rotation of one token, sampling on the device, a step ahead, and layers that are pruned together."""
    plain = open_stream(name, True, False)
    said = [list(plain[0].generate(make_second(index), plain[1])) for index in range(7)]
    at = MRope.at
    monkeypatch.setattr(MRope, "at", lambda self, position: at(self, position, fused=True))
    monkeypatch.setattr(kv_cache, "layers_at_once", lambda *_: 2)
    gpu = open_stream(name, False, True)
    assert [list(gpu[0].generate(make_second(index), gpu[1])) for index in range(7)] == said
    assert state(gpu[0]) == state(plain[0])


class CountingNumpy:
    """NumPy for a module, counting the bytes of MLX arrays that its functions get and do not leave in their place."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return partial(self._call, found) if callable(found) and not isinstance(found, type | np.ufunc) else found

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        for array in args:
            if isinstance(array, mx.array):
                self._counts["waits"] += 1
                self._counts["bytes"] += array.nbytes if result.base is None or array.size == 1 else 0
        return result


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count what waits for the device, and the bytes that get to the host."""
    counts = {"waits": 0, "bytes": 0}

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts["waits"] += 1
            counts["bytes"] += args[0].nbytes if args and isinstance(args[0], mx.array) and function != mx.eval else 0
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module in (generating, kv_cache, reply, runner, sampling):
            if hasattr(module, "np"):
                patch.setattr(module, "np", CountingNumpy(counts))
        for name in ("eval", "synchronize"):
            patch.setattr(mx, name, counting(getattr(mx, name)))
        for name in ("item", "tolist", "__int__", "__float__", "__bool__", "__index__"):
            method = getattr(mx.array, name)
            patch.setattr(mx.array, name, counting(method))
        yield counts


@in_each
@on_each
@pytest.mark.parametrize("run_ahead", [False, True], ids=["behind", "ahead"])
def test_a_token_waits_once_and_copies_no_logits(
    open_stream: Any, monkeypatch: pytest.MonkeyPatch, name: str, on_host: bool, run_ahead: bool
) -> None:
    session, sampler = open_stream(name, on_host, run_ahead)
    tokens = 0
    for index in range(5):
        events = session.generate(make_second(index), sampler)
        # The prefill of a second has waits of its own.
        assert isinstance(next(events), SpanMap)
        with counted(monkeypatch) as counts:
            *_, result = events
        assert isinstance(result, GenerationResult)
        # A stop token that ends a scratchpad line is read, but is no token of the second.
        read = result.tokens + bool(session.config.scratchpad)
        assert counts["waits"] <= read
        assert counts["bytes"] <= 64 * read
        tokens += result.tokens
    assert tokens > 5
    assert bool(counts["bytes"]) == (not on_host and bool(result.tokens))


def test_a_second_leaves_no_temporary_memory_behind(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[None] = []
    monkeypatch.setattr(mx, "clear_cache", lambda: cleared.append(None))
    session = Session(bundle, SMALL)
    for index in range(3):
        list(session.generate(make_second(index)))
        assert len(cleared) == index + 1


def test_a_step_starts_before_its_token_is_read(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token but the last is read behind the start of its step, and each step is started once."""
    order: list[str] = []
    start, read = mx.async_eval, generating.read_row
    with monkeypatch.context() as patch:
        patch.setattr(mx, "async_eval", lambda *arrays: (order.append("start"), start(*arrays))[1])
        patch.setattr(generating, "read_row", lambda choice: (order.append("read"), read(choice))[1])
        session = Session(bundle, replace(SMALL, sampling=replace(SMALL.sampling, max_new_tokens=3)), True)
        list(session.generate(make_second(0), Forced(bundle.vocabulary, [ONE, TWO, THREE])))
    assert order == ["start", "read", "start", "read", "read"]
