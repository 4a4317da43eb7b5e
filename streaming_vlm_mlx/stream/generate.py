"""Generates commentary second by second: prune, append the turn, prefill, decode. A `Session` is one stream's state."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.stream.distributed_runner import make_runner, release
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, SpanView, TextPiece, Timings
from streaming_vlm_mlx.stream.masks import OPEN, token_visibility
from streaming_vlm_mlx.stream.pruning import prune, reanchor
from streaming_vlm_mlx.stream.repetition import RepetitionGuard
from streaming_vlm_mlx.stream.reply import Reply
from streaming_vlm_mlx.stream.runner import Logits, Runner, Visibility
from streaming_vlm_mlx.stream.sampling import Sampler, TokenSampler
from streaming_vlm_mlx.stream.turns import TurnWriter
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS, Scratchpad
from streaming_vlm_mlx.video.image_processor import Patches


@dataclass(frozen=True)
class SecondRequest:
    """One second of video, as a session takes it.

    Attributes:
        index: the second's number, which its events carry.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        patches: its pixels, or None for a stream of text alone.
        question: the viewer's question in this second, else empty.
    """

    index: int
    start: float
    end: float
    patches: Patches | None
    question: str = ""


class Session:
    """The state of one stream: its spans, its cache and its sampler."""

    def __init__(self, bundle: ModelBundle, config: StreamConfig) -> None:
        """Begin a stream with `config.previous` as its previous text; nothing is computed yet."""
        self._bundle, self._config = bundle, config
        self.reset()

    @property
    def config(self) -> StreamConfig:
        """The settings that the next second runs under."""
        return self._config

    @property
    def ids(self) -> sp.Ids:
        """The tokens of the kept sequence, as the tokenizer's ids."""
        return sp.join_ids(self._spans)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """M-RoPE positions [3, n] of the cached tokens, or of those cached before a second was cut short."""
        return self._runner.positions if self._runner else np.zeros((3, 0), np.int64)

    @property
    def cache_length(self) -> int:
        """The number of cached tokens, which lead the kept sequence."""
        return self._runner.cache.length if self._runner else 0

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache's blocks."""
        return self._runner.cache.nbytes if self._runner else 0

    @property
    def prefilled_from(self) -> int:
        """The number of tokens that were cached when the last second was prefilled."""
        return self._prefilled_from

    def close(self) -> None:
        """Release the other machines that hold a part of the model.

        Raises:
            SvmError: the connection to one of them was lost.
        """
        release(self._bundle.ranks)

    def configure(self, config: StreamConfig) -> None:
        """Change query, sampling and windows from the next second on; new sampling settings restart its random draws.

        After a change of `mode`, `pos_mode`, `kv_bits` or `previous`, call `reset`.
        """
        if config.sampling != self._config.sampling:
            self._sampler = self._make_sampler(config)
            self._guard.configure(config.sampling)
        self._config = config

    def reset(self) -> None:
        """Forget everything but the settings."""
        self._turns = TurnWriter(self._bundle.template, self._bundle.tokenizer, self._bundle.vocabulary)
        self._spans = sp.number_slots(self._turns.head(self._config.previous))
        self._round, self._query, self._prefilled_from = 0, "", 0
        self._features: dict[int, mx.array] = {}
        self._ahead: _Encoded | None = None
        self._sampler, self._guard = self._make_sampler(self._config), self._make_guard()
        self._runner: Runner | None = None

    def reanchor(self) -> None:
        """Empty the windows after a seek: the commentary joins the previous text, and all turns are dropped."""
        if self._runner and not self._runner.can_move:
            self._runner.keep(np.zeros(0, np.int32))
        self._keep(*reanchor(self._spans, self._config))
        self._guard.clear()
        self._round, self._query = 0, ""

    def generate(
        self, second: SecondRequest, sampler: Sampler | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Comment on one second: yield the span map, pieces of text as they come, and the second's record.

        Args:
            second: pixels and times.
            sampler: used instead of the session's own, for example to force recorded tokens.
            stopped: called before each token; once it returns True, the second ends as at its token limit. Closing the
                iterator has the same effect.
        """
        clock, sampler = self._bundle.clock, sampler or self._sampler
        begun = clock()
        encoded = self._take_encoded(second)
        seen = clock()
        dropped = self._prune()
        self._append_turn(second, encoded.features)
        logits: Logits | None = self._prefill()
        prefilled = clock()
        first_text = 0.0
        reply = self._begin_reply(second)
        try:
            yield SpanMap(second.index, sp.merge_views(self._spans), dropped)
            if reply.scratch is not None:
                logits = self._write_notes(logits, sampler, stopped, reply.scratch)
            for token in () if logits is None else self._decode(logits, sampler, stopped, not second.question):
                if piece := reply.push(token):
                    first_text = first_text or clock()
                    yield TextPiece(second.index, piece)
                if reply.is_full:
                    break
        finally:
            piece = reply.flush()
            self._close_turn(second, reply)
        if piece:
            yield TextPiece(second.index, piece)
        done = clock()
        yield GenerationResult(
            second.index,
            second.start,
            second.end,
            reply.text,
            tokens=reply.token_count,
            video_tokens=0 if encoded.features is None else encoded.features.shape[0],
            cache_tokens=self.cache_length,
            cache_bytes=self.cache_bytes,
            query=second.question,
            timings=Timings(
                vision_ms=1e3 * (seen - begun + encoded.seconds),
                prefill_ms=1e3 * (prefilled - seen),
                decode_ms=1e3 * (done - prefilled),
                first_text_ms=1e3 * ((first_text or done) - begun),
                total_ms=1e3 * (done - begun + encoded.seconds),
            ),
            notes=reply.notes,
        )

    def encode_ahead(self, second: SecondRequest) -> None:
        """Run the vision tower over `second` now, so that `generate` finds its features ready."""
        begun = self._bundle.clock()
        features = self._encode_video(second)
        if features is not None:
            self._ahead = _Encoded(second.patches, features, self._bundle.clock() - begun)

    def _take_encoded(self, second: SecondRequest) -> "_Encoded":
        """Return the second's features: those encoded ahead, or new ones."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.patches is second.patches:
            return ahead
        return _Encoded(second.patches, self._encode_video(second))

    def _encode_video(self, second: SecondRequest) -> mx.array | None:
        if second.patches is None or self._bundle.model.config.vision_config is None:
            return None
        features = self._bundle.model.visual(mx.array(second.patches.pixel_values), second.patches.grid_thw)
        mx.eval(features)
        return features

    def _prune(self) -> tuple[SpanView, ...]:
        """Drop the spans that this second no longer keeps, from the sequence and the cache; return their views."""
        spans, dropped = prune(self._spans, self._round, self._config)
        self._keep(spans, dropped)
        if self._config.mode == "window" and dropped:
            self._query = ""
        return sp.merge_views(dropped)

    def _keep(self, spans: sp.Spans, dropped: sp.Spans) -> None:
        """Make `spans` the sequence: gather the cache once, and forget the features of dropped video."""
        for span in dropped:
            if span.part == "video":
                self._features.pop(span.round, None)
        if self._runner:
            slots = sp.join_slots(spans)
            self._runner.keep(slots[slots < self._runner.cache.length])
        self._spans = sp.number_slots(spans)

    def _append_turn(self, second: SecondRequest, features: mx.array | None) -> None:
        """Append the second's user turn and the opening of its assistant turn."""
        video: sp.Spans = ()
        number, config = self._round, self._config
        if features is not None:
            assert second.patches is not None
            time, rows, columns = second.patches.grid_thw
            merge = config.pixels.merge_size
            grid = (time, rows // merge, columns // merge)
            video = self._turns.video(number, second.start, grid, config.fps, config.pixels.temporal_patch_size)
            self._features[number] = features
        query = config.query if config.query != self._query else ""
        question = second.question or config.scratchpad
        turn = self._turns.user(number, second.start, second.end, video, question, query)
        self._query = config.query
        self._spans = sp.number_slots((*self._spans, *turn))

    def _prefill(self) -> Logits:
        """Run the model over the tokens that are not cached; return the last token's logits [vocab]."""
        runner = self._runner = self._runner or self._make_runner()
        if self._config.mode == "recompute":
            runner.keep(np.zeros(0, np.int32))
        cached, ids = self.cache_length, self.ids
        self._prefilled_from = cached
        is_video = sp.join_video(self._spans, self._bundle.model.config.video_token_id)[cached:]
        # A second may have several spans, but has one array of features.
        new = dict.fromkeys(s.round for s in self._spans if s.part == "video" and s.slots[0] >= cached)
        features = mx.concatenate([self._features[r] for r in new]) if new else None
        positions = self._count_positions(cached)
        logits = runner.prefill(self._rows(ids[cached:]), positions, features, is_video, self._visibility())
        if self._config.mode != "recompute":
            self._features.clear()
        self._seen_rows = self._rows(ids)
        return logits

    def _visibility(self) -> Visibility | None:
        """Return the visibility of each token; None without a scratchpad, for plain causal attention.

        While describing the frame, the model cannot attend to its earlier commentary.
        """
        return token_visibility(self._spans) if self._config.scratchpad else None

    def _count_positions(self, cached: int) -> npt.NDArray[np.int64]:
        """Return positions [3, n] of the whole sequence: counted from 0, or on from the last of the cached tokens."""
        vision, pixels = self._bundle.model.config.vision_config, self._config.pixels
        steps = vision.time_step(pixels.temporal_patch_size / self._config.fps) if vision else 0.0
        if self._config.pos_mode == "shrink" or not cached:
            return sp.positions(self._spans, 0, self._config, steps)
        assert self._runner is not None
        old = self._runner.positions[:, :cached]
        fresh = (s.cut(slice(max(cached - int(s.slots[0]), 0), None)) for s in self._spans if s.slots.size)
        new = sp.positions((s for s in fresh if len(s.ids)), int(old.max()) + 1, self._config, steps)
        return np.concatenate([old, new], axis=1)

    def _write_notes(
        self, logits: Logits | None, sampler: Sampler, stopped: Callable[[], bool], scratch: Scratchpad
    ) -> Logits | None:
        """Generate the line of the scratchpad; return the logits after it, None when the second ends within it."""
        visibility = self._visibility()
        while logits is not None and not scratch.is_full:
            row = sampler.sample(logits, self._seen_rows, 0)
            token = self._bundle.vocabulary.to_id(row)
            if token in self._bundle.template.stop_ids or stopped():
                return None
            scratch.push(token)
            logits = self._step(row, None if scratch.is_full or visibility is None else self._padded(visibility))
        return logits

    def _begin_reply(self, second: SecondRequest) -> Reply:
        """Return the empty reply to `second`; the answer to a question may repeat what was said."""
        config, bundle = self._config, self._bundle
        self._guard.forget_before(second.start)
        guard = self._guard if config.sampling.repetition_window and not second.question else None
        with_notes = bool(config.scratchpad) and not second.question
        return Reply(bundle.tokenizer, bundle.template.stop_ids, with_notes, config.sampling, guard)

    def _decode(self, logits: Logits, sampler: Sampler, stopped: Callable[[], bool], guarded: bool) -> Iterator[int]:
        """Yield the tokens of the commentary, up to and including a stop token, or up to the limit.

        With `guarded`, no n-gram is repeated.
        """
        limit, rows = self._config.sampling.max_new_tokens, list[int]()
        for step in range(limit):
            row = sampler.sample(self._guard.ban(logits, rows) if guarded else logits, self._seen_rows, step)
            rows.append(row)
            token = self._bundle.vocabulary.to_id(row)
            yield token
            if token in self._bundle.template.stop_ids or step + 1 == limit or stopped():
                return
            logits = self._step(row)

    def _step(self, row: int, visibility: Visibility | None = None) -> Logits:
        """Append one generated token to the cache; return its logits [vocab]."""
        assert self._runner is not None
        self._seen_rows = np.append(self._seen_rows, np.int32(row))
        return self._runner.step(row, visibility)

    def _padded(self, visibility: Visibility) -> Visibility:
        """Return `visibility` extended to all cached tokens: the scratchpad line so far is `OPEN` to itself."""
        return np.pad(visibility, (0, self.cache_length - len(visibility)), constant_values=OPEN)

    def _close_turn(self, second: SecondRequest, reply: Reply) -> None:
        """Append the reply and the turn's end mark, which is prefilled with the next second."""
        said, scratch = reply.said, reply.scratch.ids if reply.scratch else []
        self._guard.add(second.start, self._rows(np.array(said, np.int32)).tolist(), reply.text)
        if reply.is_repeated:
            said = [self._bundle.template.silence_id]
        self._forget_unsaid(reply.tokens, said, self.ids.size + len(scratch))
        turn = self._turns.reply(self._round, said, scratch)
        self._spans = sp.number_slots((*self._spans, *turn))
        self._round += 1

    def _forget_unsaid(self, tokens: list[int], said: list[int], start: int) -> None:
        """Drop from the cache the generated `tokens`, the first at `start`, from the first that is not `said` on."""
        same = next((k for k, (one, other) in enumerate(zip(tokens, said, strict=False)) if one != other), len(said))
        if self._runner and self.cache_length > start + same:
            self._runner.keep(np.arange(start + same, dtype=np.int32))

    def _rows(self, ids: sp.Ids) -> npt.NDArray[np.int32]:
        """Return the embedding rows of `ids`."""
        return self._bundle.vocabulary.to_rows(ids)

    def _make_sampler(self, config: StreamConfig) -> TokenSampler:
        return TokenSampler(config.sampling, int(self._rows(np.array([self._bundle.template.silence_id], np.int32))[0]))

    def _make_guard(self) -> RepetitionGuard:
        template = self._bundle.template
        endings = self._rows(np.array([template.silence_id, *template.stop_ids], np.int32))
        return RepetitionGuard(self._config.sampling, endings.tolist())

    def _make_runner(self) -> Runner:
        """Allocate a cache that the windows cannot outgrow, as far as the settings bound them."""
        c, turn = self._config, self.ids.size - sum(len(s.ids) for s in self._spans if s.round < 0)
        rounds = 1 if c.mode == "full" else max(c.window, c.text_round)
        bounds = c.sink is not None and c.slide is not None and self._bundle.template.has_previous
        previous = (c.sink or 0) + (c.slide or 0) if bounds else 0
        reply = c.sampling.max_new_tokens + len(self._bundle.template.turn_close)
        reply += SCRATCH_TOKENS if c.scratchpad else 0
        # The first turn's time has fewer tokens than a later one may have.
        longest_time = 16
        capacity = self.ids.size + previous + rounds * (turn + reply + longest_time)
        moves = c.mode == "streaming" and c.pos_mode == "shrink"
        return make_runner(self._bundle.model, self._bundle.ranks, capacity, moves, c.kv_bits)


@dataclass(frozen=True)
class _Encoded:
    """A second's vision features.

    Attributes:
        patches: the pixels that they come from.
        features: [video tokens, hidden size]; None without video or vision tower.
        seconds: of work that was done ahead of the second's turn.
    """

    patches: Patches | None
    features: mx.array | None
    seconds: float = 0.0
