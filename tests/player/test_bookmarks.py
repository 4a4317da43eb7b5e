"""Bookmarks: set, listed, played from, and saved with the session."""

from pathlib import Path

import pytest
from textual.widgets import OptionList

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from tests.player.fakes import Scripted, StartPlayer, wait
from tui.player.screens.bookmarks import BookmarksScreen
from tui.player.widgets.timeline import Timeline


async def test_b_sets_a_bookmark_that_is_saved_and_removes_it(start_player: StartPlayer, tmp_path: Path) -> None:
    async with start_player() as p:
        await p.speak(4)
        await p.press("b", "1", "b")
        assert p.notice.splitlines()[0] == "bookmark at 00:06"
        assert load_session(tmp_path / "match.session.jsonl").bookmarks == (3, 6)
        await p.press("b", "e")
        assert "no bookmark any more at 00:06" in p.notice
        assert load_session(tmp_path / "match.session.json").bookmarks == (3,)
        assert load_session(tmp_path / "match.session.jsonl").bookmarks == (3,)
        assert p.screen.query_one(Timeline).render_line(0).text.count("◆") == 1


async def test_they_are_listed_with_what_was_said_and_played(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "Red serves", 1: "", 2: "[b]Out![/]"})) as p:
        await p.speak(3)
        await p.press("space", "b", "0", "b", "B")
        assert isinstance(p.app.screen, BookmarksScreen)
        shown = p.app.screen.query_one(OptionList)
        lines = [str(option.prompt) for option in shown.options]
        assert lines == ["00:00  Red serves", "00:02  [b]Out![/]"]
        await p.press("j", "enter")
        await wait(p.pilot)
        assert p.app.screen is p.screen
        assert p.position == 2
        await p.press("B", "escape")
        assert p.app.screen is p.screen
        assert p.position == 2


async def test_without_bookmarks_the_key_says_how_to_set_one(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.press("B")
        assert p.notice.splitlines()[0] == "there is no bookmark: b sets one at the current second."


def test_bookmarks_are_times_in_the_order_of_the_clip() -> None:
    record = SessionRecord().toggle_bookmark(7).toggle_bookmark(2).toggle_bookmark(9).toggle_bookmark(7)
    assert record.bookmarks == (2, 9)
    assert SessionRecord.from_dict(record.to_dict()) == record
    for wrong in (float("nan"), 1e300, "x"):
        with pytest.raises(SvmError, match="bookmark"):
            SessionRecord.from_dict({"version": 2, "bookmarks": [wrong]})
