"""Finding a checkpoint and an adapter by name; the hub is never asked."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import resolve_adapter, resolve_checkpoint
from streaming_vlm_mlx.hub_cache import HubCache, HubName, checkpoint_name, link, parse_hub_name, repo_of_snapshot
from streaming_vlm_mlx.hub_download import Hub

COMMIT = "0123456789" * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one checkpoint, run1."""
    (tmp_path / "checkpoints" / "run1").mkdir(parents=True)
    return tmp_path / "checkpoints"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub that is not asked, with an empty cache."""
    return Hub(HubCache(tmp_path / "hub"), "http://127.0.0.1:1", offline=True)


def refused(name: str, root: Path, hub: Hub) -> str:
    with pytest.raises(SvmError) as caught:
        resolve_checkpoint(name, root, hub=hub)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def keep(hub: Hub, name: HubName, *files: str) -> Path:
    """Put a snapshot with these files into the cache."""
    folder = hub.cache.snapshot_path(name.repo_id, COMMIT)
    for file in files:
        blob = hub.cache.blob(name.repo_id, file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text("{}", encoding="utf-8")
        link(blob, folder / file)
    hub.cache.write_ref(name, COMMIT)
    return folder


def test_a_kill_while_a_branch_is_noted_leaves_the_one_before(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = HubName("owner/name")
    folder = keep(hub, name, "config.json")

    def truncate_and_stop(path: Path, *_: object, **__: object) -> int:
        path.open("w").close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", truncate_and_stop)
        # Nothing is written, and so left by a kill, where the branch has not moved.
        hub.cache.write_ref(name, folder.name)
        with pytest.raises(KeyboardInterrupt):
            hub.cache.write_ref(name, "1" * 40)
    assert hub.cache.snapshot(name) == folder
    assert [found for found, _ in hub.cache.snapshots()] == [HubName("owner/name", "main")]


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


@pytest.mark.parametrize("name", ["run2", "a b/c", "~nobody-of-that-name", "x/y/z", "/no/such", "a/b@", "a/b@../c"])
def test_what_is_nowhere_lists_the_places(root: Path, hub: Hub, name: str) -> None:
    said = refused(name, root, hub)
    assert f"looked for {name}, {root / name}" in said
    assert "it is not a hub id" in said


def test_a_file_is_no_checkpoint(root: Path, hub: Hub) -> None:
    (root / "run2").touch()
    assert f"{root / 'run2'} is a file" in refused("run2", root, hub)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("owner/name-1.5", HubName("owner/name-1.5")),
        ("owner/name@v1.0", HubName("owner/name", "v1.0")),
        ("owner/name@refs/pr/1", HubName("owner/name", "refs/pr/1")),
        (f"owner/name@{COMMIT}", HubName("owner/name", COMMIT)),
        ("owner", None),
        ("owner/name@a b", None),
        ("owner/name@/etc", None),
    ],
)
def test_names_on_the_hub(text: str, name: HubName | None) -> None:
    assert parse_hub_name(text) == name
    if name:
        assert str(name) == text
        assert name.is_commit == text.endswith(COMMIT)


@pytest.mark.parametrize("revision", [None, "v1", "refs/pr/1", COMMIT])
def test_a_whole_snapshot_is_taken_without_the_hub(root: Path, hub: Hub, revision: str | None) -> None:
    name = HubName("owner/name", revision)
    folder = keep(hub, name, "config.json", "model.safetensors")
    assert resolve_checkpoint(str(name), root, hub=hub) == folder
    assert repo_of_snapshot(folder) == "owner/name"
    assert checkpoint_name(folder) == "name"
    assert checkpoint_name(root / "run1") == "run1"


def test_a_half_written_snapshot_is_not_taken_for_a_whole_one(root: Path, hub: Hub) -> None:
    name = HubName("owner/name")
    folder = keep(hub, name, "config.json", "model.safetensors.index.json")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    keep(hub, name, "model-00001-of-00002.safetensors")
    said = refused("owner/name", root, hub)
    assert "owner/name is only half downloaded (it lacks model-00002-of-00002.safetensors)" in said
    assert said.endswith("HF_HUB_OFFLINE is set; start once while online to complete it.")
    whole = keep(hub, name, "model-00002-of-00002.safetensors")
    assert resolve_checkpoint("owner/name", root, hub=hub) == whole
    # A link whose blob was removed leads nowhere.
    hub.cache.blob("owner/name", "model-00002-of-00002.safetensors").unlink()
    assert "it lacks model-00002-of-00002" in refused("owner/name", root, hub)


def test_what_is_not_in_the_cache_is_named_while_offline(root: Path, hub: Hub) -> None:
    said = refused("owner/name", root, hub)
    assert f"looked for owner/name, {root / 'owner' / 'name'}" in said
    assert "not in the hub's cache, and HF_HUB_OFFLINE is set; start once while online" in said


def test_snapshots_are_listed_with_the_branch_that_points_to_them(hub: Hub) -> None:
    keep(hub, HubName("owner/name", "v1"), "config.json")
    other = hub.cache.snapshot_path("owner/name", "f" * 40)
    other.mkdir()
    names = {folder.name: str(name) for name, folder in hub.cache.snapshots()}
    assert names == {COMMIT: "owner/name@v1", "f" * 40: f"owner/name@{'f' * 40}"}


def test_an_adapter_is_a_folder_or_a_name_on_the_hub(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(SvmError, match="no adapter 'run1': there is no such folder, and it is not a hub id"):
        resolve_adapter(Path("run1"), hub=hub)
    for name in ("adapter_config.json", "adapters.safetensors"):
        with pytest.raises(SvmError, match=f"{tmp_path} lacks {name}; an adapter is a folder"):
            resolve_adapter(tmp_path, hub=hub)
        (tmp_path / name).touch()
        with pytest.raises(SvmError, match=f"{name} is a file; an adapter is a folder"):
            resolve_adapter(tmp_path / name, hub=hub)
    assert resolve_adapter(tmp_path, hub=hub) == tmp_path
    folder = keep(hub, HubName("owner/lora"), "adapter_config.json", "adapter_model.safetensors")
    assert resolve_adapter(Path("owner/lora"), hub=hub) == folder
    with pytest.raises(SvmError, match="no adapter 'owner/other': there is no such folder; it is not in the hub's"):
        resolve_adapter(Path("owner/other"), hub=hub)
