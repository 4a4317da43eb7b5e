import inspect
from pathlib import Path

import pytest

from streaming_vlm_mlx.hub import resolve_checkpoint
from tui.session_paths import CHECKPOINTS, cache_folder, state_folder


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
