"""What clients command and read, through the socket of a player without a terminal."""

from contextlib import AsyncExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from tests.player.fakes import Blank, Feed, Scripted, StartPlayer, until, wait
from tests.player.ipc.client import connected
from tests.player.ipc.conftest import StartServed
from tests.player.voices import Audible, FakeDevice, FakeSpeaker, missing_device
from tui.player.sound import SoundSpec
from tui.player.voice import VoiceSpec
from tui.player.widgets.prompt import MAX_LENGTH


async def test_play_pause_toggle_and_step(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        for command, state in [("pause", "paused"), ("pause", "paused"), ("play", "playing"), ("play", "playing")]:
            assert await client.command(command) is None
            assert await client.command("get", "state") == state
        await client.command("toggle")
        assert await client.command("get", "state") == "paused"
        await client.command("step")
        await p.pass_time(3)
        assert p.position == 1.0
        assert "paused" in p.title


async def test_pausing_while_the_model_loads_waits_for_it(start_served: StartServed) -> None:
    engine = Scripted(loading=3)
    engine.loaded.clear()
    async with start_served(engine) as (p, client):
        await until(lambda: p.screen.controller.state.name == "LOADING")
        await client.command("pause")
        assert await client.command("get", "state") == "paused"
        await client.command("play")
        assert await client.command("get", "state") == "waiting"
        assert await client.command("get", "model_state") == "loading"
        engine.loaded.set()
        await engine.until_spoken(0)


@pytest.mark.parametrize(
    ("arguments", "position"),
    [
        ((12.5,), 32),
        ((-12.5,), 7),
        ((-100,), 0),
        ((12.5, "relative"), 32),
        ((12.5, "absolute"), 12),
        ((1e9, "absolute"), 59),
        ((50, "absolute-percent"), 30),
    ],
)
async def test_seek(start_served: StartServed, arguments: tuple[object, ...], position: int) -> None:
    async with start_served(start=20.0) as (p, client):
        await p.engine.until_spoken(20)
        assert await client.command("seek", *arguments) == position == p.position
        await p.engine.until_spoken(position, 1)


async def test_play_at_the_end_begins_again(start_served: StartServed) -> None:
    async with start_served(seconds=Blank(2.0)) as (p, client):
        await p.speak(2)
        await p.pass_time(1)
        assert await client.command("get", "state") == "ended"
        await client.command("play")
        assert await client.command("get", "state") == "playing"
        assert p.position == 0


async def test_a_question_goes_into_the_next_second_as_a_typed_one_does(start_served: StartServed) -> None:
    async with start_served(Scripted({1: "Blue, by two.\n and he serves"})) as (p, client):
        await p.engine.until_spoken(0)
        assert await client.command("observe", "events") == ["events"]
        asked = await client.command("ask", "\x1b[31mwho\n\tleads\u202e? " + "x" * 600)
        assert asked.startswith("[31mwho leads? xxx")
        assert len(asked) == MAX_LENGTH
        assert p.notice.startswith("asked: [31mwho leads?")
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        second = await client.event(lambda event: event["event"] == "second" and event["index"] == 1)
        assert (second["query"], second["answer"], second["commentary"]) == (asked, "Blue, by two.", " and he serves")
        assert p.engine.questions == [(1, asked)]


async def test_only_so_many_questions_wait(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        for number in range(10):
            await client.command("ask", f"question {number}")
        with pytest.raises(ValueError, match="10 questions wait for their seconds already; ask later"):
            await client.command("ask", "one more")
        # The fake keeps the last one only.
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        await client.command("ask", "one more")
        assert p.engine.questions == [(1, "question 9")]


async def test_settings_change_from_the_next_second_on(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        assert await client.command("set", "window", 8) == 8
        assert p.engine.config.window == 8
        assert p.notice == "window 8"
        assert p.app.session.record.settings["window"] == 8
        p.clock.now += 1
        assert await client.command("set", "sampling.temperature", 0.5) == 0.5
        assert p.engine.config == replace(StreamConfig(window=8), sampling=SamplingConfig(temperature=0.5))
        p.clock.now += 1
        # The viewer's keys go on from there.
        await p.press("t", "enter")
        assert p.engine.config.sampling.temperature == 0.5
        assert await client.command("set", "query", "Call it\nin rhyme\x07") == "Call it in rhyme"
        assert p.engine.config.query == "Call it in rhyme"
        assert (await client.command("get", "settings"))["query"] == "Call it in rhyme"


async def test_of_quick_changes_the_last_one_counts(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        for number in range(30):
            await client.command("set", "sampling.temperature", number / 10)
        assert await client.command("get", "sampling.temperature") == 2.9
        assert p.engine.config.sampling.temperature == 0.1
        p.clock.now += 1
        assert p.app.server
        p.app.server.tick()
        assert p.engine.config.sampling.temperature == 2.9


async def test_mute_and_volume(start_served: StartServed) -> None:
    spec = SoundSpec(lambda track, clock: None, 40.0)
    async with start_served(sound=spec) as (p, client):
        assert p.screen.sound
        assert await client.command("get", "volume") == 40.0
        assert await client.command("set", "volume", 75) == 75 == p.screen.sound.volume
        assert await client.command("set", "mute", True) is True is p.screen.sound.muted
        for name, value in (("mute", 1), ("volume", 101), ("volume", True), ("volume", None)):
            with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
                await client.command("set", name, value)
    async with start_served() as (_, client):
        assert await client.command("get", "mute") is None
        with pytest.raises(ValueError, match="--no-sound"):
            await client.command("set", "mute", True)


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("speed", 2, "speed 2×"),
        ("speed", 0.25, "speed 0.25×"),
        ("pace", "every", "pace every"),
        ("mute", True, "muted"),
        ("volume", 75, "volume 75 %"),
        ("voice", True, "voice on"),
        ("query", "Call it in rhyme", "the query is: Call it in rhyme"),
        ("window", 8, "window 8"),
        ("sampling.temperature", 2.0, "temperature 2"),
        ("sampling.max_new_tokens", 20, "max_new_tokens 20"),
        ("sampling.max_words", None, "max_words none"),
    ],
)
async def test_what_a_client_sets_is_noted_as_the_keys_note_it(
    start_served: StartServed, name: str, value: object, note: str
) -> None:
    device = FakeDevice()
    heard = {
        "sound": SoundSpec(lambda *_: Audible(), 40.0, device.open),
        "voice": VoiceSpec(open_speaker=lambda _: FakeSpeaker()),
    }
    async with start_served(**heard) as (p, client):
        await p.engine.until_spoken(0)
        await until(lambda: device.is_open)
        await client.command("set", name, value)
        assert p.notice == note


async def test_the_voice(start_served: StartServed) -> None:
    missing = False

    def open_speaker(_: str | None) -> FakeSpeaker:
        if missing:
            raise SvmError("there is no program to speak with; install espeak-ng.")
        return FakeSpeaker()

    spec = {"voice": VoiceSpec(open_speaker=open_speaker), "sound": SoundSpec(lambda *_: None, 40.0, FakeDevice().open)}
    async with start_served(**spec) as (p, client):
        assert await client.command("get", "voice") is False
        for on in (True, True, False):
            assert await client.command("set", "voice", on) is on is (p.screen.voice is not None)
        with pytest.raises(ValueError, match="voice is 1; it must be true or false"):
            await client.command("set", "voice", 1)
        missing = True
        with pytest.raises(ValueError, match="no voice: there is no program to speak with; install espeak-ng"):
            await client.command("set", "voice", True)


async def test_a_voice_without_a_device_is_refused(start_served: StartServed) -> None:
    spec = {
        "voice": VoiceSpec(open_speaker=lambda _: FakeSpeaker()),
        "sound": SoundSpec(lambda *_: Audible(), open_device=missing_device),
    }
    async with start_served(**spec) as (p, client):
        await until(lambda: p.screen.sound and p.screen.sound.no_device)
        with pytest.raises(ValueError, match="no voice: no sound device can be opened; connect one"):
            await client.command("set", "voice", True)
        assert await client.command("get", "voice") is False


async def test_speed_and_pace(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        for speed in (4, 0.25, 1.5):
            assert await client.command("set", "speed", speed) == speed == p.screen.controller.playhead.speed
        assert await client.command("set", "pace", "every") == "every" == p.screen.controller.pace


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pauze"], "there is no command 'pauze'; did you mean 'pause'"),
        (["pause", 1], "pause takes no arguments"),
        (["seek"], r"seek takes SECONDS \[relative\|absolute\|absolute-percent\]"),
        (["seek", 1, "absolute", 2], "seek takes SECONDS"),
        (["seek", "12"], "the target of seek is '12'; it must be a number"),
        (["seek", True], "the target of seek is True"),
        (["seek", 1e300, "absolute-percent"], "the target of seek"),
        (["seek", 1, "exact"], "the mode of seek is 'exact'"),
        (["seek", 1, []], r"the mode of seek is \[\]"),
        (["ask", " \x07 "], "the question is"),
        (["ask", 7], "the question is 7; it must be a text"),
        (["get", "positoin"], "there is no property 'positoin'; did you mean 'position'"),
        (["get", ["position"]], "the name is"),
        (["get", "position", 1], "position takes no arguments"),
        (["get", "transcript", "1"], "a time is '1'"),
        (["set", "position", 7], "position cannot be set; what can be is speed, pace, mute, voice, volume, query"),
        (["set", "mode", "full"], "there is no property 'mode'"),
        (["set", "speed", 1.1], "speed is 1.1; it must be one of 0.25"),
        (["set", "speed", True], "speed is True"),
        (["set", "pace", "slow"], "pace can be 'live' or 'every'"),
        (["set", "pace", []], "pace can be"),
        (["set", "window", 0], "window is 0; it must be 1 or more"),
        (["set", "window", 17], "window is 17; it must be at most 16, its value at the start"),
        (["set", "window", "8"], "StreamConfig.window is '8'; it must be of type int"),
        (["set", "window", None], "window is None; it must be a number"),
        (["set", "sink", None], "sink is None; it must be at most 512"),
        (["set", "sampling.temperature", 5.1], "sampling.temperature is 5.1; it must be at most 5"),
        (["set", "sampling.temperature", -1], "sampling.temperature is -1.0; it must be 0 or more"),
        (["set", "sampling.max_new_tokens", 1001], "must be at most 1000"),
        (["set", "query", ""], "query is ''; it must be a text"),
        (["set", "query", 7], "query is 7"),
        (["observe"], "the list of names"),
        (["observe", "transcript"], "transcript cannot be observed; get it"),
        (["observe", "nothing"], "there is no property 'nothing'"),
        (["observe", {}], "the name is"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    start_served: StartServed, words: list[object], message: str
) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        before = p.position, p.screen.config, p.screen.controller.playhead.state
        with pytest.raises(ValueError, match=message):
            await client.command(*words)
        assert (p.position, p.screen.config, p.screen.controller.playhead.state) == before
        assert await client.command("get", "speed") == 1.0


async def test_every_setting_of_the_sampling_can_be_read_and_those_with_none_be_set_to_it(
    start_served: StartServed,
) -> None:
    async with start_served(config=StreamConfig(sampling=SamplingConfig(max_words=3))) as (p, client):
        await p.engine.until_spoken(0)
        names = await client.command("get", "properties")
        for part in fields(SamplingConfig):
            assert f"sampling.{part.name}" in names
        assert await client.command("set", "sampling.max_words", None) is None
        assert p.engine.config.sampling.max_words is None
        assert {name: await client.command("get", name) for name in names if name != "transcript"}


async def test_a_live_feed_has_one_position(start_served: StartServed) -> None:
    feed = Feed()
    async with start_served(seconds=feed) as (p, client):
        feed.coming.put(0)
        await p.engine.until_spoken(0)
        with pytest.raises(ValueError, match="a live feed cannot go back or forward: it goes on as it comes"):
            await client.command("seek", 5)
        assert await client.command("get", "duration") is None
        feed.coming.put(None)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["pause"], "space"),
        (["play"], "space"),
        (["toggle"], "space"),
        (["step"], "full_stop"),
        (["set", "speed", 2], "right_square_bracket"),
        (["set", "pace", "every"], "l"),
    ],
)
async def test_a_live_feed_refuses_a_client_as_it_refuses_the_key(
    start_served: StartServed, words: list[object], key: str
) -> None:
    feed = Feed()
    async with start_served(seconds=feed) as (p, client):
        feed.coming.put(0)
        await p.engine.until_spoken(0)
        assert p.app.server
        status = p.app.server.commands.status()
        with pytest.raises(ValueError, match=r"^a live feed cannot .*: it goes on as it comes\.$") as refusal:
            await client.command(*words)
        assert p.app.server.commands.status() == status
        assert p.notice == ""
        await p.press(key)
        assert p.notice == str(refusal.value)
        feed.coming.put(None)


