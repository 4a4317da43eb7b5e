"""Places for the files of a session."""

import inspect
from pathlib import Path

import pytest

from streaming_vlm_mlx.hub import resolve_checkpoint
from streaming_vlm_mlx.shipped import SAMPLE
from tui.session_paths import CHECKPOINTS, base_paths, cache_folder, short_names, state_folder


def test_a_session_lies_at_out_or_beside_its_clip_and_else_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    clip, created = tmp_path / "my.clip.mp4", "2026-01-02T03:04:05+00:00"
    clip.write_text("")
    sessions = tmp_path / "state" / "svm-tui" / "sessions"
    assert base_paths(None, str(clip), created) == (
        tmp_path / "my.clip.20260102-030405",
        sessions / "my.clip.20260102-030405",
    )
    assert base_paths(tmp_path / "x.srt", str(clip), created)[0] == tmp_path / "x"
    for sample in (SAMPLE, SAMPLE.parent / ".." / "sample" / SAMPLE.name):
        assert base_paths(None, str(sample), created) == (sessions / "match.20260102-030405",)
    assert base_paths(None, "rtsp://camera/1", created) == (sessions / "1.20260102-030405",)
    assert base_paths(None, "udp://127.0.0.1:5000", created) == (sessions / "127.0.0.1.20260102-030405",)
    assert base_paths(None, "https://a.b/live/c.m3u8?key=x.y#t", created) == (sessions / "c.20260102-030405",)
    assert base_paths(None, "http://camera.local/", created) == (sessions / "camera.20260102-030405",)
    assert base_paths(None, "lavfi:testsrc=rate=30", created) == (sessions / "lavfi-testsrc-rate-30.20260102-030405",)


@pytest.mark.parametrize(
    ("environ", "state", "cache"),
    [
        ({}, "/home/x/.local/state/svm-tui", "/home/x/.cache/svm-tui"),
        ({"XDG_STATE_HOME": "/state"}, "/state/svm-tui", "/home/x/.cache/svm-tui"),
        ({"XDG_CACHE_HOME": "/cache"}, "/home/x/.local/state/svm-tui", "/cache/svm-tui"),
        (
            {"XDG_STATE_HOME": "relative/is/ignored", "XDG_CACHE_HOME": "here"},
            "/home/x/.local/state/svm-tui",
            "/home/x/.cache/svm-tui",
        ),
        ({"XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}, "/home/x/.local/state/svm-tui", "/home/x/.cache/svm-tui"),
    ],
)
def test_state_and_cache_lie_where_xdg_says(environ: dict[str, str], state: str, cache: str) -> None:
    assert state_folder(environ, Path("/home/x")) == Path(state)
    assert cache_folder(environ, Path("/home/x")) == Path(cache)


def test_checkpoints_are_where_the_engine_looks() -> None:
    assert inspect.signature(resolve_checkpoint).parameters["root"].default == CHECKPOINTS


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["/home/ada/match.vtt"], "~/match.vtt"),
        (["/home/ada/match.vtt", "/home/ada/match.json"], "~/match.vtt and .json"),
        (["/data/match.vtt", "/home/ada/match.json"], "/data/match.vtt and match.json"),
        (["/data/clips/season/2025/final/match.vtt"], "/…/season/2025/final/match.vtt"),
        (["/home/ada/clips/season/2025/final/match.vtt"], "~/…/2025/final/match.vtt"),
        (["/data/a-name-of-more-than-thirty-characters.vtt"], "/…/a-name-of-more-than-thirty-characters.vtt"),
        (["match.vtt"], "match.vtt"),
    ],
)
def test_messages_show_short_paths(paths: list[str], shown: str) -> None:
    assert short_names([Path(path) for path in paths], Path("/home/ada"), 30) == shown
