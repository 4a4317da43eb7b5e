"""Search in commentary and truth."""

import pytest
from textual.widgets import Label

from tests.player.fakes import TRUTH, Scripted, StartPlayer, truth, wait
from tui.player.search import Match, find, nearest, step
from tui.player.transcript import Transcript, by_second
from tui.player.widgets.prompt import Prompt
from tui.player.widgets.transcript_view import TranscriptView

SAID = {0: "Red to", 1: "serve. Out!", 4: "RED serves wide", 9: "straße"}


@pytest.fixture
def transcript() -> Transcript:
    made = Transcript(by_second(TRUTH))
    for number, text in SAID.items():
        made.finish(number, text, "")
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("red", [(0, "commentary"), (4, "commentary")]),
        ("  red   TO serve", [(0, "commentary")]),
        ("out! red", [(1, "commentary")]),
        ("erve", [(1, "commentary"), (4, "commentary")]),
        ("STRASSE", [(9, "commentary")]),
        ("second", [(0.2, "truth"), (1.2, "truth")]),
        ("nil second 1", [(0.6, "truth")]),
        ("wide straße red", []),
        ("nil red", []),
        (" ", []),
    ],
)
def test_words_are_found_across_seconds_whatever_their_case(
    transcript: Transcript, text: str, found: list[tuple[float, str]]
) -> None:
    assert [(match.position, match.place) for match in find(transcript, text, 20.0, True)] == found


def test_matches_follow_each_other_in_a_circle() -> None:
    first, second, third = matches = (Match(1, "commentary"), Match(1.5, "truth"), Match(7, "commentary"))
    assert [nearest(matches, position) for position in (0, 1, 1.6, 9)] == [first, first, second, third]
    assert [step(matches, match, 1) for match in matches] == [second, third, first]
    assert [step(matches, match, -1) for match in matches] == [third, first, second]
    gone = Match(5, "truth")
    assert (step(matches, gone, 1), step(matches, gone, -1)) == (third, second)


async def test_keys_show_the_matches_and_play_from_one(start_player: StartPlayer) -> None:
    async with start_player(Scripted(SAID), size=(80, 24)) as p:
        await p.speak(6)
        await p.press("ctrl+f", *"red", "enter")
        assert p.notice.startswith("“red” 2 of 2: 00:04, commentary.")
        view = p.screen.query_one(TranscriptView)
        plain, marked = (view.render_line(line) for line in (3, 4))
        assert marked.text.strip() == "00:04  RED serves wide"
        background = {segment.style.bgcolor for segment in marked if segment.style}
        assert background.isdisjoint({segment.style.bgcolor for segment in plain if segment.style})
        assert p.position == 5
        await p.press("n")
        assert p.notice.startswith("“red” 1 of 2: 00:00, commentary.")
        await p.press("N", "enter")
        assert p.position == 4
        await p.press("escape")
        await wait(p.pilot)
        assert view.is_vertical_scroll_end
        assert not p.notice


def test_only_what_is_shown_is_found(transcript: Transcript) -> None:
    def places(text: str, position: float, with_truth: bool) -> list[float]:
        return [match.position for match in find(transcript, text, position, with_truth)]

    # Truth is shown word by word, and only on demand.
    assert places("second", 1.0, True) == [0.2]
    assert places("second", 0.0, True) == []
    assert places("second", 1.2, True) == [0.2, 1.2]
    assert places("nil second", 1.1, True) == []
    assert places("second", 20.0, False) == []
    # After a seek back, the commentary on later seconds is shown.
    assert places("red", 0.0, True) == [0, 4]


async def test_truth_is_not_found_before_it_is_heard(start_player: StartPlayer) -> None:
    async with start_player(Scripted(SAID), read_truth=truth) as p:
        await p.read_truth()
        await p.engine.until_spoken(0)
        await p.press("ctrl+f", *"1", "enter")
        assert p.notice == "“1” was not said so far."
        await p.pass_time(2)
        await p.press("ctrl+f", "enter")
        assert p.notice.splitlines()[0].startswith("“1” 1 of 1: 00:01, truth.")
        await p.press("0", "n")
        assert p.notice.splitlines()[0] == "“1” was not said so far."


async def test_truth_is_not_found_while_it_is_hidden(start_player: StartPlayer) -> None:
    async with start_player(Scripted(SAID), read_truth=truth) as p:
        await p.read_truth()
        await p.speak(3)
        label = p.screen.query_one(Prompt).query(Label).first()
        await p.press("ctrl+f")
        assert "commentary and truth" in str(label.content)
        await p.press("escape", "g", "g", "ctrl+f")
        assert p.screen.presenter.mode == "off"
        assert "truth" not in str(label.content)
        await p.press(*"nil", "enter")
        assert p.notice == "“nil” was not said so far."


async def test_words_that_nobody_said_are_told(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        # Without words, n asks for them.
        await p.press("n", *"goal", "enter")
        assert p.notice == "“goal” was not said so far."
        assert p.position == 0
