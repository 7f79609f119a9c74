"""A hub for tests: as much of the Hugging Face hub's HTTP interface as its own client needs, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_of_an_account_that_accepted"


@dataclass
class Repository:
    """One model at one revision."""

    model: str
    revision: str
    files: dict[str, bytes]
    gated: bool = False


@dataclass
class TestHub:
    """A running hub. `asked` counts requests for the content of a file."""

    __test__ = False

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)
    """File → what is sent in its place."""
    cut: set[str] = field(default_factory=set)
    """Files whose connection ends after half of them, each time."""
    stalls: set[str] = field(default_factory=set)
    """Files that stand still after half of them."""
    is_down: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    standing: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(*repositories: Repository) -> Iterator[TestHub]:
    """Serves them on a free port."""
    hub = TestHub(repositories={repository.model: repository for repository in repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: TestHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        if self.hub.is_down:
            return self._say(503)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token:
            self.hub.tokens.add(token)
        path = urlsplit(self.path).path
        for repository in self.hub.repositories.values():
            if path.startswith(f"/api/models/{repository.model}"):
                return self._info(repository, path)
            if path.startswith(f"/{repository.model}/resolve/"):
                revision, _, name = path.removeprefix(f"/{repository.model}/resolve/").partition("/")
                if revision != repository.revision:
                    return self._say(404, error="RevisionNotFound")
                if repository.gated and token != TOKEN:
                    return self._say(403 if token else 401, error="GatedRepo")
                if name not in repository.files:
                    return self._say(404, error="EntryNotFound")
                return self._file(repository, name, with_body=with_body)
        return self._say(401, error="RepoNotFound")

    def _info(self, repository: Repository, path: str) -> None:
        if not path.endswith(f"/revision/{repository.revision}"):
            return self._say(404, error="RevisionNotFound")
        files = [_described(name, content) for name, content in repository.files.items()]
        info = {"id": repository.model, "modelId": repository.model, "sha": repository.revision, "siblings": files}
        return self._say(200, json.dumps(info | {"private": False, "tags": []}).encode())

    def _file(self, repository: Repository, name: str, *, with_body: bool) -> None:
        true = repository.files[name]
        content = self.hub.sent.get(name, true)
        etag = hashlib.sha256(true).hexdigest() if _is_large(name) else _git_sha1(true)
        more = {"X-Repo-Commit": repository.revision, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if not with_body:
            return self._say(200, content, more, with_body=False)
        self.hub.asked[name] += 1
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        status = 206 if "Range" in self.headers else 200
        if name in self.hub.cut | self.hub.stalls:
            self._head(status, len(content) - start, more)
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.wfile.flush()
            if name in self.hub.stalls:
                self.hub.standing.set()
                self.hub.go_on.wait(60)
            self.close_connection = True
            return None
        return self._say(status, content[start:], more)

    def _head(self, status: int, length: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _say(
        self,
        status: int,
        body: bytes = b"",
        more: dict[str, str] | None = None,
        *,
        error: str | None = None,
        with_body: bool = True,
    ) -> None:
        self._head(status, len(body), {**(more or {}), **({"X-Error-Code": error} if error else {})})
        if with_body and self.command != "HEAD":
            self.wfile.write(body)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", "tokenizer.json"))


def _described(name: str, content: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_sha1(content)}
    if _is_large(name):
        about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return about


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
