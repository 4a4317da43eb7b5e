"""Places for the files of a session."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.shipped import SAMPLE
from tui.session_paths import base_paths


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
    assert base_paths(None, "lavfi:testsrc=rate=30", created) == (sessions / "lavfi-testsrc-rate-30.20260102-030405",)