async def test_a_recording_cannot_be_asked_or_set(start_served: StartServed) -> None:
    async with start_served(config=None) as (p, client):
        await p.engine.until_spoken(0)
        for words in (["ask", "who leads?"], ["set", "window", 3]):
            with pytest.raises(ValueError, match="this commentary is recorded"):
                await client.command(*words)
        assert await client.command("get", "settings") is None
        assert await client.command("get", "window") is None
        assert p.engine.questions == []


async def test_without_a_model_there_is_nobody_to_ask(start_served: StartServed) -> None:
    async with start_served(Scripted(failure="run1 is damaged; copy it again.")) as (p, client):
        await until(lambda: p.screen.controller.state.name == "UNAVAILABLE")
        with pytest.raises(ValueError, match="there is no model to ask"):
            await client.command("ask", "who leads?")


async def test_a_query_that_the_template_lacks_is_refused(start_served: StartServed) -> None:
    async with start_served(config=StreamConfig(style="training")) as (p, client):
        await p.engine.until_spoken(0)
        with pytest.raises(ValueError, match="training template has none"):
            await client.command("set", "query", "Call it in rhyme")


async def test_properties_say_what_the_screen_shows(start_served: StartServed) -> None:
    engine = Scripted()
    engine.free.clear()
    async with start_served(engine) as (p, client):
        assert await client.command("get", "figures") is None
        engine.free.set()
        await p.speak(2)
        shown = {name: await client.command("get", name) for name in ("clip", "model", "position", "duration", "speed")}
        assert shown == {"clip": "match.mp4", "model": "run1", "position": 1.0, "duration": 60.0, "speed": 1.0}
        figures = await client.command("get", "figures")
        assert (figures["index"], figures["timings"]["vision_ms"], figures["memory"]["peak"]) == (1, 100.0, 2000000000)
        assert "text" not in figures
        assert await client.command("get", "skipped") == 0


