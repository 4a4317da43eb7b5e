"""Streams in LiveCC's style: the first turn of three seconds, messages, seeks, short clips, and bounded windows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.stream.events import Event, GenerationResult, SecondStarted, SpanMap
from streaming_vlm_mlx.stream.generate import Session
from streaming_vlm_mlx.stream_settings import PRESETS
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary
from tests.stream.engines import CONFIG, TEXT, Script, gather, make_chunks, rounds
from tests.stream.streams import Forced, Said, generate, make_bundle, make_second

ONE, TWO, THREE, SILENCE, IM_END = 825, 1378, 2326, 2503, 151645
LIVECC = replace(PRESETS["livecc"], query="Commentate on this match")
BOUNDED = replace(LIVECC, mode="streaming", pos_mode="shrink", window=2, text_round=3)
HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.fixture(scope="module")
def livecc(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    """A small model with vision whose turns are LiveCC's."""
    return make_bundle(tokenizer, vocabulary, style="livecc")


class Stream:
    """A session in which each turn says the same; `logits` holds those of each turn's first token."""

    def __init__(self, bundle: ModelBundle, config: StreamConfig = LIVECC) -> None:
        self.bundle, self.session = bundle, Session(bundle, config)
        self.logits: list[npt.NDArray[np.float32]] = []

    def play(self, seconds: Iterable[int], said: Sequence[int] = (ONE, IM_END), question: str = "") -> list[Said]:
        """Generate `seconds`, and ask `question` in each."""
        done = []
        for index in seconds:
            sampler = Forced(self.bundle.vocabulary, said)
            done.append(generate(self.session, make_second(index, question=question), sampler))
            self.logits += sampler.logits[:1]
        return done

    def ask_for(self, query: str) -> None:
        """Change the query."""
        self.session.configure(replace(self.session.config, query=query))

    @property
    def written(self) -> str:
        """The kept sequence as text, without its video."""
        return self.bundle.tokenizer.decode(self.session.ids, markup=True).replace("<|video_pad|>", "")


def turn(times: str, message: str = "", said: str = " one") -> str:
    video = "<|vision_start|><|vision_end|>"
    return f"<|im_start|>user\nTime={times}s{video}{message}<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n"


