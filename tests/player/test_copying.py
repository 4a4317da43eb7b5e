"""What the viewer takes out of the player: a line, a picture."""

from tests.player.fakes import Scripted, StartPlayer


async def test_y_copies_the_line_at_the_playhead(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "Red \x1b[1mserves", 1: "Out!", 2: ""})) as p:
        await p.speak(3)
        await p.press("y")
        assert p.app.clipboard == "Out!"
        assert p.notice.splitlines()[0] == "copied: Out!"
        await p.press("space", "0", "y")
        assert p.app.clipboard == "Red [1mserves"


async def test_without_commentary_nothing_is_copied(start_player: StartPlayer) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_player(engine) as p:
        p.app.copy_to_clipboard("before")
        await p.press("y")
        assert p.app.clipboard == "before"
        assert "there is no commentary to copy yet." in p.notice
