"""Finding a checkpoint by its name; the hub is replaced by a stand-in."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import resolve_checkpoint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one checkpoint, run1."""
    (tmp_path / "checkpoints" / "run1").mkdir(parents=True)
    return tmp_path / "checkpoints"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What the hub is asked for; it gives `tmp_path`."""
    ids: list[str] = []

    def give(repo_id: str, allow_patterns: list[str]) -> str:
        ids.append(repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    return ids


def refused(name: str, root: Path) -> str:
    with pytest.raises(SvmError) as caught:
        resolve_checkpoint(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_comes_before_the_root(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("run1", root) == root / "run1"
    (tmp_path / "run1").mkdir()
    assert resolve_checkpoint("run1", root) == Path("run1")
    assert resolve_checkpoint(str(root / "run1"), root) == root / "run1"


def test_home_is_known(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert resolve_checkpoint("~/mine", root) == tmp_path / "mine"


@pytest.mark.parametrize("name", ["run2", "a b/c", "~nobody-of-that-name", "x/y/z", "/no/such"])
def test_what_is_nowhere_lists_the_places(root: Path, asked: list[str], name: str) -> None:
    said = refused(name, root)
    assert f"looked for {name}, {root / name}" in said
    assert not asked


def test_a_file_is_no_checkpoint(root: Path) -> None:
    (root / "run2").touch()
    assert f"{root / 'run2'} is a file" in refused("run2", root)


def test_a_hub_id_is_fetched(root: Path, asked: list[str], tmp_path: Path) -> None:
    assert resolve_checkpoint("owner/name-1.5", root) == tmp_path
    assert asked == ["owner/name-1.5"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalEntryNotFoundError("offline"), "the hub cannot be reached"),
        (ConnectionError("no route"), "the hub cannot be reached"),
        (HFValidationError("Cannot have --"), "the hub has no such repository"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_hub_that_does_not_give(root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    message = refused("owner/name", root)
    assert said in message
    assert f"looked for owner/name, {root / 'owner' / 'name'}" in message


def test_a_name_that_the_hub_cannot_have(root: Path) -> None:
    """The library itself refuses it, before it asks."""
    assert "the hub has no such repository" in refused("owner/two--dashes", root)