def test_the_first_turn_shows_three_seconds_and_each_later_one_shows_one(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    sums = [done.sum for done in stream.play(range(5))]
    assert [(s.index, s.start, s.end, s.text) for s in sums] == [
        (0, 0.0, 1.0, ""),
        (1, 1.0, 2.0, ""),
        (2, 2.0, 3.0, "one"),
        (3, 3.0, 4.0, "one"),
        (4, 4.0, 5.0, "one"),
    ]
    assert [(s.tokens, s.video_tokens) for s in sums] == [(0, 0), (0, 0), (2, 6), (2, 2), (2, 2)]
    assert all(s.timings.vision_ms > 0 for s in sums)
    assert sums[1].cache_tokens == 0 < sums[2].cache_tokens < sums[3].cache_tokens
    assert stream.written == HEAD + turn("0.0-3.0", LIVECC.query) + turn("3.0-4.0") + turn("4.0-5.0")


def test_the_last_token_is_dropped_at_the_limit_too(livecc: ModelBundle) -> None:
    sampling = replace(LIVECC.sampling, max_new_tokens=3)
    stream = Stream(livecc, replace(LIVECC, sampling=sampling))
    assert stream.play(range(3), [ONE, SILENCE, TWO])[-1].text == "one ... two"
    assert stream.written == HEAD + turn("0.0-3.0", LIVECC.query, " one ...")


def test_a_message_is_sent_where_it_changes_and_again_when_it_returns(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    stream.play(range(3))
    for second, query in ((3, " The reds lead"), (4, " The reds lead"), (5, LIVECC.query)):
        stream.ask_for(query)
        stream.play([second])
    later = turn("3.0-4.0", " The reds lead") + turn("4.0-5.0") + turn("5.0-6.0", LIVECC.query)
    assert stream.written == HEAD + turn("0.0-3.0", LIVECC.query) + later


def test_a_question_is_a_message(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    stream.play(range(3))
    (asked,) = stream.play([3], question="Who has the ball?")
    stream.play([4])
    assert (asked.sum.query, asked.sum.answer) == ("Who has the ball?", "one")
    assert stream.written.endswith(turn("3.0-4.0", "Who has the ball?") + turn("4.0-5.0"))


def test_a_question_while_the_first_turn_is_collected_is_asked_in_it(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    stream.play([0], question="Who has the ball?")
    assert stream.play([1, 2])[-1].sum.query == "Who has the ball?"
    assert stream.written == HEAD + turn("0.0-3.0", "Who has the ball?")


def test_after_a_seek_the_first_turn_has_three_seconds_again(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    stream.play(range(5))
    stream.session.reanchor()
    stream.play([20])
    stream.session.reanchor()
    assert [done.text for done in stream.play([9, 10, 11, 12])] == ["", "", "one", "one"]
    assert stream.written == HEAD + turn("9.0-12.0", LIVECC.query) + turn("12.0-13.0")
    anew = Stream(livecc)
    anew.play([9, 10, 11, 12])
    np.testing.assert_allclose(stream.logits[-2:], anew.logits, atol=1e-5)


def test_a_skipped_second_is_missing_in_the_first_turn(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    assert stream.play([0, 2, 3])[-1].sum.video_tokens == 6
    assert stream.written == HEAD + turn("0.0-4.0", LIVECC.query)


def test_a_clip_of_less_than_three_seconds_has_one_turn(livecc: ModelBundle) -> None:
    stream = Stream(livecc)
    assert list(stream.session.generate_rest()) == []
    stream.play([0, 1])
    waiting = stream.session.waiting
    assert waiting is not None
    assert waiting.index == 1
    _, *_, done = stream.session.generate_rest("Who?", Forced(livecc.vocabulary, [TWO, IM_END]))
    assert isinstance(done, GenerationResult)
    assert (done.index, done.start, done.text, done.video_tokens, done.query) == (1, 1.0, "two", 4, "Who?")
    assert stream.session.waiting is None
    assert stream.play([2])[0].text == "one"


def test_a_recomputed_stream_is_the_cached_one(livecc: ModelBundle) -> None:
    cached, recomputed = Stream(livecc), Stream(livecc, replace(BOUNDED, mode="recompute", window=9, text_round=9))
    for stream in (cached, recomputed):
        stream.play(range(7))
    assert np.array_equal(cached.session.ids, recomputed.session.ids)
    assert np.array_equal(cached.session.positions, recomputed.session.positions)
    np.testing.assert_allclose(cached.logits, recomputed.logits, atol=1e-4)


def test_windows_can_bound_the_stream(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> None:
    """With one layer, the cache of kept tokens is that of a model which reads only them."""
    bundle = make_bundle(tokenizer, vocabulary, layers=1, style="livecc")
    pruned, recomputed = Stream(bundle, BOUNDED), Stream(bundle, replace(BOUNDED, mode="recompute"))
    sizes = []
    for second in range(14):
        kept = [stream.play([second], [ONE, TWO, THREE, IM_END])[0].spans for stream in (pruned, recomputed)]
        sizes.append(pruned.session.cache_length)
        if second >= 6:
            now = second - 2
            assert [rounds(spans, "video") for spans in kept] == [[now - 1, now]] * 2
            assert rounds(kept[0], "text") == [now - 2, now - 1, now]
    np.testing.assert_allclose(pruned.logits, recomputed.logits, atol=1e-4)
    assert max(sizes[8:]) - min(sizes[8:]) <= len(tokenizer.encode(LIVECC.query)) + 2
    assert pruned.session.positions.max() < sizes[-1]


def test_a_bounded_stream_sends_its_message_again_once_it_is_dropped(livecc: ModelBundle) -> None:
    stream = Stream(livecc, replace(BOUNDED, pos_mode="append"))
    for second in range(9):
        stream.play([second])
        assert stream.written.count(LIVECC.query) == (second >= 2)
    # Each turn kept its positions, which went on growing.
    assert stream.session.positions.max() > stream.session.cache_length
    assert (np.diff(stream.session.positions[0]) > 0).all()


@pytest.fixture
def engine(tokenizer: Tokenizer, script: Script) -> Iterator[Engine]:
    """An engine in LiveCC's style that says the script."""
    config = replace(LIVECC, pixels=CONFIG.pixels)
    engine = Engine(lambda _: ("small", make_bundle(tokenizer, script, style="livecc")), config)
    yield engine
    engine.close()


def results(events: Iterable[Event]) -> list[tuple[int, str, str]]:
    return [(e.index, e.query, e.text) for e in events if isinstance(e, GenerationResult)]


async def test_a_viewer_s_question_waits_for_a_turn(engine: Engine) -> None:
    engine.ask("Who?")
    engine.ask("When?")
    events = await gather(engine, make_chunks(5))
    assert results(events) == [(0, "", ""), (1, "", ""), (2, "Who?", TEXT), (3, "When?", TEXT), (4, "", TEXT)]
    assert [e.index for e in events if isinstance(e, SecondStarted)] == list(range(5))
    assert [e.index for e in events if isinstance(e, SpanMap)] == list(range(5))


async def test_the_end_of_a_short_clip_completes_its_turn(engine: Engine) -> None:
    engine.ask("Who?")
    assert results(await gather(engine, make_chunks(2))) == [(0, "", ""), (1, "", ""), (1, "Who?", TEXT)]
    await engine.reanchor()
    assert results(await gather(engine, make_chunks(4, 7))) == [(7, "", ""), (8, "", ""), (9, "", TEXT), (10, "", TEXT)]


async def test_a_play_that_is_cancelled_completes_nothing(engine: Engine) -> None:
    events = []
    async for event in engine.play(make_chunks(2)):
        events.append(event)
        if isinstance(event, GenerationResult) and event.index == 1:
            engine.cancel()
    assert results(events) == [(0, "", ""), (1, "", "")]
