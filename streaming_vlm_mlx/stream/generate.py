"""Generates commentary second by second: prune, append the turn, prefill, decode. A `Session` is one stream's state."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.stream.distributed_runner import can_run_ahead, make_runner, release
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, SpanView, StepTimes, TextPiece
from streaming_vlm_mlx.stream.masks import OPEN, token_visibility
from streaming_vlm_mlx.stream.pruning import count_window_tokens, prune, reanchor
from streaming_vlm_mlx.stream.reply import RepetitionGuard, Reply
from streaming_vlm_mlx.stream.runner import Runner, Visibility
from streaming_vlm_mlx.stream.sampling import Choice, Sampler, TokenSampler, read_row, rule_out
from streaming_vlm_mlx.stream.still import StillPatches
from streaming_vlm_mlx.stream.turn_input import TurnCollector, TurnInput, VideoEncoder
from streaming_vlm_mlx.stream.turns import TurnWriter
from streaming_vlm_mlx.text.detokenizer import Scratchpad
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

    def __init__(self, bundle: ModelBundle, config: StreamConfig, run_ahead: bool | None = None) -> None:
        """Begin a stream with `config.previous` as its previous text; nothing is computed yet.

        Args:
            bundle: the model and what belongs to it.
            config: the settings.
            run_ahead: whether each step of decode starts before the token that it follows is read; None for what is
                best on this device.
        """
        self._bundle, self._config = bundle, config
        self._runs_ahead = can_run_ahead(bundle.ranks) if run_ahead is None else run_ahead
        self._encoder = VideoEncoder(bundle.model, bundle.clock)
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
    def completes_turn(self) -> bool:
        """Whether the next second completes a turn, so that it is commented on."""
        return self._collector.completes

    @property
    def waiting(self) -> SecondRequest | None:
        """The last second whose turn is not complete yet; None when no second waits."""
        return self._waiting

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
        self._prefilled_from = 0
        self._features: dict[int, mx.array] = {}
        self._encoder.clear()
        self._waiting: SecondRequest | None = None
        self._sampler, self._guard = self._make_sampler(self._config), self._make_guard()
        self._runner: Runner | None = None
        self._begin_turns()

    def reanchor(self) -> None:
        """Empty the windows after a seek: the commentary joins the previous text, and all turns are dropped."""
        if self._runner and not self._runner.can_move:
            self._runner.keep(np.zeros(0, np.int32))
        self._keep(*reanchor(self._spans, self._config))
        self._guard.clear()
        self._begin_turns()

    def encode_ahead(self, second: SecondRequest) -> None:
        """Run the vision tower over `second` now, so that `generate` finds its features ready."""
        self._encoder.encode_ahead(second.patches)

    def encode_beside(self, second: SecondRequest | None) -> None:
        """Start the vision tower over `second`, if it is read, where it can run beside the decode of another second."""
        if second is not None and self._runs_ahead:
            self._encoder.encode_ahead(second.patches, wait=False)

    def generate(
        self, second: SecondRequest, sampler: Sampler | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Comment on one second: yield the span map, pieces of text as they come, and the second's record.

        Args:
            second: pixels and times.
            sampler: used instead of the session's own, for example to force recorded tokens.
            stopped: called behind each token; once it returns True, the second ends as at its token limit. Closing the
                iterator has the same effect.
        """
        clock = self._bundle.clock
        begun = clock()
        encoded = self._encoder.take(second.patches)
        times = StepTimes(begun, clock(), encoded.seconds)
        turn = self._collector.add(encoded.as_turn(second.start, second.end, second.question))
        self._waiting = second if turn is None else None
        if turn is not None:
            yield from self._comment(second, turn, times, sampler or self._sampler, stopped)
            return
        yield SpanMap(second.index, sp.merge_views(self._spans), ())
        yield self._result(second, times)

    def generate_rest(
        self, question: str = "", sampler: Sampler | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Comment on the seconds of a first turn that the clip's end left waiting; yield nothing without any.

        The record is that of the last of these seconds; see `generate`.
        """
        second, turn, now = self._waiting, self._collector.rest(), self._bundle.clock()
        self._waiting = None
        if second is not None and turn is not None:
            turn = replace(turn, question=question or turn.question)
            yield from self._comment(second, turn, StepTimes(now, now), sampler or self._sampler, stopped)

    def _comment(
        self,
        second: SecondRequest,
        turn: TurnInput,
        times: StepTimes,
        sampler: Sampler,
        stopped: Callable[[], bool],
    ) -> Iterator[SpanMap | TextPiece | GenerationResult]:
        """Comment on `turn`, which `second` completes; see `generate`."""
        clock = self._bundle.clock
        dropped = self._prune()
        turn = self._still.leave_out(turn, self._round, self._spans, self._config)
        self._append_turn(turn)
        logits: mx.array | None = self._prefill()
        times.prefilled = clock()
        reply = self._begin_reply(turn)
        try:
            yield SpanMap(second.index, sp.merge_views(self._spans), dropped)
            if reply.scratch is not None:
                logits = self._write_notes(logits, sampler, stopped, reply.scratch)
            for token in () if logits is None else self._decode(logits, sampler, stopped, not turn.question):
                if piece := reply.push(token):
                    times.first_text = times.first_text or clock()
                    yield TextPiece(second.index, piece)
                if reply.is_full:
                    break
        finally:
            piece = reply.flush()
            self._close_turn(turn, reply)
        if piece:
            yield TextPiece(second.index, piece)
        times.done = clock()
        yield replace(
            self._result(second, times),
            text=reply.text,
            tokens=reply.token_count,
            video_tokens=turn.video_tokens,
            still_tokens=turn.still_tokens,
            query=turn.question,
            notes=reply.notes,
        )

    def _result(self, second: SecondRequest, times: StepTimes) -> GenerationResult:
        """Return the record of a second in which nothing is generated."""
        return GenerationResult(
            second.index,
            second.start,
            second.end,
            "",
            cache_tokens=self.cache_length,
            cache_bytes=self.cache_bytes,
            timings=times.timings(),
        )

    def _begin_turns(self) -> None:
        """Make the next second the first of the first turn."""
        self._round, self._query, self._still = 0, "", StillPatches()
        self._collector = TurnCollector(self._bundle.template.rules.first_seconds)
        self._waiting = None

    def _prune(self) -> tuple[SpanView, ...]:
        """Drop the spans that this second no longer keeps, from the sequence and the cache; return their views."""
        spans, dropped = prune(self._spans, self._round, self._config)
        self._keep(spans, dropped)
        is_query_gone = self._bundle.template.rules.repeats_query and all(s.part != "query" for s in spans)
        if is_query_gone or (self._config.mode == "window" and dropped):
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

    def _append_turn(self, turn: TurnInput) -> None:
        """Append the user turn and the opening of its assistant turn, or write the one turn anew."""
        video: sp.Spans = ()
        number, config = self._round, self._config
        if turn.grid is not None and turn.features is not None:
            time, rows, columns = turn.grid
            merge, depth = config.pixels.merge_size, config.pixels.temporal_patch_size
            grid = (time, rows // merge, columns // merge)
            video = self._turns.video(number, turn.start, grid, config.fps, depth, turn.kept)
            self._features[number] = turn.features
        if self._bundle.template.rules.one_turn:
            spans = self._turns.one_turn(self._spans, number, video, turn.question, config.query)
        else:
            query = config.query if config.query != self._query else ""
            question = turn.question or config.scratchpad
            spans = self._turns.user(number, turn.start, turn.end, video, question, query)
            spans = (*self._spans, *spans)
        self._query = config.query
        self._spans = sp.number_slots(spans)

    def _prefill(self) -> mx.array:
        """Run the model over the tokens that are not cached; return the last token's logits [vocab]."""
        runner = self._runner = self._runner or self._make_runner()
        if self._config.recomputes:
            runner.keep(np.zeros(0, np.int32))
        cached, ids = self.cache_length, self.ids
        self._prefilled_from = cached
        is_video = sp.join_video(self._spans, self._bundle.template.special.video_pad)[cached:]
        # A second may have several spans, but has one array of features.
        new = dict.fromkeys(s.round for s in self._spans if s.part == "video" and s.slots[0] >= cached)
        features = mx.concatenate([self._features[r] for r in new]) if is_video.any() else None
        positions = self._count_positions(cached)
        logits = runner.prefill(self._rows(ids[cached:]), positions, features, is_video, self._visibility())
        if not self._config.recomputes:
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
        self, logits: mx.array | None, sampler: Sampler, stopped: Callable[[], bool], scratch: Scratchpad
    ) -> mx.array | None:
        """Generate the line of the scratchpad; return the logits after it, None when the second ends within it."""
        visibility, runner = self._visibility(), self._runner
        assert runner is not None
        while logits is not None and not scratch.is_full:
            # No step starts ahead: what the line's last token sees is known once it is read.
            row = self._read(sampler.sample(logits, self._seen_rows, 0))
            token = self._bundle.vocabulary.to_id(row)
            if token in self._bundle.template.stop_ids or stopped():
                return None
            scratch.push(token)
            logits = runner.step(row, None if scratch.is_full or visibility is None else self._padded(visibility))
        return logits

    def _begin_reply(self, turn: TurnInput) -> Reply:
        """Return the empty reply to `turn`; the answer to a question may repeat what was said."""
        config, bundle = self._config, self._bundle
        self._guard.forget_before(turn.start)
        guard = self._guard if config.sampling.repetition_window and not turn.question else None
        with_notes = bool(config.scratchpad) and not turn.question
        template = bundle.template
        return Reply(bundle.tokenizer, template.stop_ids, with_notes, config.sampling, guard, template.rules.one_turn)

    def _decode(self, logits: mx.array, sampler: Sampler, stopped: Callable[[], bool], guarded: bool) -> Iterator[int]:
        """Yield the tokens of the commentary, up to and including a stop token, or up to the limit.

        With `guarded`, no n-gram is repeated.
        """
        limit, rows, runner = self._config.sampling.max_new_tokens, list[int](), self._runner
        assert runner is not None
        for step in range(limit):
            allowed = rule_out(logits, self._guard.banned(rows)) if guarded else logits
            choice = sampler.sample(allowed, self._seen_rows, step)
            # `_close_turn` takes back the step behind the last token.
            ahead = runner.start_step(choice) if self._runs_ahead and step + 1 < limit else None
            row = self._read(choice)
            rows.append(row)
            token = self._bundle.vocabulary.to_id(row)
            yield token
            if stopped() or token in self._bundle.template.stop_ids or step + 1 == limit:
                return
            logits = runner.step(row) if ahead is None else ahead

    def _read(self, choice: Choice) -> int:
        """Return the row of the next token, which is seen from now on."""
        row = read_row(choice)
        self._seen_rows = np.append(self._seen_rows, np.int32(row))
        return row

    def _padded(self, visibility: Visibility) -> Visibility:
        """Return `visibility` extended to all cached tokens: the scratchpad line so far is `OPEN` to itself."""
        return np.pad(visibility, (0, self.cache_length - len(visibility)), constant_values=OPEN)

    def _close_turn(self, turn: TurnInput, reply: Reply) -> None:
        """Append the reply and the turn's end mark, which is prefilled with the next second."""
        said, scratch = reply.said, reply.scratch.ids if reply.scratch else []
        if len(said) == len(reply.tokens) and not self._bundle.template.rules.keeps_last:
            said = said[:-1]
        self._guard.add(turn.start, self._rows(np.array(said, np.int32)).tolist(), reply.text)
        if self._bundle.template.rules.one_turn and not reply.text:
            said = []
        elif reply.is_repeated:
            said = [self._bundle.template.silence_id]
        self._forget_unsaid(reply.tokens, said, self.ids.size + len(scratch))
        spans = self._turns.reply(self._round, said, scratch)
        self._spans = sp.number_slots((*self._spans, *spans))
        self._round += 1

    def _forget_unsaid(self, tokens: list[int], said: list[int], start: int) -> None:
        """Drop from the cache the generated `tokens`, the first at `start`, from the first that is not `said` on.

        The last token goes too: it is cached only if a step ran ahead.
        """
        same = next((k for k, (one, other) in enumerate(zip(tokens, said, strict=False)) if one != other), len(said))
        end = start + min(same, max(len(tokens) - 1, 0))
        if self._runner and self.cache_length > end:
            self._runner.keep(np.arange(end, dtype=np.int32))

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
        c = self._config
        moves = c.mode == "streaming" and c.pos_mode == "shrink"
        capacity = count_window_tokens(self._spans, c, self._bundle.template)
        return make_runner(self._bundle.model, self._bundle.ranks, capacity, moves, c.kv_bits)
