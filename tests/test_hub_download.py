"""Downloads from a small hub on 127.0.0.1, which can break connections, refuse, and be shut down."""

import errno
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub import resolve_adapter, resolve_checkpoint
from streaming_vlm_mlx.hub_cache import HubCache
from streaming_vlm_mlx.hub_download import PAUSES, DownloadProgress, Hub
from tests.hub_server import Repo, SmallHub, etag, serving

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
WEIGHTS = {SHARDS[0]: bytes(range(256)) * 12_000, SHARDS[1]: b"second" * 1000}
SETTINGS = {
    "config.json": json.dumps({"model_type": "qwen2_5_vl"}).encode(),
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode(),
    "tokenizer.json": b"{}",
    "preprocessor_config.json": b'{"patch_size": 14}',
    "stream.yaml": b"window: 8\n",
}
NEEDED = {**SETTINGS, **WEIGHTS}
# What repositories hold beside that.
OTHERS = {
    "README.md": b"# Model",
    "picture.png": b"png",
    "pytorch_model.bin": b"pickle",
    "model.gguf": b"gguf",
    "original/model.safetensors": b"again",
    "consolidated.safetensors": b"again",
    "model-00001-of-00003.safetensors": b"another set of shards",
    "onnx/model.onnx": b"onnx",
    "vocab.json": b"{}",
    "merges.txt": b"",
    ".gitattributes": b"",
}


@pytest.fixture(scope="module")
def server() -> Iterator[SmallHub]:
    with serving(SmallHub()) as running:
        yield running


