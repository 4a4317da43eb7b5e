"""The hub's cache on this disk, as huggingface_hub lays it out: refs, snapshots of links, and blobs. Imports no MLX.

models--owner--name/refs/main                     the commit that the branch pointed to
models--owner--name/snapshots/COMMIT/config.json  a link to a blob
models--owner--name/blobs/ETAG                    a file's content; ETAG.incomplete while it is downloaded
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.shipped import CHECKPOINT, NAME

DEFAULT_REVISION = "main"
_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w.+-]+(?:/[\w.+-]+)*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PREFIX = "models--"


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, ``owner/name``, and the revision of it that is wanted; None for its main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a whole commit hash, whose files never change."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))


def parse_hub_name(text: str) -> HubName | None:
    """Return the repository that ``owner/name`` or ``owner/name@revision`` names; None for any other text."""
    found = _NAME.fullmatch(text)
    if found is None or ".." in (found["revision"] or "").split("/"):
        return None
    return HubName(found["repo"], found["revision"])


def repo_of_snapshot(folder: Path) -> str | None:
    """Return the ``owner/name`` of a snapshot folder in a cache; None for any other folder."""
    repo = folder.parent.parent.name
    return repo.removeprefix(_PREFIX).replace("--", "/") if _is_snapshot(folder) and repo.startswith(_PREFIX) else None


def checkpoint_name(folder: Path) -> str:
    """Return the name to show for a checkpoint's folder: for a snapshot, the repository's without its owner."""
    if folder == CHECKPOINT:
        return NAME
    repo = repo_of_snapshot(folder)
    return repo.rpartition("/")[2] if repo else folder.name


@dataclass(frozen=True)
class HubCache:
    """The cache in the folder `root`."""

    root: Path

    def repository(self, repo_id: str) -> Path:
        """Return the folder of a repository, which may not exist."""
        return self.root / (_PREFIX + repo_id.replace("/", "--"))

    def snapshot_path(self, repo_id: str, commit: str) -> Path:
        """Return the folder of a commit's files, which may not exist."""
        return self.repository(repo_id) / "snapshots" / commit

    def blob(self, repo_id: str, etag: str) -> Path:
        """Return the path of a file's content, which may not exist."""
        return self.repository(repo_id) / "blobs" / etag

    def snapshot(self, name: HubName) -> Path | None:
        """Return the folder with the files of `name`, whole or not; None if there is none."""
        commit = name.revision if name.is_commit else self._read_ref(name)
        folder = self.snapshot_path(name.repo_id, commit) if commit else None
        return folder if folder and folder.is_dir() else None

    def has_ref(self, name: HubName) -> bool:
        """Return whether the cache knows the commit that the revision of `name` pointed to."""
        return name.is_commit or self._read_ref(name) is not None

    def write_ref(self, name: HubName, commit: str) -> None:
        """Note that the revision of `name` points to `commit`."""
        if not name.is_commit and self._read_ref(name) != commit:
            path = self._ref(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not in refs, where everything is a branch; the lock keeps others from this file.
            part = self.repository(name.repo_id) / ".ref.part"
            part.write_text(commit, encoding="ascii")
            part.replace(path)

    def snapshots(self) -> Iterator[tuple[HubName, Path]]:
        """Yield each snapshot with its name; its revision is the branch or tag that points to it, else the commit."""
        for repository in sorted(self.root.glob(f"{_PREFIX}*--*")):
            refs = {}
            for path in sorted((repository / "refs").rglob("*")):
                if path.is_file():
                    refs[path.read_text(encoding="utf-8").strip()] = path.relative_to(repository / "refs").as_posix()
            for folder in sorted((repository / "snapshots").glob("*")):
                repo_id = repo_of_snapshot(folder)
                if repo_id and folder.is_dir():
                    yield HubName(repo_id, refs.get(folder.name, folder.name)), folder

    @contextlib.contextmanager
    def lock(self, repo_id: str, wait: Callable[[], None]) -> Iterator[None]:
        """Keep other processes from downloading the repository; `wait` is called if one does so already."""
        path = self.root / ".locks" / self.repository(repo_id).name / "svm-tui.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _ref(self, name: HubName) -> Path:
        return self.repository(name.repo_id) / "refs" / (name.revision or DEFAULT_REVISION)

    def _read_ref(self, name: HubName) -> str | None:
        path = self._ref(name)
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def link(blob: Path, pointer: Path) -> None:
    """Let `pointer` in a snapshot be the file `blob`: a relative link, or the file itself where links cannot be made.

    Raises:
        SvmError: the snapshot cannot be written.
    """
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            blob.replace(pointer)
    except OSError as error:
        raise SvmError(f"{pointer} cannot be written: {error.strerror}.") from error


def _is_snapshot(folder: Path) -> bool:
    return folder.parent.name == "snapshots" and bool(_COMMIT.fullmatch(folder.name))
