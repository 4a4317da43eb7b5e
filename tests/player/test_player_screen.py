"""The player's screen at every size and in every theme, its help, its exports and its end."""

import re
from itertools import groupby
from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.stream.events import SpanMap, SpanView
from tests.player.fakes import Blank, Scripted, StartPlayer, truth, wait
from tui.player.keymap import key_label
from tui.player.screens.help import HelpScreen, KeyTable, key_table
from tui.player.widgets.cache_strip import FLASH, CacheStrip
from tui.player.widgets.key_bar import KeyBar
from tui.player.widgets.transcript_view import MAX_ROWS, TranscriptView


async def test_e_saves_what_was_said(start_player: StartPlayer, tmp_path: Path) -> None:
    async with start_player() as p:
        await p.speak(2)
        await p.press("e")
        assert p.notice.endswith("/match.session.vtt and .json")
        assert load_session(tmp_path / "match.session.json").seconds == p.app.session.record.seconds
        assert "second 1" in (tmp_path / "match.session.vtt").read_text()
        await p.pass_time(1)
        await p.engine.until_spoken(2)
        await p.press("e")
        assert "second 2" in (tmp_path / "match.session.vtt").read_text()
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".jsonl", ".vtt"]


async def test_a_journal_is_kept_while_it_plays(start_player: StartPlayer, tmp_path: Path) -> None:
    async with start_player() as p:
        await p.speak(3)
        assert load_session(tmp_path / "match.session.jsonl").seconds == p.app.session.record.seconds


