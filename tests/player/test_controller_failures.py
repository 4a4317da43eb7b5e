"""Sessions without a model, with one that fails, and with a clip that vanishes; and their end."""

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import Failed
from tests.player.controller_harness import StartController
from tests.player.fakes import Blank, Feed, Scripted, until
from tui.player.controller import ChunkArrived, Commentator
from tui.player.states import State


async def test_without_a_model_the_clip_plays(start_controller: StartController) -> None:
    def make() -> Commentator:
        raise SvmError("no MLX here; install it.")

    async with start_controller(make) as w:
        assert (await w.until(Failed)).message == "no MLX here; install it."
        w.pass_time(3)
        assert w.controller.playhead.position == 3
        assert w.controller.state is State.UNAVAILABLE
        w.controller.seek(10)
        w.pass_time(1)
        assert w.controller.playhead.position == 11
        assert w.log.record.failure == "no MLX here; install it."


async def test_a_model_that_cannot_be_loaded_leaves_a_player(start_controller: StartController) -> None:
    async with start_controller(Scripted(failure="model.safetensors is cut short."), pace="every") as w:
        assert (await w.until(Failed)).message == "model.safetensors is cut short."
        w.controller.seek(5)
        w.pass_time(2)
        assert w.controller.playhead.position == 7


async def test_a_defect_of_the_model_leaves_a_player(start_controller: StartController) -> None:
    class Broken(Scripted):
        def ask(self, question: str) -> None:
            self.lines = None  # type: ignore[assignment]

    engine = Broken()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.ask("break")
        w.pass_time(1)
        assert (await w.until(Failed)).message.startswith("the model stopped: AttributeError: ")
        w.pass_time(3)
        assert w.controller.playhead.position == 4
        engine.lines = {}
        w.controller.seek(9)
        await engine.until_spoken(9)


async def test_a_clip_that_vanishes_is_told_and_tried_again_after_a_seek(start_controller: StartController) -> None:
    engine, clip = Scripted(), Blank(vanishes=2)
    async with start_controller(engine, clip) as w:
        await engine.until_spoken(0)
        w.pass_time(1)
        await engine.until_spoken(1)
        assert (await w.until(Failed)).message == "match.mp4 is gone; copy it back."
        w.pass_time(2)
        assert w.controller.playhead.position == 3
        clip.vanishes = float("inf")
        w.controller.seek(6)
        await engine.until_spoken(6)
        assert w.done() == [0, 1, 6]


async def test_closing_lets_everything_go(start_controller: StartController) -> None:
    engine, clip = Scripted(), Blank()
    async with start_controller(engine, clip):
        await engine.until_spoken(0)
    assert engine.closed
    await until(lambda: clip.closed)


async def test_without_a_model_a_feed_plays_on(start_controller: StartController) -> None:
    def make() -> Commentator:
        raise SvmError("no MLX here; install it.")

    feed = Feed()
    async with start_controller(make, feed) as w:
        await w.until(Failed)
        for number in range(3):
            feed.coming.put(number)
            await w.until(ChunkArrived, number + 1)
        assert w.controller.playhead.position == 3
        feed.coming.put(None)


async def test_a_model_that_fails_while_loading_leaves_a_feed_that_plays_on(start_controller: StartController) -> None:
    feed = Feed()
    async with start_controller(Scripted(failure="model.safetensors is cut short."), feed) as w:
        await w.until(Failed)
        feed.coming.put(0)
        await w.until(ChunkArrived)
        feed.coming.put(None)


async def test_a_failure_ends_the_delay_of_the_second_under_way(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1.5)
        await engine.until_begun(1)
        engine.fails = "the graphics processor went away."
        engine.free.set()
        await w.until(Failed)
        w.pass_time(30)
        assert (w.controller.delay, w.controller.generating) == (0, False)


async def test_a_failure_of_the_abandoned_second_does_not_end_the_new_one(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine, pace="every") as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        engine.fails = "the graphics processor went away."
        w.controller.seek(9)
        engine.free.set()
        await engine.until_spoken(9)
        assert not [event for event in w.events if isinstance(event, Failed)]
        engine.free.clear()
        w.pass_time(5)
        assert w.controller.playhead.position == 11


async def test_an_engine_that_cannot_be_reanchored_leaves_a_player(start_controller: StartController) -> None:
    class Stuck(Scripted):
        async def reanchor(self) -> None:
            raise RuntimeError("out of memory")

    engine = Stuck()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.seek(9)
        assert (await w.until(Failed)).message == "the model stopped: RuntimeError: out of memory"
        assert w.controller.state is State.FAILED
        w.pass_time(2)
        assert w.controller.playhead.position == 11
