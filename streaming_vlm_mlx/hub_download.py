"""Downloads checkpoints and adapters from the hub into its cache, and goes on from what an earlier start left there.

huggingface_hub lists the files, logs in and makes the connections. The files are received here, because its versions
from 1.0 on remove a file that is half downloaded. Imports no MLX.
"""

import errno
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from streaming_vlm_mlx.checkpoint_files import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    missing_adapter_file,
    missing_file,
    needed_adapter_files,
    needed_files,
    why_no_adapter,
    why_no_checkpoint,
)
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import HubCache, HubName, link
from streaming_vlm_mlx.hub_client import (
    WAIT,
    Listing,
    NotFoundError,
    RemoteFile,
    UnreachableError,
    connection_errors,
    list_files,
    open_url,
    refusal,
)

# Seconds to wait for an answer where the cache holds a whole snapshot, which is used without one.
WAIT_CACHED = 4.0
# Seconds between attempts that receive nothing.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
# Statuses that another attempt can change.
_BUSY = (408, 429, 500, 502, 503, 504)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is.

    Attributes:
        name: what is downloaded.
        done: bytes that are on the disk, those of earlier starts among them.
        total: bytes of all files that are needed.
        at: seconds, by the download's clock.
        note: what the user should know, or empty.
    """

    name: str
    done: int
    total: int
    at: float
    note: str = ""


Report = Callable[[DownloadProgress], None]
# Refuses a folder that holds settings and no weights yet.
Check = Callable[[Path], None]


@dataclass(frozen=True)
class RepositoryKind:
    """What a repository has to hold: a checkpoint or an adapter.

    Attributes:
        first: files that are downloaded and checked before all others.
        needed: of a repository's files, those that are needed; the folder holds `first`, or is None.
        missing: the first file that a folder cannot do without and lacks.
        refusal: why a repository with these files is of another kind.
    """

    first: Collection[str]
    needed: Callable[[Collection[str], Path | None], list[str]]
    missing: Callable[[Path], str | None]
    refusal: Callable[[Collection[str]], str | None]


CHECKPOINT = RepositoryKind((CONFIG, INDEX), needed_files, missing_file, why_no_checkpoint)
ADAPTER = RepositoryKind(
    (ADAPTER_CONFIG,), lambda names, _: needed_adapter_files(names), missing_adapter_file, why_no_adapter
)


class _BrokenError(Exception):
    """A connection ended before the file did."""


def format_size(size: float) -> str:
    """Return bytes in the decimal units that the hub and disks use."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def free_space(path: Path) -> int:
    """Return the free bytes of the disk that holds `path`, which need not exist."""
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


@dataclass(frozen=True)
class Hub:
    """A hub and its cache on this disk.

    Attributes:
        cache: where downloads are kept.
        endpoint: the hub's address.
        offline: whether it is never asked.
        clock: returns seconds.
        sleep: waits for so many seconds.
        free_space: returns the free bytes where a path is.
    """

    cache: HubCache
    endpoint: str
    offline: bool = False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    free_space: Callable[[Path], int] = free_space

    @classmethod
    def of_environment(cls) -> "Hub":
        """Return the hub as HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE say."""
        from huggingface_hub import constants

        return cls(HubCache(Path(constants.HF_HUB_CACHE)), constants.ENDPOINT, constants.HF_HUB_OFFLINE)


