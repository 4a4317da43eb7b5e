"""One stream: a second goes in, pieces of text come out; the only holder of a stream's state."""

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
from streaming_vlm_mlx.stream.generate import Logits, Runner, Visibility
from streaming_vlm_mlx.stream.masks import OPEN, token_visibility
from streaming_vlm_mlx.stream.sampling import Sampler, TokenSampler
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS, CommentaryCleaner, Scratchpad, StreamDecoder
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.video.image_processor import Patches


@dataclass(frozen=True)
class SecondRequest:
    """What a session is given of one second of video.

    Attributes:
        index: the second's number, handed on to its events.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        patches: its pixels, or None for a stream of text alone.
        question: what the viewer asks in this second, else empty.
    """

    index: int
    start: float
    end: float
    patches: Patches | None
    question: str = ""


class Session:
    """The state of one stream: its spans, its cache, and where the sampler's draws stand."""

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
        """The kept sequence, outside ids."""
        return sp.join_ids(self._spans)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """M-RoPE positions [3, n] of the tokens that the cache holds, or held when a second was cut short."""
        return self._runner.positions if self._runner else np.zeros((3, 0), np.int64)

    @property
    def cached(self) -> int:
        """How many leading tokens of the kept sequence the cache holds."""
        return self._runner.cache.length if self._runner else 0

    @property
    def prefilled_from(self) -> int:
        """How many leading tokens were in the cache when this second was prefilled."""
        return self._prefilled_from

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache's blocks."""
        return self._runner.cache.nbytes if self._runner else 0

    def close(self) -> None:
        """Let the other machines that hold a part of the model end.

        Raises:
            SvmError: one was lost.
        """
        release(self._bundle.ranks)

    def configure(self, config: StreamConfig) -> None:
        """Change query, sampling and windows from the next second on; what is kept stays, new sampling draws anew.

        A changed `mode`, `pos_mode`, `kv_bits` or `previous` wants a `reset` behind it.
        """
        if config.sampling != self._config.sampling:
            self._sampler = self._make_sampler(config)
        self._config = config

    def reset(self) -> None:
        """Forget everything but the settings; the draws start anew."""
        template = self._bundle.template
        head = (
            sp.new_span("head", -1, template.head_open),
            sp.new_span("previous", -1, self._encode(self._config.previous)),
            sp.new_span("head", -1, template.head_close),
        )
        self._spans = sp.number_slots(head)
        self._round, self._query, self._prefilled_from = 0, "", 0
        self._features: dict[int, mx.array] = {}
        self._ahead: tuple[Patches, mx.array, float] | None = None
        self._sampler = self._make_sampler(self._config)
        self._runner: Runner | None = None

    def reanchor(self) -> None:
        """Start the windows anew after a seek: what was said joins the previous text, every turn goes."""
        if self._runner and not self._runner.can_move:
            self._runner.keep(np.zeros(0, np.int32))
        self._follow(*sp.reanchor(self._spans, self._config))
        self._round, self._query = 0, ""

    def generate(
        self, second: SecondRequest, sampler: Sampler | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Take in one second; yield what the model remembers, its words as they come, and the sum at the end.

        Args:
            second: pixels and times.
            sampler: chooses in the sampler's place, so that recorded tokens can be forced.
            stopped: asked before each token; once true, the second ends as if its limit of tokens had been reached.
                Closing the iterator does the same.
        """
        begun = self._bundle.clock()
        features, ahead = self._take(second)
        seen = self._bundle.clock()
        dropped = self._prune()
        self._extend(second, features)
        logits = self._prefill()
        prefilled = self._bundle.clock()
        first, said, decoder = 0.0, list[int](), _Pieces(self._bundle.tokenizer)
        scratch = Scratchpad(self._bundle.tokenizer) if self._thinks(second) else None
        try:
            yield SpanMap(second.index, sp.merge_views(self._spans), dropped)
            for token in self._decode(logits, sampler or self._sampler, stopped, scratch):
                said.append(token)
                if piece := decoder.push(token):
                    first = first or self._bundle.clock()
                    yield TextPiece(second.index, piece)
        finally:
            self._close(said, scratch)
        if piece := decoder.flush():
            yield TextPiece(second.index, piece)
        done = self._bundle.clock()
        yield GenerationResult(
            second.index,
            second.start,
            second.end,
            decoder.text,
            tokens=len(said) + (len(scratch.ids) if scratch else 0),
            video_tokens=0 if features is None else features.shape[0],
            cache_tokens=self.cached,
            cache_bytes=self.cache_bytes,
            query=second.question,
            timings=Timings(
                vision_ms=1e3 * (seen - begun + ahead),
                prefill_ms=1e3 * (prefilled - seen),
                decode_ms=1e3 * (done - prefilled),
                first_text_ms=1e3 * ((first or done) - begun),
                total_ms=1e3 * (done - begun + ahead),
            ),
            notes=scratch.text.strip() if scratch else "",
        )

    def encode_ahead(self, second: SecondRequest) -> None:
        """Run the vision tower over `second` now, so that `generate` has its features ready when its turn comes."""
        begun = self._bundle.clock()
        features = self._see(second)
        if second.patches is not None and features is not None:
            self._ahead = second.patches, features, self._bundle.clock() - begun

    def _thinks(self, second: SecondRequest) -> bool:
        """Whether the model answers to itself before it speaks about `second`."""
        return bool(self._config.scratchpad) and not second.question

    def _take(self, second: SecondRequest) -> tuple[mx.array | None, float]:
        """Return the second's features, and the seconds of work that were done on them ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] is second.patches:
            return ahead[1:]
        return self._see(second), 0.0

    def _see(self, second: SecondRequest) -> mx.array | None:
        if second.patches is None or self._bundle.model.config.vision_config is None:
            return None
        features = self._bundle.model.visual(mx.array(second.patches.pixel_values), second.patches.grid_thw)
        mx.eval(features)
        return features

    def _prune(self) -> tuple[SpanView, ...]:
        """Drop what this second no longer keeps, and follow with the cache."""
        spans, dropped = sp.prune(self._spans, self._round, self._config)
        self._follow(spans, dropped)
        if self._config.mode == "window" and dropped:
            self._query = ""
        return sp.merge_views(dropped)

    def _follow(self, spans: sp.Spans, dropped: sp.Spans) -> None:
        """Make `spans` the sequence: one gather of the cache, and the features of dropped video forgotten."""
        for span in dropped:
            if span.part == "video":
                self._features.pop(span.round, None)
        if self._runner:
            slots = sp.join_slots(spans)
            self._runner.keep(slots[slots < self._runner.cache.length])
        self._spans = sp.number_slots(spans)

    def _extend(self, second: SecondRequest, features: mx.array | None) -> None:
        """Append the second's user turn and the opening of its assistant turn."""
        template, number = self._bundle.template, self._round
        question = second.question or self._config.scratchpad
        turn = [
            sp.new_span("open", number, template.user_open),
            sp.new_span("time", number, self._encode(template.time(second.start, second.end, question, not number))),
        ]
        if features is not None:
            assert second.patches is not None
            time, rows, columns = second.patches.grid_thw
            merge = self._config.pixels.merge_size
            grid = (time, rows // merge, columns // merge)
            turn.append(sp.new_span("video", number, template.video(features.shape[0]), grid))
            self._features[number] = features
        if template.has_query and self._config.query != self._query:
            turn.append(sp.new_span("query", number, self._encode(self._config.query)))
            self._query = self._config.query
        turn.append(sp.new_span("close", number, template.turn_close))
        turn.append(sp.new_span("assistant", number, template.assistant_open(bool(question))))
        self._spans = sp.number_slots((*self._spans, *turn))

    def _prefill(self) -> Logits:
        """Run the model over what the cache does not hold; return the last token's logits [vocab]."""
        runner = self._runner = self._runner or self._make_runner()
        if self._config.mode == "recompute":
            runner.keep(np.zeros(0, np.int32))
        cached, ids = self.cached, self.ids
        self._prefilled_from = cached
        is_video = sp.join_video(self._spans, self._bundle.model.config.video_token_id)[cached:]
        new = [s.round for s in self._spans if s.part == "video" and s.slots[0] >= cached]
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
        """Return positions [3, n] of the whole sequence: counted anew, or going on behind what is cached."""
        vision, pixels = self._bundle.model.config.vision_config, self._config.pixels
        steps = vision.time_step(pixels.temporal_patch_size / self._config.fps) if vision else 0.0
        if self._config.pos_mode == "shrink" or not cached:
            return sp.positions(self._spans, 0, self._config, steps)
        assert self._runner is not None
        old = self._runner.positions[:, :cached]
        fresh = (s.cut(slice(max(cached - int(s.slots[0]), 0), None)) for s in self._spans if s.slots.size)
        new = sp.positions((s for s in fresh if len(s.ids)), int(old.max()) + 1, self._config, steps)
        return np.concatenate([old, new], axis=1)

    def _decode(
        self, logits: Logits, sampler: Sampler, stopped: Callable[[], bool], scratch: Scratchpad | None
    ) -> Iterator[int]:
        """Yield tokens of this second, a stop token included, until one comes or the limit is reached.

        What goes onto `scratch` comes before them and is not yielded.
        """
        assert self._runner is not None
        seen, visibility = self._seen_rows, self._visibility()
        while scratch is not None and not scratch.is_full:
            row = sampler.sample(logits, seen, 0)
            token = self._bundle.vocabulary.to_id(row)
            if token in self._bundle.template.stop_ids or stopped():
                return
            scratch.push(token)
            seen = np.append(seen, np.int32(row))
            logits = self._runner.step(row, None if scratch.is_full or visibility is None else self._padded(visibility))
        limit = self._config.sampling.max_new_tokens
        for step in range(limit):
            row = sampler.sample(logits, seen, step)
            token = self._bundle.vocabulary.to_id(row)
            yield token
            if token in self._bundle.template.stop_ids or step + 1 == limit or stopped():
                return
            seen = np.append(seen, np.int32(row))
            logits = self._runner.step(row)

    def _padded(self, visibility: Visibility) -> Visibility:
        """Return `visibility` extended to all cached tokens: the scratchpad line so far is `OPEN` to itself."""
        return np.pad(visibility, (0, self.cached - len(visibility)), constant_values=OPEN)

    def _close(self, said: list[int], scratch: Scratchpad | None) -> None:
        """Enter what was said and its end mark into the sequence; the mark is prefilled with the next second."""
        text = said[:-1] if said and said[-1] in self._bundle.template.stop_ids else said
        number = self._round
        turn = (
            sp.new_span("scratch", number, scratch.ids if scratch else ()),
            sp.new_span("text", number, text),
            sp.new_span("end", number, self._bundle.template.turn_close),
        )
        self._spans = sp.number_slots((*self._spans, *turn))
        self._round += 1

    def _encode(self, text: str) -> list[int]:
        """Return the ids of `text` that the model's vocabulary holds."""
        vocabulary = self._bundle.vocabulary
        return [int(i) for i in vocabulary.to_ids(vocabulary.to_rows(self._bundle.tokenizer.encode(text)))]

    def _rows(self, ids: sp.Ids) -> npt.NDArray[np.int32]:
        return self._bundle.vocabulary.to_rows(ids)

    def _make_sampler(self, config: StreamConfig) -> TokenSampler:
        return TokenSampler(config.sampling, int(self._rows(np.array([self._bundle.template.silence_id], np.int32))[0]))

    def _make_runner(self) -> Runner:
        """Reserve a cache that the windows cannot outgrow, as far as their settings bound it."""
        c, turn = self._config, self.ids.size - sum(len(s.ids) for s in self._spans if s.round < 0)
        rounds = 1 if c.mode == "full" else max(c.window, c.text_round)
        previous = 0 if c.sink is None or c.slide is None else c.sink + c.slide
        result = (
            c.sampling.max_new_tokens + len(self._bundle.template.turn_close) + (SCRATCH_TOKENS if c.scratchpad else 0)
        )
        longest_time = 16
        capacity = self.ids.size + previous + rounds * (turn + result + longest_time)
        moves = c.mode == "streaming" and c.pos_mode == "shrink"
        return make_runner(self._bundle.model, self._bundle.ranks, capacity, moves, c.kv_bits)


class _Pieces:
    """Cuts a second's tokens into pieces to show: whole characters, no markup, no closing `` ...``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decoder, self._cleaner, self.text = StreamDecoder(tokenizer), CommentaryCleaner(), ""

    def push(self, token: int) -> str:
        """Add `token` and return what can be shown now."""
        return self._show(self._cleaner.push(self._decoder.push(token)))

    def flush(self) -> str:
        """Return what was held back."""
        return self._show(self._cleaner.push(self._decoder.flush()) + self._cleaner.flush())

    def _show(self, piece: str) -> str:
        self.text += piece
        return piece
