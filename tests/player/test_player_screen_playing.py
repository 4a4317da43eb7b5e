"""How the player's keys and bar play, seek and change pace."""

import pytest

from tests.player.fakes import Blank, Player, Scripted, StartPlayer, wait
from tui.player.metrics import Meter
from tui.player.transcript import TranscriptRow
from tui.player.widgets.gauges import Gauges
from tui.player.widgets.timeline import Timeline
from tui.player.widgets.transcript_view import TranscriptView


async def test_commentary_grows_word_by_word(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "he cuts inside"})) as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(1)
        await wait(p.pilot)
        assert p.rows[-1] == TranscriptRow(1, growing=True)
        p.engine.free.set()
        await p.engine.until_spoken(1)
        assert [row.said for row in p.rows] == [("he", "cuts", "inside"), ("second", "1")]
        assert not p.rows[-1].growing


async def test_space_pauses_and_plays(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("space")
        assert "paused" in p.title
        await p.pass_time(3)
        assert p.position == 0
        await p.press("space")
        await p.pass_time(3)
        assert p.position == 3
        assert "▶" in p.title


@pytest.mark.parametrize(
    ("keys", "lands"),
    [
        (["right"], 5),
        (["right", "right", "left"], 5),
        (["shift+right"], 30),
        (["shift+right", "shift+left"], 0),
        (["left"], 0),
        (["end"], 59),
        (["end", "home"], 0),
        (["5"], 30),
        (["9"], 54),
        (["9", "0"], 0),
    ],
)
async def test_keys_seek(start_player: StartPlayer, keys: list[str], lands: float) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("space", *keys)
        assert p.position == lands


async def test_a_click_on_the_bar_seeks_and_a_drag_goes_on(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("space")
        bar = p.screen.query_one(Timeline)
        await p.pilot.click(bar, offset=(bar.size.width // 2, 0))
        await wait(p.pilot)
        assert 28 <= p.position <= 31
        await p.pilot.mouse_down(bar, offset=(20, 0))
        await p.pilot.hover(bar, offset=(bar.size.width - 7, 0))
        await wait(p.pilot)
        assert p.position >= 55
        await p.pilot.mouse_up(bar, offset=(bar.size.width - 7, 0))
        await p.pilot.hover(bar, offset=(20, 0))
        assert p.position >= 55


async def test_a_click_on_a_line_of_the_commentary_seeks_there(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.speak(4)
        await p.pilot.click("#transcript", offset=(9, 1))
        await wait(p.pilot)
        assert p.position == 1
        # Below the last line there is nothing to go to.
        await p.pilot.click("#transcript", offset=(9, 12))
        await wait(p.pilot)
        assert p.position == 1


async def test_the_bar_tells_the_time_under_the_pointer_and_what_is_left(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        bar = p.screen.query_one(Timeline)
        room = bar.size.width - len("00:00 ") - len(" −01:00")
        await p.pilot.hover(bar, offset=(len("00:00 ") + room // 2, 0))
        await wait(p.pilot)
        assert bar.tooltip in ("00:29", "00:30")
        await p.press("space", "5")
        assert bar.render_line(0).text.startswith("00:30 ")
        assert bar.render_line(0).text.endswith(" −00:30")
        assert "00:30 / 01:00" in p.title
        # Nothing is left at the end, and nothing has no sign.
        await p.press("end", "space")
        p.screen.controller.change_speed(99)
        await p.pass_time(3)
        assert bar.render_line(0).text.endswith("  00:00")


async def test_brackets_change_the_speed(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("right_square_bracket", "right_square_bracket", "right_square_bracket")
        assert "2×" in p.title
        await p.pass_time(2)
        assert p.position == 4
        await p.press(*["left_square_bracket"] * 9)
        assert "0.25×" in p.title


async def test_full_stop_plays_one_second(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("space", "full_stop")
        await p.pass_time(4)
        assert p.position == 1
        assert "paused" in p.title


async def test_a_seek_shows_the_transcript_as_it_was_there(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.speak(4)
        assert [row.number for row in p.rows] == [0, 1, 2, 3]
        p.engine.lines = {1: "again"}
        await p.press("space")
        p.screen.controller.seek(1)
        # What comes later is dimmed.
        assert [(row.number, row.later) for row in p.rows] == [(0, False), (1, False), (2, True), (3, True)]
        assert p.rows[1].said == ("second", "1")
        await p.press("space")
        await p.pass_time(0.5)
        await p.engine.until_spoken(1, times=2)
        assert [row.said for row in p.rows] == [("second", "0"), ("again",), ("second", "2"), ("second", "3")]
        assert [s.text for s in p.app.session.record.takes] == ["second 1"]


async def test_what_the_model_has_no_time_for_is_marked(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(1)
        await p.pass_time(4)
        assert "4.0 s late" in p.title
        p.engine.free.set()
        await p.engine.until_spoken(5)
        await p.pass_time(0.25)
        assert [(row.number, row.skipped) for row in p.rows] == [(0, 0), (1, 0), (2, 3), (5, 0)]
        assert "3 skipped" in p.title


async def test_a_second_that_is_skipped_when_played_again_keeps_its_commentary(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.speak(5)
        p.engine.free.clear()
        p.screen.controller.seek(0)
        await p.engine.until_begun(0, times=2)
        await p.pass_time(3.25)
        p.engine.free.set()
        await p.engine.until_spoken(3, times=2)
        await p.pass_time(0.25)
        assert [row.said for row in p.rows] == [("second", str(number)) for number in range(5)]
        assert [row.later for row in p.rows] == [False] * 4 + [True]


async def test_l_takes_the_other_pace(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.press("l")
        assert "wait for model" in p.title
        await p.pass_time(9)
        assert p.position == 2
        assert "waiting" in p.title
        await p.press("l")
        assert "real time" in p.title


async def test_enter_goes_on_where_the_clip_was_left_and_quitting_keeps_the_position(start_player: StartPlayer) -> None:
    kept: list[float] = []
    async with start_player(left_at=31.4, remember=kept.append) as p:
        assert p.notice.splitlines()[-1] == "you left this clip at 00:31. enter: go on there"
        await p.engine.until_spoken(0)
        assert p.position == 0
        await p.press("enter")
        assert p.position == 31
        assert not p.notice
        # It is offered once.
        await p.press("right", "enter")
        assert p.position == 36
    assert kept == [36]


async def test_later_lines_are_dimmed_and_the_current_one_stays_in_sight(start_player: StartPlayer) -> None:
    async with start_player(size=(80, 24), seconds=Blank(100.0)) as p:
        await p.speak(40)
        await p.press("space")
        p.screen.controller.seek(20)
        await wait(p.pilot)
        view = p.screen.query_one(TranscriptView)
        lines = [strip.text.strip() for strip in view.render_lines(view.size.region)]
        assert "00:20  second 20" in lines
        # Some later lines are in sight, too, in another colour.
        at = lines.index("00:20  second 20")
        assert len(lines) // 2 < at < len(lines) - 2
        colours = [[s.style.color for s in view.render_line(y) if s.style and "second" in s.text] for y in (at, at + 1)]
        assert colours[0] != colours[1]
        p.engine.lines = {20: "again"}
        await p.press("space")
        await p.engine.until_spoken(20, times=2)
        await p.pass_time(1)
        await p.engine.until_spoken(21, times=2)
        await wait(p.pilot)
        shown = [strip.text.strip() for strip in view.render_lines(view.size.region)]
        assert shown.index("00:21  second 21") == at


async def test_the_current_line_stays_where_many_later_ones_follow(
    start_player: StartPlayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("presenter", "widgets.transcript_view"):
        monkeypatch.setattr(f"tui.player.{module}.MAX_ROWS", 40)
    points = {number: f"Point {number}." for number in range(300)}
    async with start_player(Scripted(points), seconds=Blank(300.0), per_second=False) as p:
        for number in range(200):
            p.screen.presenter.transcript.finish(number, points[number], "")
        p.screen.controller.seek(3)
        for number in range(3, 40):
            await p.engine.until_spoken(number)
            p.screen.presenter.tick()
            rows = [(row.number, row.later) for row in p.rows if row.said]
            assert (number, False) in rows
            assert (number + 1, True) in rows
            await p.pass_time(1)


async def test_the_gauges_are_one_line_of_what_fits(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.speak(2)
        gauges = p.screen.query_one(Gauges)
        for width, names in ((16, ["delay"]), (30, ["delay", "speed"]), (200, [m.name for m in metrics_of(p)])):
            gauges.styles.width = width
            p.screen.set_class(False, "-no-picture")
            await wait(p.pilot)
            shown = gauges.render().plain
            assert len(shown) <= gauges.size.width
            assert [name for name in (m.name for m in metrics_of(p)) if name in shown] == names


def metrics_of(p: Player) -> list[Meter]:
    return p.screen.presenter.metrics.meters(0.0)


async def test_the_screen_shows_sentences(start_player: StartPlayer) -> None:
    lines = {0: "Red", 1: "to serve. That's", 2: "a fault.", 3: "", 4: "Second serve,"}
    async with start_player(Scripted(lines), per_second=False) as p:
        await p.speak(2)
        assert [(row.number, row.place, " ".join(row.said)) for row in p.rows] == [
            (0, 0, "Red to serve."),
            (1, 2, "That's"),
        ]
        await p.pass_time(1)
        await p.engine.until_spoken(2)
        assert [" ".join(row.said) for row in p.rows] == ["Red to serve.", "That's a fault."]
        await p.pass_time(1)
        await p.engine.until_spoken(3)
        await p.pass_time(1)
        await p.engine.until_spoken(4)
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(5)
        # The sentence that goes on has the cursor.
        assert [(" ".join(row.said), row.growing) for row in p.rows][-2:] == [
            ("That's a fault.", False),
            ("Second serve,", True),
        ]
        assert [second.text for second in p.app.session.record.seconds] == list(lines.values())
        await p.press("y")
        assert p.app.clipboard == "Second serve,"