def fetch(name: HubName, kind: RepositoryKind, hub: Hub, check: Check, report: Report) -> Path:
    """Return the folder with the files of `name`, which are downloaded if the cache lacks them.

    A snapshot that is whole is used without asking the hub, unless `name` has a branch or a tag, which may have moved.

    Args:
        name: the repository and its revision.
        kind: what it has to hold.
        hub: the hub and its cache.
        check: refuses the settings of a model that cannot be used, before its weights are downloaded.
        report: receives the progress.

    Raises:
        NotFoundError: there is no such repository, or it cannot be asked for.
        SvmError: it cannot be read or used, the disk is too small, or the connection broke and stayed so.
    """
    folder = hub.cache.snapshot(name)
    lacks = kind.missing(folder) if folder else None
    whole = folder if lacks is None else None
    if whole and (hub.offline or name.revision is None or name.is_commit):
        return whole
    if hub.offline:
        raise _unavailable(name, lacks, "HF_HUB_OFFLINE is set")
    try:
        listing = list_files(name, hub.endpoint, WAIT_CACHED if whole else WAIT)
    except UnreachableError as error:
        if whole:
            return whole
        raise _unavailable(name, lacks, f"the hub cannot be reached ({error})") from error
    reason = kind.refusal(listing.files)
    if reason:
        raise SvmError(f"{name} {reason}.")
    return _Download(name, kind, hub, listing, report).run(check)


def _unavailable(name: HubName, lacks: str | None, why: str) -> SvmError:
    if lacks:
        return SvmError(
            f"{name} is only half downloaded (it lacks {lacks}), and {why}; start once while online to complete it."
        )
    return NotFoundError(f"it is not in the hub's cache, and {why}; start once while online, or name a folder.")


