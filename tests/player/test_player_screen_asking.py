"""What a viewer types: questions, the query, the sampling's settings."""

import pytest
from textual import events
from textual.widgets import Input, Label

from streaming_vlm_mlx.config import StreamConfig
from tests.player.fakes import Scripted, StartPlayer, truth, wait
from tui.player.presenter import NOTE_SECONDS
from tui.player.widgets.prompt import MAX_LENGTH, Prompt
from tui.player.widgets.transcript_view import TranscriptView


async def test_slash_asks(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("slash", *"who leads", "question_mark", "enter")
        assert not p.screen.query_one(Prompt).display
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "who leads?")]
        assert p.rows[1].question == "who leads?"
        assert [s.query for s in p.app.session.record.seconds] == ["", "who leads?"]


async def test_an_answer_stands_below_its_question_and_before_the_commentary(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "", 1: "Blue, by two.\n and he serves"}), read_truth=truth) as p:
        await p.read_truth()
        await p.engine.until_spoken(0)
        p.screen.controller.ask("who leads?")
        await p.pass_time(1.75)
        await p.engine.until_spoken(1)
        p.screen.presenter.flush()
        await wait(p.pilot)
        view = p.screen.query_one(TranscriptView)
        lines = [strip.text for strip in view.render_lines(view.size.region)]
        shown = [line[7:34].strip() for line in lines[1:4]]
        assert shown == ["? who leads?", "↳ Blue, by two.", "and he serves"]
        await p.press("g")
        # What answers a question is no commentary, and not held against the truth.
        assert p.rows[1].added == {3, 4, 5}
        second = p.app.session.record.seconds[1]
        assert (second.query, second.text) == ("who leads?", "Blue, by two.\n and he serves")


async def test_keys_in_a_burst_are_taken_in_order(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        for key, character in [("l", "l"), ("space", " "), ("q", "q"), ("enter", "\r"), ("space", " ")]:
            p.app.post_message(events.Key(key, character))
        await wait(p.pilot)
        assert "paused" in p.title
        assert "real time" in p.title
        await p.press("space")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "l q")]


async def test_what_is_typed_before_the_line_is_open_is_not_lost(start_player: StartPlayer) -> None:
    async with start_player() as p:
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
            await wait(p.pilot)
        assert p.app.screen is p.screen
        assert "paused" in p.title
        assert "real time" in p.title
        await p.press("space")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, "goal?")]


async def test_escape_leaves_the_question(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("slash", *"never mind", "escape")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == []
        await p.press("right")
        assert p.position == 6


@pytest.mark.parametrize(("typed", "told"), [("Who serves?", False), ("Is it raining?", True)])
async def test_the_prompt_says_what_may_be_asked_and_a_note_that_the_model_cannot_tell(
    start_player: StartPlayer, typed: str, told: bool
) -> None:
    async with start_player(questions=("Who serves?", "Where is the ball?")) as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        assert p.screen.query_one(Prompt).query_one(Input).placeholder == "Who serves? Where is the ball?"
        await p.press(*typed, "enter")
        assert ("was not taught that and cannot tell" in p.notice) is told
        assert p.notice.endswith("Ask Who serves? Where is the ball?") is told
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        assert p.engine.questions == [(1, typed)]


QUESTIONS = tuple(f"Who won set number {number}?" for number in range(1, 10))


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (200, f"{' '.join(QUESTIONS[:5])} … and 4 more"),
        (80, f"{QUESTIONS[0]} … and 8 more"),
        (60, f"{QUESTIONS[0]} … and 8 more"),
        (34, ""),
    ],
)
async def test_the_prompt_shows_questions_that_fit_whole_and_says_how_many_there_are(
    start_player: StartPlayer, width: int, shown: str
) -> None:
    async with start_player(size=(width, 24), questions=QUESTIONS) as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        line = p.screen.query_one(Prompt).query_one(Input)
        assert line.placeholder == shown
        assert line.size.width > len(shown)


async def test_the_note_on_a_question_that_was_not_taught_says_that_there_are_more(start_player: StartPlayer) -> None:
    async with start_player(questions=QUESTIONS) as p:
        await p.engine.until_spoken(0)
        await p.press("slash", *"Is it raining?", "enter")
        assert p.notice.startswith("asked: Is it raining?")
        assert p.notice.endswith(f"Ask {' '.join(QUESTIONS[:5])} … and 4 more")


async def test_a_note_replaces_the_former_one_on_what_was_typed_before(start_player: StartPlayer) -> None:
    async with start_player(Scripted({0: "red", 1: "red"}), questions=QUESTIONS) as p:
        await p.speak(2)
        await p.press("slash", *"Is it raining?", "enter", "slash", *QUESTIONS[0], "enter")
        assert p.notice == f"asked: {QUESTIONS[0]}"
        await p.pass_time(NOTE_SECONDS)
        await p.press("t", "delete", *"9", "enter", "escape", "t", *["backspace"] * 4, *"0.5", "enter")
        assert [line.partition(",")[0] for line in p.notice.splitlines()] == ["temperature 0.5"]
        await p.pass_time(NOTE_SECONDS)
        await p.press("ctrl+f", *"red", "enter", "n", "n")
        assert len(p.notice.splitlines()) == 1


