"""Sessions without a model, with one that fails, and with a clip that vanishes; and their end."""

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import Failed
from tests.player.controller_harness import Watch
from tests.player.fakes import Blank, Scripted, until
from tui.player.controller import Commentator


async def test_without_a_model_the_clip_plays(watch: Watch) -> None:
    def make() -> Commentator:
        raise SvmError("no MLX here; install it.")

    async with watch(make) as w:
        assert (await w.until(Failed)).message == "no MLX here; install it."
        w.pass_time(3)
        assert w.controller.playhead.position == 3
        assert w.controller.gone
        w.controller.seek(10)
        w.pass_time(1)
        assert w.controller.playhead.position == 11
        assert w.log.record.failure == "no MLX here; install it."


async def test_a_model_that_can_not_be_loaded_leaves_a_player(watch: Watch) -> None:
    async with watch(Scripted(failure="model.safetensors is cut short."), pace="every") as w:
        assert (await w.until(Failed)).message == "model.safetensors is cut short."
        w.controller.seek(5)
        w.pass_time(2)
        assert w.controller.playhead.position == 7


async def test_a_defect_of_the_model_leaves_a_player(watch: Watch) -> None:
    class Broken(Scripted):
        def ask(self, question: str) -> None:
            self.lines = None  # type: ignore[assignment]

    engine = Broken()
    async with watch(engine) as w:
        await engine.until_spoken(0)
        w.controller.ask("break")
        w.pass_time(1)
        assert (await w.until(Failed)).message.startswith("the model stopped: AttributeError: ")
        w.pass_time(3)
        assert w.controller.playhead.position == 4
        engine.lines = {}
        w.controller.seek(9)
        await engine.until_spoken(9)


async def test_a_clip_that_vanishes_is_told_and_tried_again_after_a_seek(watch: Watch) -> None:
    engine, clip = Scripted(), Blank(vanishes=2)
    async with watch(engine, clip) as w:
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


async def test_closing_lets_everything_go(watch: Watch) -> None:
    engine, clip = Scripted(), Blank()
    async with watch(engine, clip):
        await engine.until_spoken(0)
    assert engine.closed
    await until(lambda: clip.closed)