class _Download:
    """One download: the files of `listing` that `kind` needs."""

    def __init__(self, name: HubName, kind: RepositoryKind, hub: Hub, listing: Listing, report: Report) -> None:
        self._name, self._kind, self._hub, self._listing, self._report = name, kind, hub, listing, report
        self._folder = hub.cache.snapshot_path(name.repo_id, listing.commit)
        self._done = self._total = 0
        # Nothing is reported before the settings are accepted: a refusal is then the only line.
        self._checked = False

    def run(self, check: Check) -> Path:
        """Download what is missing and return the folder."""
        try:
            with self._hub.cache.lock(self._name.repo_id, self._wait):
                self._run(check)
        except OSError as error:
            # A full disk and a closed stderr are for the caller.
            if error.errno in (errno.ENOSPC, errno.EPIPE):
                raise
            place = error.filename or self._hub.cache.root
            raise SvmError(
                f"{place} cannot be written ({error.strerror}); set HF_HOME to a folder of your own."
            ) from error
        return self._folder

    def _run(self, check: Check) -> None:
        names = self._listing.files.keys()
        self._check_space(self._kind.needed(names, None))
        cache = self._hub.cache
        if not cache.has_ref(self._name):
            cache.write_ref(self._name, self._listing.commit)
        for path in self._kind.first:
            if path in names:
                self._take(self._listing.files[path])
        try:
            check(self._folder)
        except SvmError as error:
            raise SvmError(str(error).replace(str(self._folder), str(self._name))) from error
        needed = self._kind.needed(names, self._folder)
        if absent := [path for path in needed if path not in names]:
            raise SvmError(f"{self._name} lacks {absent[0]}, which its other files name; use another checkpoint.")
        self._check_space(needed)
        self._checked = True
        self._notify()
        for path in needed:
            self._take(self._listing.files[path])
        cache.write_ref(self._name, self._listing.commit)

    def _check_space(self, paths: list[str]) -> None:
        """Count the bytes that are needed and those that are there, and compare the rest with the free space.

        Raises:
            SvmError: the disk is too small.
        """
        files = [self._listing.files[path] for path in paths]
        self._total = sum(file.size for file in files)
        self._done = sum(self._present(file) for file in files)
        root = self._hub.cache.root
        free, missing = self._hub.free_space(root), self._total - self._done
        if missing > free:
            raise SvmError(
                f"{self._name} needs {format_size(missing)} more on the disk, and {format_size(free)} are free at "
                f"{root}; free some, or set HF_HOME to a folder on another disk."
            )

    def _present(self, file: RemoteFile) -> int:
        blob = self._hub.cache.blob(self._name.repo_id, file.etag)
        if (self._folder / file.path).is_file() or blob.is_file():
            return file.size
        part = _partial(blob)
        return min(part.stat().st_size, file.size) if part.is_file() else 0

    def _take(self, file: RemoteFile) -> None:
        """Put `file` into the snapshot."""
        if (self._folder / file.path).is_file():
            return
        blob = self._hub.cache.blob(self._name.repo_id, file.etag)
        if not blob.is_file():
            blob.parent.mkdir(parents=True, exist_ok=True)
            self._receive(file, blob)
        link(blob, self._folder / file.path)

    def _receive(self, file: RemoteFile, blob: Path) -> None:
        """Receive `file`, going on from what is there, with growing pauses between attempts that bring nothing.

        Raises:
            SvmError: nothing came for so long, the file arrived damaged, or the hub refuses it.
        """
        pauses = iter(PAUSES)
        with _partial(blob).open("a+b") as out:
            part = _Part(out, file)
            while (before := part.size) < file.size:
                try:
                    self._receive_some(file, part)
                except _BrokenError as error:
                    pauses = iter(PAUSES) if part.size > before else pauses
                    pause = next(pauses, None)
                    if pause is None:
                        raise SvmError(
                            f"the connection broke while {self._name} was downloaded ({error}); start again to go on "
                            f"from {format_size(self._done)} of {format_size(self._total)}."
                        ) from error
                    self._notify(f"the connection broke ({error}); trying again in {pause:g} s")
                    self._hub.sleep(pause)
            intact = part.is_intact()
        if not intact:
            self._done -= file.size
            _partial(blob).unlink()
            raise SvmError(f"{file.path} of {self._name} arrived damaged; start again to download it anew.")
        _partial(blob).replace(blob)

    def _receive_some(self, file: RemoteFile, part: "_Part") -> None:
        """Receive `file` from the end of `part` on, until it is whole or the connection breaks."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        url = hf_hub_url(self._name.repo_id, file.path, revision=self._listing.commit, endpoint=self._hub.endpoint)
        try:
            with open_url(url, part.size) as (goes_on, chunks):
                if not goes_on:
                    self._done -= part.size
                    part.restart()
                for chunk in chunks:
                    part.write(chunk)
                    self._done += len(chunk)
                    self._notify()
        except BrokenPipeError:
            # From stderr: those of the connection come as errors of its own.
            raise
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status not in _BUSY:
                raise self._refusal(error, file) from error
            raise _BrokenError(f"status {status}") from error
        except connection_errors() as error:
            raise _BrokenError(type(error).__name__) from error
        if part.size < file.size:
            raise _BrokenError("the file ended early")

    def _refusal(self, error: Any, file: RemoteFile) -> Exception:
        reason = refusal(error, self._name, self._hub.endpoint)
        if isinstance(reason, UnreachableError):
            return SvmError(f"the hub does not give {file.path} of {self._name} ({reason}); use another checkpoint.")
        return reason

    def _notify(self, note: str = "") -> None:
        if note or self._checked:
            progress = DownloadProgress(str(self._name), self._done, self._total, self._hub.clock(), note)
            self._report(progress)

    def _wait(self) -> None:
        self._notify("another process downloads it; waiting")


class _Part:
    """A file that is being received, with its hash so far."""

    def __init__(self, out: BinaryIO, file: RemoteFile) -> None:
        self._out, self._file = out, file
        self._hash, self.size = file.hash(), 0
        out.seek(0)
        while block := out.read(_CHUNK):
            self._hash.update(block)
            self.size += len(block)
        if self.size > file.size:
            self.restart()

    def restart(self) -> None:
        """Forget what was received."""
        self._out.seek(0)
        self._out.truncate()
        self._hash, self.size = self._file.hash(), 0

    def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            SvmError: the disk is full, or cannot be written.
        """
        try:
            self._out.write(chunk)
        except OSError as error:
            raise SvmError(f"{self._out.name} cannot be written: {error.strerror}; start again to go on.") from error
        self._hash.update(chunk)
        self.size += len(chunk)

    def is_intact(self) -> bool:
        """Return whether the content is the one that the hub lists."""
        return self.size == self._file.size and self._hash.hexdigest() == self._file.etag


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")