async def test_a_long_question_leaves_room_for_the_note_that_it_was_not_taught(start_player: StartPlayer) -> None:
    async with start_player(size=(80, 24), questions=QUESTIONS) as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        p.screen.query_one(Prompt).query_one(Input).value = "Will it rain, or " * 20
        await p.press("enter")
        toast = p.screen.query_one("#toast")
        shown = " ".join(strip.text.strip() for strip in toast.render_lines(toast.size.region))
        assert "was not taught that and cannot tell" in shown


@pytest.mark.parametrize("width", [30, 36, 40, 60, 80, 200])
async def test_both_settings_are_seen_and_can_be_typed_at_every_width(start_player: StartPlayer, width: int) -> None:
    async with start_player(size=(width, 12)) as p:
        await p.engine.until_spoken(0)
        await p.press("t")
        prompt = p.screen.query_one(Prompt)
        for part in (*prompt.query(Label), *prompt.query(Input)):
            assert part.region in prompt.content_region
        assert all(line.size.width >= len("1000 ") for line in prompt.query(Input))
        assert all(label.size.height == 1 for label in prompt.query(Label))


@pytest.mark.parametrize("key", ["slash", "i", "ctrl+f"])
async def test_there_is_room_to_type_where_the_screen_is_narrow(start_player: StartPlayer, key: str) -> None:
    async with start_player(size=(40, 12)) as p:
        await p.engine.until_spoken(0)
        await p.press(key)
        prompt = p.screen.query_one(Prompt)
        line = prompt.query_one(Input)
        assert line.size.width >= 28
        await p.pilot.resize_terminal(120, 40)
        await wait(p.pilot)
        assert line.size.width >= 80
        assert len(str(prompt.query(Label).first().content).strip()) >= len("query")


async def test_questions_of_a_checkpoint_bring_no_escape_sequences_and_no_markup(start_player: StartPlayer) -> None:
    async with start_player(questions=("Who\x1b]0;pwned\x07 [red]serves[/]?",)) as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        line = p.screen.query_one(Prompt).query_one(Input)
        assert line.placeholder == "Who]0;pwned [red]serves[/]?"
        assert "[red]serves[/]?" in "".join(segment.text for segment in line.render_line(0))


async def test_a_pasted_novel_is_cut_to_a_line(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("slash")
        field = p.screen.query_one(Prompt).query_one(Input)
        field.post_message(events.Paste("It was\n\x1b[31mthe best\x07 of times. " * 10_000))
        await wait(p.pilot)
        assert len(field.value) <= MAX_LENGTH
        assert field.value.startswith("It was [31mthe best of times. It was")


async def test_i_changes_the_query(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("i", "end", *" in rhyme", "enter")
        assert p.engine.config.query.endswith(" in rhyme")
        assert p.app.session.record.settings["query"] == p.engine.config.query


async def test_t_changes_temperature_and_tokens(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("t", *"0.8", "enter")
        assert p.engine.config.sampling.temperature == 0.8
        await p.press("t", "tab", *"5", "enter")
        assert p.engine.config.sampling.max_new_tokens == 5


@pytest.mark.parametrize("typed", ["9", "-1", ""])
async def test_a_temperature_out_of_range_is_not_taken(start_player: StartPlayer, typed: str) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        before = p.engine.config
        await p.press("t", "delete", *typed, "enter")
        assert p.screen.query_one(Prompt).display
        assert p.engine.config == before


async def test_i_says_so_when_the_template_has_no_query(start_player: StartPlayer) -> None:
    async with start_player(config=StreamConfig(style="training")) as p:
        await p.engine.until_spoken(0)
        await p.press("i")
        assert not p.screen.query_one(Prompt).display
        assert p.notice == "this checkpoint's training template has no query: press / to ask about the next second."


async def test_settings_that_cannot_be_are_refused_with_their_limits(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("t", "tab", *["backspace"] * 4, *"99999", "enter")
        assert p.screen.query_one(Prompt).display
        assert p.notice.splitlines()[0] == "tokens per second must be 1 to 1000."


async def test_a_change_is_confirmed(start_player: StartPlayer) -> None:
    async with start_player() as p:
        await p.engine.until_spoken(0)
        await p.press("i", *"Call it in rhyme", "enter")
        assert p.notice.splitlines()[0] == "the query is: Call it in rhyme"
        await p.press("t", *["backspace"] * 4, *"0.5", "enter")
        assert p.notice.splitlines()[0].startswith("temperature 0.5, ")
        assert p.notice.splitlines()[0].endswith(" tokens per second")


async def test_a_recording_says_that_it_cannot_be_asked(start_player: StartPlayer) -> None:
    async with start_player(config=None) as p:
        await p.engine.until_spoken(0)
        for key in ("slash", "i", "t"):
            await p.press(key)
            assert not p.screen.query_one(Prompt).display
            assert "this commentary is recorded" in p.notice
