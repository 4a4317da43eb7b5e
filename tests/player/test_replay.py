"""Replays and exports of sessions."""

from dataclasses import replace
from pathlib import Path

import av
import pytest
import srt
import webvtt
from textual.binding import Binding

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import Journal
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.shipped import CHECKPOINT, NAME
from streaming_vlm_mlx.stream.events import Skipped
from tests.player.fakes import Clock, StartPlayer, second_done, spec, until, wait
from tests.video.clips import make_clip
from tui import cli
from tui.commands import replay
from tui.commands.play import check_terminal, check_theme
from tui.commands.replay import find_clip
from tui.player.app import PlayerApp
from tui.player.clip import BlankSeconds
from tui.player.graphics.display import Display
from tui.player.replayer import Replayer, recorded_name
from tui.player.screens.help import KeyTable
from tui.player.screens.player import PlayerScreen
from tui.player.spec import PlayerSpec
from tui.player.widgets.key_bar import KeyBar
from tui.player.widgets.title import Title
from tui.player.widgets.transcript_view import TranscriptView

pytestmark = pytest.mark.usefixtures("collecting")

SAID = {0: "he cuts inside", 2: "and he scores"}
# What the spec of a replay has other than that of a model's session.
RECORDED: dict[str, object] = {"config": None, "endings": ()}


@pytest.fixture
def record() -> SessionRecord:
    found = SessionRecord(created="2026-01-02T03:04:05+00:00", clip="gone.mp4", model="runs/run1")
    for number, text in SAID.items():
        found = found.add(second_done(number, text, "who?" if number else ""))
    return found.skip(Skipped(1, 1.0, 2.0))


@pytest.fixture
def session(record: SessionRecord, tmp_path: Path) -> Path:
    path = tmp_path / "game.json"
    path.write_text(record.to_json())
    return path


async def test_a_session_is_replayed_word_by_word(record: SessionRecord, tmp_path: Path) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock, replayer = Clock(), Replayer(record, sleep)
    shown = spec(lambda note: replayer, tmp_path, config=None, endings=())
    app = PlayerApp(replace(shown, seconds=BlankSeconds(6.0), pace="every"), clock=clock)
    async with app.run_test(size=(110, 30)) as pilot:
        screen = app.screen
        assert isinstance(screen, PlayerScreen)

        def ended() -> bool:
            clock.now += 0.25
            screen.tick()
            return screen.controller.playhead.state == "ended"

        await until(ended)
        await wait(pilot)
        rows = screen.query_one(TranscriptView).rows
        assert {row.number: " ".join(row.said) for row in rows if row.said} == SAID
        assert [row.question for row in rows if row.said] == ["", "who?"]
        assert [(row.number, row.skipped) for row in rows if row.skipped] == [(1, 1)]
        assert "run1, recorded" in screen.query_one(Title).render().plain
    assert app.session.save() == ()
    assert list(tmp_path.iterdir()) == []
    # 160 ms to the first word, then three words in 100 ms.
    assert slept[:4] == pytest.approx([0.16, 0.1 / 3, 0.1 / 3, 0.1 / 3])


async def test_a_replay_offers_only_what_it_can_do(start_player: StartPlayer) -> None:
    async with start_player(**RECORDED) as p:
        await p.engine.until_spoken(0)
        bar = p.screen.query_one(KeyBar).render().plain
        assert "g truth" in bar
        assert "/ ask" not in bar
        assert "e save" not in bar
        titles = {command.title for command in p.app.get_system_commands(p.app.screen)}
        assert "view: cycle the true transcript" in titles
        await p.press("question_mark")
        keys = p.app.screen.query_one(KeyTable).render().plain
        assert "cycle the true transcript" in keys
        for action in ("ask", "query", "sampling", "save", "reconnect", "next", "previous"):
            (binding,) = (b for b in PlayerScreen.BINDINGS if isinstance(b, Binding) and b.id == action)
            assert binding.description not in keys
            assert not [title for title in titles if title.endswith(f": {binding.description}")]


async def test_a_replay_is_not_saved_and_says_so(start_player: StartPlayer) -> None:
    async with start_player(**RECORDED) as p:
        await p.engine.until_spoken(0)
        await p.press("e")
        assert p.notice == "a replay is not saved: svm-tui export makes other files of its session."


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/run1", "run1, recorded"),
        (str(CHECKPOINT), f"{NAME}, recorded"),
        # The shipped checkpoint of another installation.
        (f"/opt/lib/{CHECKPOINT.relative_to(CHECKPOINT.parents[2])}", f"{NAME}, recorded"),
        ("hub/models--owner--name/snapshots/" + 40 * "0", "name, recorded"),
        ("", "recorded"),
    ],
    ids=["folder", "shipped", "shipped elsewhere", "downloaded", "unknown"],
)
def test_a_replay_names_the_checkpoint_as_play_does(model: str, name: str) -> None:
    assert recorded_name(SessionRecord(model=model)) == name


