"""Lines of the player beside the commentary: loading, notes, failures."""

from pathlib import Path

import pytest
from textual.widgets import Static

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from tests.player.fakes import Clock, Feed, Player, Scripted, StartPlayer, spec, until, wait
from tui.player.app import PlayerApp
from tui.player.clip import FrameGrabber
from tui.player.presenter import NOTE_SECONDS
from tui.player.spec import Note
from tui.player.widgets.title import Title
from tui.player.widgets.transcript_view import TranscriptView


async def test_a_clip_that_cannot_be_shown_is_told_and_opened_again_after_a_seek(start_player: StartPlayer) -> None:
    opened = []

    def open_grabber() -> FrameGrabber:
        opened.append(1)
        raise SvmError("match.mp4 is gone; copy it back.")

    async with start_player(open_grabber=open_grabber) as p:
        await p.engine.until_spoken(0)
        await until(lambda: p.notice)
        assert p.notice == "no picture: match.mp4 is gone; copy it back."
        tries = len(opened)
        await p.pass_time(2)
        assert len(opened) == tries
        await p.press("right")
        await until(lambda: len(opened) > tries)


async def test_a_model_that_was_not_trained_to_stream_is_marked_and_explained(start_player: StartPlayer) -> None:
    said = "run1 was not trained to stream: it sees the last 4 frames."
    async with start_player(preset=said) as p:
        await p.engine.until_spoken(0)
        assert "(instruct)" in str(p.screen.query_one(Title).render())
        await p.press("question_mark")
        assert said in str(p.app.screen.query_one("#help-reading", Static).content)
    async with start_player() as p:
        await p.engine.until_spoken(0)
        assert "(instruct)" not in str(p.screen.query_one(Title).render())


async def test_an_error_of_the_model_is_told_and_the_clip_plays_on(start_player: StartPlayer) -> None:
    async with start_player(Scripted(failure="model.safetensors is cut short.")) as p:
        await until(lambda: "✗" in p.notice)
        assert p.notice == "✗ model.safetensors is cut short. The clip plays on without commentary."
        await p.pass_time(5)
        assert p.position == 5
        await p.press("right")
        assert p.position == 10


class BreakingFeed(Feed):
    """A feed that breaks where another one ends."""

    def read(self, number: int) -> Chunk | None:
        chunk = super().read(number)
        if chunk is None:
            raise SvmError("the camera is gone.")
        return chunk


async def test_a_feed_that_breaks_is_told_while_the_model_goes_on(start_player: StartPlayer) -> None:
    feed, engine = BreakingFeed(), Scripted()
    engine.free.clear()
    async with start_player(engine, seconds=feed) as p:
        feed.coming.put(0)
        await engine.until_begun(0)
        feed.coming.put(1)
        await until(lambda: p.position == 2)
        feed.coming.put(None)
        await until(lambda: "✗" in p.notice)
        engine.free.set()
        await engine.until_spoken(1)
        assert p.notice == "✗ the camera is gone. The feed has ended."


async def test_a_feed_that_breaks_is_told_while_the_model_is_loaded(start_player: StartPlayer) -> None:
    feed, engine = BreakingFeed(), Scripted()
    engine.loaded.clear()
    async with start_player(engine, seconds=feed) as p:
        feed.coming.put(0)
        feed.coming.put(None)
        await until(lambda: "✗" in p.notice)
        engine.loaded.set()
        await engine.until_spoken(0)
        assert p.notice == "✗ the camera is gone. The feed has ended."


async def test_a_failure_is_gone_when_the_model_goes_on_after_a_seek(start_player: StartPlayer) -> None:
    engine = Scripted()
    engine.free.clear()
    async with start_player(engine) as p:
        await engine.until_begun(0)
        engine.fails = "the graphics processor went away."
        engine.free.set()
        await until(lambda: "✗" in p.notice)
        await p.press("right")
        await engine.until_spoken(5)
        assert not p.notice


async def test_loading_shows_a_line_and_goes(start_player: StartPlayer) -> None:
    engine = Scripted(loading=4)
    engine.loaded.clear()
    async with start_player(engine) as p:
        await until(lambda: "━" in p.notice)
        assert p.notice == "◌ loading weights  ━━━━━━━━━━━━━━━─────"
        engine.loaded.set()
        await p.engine.until_spoken(0)
        assert not p.screen.query_one("#notice").display


async def test_remarks_cover_the_transcript_and_do_not_move_it(start_player: StartPlayer) -> None:
    async with start_player(size=(80, 24)) as p:
        await p.speak(2)
        view = p.screen.query_one(TranscriptView)
        region = view.region
        for number in range(5):
            p.screen.note(f"remark {number} " + "which takes more than a line of a toast of sixty cells")
        await wait(p.pilot)
        toast = p.screen.query_one("#toast")
        assert view.region == region
        assert toast.region in p.screen.region
        assert toast.size.height <= 5
        assert "remark 4" in toast.render_line(0).text


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (100, 30), (140, 42)])
@pytest.mark.parametrize("state", ["playing", "stats", "notes"])
async def test_remarks_do_not_cover_the_newest_commentary(
    start_player: StartPlayer, size: tuple[int, int], state: str
) -> None:
    engine = Scripted(dict.fromkeys(range(20), "a long rally goes on, from corner to corner, and he scores"))
    async with start_player(engine, size=size) as p:
        await p.press(*{"stats": "o", "notes": "w"}.get(state, ""))
        toast, view = p.screen.query_one("#toast"), p.screen.query_one(TranscriptView)
        for number in range(20):
            await engine.until_spoken(number)
            p.screen.note(f"remark {number} " + "which takes more than a line of a toast of sixty cells")
            await p.pass_time(1)
            newest = view.newest
            assert newest.height
            assert view.rows[-1].number == number
            assert toast.region.height
            assert toast.region in p.screen.region
            assert toast.region.y > 0
            assert not toast.region.overlaps(newest)


async def test_a_remark_is_shown_for_a_while(tmp_path: Path) -> None:
    engine, clock = Scripted(), Clock()

    def make(note: Note) -> Scripted:
        note("nobody trained \x1b[31mthis one.")
        return engine

    app = PlayerApp(spec(make, tmp_path), clock=clock, auto_tick=False)
    async with app.run_test() as pilot:
        p = Player(app, pilot, clock, engine)
        await engine.until_spoken(0)
        await wait(pilot)
        await p.pass_time(NOTE_SECONDS - 1)
        assert p.notice.splitlines()[-1] == "nobody trained [31mthis one."
        await p.pass_time(1)
        assert not p.screen.query_one("#toast").display


async def test_w_shows_what_the_model_wrote_down(start_player: StartPlayer) -> None:
    engine = Scripted(notes={1: "Red near, \x1b[1mpurple far.", 2: "Love all."})
    async with start_player(engine, size=(80, 24)) as p:
        pad = p.screen.query_one("#scratchpad", Static)
        assert not pad.display
        await p.press("w")
        assert str(pad.content) == "this model has written no notes so far."
        await p.speak(2)
        assert str(pad.content) == "00:01  Red near, [1mpurple far."
        await p.pass_time(1)
        await engine.until_spoken(2)
        await p.pass_time(0.25)
        assert str(pad.content) == "00:02  Love all."
        assert pad.region in p.screen.region
        await p.press("space", "0")
        assert str(pad.content) == "this model has written no notes so far."
        await p.press("w")
        assert not pad.display