@pytest.fixture
def small(server: SmallHub) -> SmallHub:
    """The server with one repository, and no failure to come."""
    server.repos = {"owner/name": Repo({**NEEDED, **OTHERS})}
    server.asked, server.breaks, server.statuses, server.logins, server.storage = [], {}, {}, [], ""
    server.damaged, server.with_ranges = set(), True
    return server


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that were asked for; none is made."""
    return []


@pytest.fixture
def hub(small: SmallHub, tmp_path: Path, pauses: list[float]) -> Hub:
    ticks = itertools.count()
    return Hub(
        HubCache(tmp_path / "hub"),
        small.url,
        clock=lambda: float(next(ticks)),
        sleep=pauses.append,
        free_space=lambda _: 1 << 40,
    )


def get(hub: Hub, name: str = "owner/name", reports: list[DownloadProgress] | None = None) -> Path:
    return resolve_checkpoint(name, report=(reports if reports is not None else []).append, hub=hub)


def refused(hub: Hub, name: str = "owner/name") -> str:
    with pytest.raises(SvmError) as caught:
        get(hub, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_needed_is_fetched_and_once(hub: Hub, small: SmallHub) -> None:
    reports: list[DownloadProgress] = []
    folder = get(hub, reports=reports)
    assert content(folder) == NEEDED
    assert small.files_asked[0] == "config.json"
    assert small.files_asked[-2:] == SHARDS
    assert sorted(small.files_asked) == sorted(NEEDED)
    total = sum(map(len, NEEDED.values()))
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert (reports[-1].name, reports[-1].done, reports[-1].total) == ("owner/name", total, total)
    small.asked.clear()
    assert get(hub) == folder
    assert get(replace(hub, offline=True)) == folder
    assert not small.asked


def test_huggingface_hub_finds_what_is_downloaded(hub: Hub, small: SmallHub) -> None:
    folder = get(hub)
    cache = str(hub.cache.root)
    kept = huggingface_hub.snapshot_download("owner/name", cache_dir=cache, local_files_only=True)
    assert Path(kept).samefile(folder)
    for file in NEEDED:
        found = huggingface_hub.hf_hub_download("owner/name", file, cache_dir=cache, local_files_only=True)
        assert Path(found).read_bytes() == NEEDED[file]
    scanned = huggingface_hub.scan_cache_dir(cache)
    assert not scanned.warnings
    assert [(repo.repo_id, repo.size_on_disk) for repo in scanned.repos] == [
        ("owner/name", sum(map(len, NEEDED.values())))
    ]
    assert [set(revision.refs) for revision in next(iter(scanned.repos)).revisions] == [{"main"}]


def test_what_huggingface_hub_downloaded_is_taken(hub: Hub, small: SmallHub) -> None:
    kept = huggingface_hub.snapshot_download(
        "owner/name", cache_dir=hub.cache.root, endpoint=small.url, allow_patterns=["*.json", "model*.safetensors"]
    )
    small.asked.clear()
    assert get(replace(hub, offline=True)).samefile(kept)
    assert not small.asked


def test_the_tokenizer_is_taken_in_parts_where_it_is_not_whole(hub: Hub, small: SmallHub) -> None:
    files = {**NEEDED, **OTHERS}
    del files["tokenizer.json"]
    small.repos["owner/name"] = Repo(files)
    assert {"vocab.json", "merges.txt"} < set(content(get(hub)))


def test_a_single_file_of_weights_is_taken(hub: Hub, small: SmallHub) -> None:
    files = {"config.json": SETTINGS["config.json"], "model.safetensors": b"one", **OTHERS}
    small.repos["owner/name"] = Repo(files)
    wanted = {"config.json", "model.safetensors", "vocab.json", "merges.txt"}
    assert set(content(get(hub))) == wanted


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", None])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, small: SmallHub, revision: str | None) -> None:
    old = {**NEEDED, "stream.yaml": b"window: 4\n"}
    commit = small.repos["owner/name"].commit(revision or "old", old)
    name = f"owner/name@{revision or commit}"
    folder = get(hub, name)
    assert folder.name == commit
    assert content(folder) == old
    assert get(replace(hub, offline=True), name) == folder
    new = get(hub)
    assert content(new) == NEEDED
    # The weights of both are the same blobs.
    assert small.files_asked.count(SHARDS[0]) == 1


def test_a_named_branch_is_followed_and_a_bare_name_is_not(hub: Hub, small: SmallHub) -> None:
    first = get(hub)
    new = {**NEEDED, "stream.yaml": b"window: 4\n"}
    small.repos["owner/name"].commit("main", new)
    small.asked.clear()
    assert get(hub) == first
    assert not small.asked
    second = get(hub, "owner/name@main")
    assert content(second) == new
    assert small.files_asked == ["stream.yaml"]
    assert get(hub) == second


def test_a_broken_connection_is_resumed(hub: Hub, small: SmallHub, pauses: list[float]) -> None:
    small.breaks = {SHARDS[0]: [1_500_000, 0, 0, 700_000], "config.json": [5]}
    reports: list[DownloadProgress] = []
    folder = get(hub, reports=reports)
    assert content(folder) == NEEDED
    starts = [line for line in small.asked if SHARDS[0] in line]
    received = [int(line.partition(" from ")[2] or 0) for line in starts]
    assert received[0] == 0
    assert received[1] == received[2] == received[3] > 0
    assert received[4] > received[3]
    # They grow while nothing comes, and begin anew when something came.
    assert pauses == [PAUSES[0], *PAUSES[:3], PAUSES[0]]
    notes = [r.note for r in reports if r.note]
    assert len(notes) == len(pauses)
    assert notes[0].startswith("the connection broke (")
    assert notes[0].endswith("); trying again in 1 s")


def test_a_server_without_ranges_starts_the_file_again(hub: Hub, small: SmallHub) -> None:
    small.breaks, small.with_ranges = {SHARDS[0]: [1_500_000]}, False
    reports: list[DownloadProgress] = []
    assert content(get(hub, reports=reports)) == NEEDED
    assert reports[-1].done == reports[-1].total


@pytest.mark.parametrize("statuses", [[503, 429, 500]], ids=str)
def test_a_busy_hub_is_asked_again(hub: Hub, small: SmallHub, pauses: list[float], statuses: list[int]) -> None:
    small.statuses = {SHARDS[1]: statuses}
    assert content(get(hub)) == NEEDED
    assert pauses == list(PAUSES[:3])


def test_a_connection_that_stays_broken_says_where_the_next_start_goes_on(
    hub: Hub, small: SmallHub, pauses: list[float]
) -> None:
    small.breaks = {SHARDS[0]: [2_000_000, *[0] * len(PAUSES)]}
    said = refused(hub)
    assert pauses == list(PAUSES)
    assert said.startswith("the connection broke while owner/name was downloaded (")
    kept = sum(path.stat().st_size for path in hub.cache.root.rglob("blobs/*"))
    assert kept > 1_900_000
    assert said.endswith(f"; start again to go on from {kept / 1e6:.1f} MB of 3.1 MB.")
    assert "is only half downloaded (it lacks" in refused(replace(hub, offline=True))
    assert "start once while online to complete it" in refused(replace(hub, offline=True))
    small.asked.clear()
    reports: list[DownloadProgress] = []
    assert content(get(hub, reports=reports)) == NEEDED
    assert small.files_asked[0].startswith(f"{SHARDS[0]} from ")
    assert reports[0].done > 1_000_000
    assert reports[-1].done == reports[-1].total


def test_an_interrupt_keeps_what_came(hub: Hub, small: SmallHub) -> None:
    def interrupt(progress: DownloadProgress) -> None:
        if progress.done > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_checkpoint("owner/name", report=interrupt, hub=hub)
    small.asked.clear()
    assert content(get(hub)) == NEEDED
    assert int(small.files_asked[0].partition(" from ")[2]) > 1_000_000


def test_a_file_that_arrives_damaged_is_named_and_fetched_anew(hub: Hub, small: SmallHub) -> None:
    small.damaged = {SHARDS[1]}
    assert f"{SHARDS[1]} of owner/name arrived damaged; start again" in refused(hub)
    small.damaged, small.asked = set(), []
    assert content(get(hub)) == NEEDED
    assert small.files_asked == [SHARDS[1]]


def test_a_part_that_another_program_left_is_used(hub: Hub, small: SmallHub) -> None:
    """huggingface_hub below 1.0 keeps a part under the same name."""
    blob = hub.cache.blob("owner/name", etag(SHARDS[0], WEIGHTS[SHARDS[0]]))
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}.incomplete").write_bytes(WEIGHTS[SHARDS[0]][:1000])
    assert content(get(hub)) == NEEDED
    assert f"{SHARDS[0]} from 1000" in small.files_asked


def test_a_part_that_is_too_long_is_dropped(hub: Hub, small: SmallHub) -> None:
    blob = hub.cache.blob("owner/name", etag(SHARDS[1], WEIGHTS[SHARDS[1]]))
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}.incomplete").write_bytes(WEIGHTS[SHARDS[1]] + b"more")
    assert content(get(hub)) == NEEDED


def test_a_link_that_leads_nowhere_is_replaced(hub: Hub, small: SmallHub) -> None:
    folder = get(hub)
    (folder / SHARDS[1]).resolve().unlink()
    small.asked.clear()
    assert content(get(hub)) == NEEDED
    assert small.files_asked == [SHARDS[1]]
    assert (folder / SHARDS[1]).is_symlink()


def test_a_disk_without_links_holds_the_files_themselves(
    hub: Hub, small: SmallHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = get(hub)
    assert content(folder) == NEEDED
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert get(replace(hub, offline=True)) == folder


def test_a_full_disk_is_found_before_anything_is_fetched(hub: Hub, small: SmallHub) -> None:
    said = refused(replace(hub, free_space=lambda _: 2_000_000))
    assert said.startswith("owner/name needs 3.1 MB more on the disk, and 2.0 MB are free at")
    assert "set HF_HOME" in said
    assert not small.files_asked
    # What is there already is not needed again.
    small.breaks = {SHARDS[0]: [2_000_000, *[0] * len(PAUSES)]}
    refused(hub)
    get(replace(hub, free_space=lambda _: 2_000_000))


def test_a_model_that_is_not_taken_is_refused_before_its_weights(hub: Hub, small: SmallHub) -> None:
    def check(folder: Path) -> None:
        assert (folder / "config.json").read_bytes() == SETTINGS["config.json"]
        raise SvmError(f"{folder} holds a model of another type.")

    with pytest.raises(SvmError, match=r"^owner/name@main holds a model of another type\.$"):
        resolve_checkpoint("owner/name@main", check=check, hub=hub)
    assert set(small.files_asked) == {"config.json", "model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (OTHERS, "owner/other holds GGUF files, which are not read; name the model that they were made from."),
        ({"a.txt": b""}, "owner/other has no config.json, so it holds no checkpoint."),
        ({"config.json": b"{}", "pytorch_model.bin": b""}, r"holds pickles only \(pytorch_model.bin\), which can run"),
        ({"config.json": b"{}"}, "owner/other holds neither model.safetensors nor model.safetensors.index.json."),
        (
            {"adapter_config.json": b"{}", "adapter_model.safetensors": b""},
            "owner/other is a LoRA adapter; name the model it was trained on with --ckpt, and this with --adapter.",
        ),
    ],
    ids=["GGUF", "nothing", "pickle", "no weights", "adapter"],
)
def test_what_is_no_checkpoint_is_refused_by_its_list_of_files(
    hub: Hub, small: SmallHub, files: dict[str, bytes], said: str
) -> None:
    small.repos["owner/other"] = Repo(files)
    with pytest.raises(SvmError, match=said):
        get(hub, "owner/other")
    assert not small.files_asked


@pytest.mark.parametrize(
    ("repo", "name", "said"),
    [
        (None, "owner/none", "the hub has no such repository, or it is private: check the name, or log in with 'hf"),
        (Repo(NEEDED, closed="RepoNotFound"), "owner/none", "or it is private: check the name, or log in with"),
        (Repo(NEEDED, closed="GatedRepo"), "owner/none", "is gated: accept the conditions on http"),
        (Repo(NEEDED), "owner/none@v9", r"owner/none has no revision 'v9'; name a branch, a tag or a commit\."),
        (Repo({}, kind="datasets"), "owner/none", r"owner/none is a dataset, not a model; name a model\."),
        (None, "owner/two--dashes", "the hub has no such repository"),
    ],
    ids=["unknown", "private", "gated", "revision", "dataset", "impossible"],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    hub: Hub, small: SmallHub, repo: Repo | None, name: str, said: str
) -> None:
    if repo:
        small.repos["owner/none"] = repo
    with pytest.raises(SvmError, match=said):
        get(hub, name)
    if repo and repo.closed == "GatedRepo":
        assert f"{small.url}/owner/none, then log in with 'hf auth login'." in refused(hub, name)


def test_a_login_that_is_refused_is_named(hub: Hub, small: SmallHub) -> None:
    small.statuses = {SHARDS[0]: [403]}
    assert refused(hub) == ("the hub refuses your login for owner/name (status 403); log in with 'hf auth login'.")


def test_a_hub_that_is_down_leaves_the_cache(small: SmallHub, hub: Hub) -> None:
    with serving(SmallHub(repos=small.repos)) as other:
        there = replace(hub, endpoint=other.url)
        folder = get(there, "owner/name@main")
    assert get(there) == get(there, "owner/name@main") == folder
    (folder / SHARDS[1]).unlink()
    for name in ("owner/name", "owner/name@main"):
        said = refused(there, name)
        assert f"{name} is only half downloaded (it lacks {SHARDS[1]}), and the hub cannot be reached (" in said
        assert said.endswith("); start once while online to complete it.")
    assert "not in the hub's cache, and the hub cannot be reached (ConnectError)" in refused(
        there, "owner/none"
    ).replace("ConnectionError", "ConnectError")


@pytest.mark.parametrize("closed", ["RepoNotFound", "GatedRepo"])
def test_a_login_opens_what_is_closed(hub: Hub, small: SmallHub, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small.repos["owner/closed"] = Repo(NEEDED, closed=closed, token="hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert content(get(hub, "owner/closed")) == NEEDED


def test_a_login_stays_with_the_hub_where_its_files_are_elsewhere(
    hub: Hub, small: SmallHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(SmallHub(small.repos, breaks={SHARDS[0]: [1_500_000]})) as storage:
        small.storage = storage.url
        assert content(get(hub)) == NEEDED
    assert set(small.logins) == {"Bearer hf_secret"}
    assert set(storage.logins) == {""}
    assert [line.partition(" from ")[0] for line in storage.files_asked] == [SHARDS[0], SHARDS[0], SHARDS[1]]
    assert " from " in storage.files_asked[1]


def test_a_shard_that_the_repository_lacks_is_named_before_the_others_are_fetched(hub: Hub, small: SmallHub) -> None:
    files = dict(NEEDED)
    del files[SHARDS[1]]
    small.repos["owner/name"] = Repo(files)
    assert refused(hub) == f"owner/name lacks {SHARDS[1]}, which its other files name; use another checkpoint."
    assert SHARDS[0] not in small.files_asked


def test_a_vocabulary_is_fetched_under_the_name_that_the_config_gives_it(hub: Hub, small: SmallHub) -> None:
    files = {**NEEDED, "config.json": b'{"vocabulary": "words.json"}', "words.json": b"[]"}
    small.repos["owner/name"] = Repo({**files, **OTHERS})
    assert content(get(hub)) == files


def test_two_processes_do_not_write_the_same_files(hub: Hub, small: SmallHub) -> None:
    waits, got = threading.Event(), []

    def report(progress: DownloadProgress) -> None:
        if "another process downloads it" in progress.note:
            waits.set()

    def run() -> None:
        got.append(resolve_checkpoint("owner/name", report=report, hub=hub))

    with hub.cache.lock("owner/name", lambda: None):
        thread = threading.Thread(target=run)
        thread.start()
        assert waits.wait(60)
        assert not small.files_asked
    thread.join()
    assert content(got[0]) == NEEDED


def test_hashes_that_name_other_files_are_not_taken(hub: Hub, small: SmallHub) -> None:
    repo = small.repos["owner/name"]
    repo.commits["../../x"] = repo.commits[repo.refs["main"]]
    repo.refs["main"] = "../../x"
    assert "does not answer as a hub" in refused(hub)


def test_a_stderr_that_is_closed_ends_the_download(hub: Hub, small: SmallHub, pauses: list[float]) -> None:
    def report(_: DownloadProgress) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        resolve_checkpoint("owner/name", report=report, hub=hub)
    assert not pauses


def test_a_busy_hub_counts_as_down(hub: Hub, small: SmallHub) -> None:
    small.statuses = {"/api/models/owner/name": [503]}
    assert "the hub cannot be reached (status 503)" in refused(hub)


def test_an_adapter_is_fetched_without_anything_else(hub: Hub, small: SmallHub) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora"}
    small.repos["owner/lora"] = Repo({**files, **OTHERS, "config.json": b"{}"})
    assert content(resolve_adapter(Path("owner/lora@main"), hub=hub)) == files
    small.repos["owner/pickled"] = Repo({"adapter_config.json": b"{}", "adapter_model.bin": b""})
    with pytest.raises(SvmError, match="owner/pickled holds pickles only"):
        resolve_adapter(Path("owner/pickled"), hub=hub)
    with pytest.raises(SvmError, match=r"owner/name has no adapter_config.json.*; name a checkpoint with --ckpt\."):
        resolve_adapter(Path("owner/name"), hub=hub)


def test_a_cache_that_cannot_be_written_is_named(hub: Hub) -> None:
    hub.cache.root.write_text("a file")
    assert "cannot be written" in refused(hub)
    assert "set HF_HOME to a folder of your own" in refused(hub)
