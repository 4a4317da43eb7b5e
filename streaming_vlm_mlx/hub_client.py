"""Asks a hub for the files of a repository, and opens them, through huggingface_hub. Imports no MLX.

The versions of huggingface_hub below 1.0 use requests, later ones httpx; both are taken here.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import HubName

# Seconds to wait for an answer.
WAIT = 10.0
_CHUNK = 1 << 16
# Hashes become file names, so nothing else is taken for one.
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class NotFoundError(SvmError):
    """Neither the cache nor the hub has what is wanted; the text says why."""


class UnreachableError(Exception):
    """The hub did not answer, or not as a hub does."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; `etag` is its SHA-256 if it is `large`, else the hash that git gives it."""

    path: str
    size: int
    etag: str
    large: bool

    def hash(self) -> Any:
        """Return the hash object that its content has to be fed to."""
        return hashlib.sha256() if self.large else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit."""

    commit: str
    files: Mapping[str, RemoteFile]


def list_files(name: HubName, endpoint: str, timeout: float) -> Listing:
    """Ask the hub for the files of `name` with their sizes and hashes; `timeout` is in seconds.

    Raises:
        NotFoundError: it has no such repository, or none that the user may read.
        SvmError: it has no such revision, or the user may not read it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(name.repo_id, revision=name.revision, timeout=timeout, files_metadata=True)
    except HFValidationError as error:
        raise NotFoundError("the hub has no such repository; its names look otherwise.") from error
    except HfHubHTTPError as error:
        raise refusal(error, name, endpoint) from error
    except connection_errors() as error:
        raise UnreachableError(type(error).__name__) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UnreachableError(f"{endpoint} does not answer as a hub") from error
    files = {}
    for sibling in info.siblings or []:
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if sibling.size is None or not (etag and _HASH.fullmatch(etag)):
            raise SvmError(f"{endpoint} lists no size or hash of {sibling.rfilename}; download {name} by hand.")
        files[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size, etag, sibling.lfs is not None)
    if not _HASH.fullmatch(str(info.sha)):
        raise UnreachableError(f"{endpoint} does not answer as a hub")
    return Listing(str(info.sha), files)


def connection_errors() -> tuple[type[Exception], ...]:
    """Return what huggingface_hub's connections raise: errors of requests below 1.0, of httpx from 1.0 on."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, *(base for base in HfHubHTTPError.__bases__ if base is not OSError)


def refusal(error: Any, name: HubName, endpoint: str) -> Exception:
    """Return what to raise for the hub's answer `error`."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(error.response, "status_code", None)
    if isinstance(error, GatedRepoError):
        page = f"{endpoint}/{name.repo_id}"
        return SvmError(f"{name} is gated: accept the conditions on {page}, then log in with 'hf auth login'.")
    if isinstance(error, RevisionNotFoundError):
        return SvmError(f"{name.repo_id} has no revision {name.revision!r}; name a branch, a tag or a commit.")
    if isinstance(error, DisabledRepoError):
        return SvmError(f"{name} is disabled on the hub; use another checkpoint.")
    if isinstance(error, RepositoryNotFoundError):
        if _is_dataset(name, endpoint):
            return SvmError(f"{name} is a dataset, not a model; name a model.")
        return NotFoundError(
            "the hub has no such repository, or it is private: check the name, or log in with 'hf auth login'."
        )
    if status in (401, 403):
        return SvmError(f"the hub refuses your login for {name} (status {status}); log in with 'hf auth login'.")
    return UnreachableError(f"status {status}")


def _is_dataset(name: HubName, endpoint: str) -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi(endpoint=endpoint).dataset_info(name.repo_id, timeout=WAIT)
    except ValueError:
        return False
    except connection_errors():
        return False
    return True


@contextlib.contextmanager
def open_url(url: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """Open `url` from byte `start` on; yield whether the answer starts there, or at 0, and its content in chunks."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session = get_session()
    modern = callable(session.stream)
    if modern:
        opened = session.stream("GET", url, headers=headers, timeout=WAIT, follow_redirects=True)
    else:
        opened = session.get(url, headers=headers, timeout=WAIT, stream=True)
    with opened as response:
        hf_raise_for_status(response)
        chunks = response.iter_bytes() if modern else response.iter_content(_CHUNK)
        yield response.status_code == 206 or start == 0, chunks
