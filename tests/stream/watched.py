"""A session that checks itself in every second: spans, windows, positions, and what the cache holds."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.language import round_up_capacity
from streaming_vlm_mlx.models.rope import rotate
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, TextPiece
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.stream.kv_cache import LayerKVCache
from streaming_vlm_mlx.stream.sampling import Sampler
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS
from tests.stream.span_model import count_positions, keep_after_seek, keep_before, tokens_of

# A turn's parts, in order; not every turn has a query or a video.
TURN = ("open", "time", "video", "query", "close", "assistant")
REPLY = ("scratch", "text", "end")
# The end mark of a turn and its last token are cached with the next second.
MOST_UNCACHED = 3
# Rounding of float32, as a share of the largest number.
TOLERANCE = 1e-4


@dataclass
class Checks:
    """What was checked.

    Attributes:
        seconds: seconds of commentary.
        cut: those of them that were ended early.
        seeks: how often the windows were emptied.
        resets: how often a stream began anew.
        cached: the most tokens that the cache held.
        allocations: cache sizes that a stream began with, in bytes.
        broken: the traceback of the first check that failed.
    """

    seconds: int = 0
    cut: int = 0
    seeks: int = 0
    resets: int = 0
    cached: int = 0
    allocations: set[int] = field(default_factory=set)
    broken: str = ""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the traceback of a check that fails, of which the player shows the message alone."""
        try:
            yield
        except AssertionError:
            self.broken = self.broken or traceback.format_exc()
            raise


