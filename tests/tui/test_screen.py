"""Every key and mode of the player's screen, on a scripted commentator and a clock that the test moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.export.journal import load_session
from tests.tui.stand_ins import Blank, Clock, Scripted, press, program, settle, until
from tui.app import PlayerApp
from tui.clip import Stills
from tui.program import Note
from tui.screens.help import HelpScreen
from tui.screens.player import PlayerScreen
from tui.screens.stage import REMARK
from tui.transcript import Row, Timed
from tui.widgets.cache_strip import FLASH, CacheStrip
from tui.widgets.heading import Heading
from tui.widgets.key_bar import KeyBar
from tui.widgets.prompt import LONGEST, Prompt
from tui.widgets.timeline import Timeline
from tui.widgets.title import Title
from tui.widgets.transcript_view import LIMIT, TranscriptView

TRUTH: tuple[Timed, ...] = ((0.2, 0.5, "second"), (0.6, 0.9, "nil"), (1.2, 1.5, "second"), (1.6, 1.9, "1"))


class Player:
    """The player under test, with hands on its clock and commentator."""

    def __init__(self, app: PlayerApp, pilot: Pilot[None], clock: Clock, engine: Scripted) -> None:
        self.app, self.pilot, self.clock, self.engine = app, pilot, clock, engine

    @property
    def screen(self) -> PlayerScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, PlayerScreen)
        return screen

    @property
    def position(self) -> float:
        return self.screen.conductor.playhead.position

    @property
    def rows(self) -> list[Row]:
        return list(self.screen.query_one(TranscriptView).rows)

    @property
    def title(self) -> str:
        return self.screen.query_one(Title).render().plain

    @property
    def notice(self) -> str:
        return str(self.screen.query_one("#notice", Static).content)

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, in ticks of a quarter."""
        for _ in range(round(4 * seconds)):
            self.clock.now += 0.25
            self.screen.tick()
        await settle(self.pilot)

    async def press(self, *keys: str) -> None:
        await press(self.pilot, *keys)

    async def read_truth(self) -> None:
        """Wait until the true transcript is read, which is done on a thread."""
        await until(lambda: self.screen.stage.transcript.truth)

    async def speak(self, count: int) -> None:
        """Play the first `count` seconds, each spoken."""
        for number in range(count):
            await self.engine.until_spoken(number)
            if number + 1 < count:
                await self.pass_time(1)
        await settle(self.pilot)


