"""The commands ``play`` and ``replay``: what they refuse before the player opens, and what they note in it."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.record import SessionRecord
from tests.player.fakes import second_done
from tests.video.clips import make_clip
from tests.video.feeds import HEAD, answering, feed_server, transport_stream
from tui import cli
from tui.player.graphics.display import Display
from tui.player.spec import PlayerSpec

NO_CLIP = "the name of the clip is empty; give a video file."
NO_SESSION = "the name of the session is empty; give a saved session (.json) or a journal (.jsonl)."
NO_CHECKPOINT = "the name of the checkpoint is empty; give a folder, a name in checkpoints/ or owner/name of the hub."


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", count=30, rate=15)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PlayerSpec]:
    """The sessions that the player was opened on, on a terminal that can show it."""
    specs: list[PlayerSpec] = []
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tui.player.gc_tuning.begin", lambda: None)
    for module in ("play", "replay"):
        monkeypatch.setattr(f"tui.commands.{module}.interactive", lambda: True)
        monkeypatch.setattr(f"tui.commands.{module}.choose_display", lambda wanted: (Display(), ""))
        monkeypatch.setattr(f"tui.commands.{module}.watch", lambda spec, theme, ipc: specs.append(spec))
    return specs


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command, which must fail with one line, and return that line."""
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("svm-tui: ").rstrip()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["play", ""], NO_CLIP),
        (["play", "{clip}", ""], NO_CLIP),
        (["infer", ""], NO_CLIP),
        (["replay", ""], NO_SESSION),
        (["export", "", "--out", "{tmp}/a.vtt"], NO_SESSION),
        (["export", "", "--out", "{tmp}/a.mp4"], NO_SESSION),
        (["play", "{clip}", "--ckpt", ""], NO_CHECKPOINT),
        (["infer", "{clip}", "--ckpt", ""], NO_CHECKPOINT),
        (["doctor", "--ckpt", ""], NO_CHECKPOINT),
        (["replay", "{tmp}/a.json", "--clip", ""], NO_CLIP),
        (["export", "{tmp}/a.json", "--clip", "", "--out", "{tmp}/a.vtt"], NO_CLIP),
        (["export", "{tmp}/a.json", "--clip", "", "--out", "{tmp}/a.mp4"], NO_CLIP),
        (["report", "{tmp}/a.json", "--clip", "", "--out", "{tmp}/a.html"], NO_CLIP),
    ],
)
def test_an_empty_name_is_refused(
    words: list[str],
    line: str,
    clip: Path,
    tmp_path: Path,
    opened: list[PlayerSpec],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, *(word.format(clip=clip, tmp=tmp_path) for word in words)) == line
    assert not opened


def test_a_feed_cannot_wait_for_the_model(
    tmp_path: Path, opened: list[PlayerSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state" / "svm-tui"
    state.mkdir(parents=True)
    (state / "player.yaml").write_text("pace: every\n")
    second = transport_stream(tmp_path)
    with feed_server() as server:
        answering(server, lambda visit: visit.send(second, HEAD))
        feed = f"http://127.0.0.1:{server.port}/live"
        said = refusal(capsys, "play", feed, "--pace", "every")
        assert said == f"{feed} is a live feed, which cannot wait for the model; leave out --pace every."
        assert not opened
        # The settings file is for clips, too.
        answering(server, lambda visit: visit.send(second, HEAD))
        assert cli.main(["play", feed]) == 0
        spec = opened[0]
        spec.seconds.close()
    assert spec.pace == "live" == spec.record.pace


@pytest.mark.parametrize("command", ["play", "infer"])
@pytest.mark.parametrize(
    ("adapter", "line"),
    [
        ("nope", "no adapter '{path}': there is no such folder, and it is not a hub id"),
        ("file", "{path} is a file; an adapter is a folder with adapter_config.json."),
        ("empty", "{path} lacks adapter_config.json; an adapter is a folder"),
    ],
)
def test_an_adapter_that_is_not_there_is_refused(
    command: str,
    adapter: str,
    line: str,
    clip: Path,
    tmp_path: Path,
    opened: list[PlayerSpec],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    path = tmp_path / adapter
    assert refusal(capsys, command, str(clip), "--adapter", str(path)).startswith(line.format(path=path))
    assert not opened


@pytest.mark.parametrize(
    ("truth", "line"),
    [
        ("nope.srt", "{path} cannot be read: No such file or directory."),
        (".", "{path} cannot be read: Is a directory."),
    ],
)
def test_a_transcript_that_was_named_and_cannot_be_read_is_refused(
    truth: str, line: str, clip: Path, tmp_path: Path, opened: list[PlayerSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / truth
    assert refusal(capsys, "play", str(clip), "--truth", str(path)) == line.format(path=path)
    assert not opened


def test_a_transcript_is_not_read_before_the_player_opens(clip: Path, tmp_path: Path, opened: list[PlayerSpec]) -> None:
    """However large it is; what is wrong with it is noted in the player."""
    truth = tmp_path / "words.srt"
    truth.write_bytes(b"no subtitles at all")
    assert cli.main(["play", str(clip), "--truth", str(truth)]) == 0
    assert len(opened) == 1


def test_a_replay_without_its_clip_says_that_there_is_no_picture(tmp_path: Path, opened: list[PlayerSpec]) -> None:
    record = SessionRecord(created="2026-01-02T03:04:05+00:00", clip="/videos/gone.mp4").add(
        second_done(0, "he scores")
    )
    session = tmp_path / "game.json"
    session.write_text(record.to_json())
    cli.main(["replay", str(session)])
    cli.main(["replay", str(session), "--no-picture"])
    make_clip(tmp_path / "gone.mp4", count=15)
    cli.main(["replay", str(session)])
    notes: list[list[str]] = [[], [], []]
    for spec, told in zip(opened, notes, strict=True):
        spec.make(told.append)
    assert notes == [["no picture: /videos/gone.mp4 is not there; name it with --clip."], [], []]


def test_a_replay_keeps_what_the_viewer_saves_beside_its_session(tmp_path: Path, opened: list[PlayerSpec]) -> None:
    record = SessionRecord(created="2026-01-02T03:04:05+00:00", clip="gone.mp4").add(second_done(0, "he scores"))
    session = tmp_path / "game.old.json"
    session.write_text(record.to_json())
    cli.main(["replay", str(session)])
    elsewhere = tmp_path / "state" / "svm-tui" / "sessions" / "gone.20260102-030405"
    assert opened[0].base_paths == (tmp_path / "game.old", elsewhere)


def test_a_feed_is_shown_without_the_query_of_its_address(tmp_path: Path, opened: list[PlayerSpec]) -> None:
    record = SessionRecord(clip="https://example.com/live.m3u8?key=secret").add(second_done(0, "he scores"))
    session = tmp_path / "game.json"
    session.write_text(record.to_json())
    cli.main(["replay", str(session)])
    assert opened[0].clip == "live.m3u8"