class WatchedSession(Session):
    """A session that raises AssertionError where it does not do what docs/streaming.md says.

    `watch` returns a subclass that counts.
    """

    checks: Checks

    def reset(self) -> None:
        """Forget everything; the next second allocates a cache."""
        super().reset()
        self._number, self._settings, self._longest = 0, {self.config}, 0
        self.checks.resets += 1
        # Bytes and places of the cache that the stream began with.
        self._begun_with: tuple[int, int] | None = None

    def configure(self, config: StreamConfig) -> None:
        """Change the settings."""
        super().configure(config)
        self._settings.add(config)

    def reanchor(self) -> None:
        """Empty the windows, and check what is left."""
        expected = keep_after_seek(tokens_of(self._spans), self.config)
        super().reanchor()
        with self.checks.noted():
            assert [t[:3] for t in tokens_of(self._spans)] == [t[:3] for t in expected]
            self._check_slots()
            assert self.cache_length == self.positions.shape[1] <= len(self.ids)
        self._number = 0
        self.checks.seeks += 1

    def generate(
        self, second: SecondRequest, sampler: Sampler | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Comment on one second, and check the sequence before and after it."""
        before, cached, positions = self._spans, self.cache_length, self.positions
        said = ""
        for event in super().generate(second, sampler, stopped):
            with self.checks.noted():
                if isinstance(event, SpanMap):
                    self._check_start(before, cached, positions, event)
                elif isinstance(event, TextPiece):
                    said += event.text
                else:
                    assert said == event.text
                    self._check_end(event)
                    self.checks.cut += stopped()
            yield event
        self._number += 1
        self.checks.seconds += 1

    def _check_start(self, before: sp.Spans, cached: int, positions: npt.NDArray[np.int64], event: SpanMap) -> None:
        """Check the sequence once the user turn is prefilled.

        `before` are the spans before the second, of which the first `cached` tokens were cached at `positions`.
        """
        self._check_slots()
        expected = keep_before(tokens_of(before), self._number, self.config)
        tokens = tokens_of(self._spans)
        assert [t[:3] for t in tokens[: len(expected)]] == [t[:3] for t in expected]
        kept, new = self._split(len(expected))
        order = [TURN.index(span.part) for span in new]
        assert order == sorted(set(order))
        assert {span.round for span in new} == {self._number}
        assert self.cache_length == self.positions.shape[1] == len(tokens) == len(self.ids)
        self._check_windows(kept)
        self._check_views(before, event)
        self._check_positions([t.place for t in expected if t.place < cached], cached, positions)
        self._check_cache()
        self._check_bytes()
        self.checks.cached = max(self.checks.cached, self.cache_length)

    def _check_slots(self) -> None:
        assert sp.join_slots(self._spans).tolist() == list(range(len(self.ids)))

    def _split(self, size: int) -> tuple[sp.Spans, sp.Spans]:
        """Return the spans of the first `size` tokens, and those behind."""
        ends = np.cumsum([len(span.ids) for span in self._spans])
        new = tuple(s for s, end in zip(self._spans, ends, strict=True) if end > size)
        return self._spans[: len(self._spans) - len(new)], new

    def _check_windows(self, kept: sp.Spans) -> None:
        """Check the limits that the settings name; the second under way is one of each."""
        config = self.config
        rounds = {
            part: {s.round for s in kept if s.part == part and len(s.ids)} for part in ("video", "text", "scratch")
        }
        if config.mode == "window":
            assert len({s.round for s in kept if s.round >= 0}) < config.window
        elif config.mode != "full":
            assert len(rounds["video"]) < config.window
            assert len(rounds["text"]) < config.text_round
            assert len(rounds["scratch"]) < config.scratch_round
            previous = sum(len(s.ids) for s in kept if s.part == "previous")
            is_bound = config.sink is not None and config.slide is not None and self._number > 0
            assert not is_bound or previous <= max((config.sink or 0) + (config.slide or 0) - 1, config.sink or 0)

    def _check_views(self, before: sp.Spans, event: SpanMap) -> None:
        """Check that the event tells of each token that is there, and of each that was dropped."""
        assert sum(view.tokens for view in event.spans) == len(self.ids)
        new = sum(len(span.ids) for span in self._spans if span.round == self._number)
        assert sum(view.tokens for view in event.dropped) == sum(len(s.ids) for s in before) + new - len(self.ids)

    def _check_positions(self, kept: list[int], cached: int, old: npt.NDArray[np.int64]) -> None:
        """Check that positions are counted anew; with `append`, that the `kept` cached tokens have their old ones."""
        vision, config = self._bundle.model.config.vision_config, self.config
        assert vision is not None
        steps = vision.time_step(config.pixels.temporal_patch_size / config.fps)
        found, start = self.positions, 0
        if config.pos_mode == "append" and kept and not config.recomputes:
            assert np.array_equal(found[:, : len(kept)], old[:, kept])
            start = int(found[:, : len(kept)].max()) + 1
        else:
            kept = []
        rest = [s.cut(slice(max(len(kept) - int(s.slots[0]), 0), None)) for s in self._spans if s.slots.size]
        expected = count_positions((s for s in rest if len(s.ids)), start, config, steps)
        assert found[:, len(kept) :].T.tolist() == [list(place) for place in expected]

    def _check_cache(self) -> None:
        """Check that the first layer's keys and values are those of the ids, at their positions."""
        assert self._runner is not None
        layer, model = self._runner.cache.layers[0], self._bundle.model.model
        if not isinstance(layer, LayerKVCache):
            return
        block, length = model.layers[0], self.cache_length
        attention = block.self_attn
        x = block.input_layernorm(model.embed_tokens(mx.array(self._rows(self.ids))))
        heads = [
            project(x).reshape(length, attention.num_kv_heads, -1).swapaxes(0, 1)
            for project in (attention.k_proj, attention.v_proj)
        ]
        is_text = ~sp.join_video(self._spans, self._bundle.template.special.video_pad)
        pairs = [(layer.values, heads[1]), (layer.rotated, rotate(heads[0], *model.rope(self.positions)))]
        if layer.keys is not None:
            pairs.append((layer.keys, heads[0]))
        for held, expected in pairs:
            there, wanted = np.array(held[0, :, :length])[:, is_text], np.array(expected)[:, is_text]
            assert np.abs(there - wanted).max() <= TOLERANCE * np.abs(wanted).max()

    def _check_bytes(self) -> None:
        """Check that the cache has the size that it began with, or after a change of settings no more than it needs."""
        assert self._runner is not None
        cache = self._runner.cache
        reply = self.config.sampling.max_new_tokens + SCRATCH_TOKENS
        self._longest = max(self._longest, self.cache_length + reply)
        if self._begun_with is None:
            self._begun_with = cache.nbytes, cache.capacity
            self._settings = {self.config}
            self.checks.allocations.add(cache.nbytes)
        size, places = self._begun_with
        if len(self._settings) == 1 and _is_bounded(self.config):
            assert cache.nbytes == size
        assert cache.capacity <= max(places, round_up_capacity(self._longest + MOST_UNCACHED))
        assert cache.nbytes * places == size * cache.capacity

    def _check_end(self, result: GenerationResult) -> None:
        """Check the sequence once the reply is complete."""
        self._check_slots()
        assert [(span.part, span.round) for span in self._spans[-3:]] == [(part, self._number) for part in REPLY]
        assert self.cache_length <= len(self.ids) <= self.cache_length + MOST_UNCACHED
        assert self.cache_length == self.positions.shape[1] == result.cache_tokens
        assert self.cache_bytes == result.cache_bytes


def _is_bounded(config: StreamConfig) -> bool:
    """Return whether the settings bound the sequence."""
    return config.mode != "full" and config.sink is not None and config.slide is not None


def watch(checks: Checks) -> type[WatchedSession]:
    """Return a class of sessions that count what they check in `checks`."""
    return type("Watched", (WatchedSession,), {"checks": checks})
