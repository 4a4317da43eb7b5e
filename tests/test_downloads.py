"""How the commands find checkpoints on the hub, and what they show of a download."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console

from streaming_vlm_mlx.hub_download import DownloadProgress, format_size
from streaming_vlm_mlx.shipped import CHECKPOINT
from tests.hub_server import Repo, SmallHub, serving
from tui import cli
from tui.downloads import INTERVAL, live_view, plain_view

SHIPPED = {path.name: path.read_bytes() for path in CHECKPOINT.iterdir() if path.is_file()}
ROOT = Path(__file__).parents[1]
MB = 1_000_000


def at(seconds: float, done: int, note: str = "") -> DownloadProgress:
    return DownloadProgress("owner/name", done, 3000 * MB, seconds, note)


def test_lines_are_sparse_where_nobody_looks() -> None:
    out = io.StringIO()
    show = plain_view(out)
    for second in range(25):
        show(at(second, (1000 + 40 * second) * MB))
    show(at(25, 2000 * MB, "the connection broke (ReadError); trying again in 1 s"))
    show(at(26, 3000 * MB))
    assert INTERVAL == 10
    assert out.getvalue().splitlines() == [
        "owner/name: 1.0 GB of 3.0 GB",
        "owner/name: 1.4 GB of 3.0 GB, 40.0 MB/s, 0:00:40 left",
        "owner/name: 1.8 GB of 3.0 GB, 40.0 MB/s, 0:00:30 left",
        "owner/name: the connection broke (ReadError); trying again in 1 s",
        "owner/name: 3.0 GB of 3.0 GB, 76.9 MB/s, 0:00:00 left",
    ]


def test_one_line_is_redrawn_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    now = 0.0
    with live_view(console, lambda: now) as show:
        for second in range(4):
            now = float(second)
            show(at(now, (1000 + 500 * second) * MB))
        show(at(now, 2500 * MB, "trying again [in] 1 s"))
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert "owner/name: trying again [in] 1 s\n" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", drawn)
    last = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", drawn).replace("\r", "\n").splitlines()
    assert any(re.search(r"owner/name .* 2\.5/3\.0 GB 500\.0 MB/s 0:00:01", line) for line in last)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    """A hub with the shipped checkpoint, which the commands of this process ask; their cache is empty."""
    with serving(SmallHub({"owner/matches": Repo({**SHIPPED, "README.md": b""})})) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


def test_the_environment_says_where_the_hub_and_its_cache_are(tmp_path: Path) -> None:
    code = (
        "from streaming_vlm_mlx.hub_download import Hub\n"
        "hub = Hub.of_environment()\n"
        "print(hub.endpoint, hub.offline, hub.cache.root)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environ = {**kept, "HF_ENDPOINT": "http://127.0.0.1:1/", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["http://127.0.0.1:1", "True", str(tmp_path / "hub")]


def test_a_command_downloads_its_checkpoint_and_starts_offline_then(
    small: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert-ckpt", "owner/matches@main", str(tmp_path / "out")]) == 0
    assert "README.md" not in small.files_asked
    assert small.files_asked[-1] == "model.safetensors"
    size = format_size(sum(len(SHIPPED[file]) for file in small.files_asked))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(f"owner/matches@main: {size} of {size}")]
    small.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["convert-ckpt", "owner/matches", str(tmp_path / "again")]) == 0
    assert "MB of" not in capsys.readouterr().err
    assert not small.asked


def test_a_family_that_is_not_taken_costs_no_download(small: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    small.repos["owner/llama"] = Repo({**SHIPPED, "config.json": b'{"model_type": "llama"}'})
    assert cli.main(["infer", "--ckpt", "owner/llama"]) == 2
    assert re.fullmatch(r"svm-tui: owner/llama: a model of type 'llama' .*\n", capsys.readouterr().err)
    assert small.files_asked == ["config.json"]


def test_an_adapter_that_the_hub_has_not_is_named(small: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "--adapter", "owner/none"]) == 2
    assert "no adapter 'owner/none': there is no such folder; the hub has no such" in capsys.readouterr().err