async def test_the_transcript_is_read_in_pieces(start_served: StartServed) -> None:
    engine = Scripted({1: "long " * 14_000})
    async with start_served(engine) as (p, client):
        await p.speak(4)
        whole = await client.command("get", "transcript", 0)
        assert [line["index"] for line in whole["lines"]] == [0]
        lines = whole["lines"]
        while whole["next"] is not None:
            whole = await client.command("get", "transcript", whole["next"])
            lines += whole["lines"]
        assert [line["text"] for line in lines] == ["second 0", engine.lines[1], "second 2", "second 3"]
        part = await client.command("get", "transcript", 2, 3)
        assert [line["start"] for line in part["lines"]] == [2.0]
        recent = await client.command("get", "transcript", 2)
        assert recent == {"lines": recent["lines"], "next": None}
        assert len(recent["lines"]) == 2


async def test_events_of_every_second(start_served: StartServed) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_served(engine) as (p, client):
        await client.command("observe", "events", "text")
        engine.loaded.set()
        await p.speak(2)
        await client.command("seek", 30, "absolute")
        p.engine.fails = "the model broke."
        await client.event(lambda event: event["event"] == "failed")
        seen = client.seen
    told = [event for event in seen if event["event"] not in ("state", "text")]
    assert [(event["event"], event.get("index")) for event in told][-7:] == [
        ("started", 0),
        ("second", 0),
        ("started", 1),
        ("second", 1),
        ("seek", None),
        ("started", 30),
        ("failed", None),
    ]
    second, failed = told[-4], told[-1]
    assert second["text"] == second["commentary"] == "second 1"
    assert second["timings"]["total_ms"] == 250.0
    assert second["delay"] == 0.0
    assert failed["message"] == "the model broke."
    pieces = [event["text"] for event in seen if event["event"] == "text" and event["index"] == 1]
    assert "".join(pieces) == "second 1 "
    # The state is told when it changes.
    assert seen
    states = [event["model_state"] for event in seen if event["event"] == "state"]
    assert states == sorted(set(states), key=states.index)


