"""A small hub on 127.0.0.1 that answers as the real one does, and can fail in the ways that one does."""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A repository: the files at each commit, the branches, and who may read it."""

    files: dict[str, bytes]
    kind: str = "models"
    # What the hub answers to who may not read it: GatedRepo for its files, RepoNotFound for the whole.
    closed: str = ""
    token: str = ""
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", self.files)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Let `branch` point to a commit of `files`."""
        parts = [branch, *(f"{path} {hashlib.sha1(content).hexdigest()}" for path, content in sorted(files.items()))]
        name = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.refs[branch], self.commits[name] = name, files
        return name


@dataclass
class SmallHub:
    """The hub's content, its log, and the failures that are to come.

    Attributes:
        repos: repositories by their ids.
        asked: method and path of each request, with the first byte where a range was asked for.
        breaks: for a file, after how many bytes of a body the connection ends; one number a request.
        statuses: for a path, what the next requests get instead of an answer.
        damaged: files whose last byte is another one.
        with_ranges: whether a part of a file can be asked for.
        storage: the address of another server that large files are sent from; empty for none.
        logins: the tokens that came with the requests.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    with_ranges: bool = True
    storage: str = ""
    logins: list[str] = field(default_factory=list)
    url: str = ""
    connections: set[socket.socket] = field(default_factory=set)

    @property
    def files_asked(self) -> list[str]:
        """The files that were asked for, in order, with the first byte where it is not 0."""
        return [line.partition("/resolve/")[2].partition("/")[2] for line in self.asked if "/resolve/" in line]


def is_large(path: str) -> bool:
    """Return whether the hub keeps a file outside of git."""
    return path.endswith((".safetensors", ".bin", ".gguf", ".pth"))


def etag(path: str, content: bytes) -> str:
    """Return a file's hash: git's, or SHA-256 of a large one."""
    return hashlib.sha256(content).hexdigest() if is_large(path) else git_hash(content)


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: SmallHub

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.hub.asked.append(f"{self.command} {path}{f' from {start}' if start else ''}")
        self.hub.logins.append(self.headers.get("Authorization") or "")
        for ending, statuses in self.hub.statuses.items():
            if path.endswith(ending) and statuses:
                return self._refuse(statuses.pop(0), "")
        raw = urlsplit(self.path).path
        if found := API.fullmatch(raw):
            return self._describe(found[1], found[2], found[3], unquote(found[4] or "main"))
        if found := FILE.fullmatch(raw):
            return self._send_file(found[1], unquote(found[2]), unquote(found[3]), start)
        return self._refuse(404, "RepoNotFound")

    def _find(self, kind: str, repo_id: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(repo_id)
        if repo is None or repo.kind != kind or (repo.closed == "RepoNotFound" and not self._may_read(repo)):
            # Who is not logged in is told the same of a private repository and of none.
            self._refuse(401, "RepoNotFound")
            return None
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return repo, commit

    def _may_read(self, repo: Repo) -> bool:
        return bool(repo.token) and self.headers.get("Authorization") == f"Bearer {repo.token}"

    def _describe(self, kind: str, repo_id: str, what: str | None, revision: str) -> None:
        if (found := self._find(kind, repo_id, revision)) is None:
            return
        repo, commit = found
        files = repo.commits[commit]
        if what == "tree":
            self._send_json([_tree_entry(path, content) for path, content in files.items()])
            return
        siblings = [_sibling(path, content) for path, content in files.items()]
        self._send_json({"id": repo_id, "modelId": repo_id, "sha": commit, "private": False, "siblings": siblings})

    def _send_file(self, repo_id: str, revision: str, path: str, start: int) -> None:
        if (found := self._find("models", repo_id, revision)) is None:
            return None
        repo, commit = found
        if repo.closed == "GatedRepo" and not self._may_read(repo):
            return self._refuse(401, "GatedRepo")
        if path not in repo.commits[commit]:
            return self._refuse(404, "EntryNotFound")
        if self.hub.storage and is_large(path):
            return self._redirect(f"{self.hub.storage}/{repo_id}/resolve/{commit}/{path}")
        content = repo.commits[commit][path]
        tag = etag(path, content)
        body = content[:-1] + b"?" if path in self.hub.damaged else content
        start = start if self.hub.with_ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        breaks = self.hub.breaks.get(path) or []
        end = start + breaks.pop(0) if breaks else len(body)
        self.wfile.write(body[start:end])
        if end < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        return None

    def _redirect(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, values: Any) -> None:
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    described: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
    if is_large(path):
        described["lfs"] = {"size": len(content), "sha256": etag(path, content), "pointerSize": 134}
    return described


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    described: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if is_large(path):
        described["lfs"] = {"size": len(content), "oid": etag(path, content), "pointerSize": 134}
    return described


@contextmanager
def serving(hub: SmallHub) -> Iterator[SmallHub]:
    """Serve `hub` on a free port while the block runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            for connection in hub.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