async def test_question_mark_explains_every_key(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("question_mark")
        assert isinstance(p.app.screen, HelpScreen)
        shown = p.app.screen.query_one(KeyTable).render().plain
        for key in ("space", "←", "shift+→", "0–9", ".", "[", "g", "/", "i", "t", "p", "e", "? f1", "q ctrl+c"):
            assert f"{key}  " in shown
        await p.press("down", "escape")
        assert p.app.screen is p.screen


@pytest.mark.parametrize(
    ("size", "least"),
    [((30, 12), 20), ((40, 12), 30), ((76, 24), 66), ((80, 24), 70), ((140, 42), 96), ((200, 60), 96)],
)
async def test_no_text_of_the_help_is_among_its_keys_and_it_is_wide_where_there_is_room(
    start_player: StartPlayer, size: tuple[int, int], least: int
) -> None:
    async with start_player(size=size) as p:
        await p.engine.until_spoken(0)
        await p.press("question_mark")
        table = p.app.screen.query_one(KeyTable)
        assert table.size.width >= least
        lines = [strip.text for strip in table.render_lines(table.size.region)]
        keys = {" ".join(map(key_label, binding.key.split(","))) for binding in p.screen.offered} | {"ctrl+p", ""}
        texts = lines[0].index("pause, play")
        assert {line[:texts].strip() for line in lines} <= keys
        assert any("ctrl+p  commands," in line for line in lines)
        await p.pilot.resize_terminal(120, 40)
        await wait(p.pilot)
        lines = [strip.text.rstrip() for strip in table.render_lines(table.size.region)]
        assert any(line.endswith("ctrl+p  commands, themes") for line in lines[-2:])


ENTRIES = [("space", "pause, or play on"), ("g", "truth"), ("enter", "play from the match"), ("?", "this help")]


def test_long_entries_of_the_help_are_wrapped_within_their_column() -> None:
    assert [line.plain.rstrip() for line in key_table(ENTRIES, 70)] == [
        "space  pause, or play on   enter  play from the match",
        "    g  truth                   ?  this help",
    ]
    assert [line.plain.rstrip() for line in key_table(ENTRIES, 41, two_from=0)] == [
        "space  pause, or      enter  play from",
        "       play on               the match",
        "    g  truth              ?  this help",
    ]
    assert [line.plain.rstrip() for line in key_table(ENTRIES, 20)] == [
        "space  pause, or",
        "       play on",
        "    g  truth",
        "enter  play from the",
        "       match",
        "    ?  this help",
    ]


async def test_it_plays_on_during_the_help(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("question_mark")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        await p.press("escape")
        assert [row.number for row in p.rows] == [0, 1]


async def test_the_command_palette_offers_what_has_a_key(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        commands = {command.title: command.callback for command in p.app.get_system_commands(p.app.screen)}
        assert {"play: pause, play", "view: theme", "session: screenshot"} <= commands.keys()
        purposes = [title.partition(":")[0] for title in sorted(commands)]
        assert [purpose for purpose, _ in groupby(purposes)] == [
            "commentary",
            "find",
            "play",
            "seek",
            "session",
            "sound",
            "view",
        ]
        await commands["seek: to the end"]()
        assert p.position == 59


async def test_the_screen_is_saved_beside_the_session_and_never_over_another(
    start_player: StartPlayer, tmp_path: Path
) -> None:
    async with start_player() as p:
        await p.speak(1)
        for name in ("match.session.svg", "match.session-2.svg"):
            p.app.save_screen()
            assert p.notice.splitlines()[0].startswith("the screen is in /")
            assert p.notice.splitlines()[0].endswith(f"/{name}")
            assert (tmp_path / name).read_text().startswith("<svg")


async def test_a_screen_that_cannot_be_saved_is_told(start_player: StartPlayer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with start_player(base_paths=(tmp_path / "file" / "match",)) as p:
        await p.speak(1)
        p.app.save_screen()
        assert "cannot be written" in p.notice


async def test_themes_redraw_what_is_shown(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.speak(2)
        before = p.app.export_screenshot()
        p.app.theme = "daylight"
        await wait(p.pilot)
        after = p.app.export_screenshot()
        assert before != after
        assert "second" in after


async def test_without_colour_everything_is_grey(start_player: StartPlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with start_player(read_truth=truth) as p:
        await p.read_truth()
        await p.speak(2)
        await p.press("g")
        # Of the window that an SVG draws around the screen.
        window = {"ff5f57", "febc2e", "28c840", "c5c8c6"}
        colours = set(re.findall("#([0-9a-f]{6})", p.app.export_screenshot())) - window
        assert len(colours) > 3
        assert not [colour for colour in colours if not colour[:2] == colour[2:4] == colour[4:]]


async def test_old_rows_leave_the_screen_and_not_the_session(start_player: StartPlayer) -> None:
    async with start_player(seconds=Blank(5000.0)) as p:
        await p.engine.until_spoken(0)
        for number in range(1, MAX_ROWS + 50):
            p.screen.presenter.transcript.finish(number, f"words {number}", "")
        p.screen.controller.seek(MAX_ROWS + 49)
        assert len(p.rows) == MAX_ROWS
        assert p.rows[-1].number == MAX_ROWS + 49
        assert len(p.screen.presenter.transcript.entries) == MAX_ROWS + 50


async def test_it_follows_the_newest_row_unless_the_viewer_scrolled_away(start_player: StartPlayer) -> None:
    async with start_player(size=(80, 24), seconds=Blank(5000.0)) as p:
        await p.speak(30)
        view = p.screen.query_one(TranscriptView)
        assert view.is_vertical_scroll_end
        assert view.max_scroll_y > 0
        await p.press("up", "pageup")
        at = view.scroll_offset.y
        assert not view.is_vertical_scroll_end
        await p.pass_time(1)
        await p.engine.until_spoken(30)
        await wait(p.pilot)
        assert view.scroll_offset.y == at
        await p.press("pagedown", "pagedown", "down")
        assert view.is_vertical_scroll_end


async def test_the_cache_strip_flashes_what_was_dropped(start_player: StartPlayer) -> None:
    async with start_player() as p:
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


async def test_the_cache_strip_counts_video_that_was_left_out(start_player: StartPlayer) -> None:
    async with start_player() as p:
        strip = p.screen.query_one(CacheStrip)
        video = (SpanView("video", 0, 60), SpanView("video", 1, 12, 48), SpanView("video", 2, 8, 52))
        strip.show(SpanMap(2, (SpanView("system", -1, 10), *video), ()), 0.0)
        assert "video 3 s, 56% still" in strip.render_line(0).text


async def test_control_characters_and_markup_are_shown_harmless(start_player: StartPlayer) -> None:
    line = "\x1b[2J[bold red]he[/] \x07\x9b31m\u202escores\r\n[@click=app.quit]x[/]"
    words = ((0.0, 0.5, "\x1b]0;title\x07[/]"), (0.5, 0.9, "[link"))
    async with start_player(Scripted({0: line}), read_truth=lambda note: words) as p:
        await p.engine.until_spoken(0)
        await p.read_truth()
        await p.pass_time(0.75)
        shown = "\n".join(strip.text for strip in p.screen.query_one(TranscriptView).render_lines(p.screen.region))
        assert "[bold red]he[/]" in shown
        assert "[@click=app.quit]x[/]" in shown
        assert not set(shown) & set("\x1b\x07\x9b\r\u202e")


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (60, 40), (80, 24), (120, 40), (200, 60), (1, 1)])
async def test_every_size_shows_the_commentary_or_nothing_at_all(
    start_player: StartPlayer, size: tuple[int, int]
) -> None:
    async with start_player(size=size) as p:
        await p.speak(3)
        view = p.screen.query_one(TranscriptView)
        if size[1] >= 5:
            assert view.region in p.screen.region
            assert view.size.height >= 2
            assert "second" in "".join(strip.text for strip in view.render_lines(view.size.region))


async def test_a_storm_of_resizes_loses_nothing(start_player: StartPlayer) -> None:
    async with start_player(read_truth=truth) as p:
        await p.read_truth()
        await p.speak(2)
        for size in [(200, 60), (20, 5), (81, 23), (3, 3), (120, 40), (79, 24), (40, 9), (100, 30)]:
            await p.pilot.resize_terminal(*size)
            await wait(p.pilot)
            await p.pass_time(0.25)
        assert [row.said for row in p.rows[:2]] == [("second", "0"), ("second", "1")]
        view = p.screen.query_one(TranscriptView)
        assert "second" in "".join(strip.text for strip in view.render_lines(view.size.region))


@pytest.mark.parametrize(("width", "last"), [(80, "q quit"), (40, "q quit"), (10, "q quit")])
def test_hints_fit(width: int, last: str) -> None:
    from tui.player.screens.player import HINTS

    shown = KeyBar(HINTS).fitting(width)
    assert sum(hint.width for hint in shown) + 2 * (len(shown) - 1) <= max(width, len(last))
    assert f"{shown[-1].key} {shown[-1].text}" == last


async def test_a_click_on_a_hint_does_what_it_says(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.pilot.click("#keys", offset=(3, 0))
        await wait(p.pilot)
        assert "paused" in p.title
        await p.pilot.click("#keys", offset=(23, 0))
        await wait(p.pilot)
        assert p.position == 5


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_keys_quit(start_player: StartPlayer, key: str) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press(key)
        assert not p.app.is_running
    assert p.engine.closed