async def test_skipped_seconds_are_told(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        await client.command("observe", "events")
        p.engine.free.clear()
        await p.pass_time(1)
        await p.engine.until_begun(1)
        await p.pass_time(3)
        p.engine.free.set()
        skipped = await client.event(lambda event: event["event"] == "skipped")
        assert skipped == {"event": "skipped", "index": 2, "start": 2.0, "end": 3.0}


async def test_loading_is_told(start_served: StartServed) -> None:
    engine = Scripted(loading=3)
    engine.loaded.clear()
    async with start_served(engine) as (_, client):
        await client.command("observe", "events")
        engine.loaded.set()
        ready = await client.event(lambda event: event["event"] == "ready")
        assert ready == {"event": "ready", "model": "run1", "parameters": 12}


async def test_quit_ends_the_player_and_tells_the_clients(start_player: StartPlayer, socket_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with start_player(ipc=socket_path) as p:
            await p.engine.until_spoken(0)
            client = await clients.enter_async_context(connected(socket_path))
            await client.command("quit")
            await until(lambda: p.app.return_code is not None)
            assert p.app.return_code == 0
        assert await client.rest() == [{"event": "shutdown"}]


async def test_what_changes_is_told_to_those_that_observe_it(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        assert p.app.server
        assert await client.command("observe", "state", "position") == ["state", "position"]
        await client.command("get", "speed")
        assert client.events == [
            {"event": "property-change", "name": "state", "data": "playing"},
            {"event": "property-change", "name": "position", "data": 0.0},
        ]
        client.events.clear()
        await p.pass_time(0.5)
        p.app.server.tick()
        p.app.server.tick()
        await p.press("space")
        p.app.server.tick()
        assert await client.command("unobserve", "position") == ["state"]
        await p.press("space")
        await p.pass_time(0.5)
        p.app.server.tick()
        assert await client.command("unobserve") == []
        await p.press("space")
        p.app.server.tick()
        await client.command("get", "speed")
        assert [(event["name"], event["data"]) for event in client.events] == [
            ("position", 0.5),
            ("state", "paused"),
            ("state", "playing"),
        ]
        await wait(p.pilot)
