"""Keys that the viewer gave to actions."""

from tests.player.fakes import StartPlayer, wait
from tui.player.screens.help import KeyTable
from tui.player.widgets.key_bar import KeyBar


async def test_new_keys_act_and_are_shown_and_the_old_ones_are_free(start_player: StartPlayer) -> None:
    keymap = {"play": "x", "seek-forward": "space", "slower": "f5"}
    async with start_player(keymap=keymap) as p:
        await p.engine.until_spoken(0)
        await p.press("x")
        assert "paused" in p.title
        await p.press("space")
        assert "paused" in p.title
        assert p.position == 5
        await p.press("right")
        assert p.position == 5
        bar = p.screen.query_one(KeyBar).render().plain
        for hint in ("x pause", "← space seek", "f5 ] speed", "/ ask"):
            assert hint in bar
        titles = {command.title: command.help for command in p.app.get_system_commands(p.app.screen)}
        assert titles["play: pause, play"] == "key x"
        await p.press("question_mark")
        await wait(p.pilot)
        shown = p.app.screen.query_one(KeyTable).render().plain
        assert "     x  pause, play" in shown
