"""What seeks, pauses, steps and the end do to the second that is being spoken."""

from streaming_vlm_mlx.stream.events import Loading
from tests.player.controller_harness import StartController
from tests.player.fakes import Blank, Scripted, until
from tui.player.controller import Seeked


async def test_a_seek_reanchors_the_model(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.seek(41.7)
        assert w.controller.playhead.position == 41
        assert await w.until(Seeked) == Seeked(41.0)
        await engine.until_spoken(41)
        assert engine.anchors == 1
        assert w.done() == [0, 41]


async def test_what_is_said_of_a_second_that_was_left_is_dropped(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.controller.seek(30)
        engine.free.set()
        await engine.until_spoken(30)
        assert w.done() == [0, 30]
        after = w.events[w.events.index(Seeked(30.0)) :]
        assert all(getattr(event, "index", 30) == 30 for event in after)


async def test_a_second_that_is_played_again_replaces_the_older_take(start_controller: StartController) -> None:
    engine = Scripted({0: "first"})
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        engine.lines = {0: "again"}
        w.controller.seek(0)
        await engine.until_spoken(0, times=2)
        assert [s.text for s in w.log.record.seconds] == ["again"]
        assert [s.text for s in w.log.record.takes] == ["first"]


async def test_a_storm_of_seeks_ends_where_the_last_one_went(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        for number in range(1, 50):
            w.controller.seek(number)
            w.controller.tick()
        await engine.until_spoken(49)
        assert w.done() == [0, 49]


async def test_seeks_while_the_model_is_loaded_lose_nothing(start_controller: StartController) -> None:
    engine = Scripted(loading=1)
    engine.loaded.clear()
    async with start_controller(engine) as w:
        await w.until(Loading)
        w.controller.seek(12)
        w.controller.seek(20)
        engine.loaded.set()
        await engine.until_spoken(20)
        assert w.done() == [20]


async def test_a_pause_begins_nothing_new(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.toggle()
        w.pass_time(10)
        assert engine.begun == [0]
        w.controller.toggle()
        w.pass_time(1)
        await engine.until_spoken(1)


async def test_one_second_is_played_and_spoken(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine) as w:
        await engine.until_spoken(0)
        w.controller.toggle()
        w.controller.seek(10)
        w.pass_time(3)
        assert engine.begun == [0]
        w.controller.step()
        w.pass_time(3)
        await engine.until_spoken(10)
        assert (w.controller.playhead.position, w.controller.playhead.state) == (11, "paused")
        assert engine.begun == [0, 10]


async def test_the_end_can_be_played_again(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine, Blank(2.0), pace="every") as w:
        await engine.until_spoken(0)
        w.pass_time(1)
        await engine.until_spoken(1)
        w.pass_time(3)
        assert w.controller.playhead.state == "ended"
        w.controller.toggle()
        await engine.until_spoken(0, times=2)


async def test_a_looped_clip_begins_again_once_its_last_second_is_spoken(start_controller: StartController) -> None:
    engine = Scripted()
    async with start_controller(engine, Blank(2.0), loop=True) as w:
        await engine.until_spoken(0)
        engine.free.clear()
        w.pass_time(1)
        await engine.until_begun(1)
        w.pass_time(5)
        assert w.controller.playhead.state == "ended"
        engine.free.set()
        await engine.until_spoken(1)
        await until(lambda: w.controller.tick() < 2)
        await engine.until_spoken(0, times=2)