@pytest.mark.parametrize("ending", [".vtt", ".srt", ".txt", ".json"])
def test_export_writes_every_format(session: Path, tmp_path: Path, ending: str, record: SessionRecord) -> None:
    out = tmp_path / f"out{ending}"
    assert cli.main(["export", str(session), "--out", str(out)]) == 0
    text = out.read_text()
    if ending == ".vtt":
        assert [cue.text for cue in webvtt.read(str(out))] == list(SAID.values())
    elif ending == ".srt":
        assert [cue.content for cue in srt.parse(text)] == list(SAID.values())
    elif ending == ".json":
        assert text == record.to_json()
    else:
        assert text == "# svm-tui: commentary on gone.mp4\n00:00:00  he cuts inside\n00:00:02  [who?]  and he scores\n"


def test_export_puts_the_track_into_the_clip(session: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "gone.mp4", count=60, rate=20)
    assert cli.main(["export", str(session), "--out", str(tmp_path / "out.mp4")]) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"]
        assert container.streams.subtitles[0].language == "eng"
    assert clip.exists()


def test_export_marks_the_language_of_the_track(session: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "gone.mp4", count=10)
    assert cli.main(["export", str(session), "--out", str(tmp_path / "out.mp4"), "--language", "deu"]) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.subtitles[0].language == "deu"


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["--out", "x.doc"], "x.doc has no known format; end its name with one of .vtt, .srt, .json, .txt, .mp4."),
        (["--out", "x.mp4", "--language", "german"], "--language is 'german'; it must be three letters of ISO 639-2"),
        (["--out", "x.mp4"], "gone.mp4 does not exist; name the session's clip with --clip."),
        (["--out", "clip.mp4", "--clip", "clip.mp4"], "clip.mp4 is the clip itself"),
    ],
)
def test_export_refuses_in_a_line(
    session: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    warning: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4", count=10)
    assert cli.main(["export", str(session), *words]) == 2
    shown = capsys.readouterr().err
    assert warning in shown
    assert shown.count("\n") == 1


def test_a_journal_is_a_session(record: SessionRecord, tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl"
    with Journal(path, SessionRecord(clip="gone.mp4", model="run1")) as journal:
        for second in record.seconds:
            journal.append_second(second)
    assert cli.main(["export", str(path), "--out", str(tmp_path / "out.srt")]) == 0
    assert [cue.content for cue in srt.parse((tmp_path / "out.srt").read_text())] == list(SAID.values())


def test_the_clip_is_found_at_its_path_or_beside_the_session(
    record: SessionRecord, session: Path, tmp_path: Path
) -> None:
    assert find_clip(record, session, None) is None
    (tmp_path / "gone.mp4").write_text("")
    assert find_clip(record, session, None) == str(tmp_path / "gone.mp4")
    assert find_clip(record, session, str(tmp_path / "other.mp4")) is None


@pytest.mark.parametrize("clip", ["http://127.0.0.1/game.mp4", "lavfi:testsrc"])
def test_a_session_names_a_file_and_neither_an_address_nor_a_device(
    clip: str, session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(clip).parent.mkdir(parents=True, exist_ok=True)
    Path(clip).write_text("")
    assert find_clip(SessionRecord(clip=clip), session, None) == str(tmp_path / clip)


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["play"], "needs a terminal; without one, run 'svm-tui infer'."),
        (
            ["play", "absent.mp4"],
            "needs a terminal; without one, run 'svm-tui infer absent.mp4'.",
        ),
        (["replay", "absent.json"], "absent.json cannot be read"),
    ],
)
def test_without_a_terminal_the_way_out_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], warning: str
) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    assert warning in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_terminal_without_cursor_control_is_refused(term: str) -> None:
    with pytest.raises(SvmError, match="run 'svm-tui infer x'"):
        check_terminal(True, term, "svm-tui infer x")
    check_terminal(True, "xterm-256color", "svm-tui infer x")


@pytest.mark.parametrize("theme", ["floodlight", "daylight", "nord"])
def test_a_theme_that_exists_is_taken(theme: str) -> None:
    check_theme(theme)


def test_a_theme_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SvmError, match=r"there is no theme 'nosuch'; choose one of floodlight, daylight, .*nord"):
        check_theme("nosuch")


@pytest.mark.parametrize(
    ("recorded", "words", "shown"), [("every", [], "every"), ("", [], "live"), ("every", ["--pace", "live"], "live")]
)
def test_a_session_is_replayed_at_its_pace(
    record: SessionRecord, session: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, words: list[str], shown: str
) -> None:
    session.write_text(replace(record, pace=recorded).to_json())
    seen: list[PlayerSpec] = []
    monkeypatch.setattr(replay, "interactive", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(replay, "watch", lambda spec, *_: seen.append(spec))
    monkeypatch.setattr(replay, "choose_display", lambda _: (Display(), ""))
    cli.main(["replay", str(session), *words])
    assert [spec.pace for spec in seen] == [shown]