Play = Callable[..., AbstractAsyncContextManager[Player]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    @asynccontextmanager
    async def begin(
        engine: Scripted | None = None, size: tuple[int, int] = (120, 40), **changes: object
    ) -> AsyncIterator[Player]:
        engine, clock = engine or Scripted(), Clock()
        app = PlayerApp(program(lambda note: engine, tmp_path, **changes), clock=clock)  # type: ignore[arg-type]
        async with app.run_test(size=size) as pilot:
            yield Player(app, pilot, clock, engine)

    return begin


def truth(note: Note) -> tuple[Timed, ...]:
    return TRUTH


async def test_commentary_grows_word_by_word(play: Play) -> None:
    async with play(Scripted({0: "he cuts inside"})) as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(1)
        await settle(p.pilot)
        assert p.rows[-1] == Row(1, growing=True)
        p.engine.free.set()
        await p.engine.until_spoken(1)
        assert [row.said for row in p.rows] == [("he", "cuts", "inside"), ("second", "1")]
        assert not p.rows[-1].growing


async def test_space_pauses_and_plays(play: Play) -> None:
    async with play() as p:
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
async def test_keys_seek(play: Play, keys: list[str], lands: float) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("space", *keys)
        assert p.position == lands


async def test_a_click_on_the_bar_seeks_and_a_drag_goes_on(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("space")
        bar = p.screen.query_one(Timeline)
        await p.pilot.click(bar, offset=(bar.size.width // 2, 0))
        await settle(p.pilot)
        assert 28 <= p.position <= 31
        await p.pilot.mouse_down(bar, offset=(20, 0))
        await p.pilot.hover(bar, offset=(bar.size.width - 7, 0))
        await settle(p.pilot)
        assert p.position >= 55
        await p.pilot.mouse_up(bar, offset=(bar.size.width - 7, 0))
        await p.pilot.hover(bar, offset=(20, 0))
        assert p.position >= 55


async def test_the_bar_tells_the_time_under_the_pointer_and_what_is_left(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        bar = p.screen.query_one(Timeline)
        room = bar.size.width - len("00:00 ") - len(" −01:00")
        await p.pilot.hover(bar, offset=(len("00:00 ") + room // 2, 0))
        await settle(p.pilot)
        assert bar.tooltip in ("00:29", "00:30")
        await p.press("space", "5")
        assert bar.render_line(0).text.startswith("00:30 ")
        assert bar.render_line(0).text.endswith(" −00:30")
        assert "00:30 / 01:00" in p.title


async def test_brackets_change_the_speed(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("right_square_bracket", "right_square_bracket", "right_square_bracket")
        assert "2×" in p.title
        await p.pass_time(2)
        assert p.position == 4
        await p.press(*["left_square_bracket"] * 9)
        assert "0.25×" in p.title


async def test_full_stop_plays_one_second(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("space", "full_stop")
        await p.pass_time(4)
        assert p.position == 1
        assert "paused" in p.title


async def test_a_seek_shows_the_transcript_as_it_was_there(play: Play) -> None:
    async with play() as p:
        await p.speak(4)
        assert [row.number for row in p.rows] == [0, 1, 2, 3]
        p.engine.lines = {1: "again"}
        await p.press("space")
        p.screen.conductor.seek(1)
        assert [row.number for row in p.rows] == [0, 1]
        assert p.rows[1].said == ("second", "1")
        await p.press("space")
        await p.pass_time(0.5)
        await p.engine.until_spoken(1, times=2)
        assert [row.said for row in p.rows] == [("second", "0"), ("again",)]
        assert [s.text for s in p.app.session.record.takes] == ["second 1"]


async def test_what_the_model_has_no_time_for_is_marked(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(1)
        await p.pass_time(4)
        assert "−4.0 s" in p.title
        p.engine.free.set()
        await p.engine.until_spoken(5)
        await p.pass_time(0.25)
        assert [(row.number, row.passed) for row in p.rows] == [(0, 0), (1, 0), (2, 3), (5, 0)]
        assert "3 passed over" in p.title


async def test_l_takes_the_other_pace(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        p.engine.free.clear()
        await p.press("l")
        assert "every second" in p.title
        await p.pass_time(9)
        assert p.position == 2
        assert "waits for the model" in p.title
        await p.press("l")
        assert "live" in p.title


async def test_g_cycles_the_truth(play: Play) -> None:
    async with play(read_truth=truth) as p:
        await p.engine.until_spoken(0)
        await p.read_truth()
        await p.pass_time(0.75)
        assert p.rows[0].truth == ("second", "nil")
        await p.press("g")
        assert p.screen.stage.mode == "differences"
        assert (p.rows[0].said_off, p.rows[0].truth_off) == ({1}, {1})
        assert [meter.name for meter in p.screen.stage.figures.meters(0.0)][:3] == ["word errors", "ROUGE-L", "delay"]
        await p.press("g")
        assert (p.rows[0].truth, p.rows[0].said_off) == ((), frozenset())
        await p.press("g")
        assert p.rows[0].truth == ("second", "nil")


async def test_truth_is_shown_as_it_is_heard_and_before_the_model_is_there(play: Play) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with play(engine, read_truth=truth) as p:
        await p.read_truth()
        await p.press("space")
        await p.pass_time(1.25)
        assert [row.truth for row in p.rows] == [("second", "nil"), ("second",)]
        assert "loading" in p.notice


async def test_without_truth_the_commentary_has_the_whole_width(play: Play) -> None:
    long = " ".join(["word"] * 20)
    async with play(Scripted({0: long}), read_truth=lambda note: ()) as p:
        await p.engine.until_spoken(0)
        await settle(p.pilot)
        assert p.screen.stage.mode == "off"
        view = p.screen.query_one(TranscriptView)
        assert (
            max(len(strip.text.rstrip()) for strip in view.render_lines(view.size.region)) > view.size.width // 2 + 10
        )


async def test_a_broken_truth_is_told_and_the_clip_plays(play: Play) -> None:
    def broken(note: Note) -> tuple[Timed, ...]:
        raise SvmError("match.vtt holds no timed words.")

    async with play(read_truth=broken) as p:
        await p.engine.until_spoken(0)
        await until(lambda: p.notice)
        assert p.notice == "no truth: match.vtt holds no timed words."
        await p.press("g")
        assert p.screen.stage.mode == "off"


async def test_slash_asks(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("slash", *"who leads", "question_mark", "enter")
        assert not p.screen.query_one(Prompt).display
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "who leads?")]
        assert p.rows[1].question == "who leads?"
        assert [s.query for s in p.app.session.record.seconds] == ["", "who leads?"]


async def test_an_answer_stands_below_its_question_and_before_the_commentary(play: Play) -> None:
    async with play(Scripted({0: "", 1: "Blue, by two.\n and he serves"}), read_truth=truth) as p:
        await p.read_truth()
        await p.engine.until_spoken(0)
        p.screen.conductor.ask("who leads?")
        await p.pass_time(1.75)
        await p.engine.until_spoken(1)
        await settle(p.pilot)
        view = p.screen.query_one(TranscriptView)
        lines = [strip.text for strip in view.render_lines(view.size.region)]
        shown = [line[7:34].strip() for line in lines[1:4]]
        assert shown == ["? who leads?", "↳ Blue, by two.", "and he serves"]
        await p.press("g")
        # What answers a question is no commentary, and not held against the truth.
        assert p.rows[1].said_off == {3, 4, 5}
        second = p.app.session.record.seconds[1]
        assert (second.query, second.text) == ("who leads?", "Blue, by two.\n and he serves")


async def test_columns_have_names_and_differences_a_key(play: Play) -> None:
    async with play(read_truth=truth) as p:
        heading = p.screen.query_one(Heading)
        await p.read_truth()
        await p.engine.until_spoken(0)
        await p.pass_time(0.75)
        row = p.screen.query_one(TranscriptView).render_line(0).text
        assert heading.render().plain.index("truth") == row.index("second nil")
        await p.press("g")
        assert heading.render().plain.split() == ["commentary", "·", "added", "truth", "·", "missed"]
        await p.press("g")
        assert heading.render().plain.split() == ["commentary"]


async def test_a_clip_that_can_not_be_shown_is_told_and_opened_again_after_a_seek(play: Play) -> None:
    opened = []

    def open_stills() -> Stills:
        opened.append(1)
        raise SvmError("match.mp4 is gone; copy it back.")

    async with play(open_stills=open_stills) as p:
        await p.engine.until_spoken(0)
        await until(lambda: p.notice)
        assert p.notice == "no picture: match.mp4 is gone; copy it back."
        await p.pass_time(2)
        assert len(opened) == 1
        await p.press("right")
        await until(lambda: len(opened) == 2)


async def test_keys_in_a_burst_are_taken_in_order(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        for key, character in [("l", "l"), ("space", " "), ("q", "q"), ("enter", "\r"), ("space", " ")]:
            p.app.post_message(events.Key(key, character))
        await settle(p.pilot)
        assert "paused" in p.title
        assert "live" in p.title
        await p.press("space")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "l q")]


async def test_what_is_typed_before_the_line_is_open_is_not_lost(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        keys = [
            ("slash", "/"),
            *((key, key) for key in "goal"),
            ("question_mark", "?"),
            ("enter", "\r"),
            ("space", " "),
        ]
        for key, character in keys:
            p.app.post_message(events.Key(key, character))
        for _ in keys:
            await settle(p.pilot)
        assert p.app.screen is p.screen
        assert "paused" in p.title
        assert "live" in p.title
        await p.press("space")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "goal?")]


async def test_escape_leaves_the_question(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("slash", *"never mind", "escape")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == []
        await p.press("right")
        assert p.position == 6


async def test_a_pasted_novel_is_cut_to_a_line(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        field = p.screen.query_one(Prompt).query_one(Input)
        field.post_message(events.Paste("It was\n\x1b[31mthe best\x07 of times. " * 10_000))
        await settle(p.pilot)
        assert len(field.value) <= LONGEST
        assert field.value.startswith("It was [31mthe best of times. It was")


async def test_i_changes_the_standing_request(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("i", "end", *" in rhyme", "enter")
        assert p.engine.config.query.endswith(" in rhyme")
        assert p.app.session.record.settings["query"] == p.engine.config.query


async def test_t_changes_temperature_and_tokens(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("t", *"0.8", "enter")
        assert p.engine.config.sampling.temperature == 0.8
        await p.press("t", "tab", *"5", "enter")
        assert p.engine.config.sampling.max_new_tokens == 5


@pytest.mark.parametrize("typed", ["9", "-1", ""])
async def test_a_temperature_out_of_range_is_not_taken(play: Play, typed: str) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        before = p.engine.config
        await p.press("t", "delete", *typed, "enter")
        assert p.screen.query_one(Prompt).display
        assert p.engine.config == before


async def test_e_saves_what_was_said(play: Play, tmp_path: Path) -> None:
    async with play() as p:
        await p.speak(2)
        await p.press("e")
        assert load_session(tmp_path / "match.session.json").seconds == p.app.session.record.seconds
        assert "second 1" in (tmp_path / "match.session.vtt").read_text()
        await p.pass_time(1)
        await p.engine.until_spoken(2)
        await p.press("e")
        assert "second 2" in (tmp_path / "match.session.vtt").read_text()
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".jsonl", ".vtt"]


async def test_a_journal_is_kept_while_it_plays(play: Play, tmp_path: Path) -> None:
    async with play() as p:
        await p.speak(3)
        assert load_session(tmp_path / "match.session.jsonl").seconds == p.app.session.record.seconds


async def test_question_mark_explains_every_key(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("question_mark")
        assert isinstance(p.app.screen, HelpScreen)
        shown = str(p.app.screen.query_one("#help-keys", Static).content)
        for key in ("space", "←", "shift+→", "0–9", ".", "[", "g", "/", "i", "t", "p", "e", "? f1", "q ctrl+c"):
            assert f"{key}  " in shown
        await p.press("down", "escape")
        assert p.app.screen is p.screen


async def test_it_plays_on_behind_the_help(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press("question_mark")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        await p.press("escape")
        assert [row.number for row in p.rows] == [0, 1]


async def test_the_command_palette_offers_what_has_a_key(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        commands = {command.title: command.callback for command in p.app.get_system_commands(p.app.screen)}
        assert {"pause, play", "to the end", "theme", "screenshot"} <= commands.keys()
        await commands["to the end"]()
        assert p.position == 59


async def test_themes_redraw_what_is_shown(play: Play) -> None:
    async with play() as p:
        await p.speak(2)
        before = p.app.export_screenshot()
        p.app.theme = "daylight"
        await settle(p.pilot)
        after = p.app.export_screenshot()
        assert before != after
        assert "second" in after


async def test_old_rows_leave_the_screen_and_not_the_session(play: Play) -> None:
    async with play(seconds=Blank(5000.0)) as p:
        await p.engine.until_spoken(0)
        for number in range(1, LIMIT + 50):
            p.screen.stage.transcript.finish(number, f"words {number}", "")
        p.screen.conductor.seek(LIMIT + 49)
        assert len(p.rows) == LIMIT
        assert p.rows[-1].number == LIMIT + 49
        assert len(p.screen.stage.transcript.entries) == LIMIT + 50


async def test_it_follows_the_newest_row_unless_the_viewer_scrolled_away(play: Play) -> None:
    async with play(size=(80, 24), seconds=Blank(5000.0)) as p:
        await p.speak(30)
        view = p.screen.query_one(TranscriptView)
        assert view.is_vertical_scroll_end
        assert view.max_scroll_y > 0
        await p.press("up", "pageup")
        at = view.scroll_offset.y
        assert not view.is_vertical_scroll_end
        await p.pass_time(1)
        await p.engine.until_spoken(30)
        await settle(p.pilot)
        assert view.scroll_offset.y == at
        await p.press("pagedown", "pagedown", "down")
        assert view.is_vertical_scroll_end


async def test_the_cache_strip_flashes_what_was_dropped(play: Play) -> None:
    async with play() as p:
        await p.speak(5)
        strip = p.screen.query_one(CacheStrip)
        lit = strip.render_line(0).text
        assert "×" in lit
        assert "video 4 s" in lit
        # Or the next second would let go of more.
        await p.press("space")
        await p.pass_time(FLASH / 2)
        assert "×" in strip.render_line(0).text
        await p.pass_time(1)
        assert "×" not in strip.render_line(0).text


async def test_an_error_of_the_model_is_told_and_the_clip_plays_on(play: Play) -> None:
    async with play(Scripted(failure="model.safetensors is cut short.")) as p:
        await until(lambda: "✗" in p.notice)
        assert p.notice == "✗ model.safetensors is cut short. The clip plays on without commentary."
        await p.pass_time(5)
        assert p.position == 5
        await p.press("right")
        assert p.position == 10


async def test_loading_shows_a_line_and_goes(play: Play) -> None:
    engine = Scripted(loading=4)
    engine.loaded.clear()
    async with play(engine) as p:
        await until(lambda: "━" in p.notice)
        assert p.notice == "◌ loading weights  ━━━━━━━━━━━━━━━─────"
        engine.loaded.set()
        await p.engine.until_spoken(0)
        assert not p.screen.query_one("#notice").display


async def test_a_remark_is_shown_for_a_while(tmp_path: Path) -> None:
    engine, clock = Scripted(), Clock()

    def make(note: Note) -> Scripted:
        note("nobody trained \x1b[31mthis one.")
        return engine

    app = PlayerApp(program(make, tmp_path), clock=clock)
    async with app.run_test() as pilot:
        p = Player(app, pilot, clock, engine)
        await engine.until_spoken(0)
        await settle(pilot)
        await p.pass_time(REMARK - 1)
        assert p.notice.splitlines()[-1] == "nobody trained [31mthis one."
        await p.pass_time(1)
        assert not p.screen.query_one("#notice").display


async def test_control_characters_and_markup_are_shown_harmless(play: Play) -> None:
    line = "\x1b[2J[bold red]he[/] \x07\x9b31m\u202escores\r\n[@click=app.quit]x[/]"
    words = ((0.0, 0.5, "\x1b]0;title\x07[/]"), (0.5, 0.9, "[link"))
    async with play(Scripted({0: line}), read_truth=lambda note: words) as p:
        await p.engine.until_spoken(0)
        await p.read_truth()
        await p.pass_time(0.75)
        shown = "\n".join(strip.text for strip in p.screen.query_one(TranscriptView).render_lines(p.screen.region))
        assert "[bold red]he[/]" in shown
        assert "[@click=app.quit]x[/]" in shown
        assert not set(shown) & set("\x1b\x07\x9b\r\u202e")


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (60, 40), (80, 24), (120, 40), (200, 60), (1, 1)])
async def test_every_size_shows_the_commentary_or_nothing_at_all(play: Play, size: tuple[int, int]) -> None:
    async with play(size=size) as p:
        await p.speak(3)
        view = p.screen.query_one(TranscriptView)
        if size[1] >= 5:
            assert view.region in p.screen.region
            assert view.size.height >= 2
            assert "second" in "".join(strip.text for strip in view.render_lines(view.size.region))


async def test_a_storm_of_resizes_loses_nothing(play: Play) -> None:
    async with play(read_truth=truth) as p:
        await p.read_truth()
        await p.speak(2)
        for size in [(200, 60), (20, 5), (81, 23), (3, 3), (120, 40), (79, 24), (40, 9), (100, 30)]:
            await p.pilot.resize_terminal(*size)
            await settle(p.pilot)
            await p.pass_time(0.25)
        assert [row.said for row in p.rows[:2]] == [("second", "0"), ("second", "1")]
        view = p.screen.query_one(TranscriptView)
        assert "second" in "".join(strip.text for strip in view.render_lines(view.size.region))


@pytest.mark.parametrize(("width", "last"), [(80, "q quit"), (40, "q quit"), (10, "q quit")])
def test_hints_fit(width: int, last: str) -> None:
    from tui.screens.player import HINTS

    shown = KeyBar(HINTS).fitting(width)
    assert sum(hint.width for hint in shown) + 2 * (len(shown) - 1) <= max(width, len(last))
    assert f"{shown[-1].key} {shown[-1].text}" == last


async def test_a_click_on_a_hint_does_what_it_says(play: Play) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.pilot.click("#keys", offset=(3, 0))
        await settle(p.pilot)
        assert "paused" in p.title
        await p.pilot.click("#keys", offset=(15, 0))
        await settle(p.pilot)
        assert p.position == 5


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_keys_quit(play: Play, key: str) -> None:
    async with play() as p:
        await p.engine.until_spoken(0)
        await p.press(key)
        assert not p.app.is_running
    assert p.engine.closed


async def test_a_session_that_can_not_be_changed_asks_nothing(play: Play) -> None:
    async with play(config=None) as p:
        await p.engine.until_spoken(0)
        await p.press("slash", "i", "t")
        assert not p.screen.query_one(Prompt).display
