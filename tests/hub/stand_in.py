"""A stand-in for a model hub on 127.0.0.1: the part of its interface that models are fetched and pushed by."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server has, and what it was asked.

    Attributes:
        files: of the repositories: `owner/name` -> file name -> content.
        stated: SHA-256 that it states instead of the right one, by file name.
        plain: content at other paths, such as `/files/x.safetensors`.
        redirects: path -> where it leads.
        cut: paths whose answers break off in the middle.
        tokens: the repository -> the token that it asks for.
        asked: (method, path, Authorization) of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.stated: dict[str, str] = {}
        self.plain: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut: set[str] = set()
        self.tokens: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.address = ""


def info_of(hub: Hub, repository: str) -> dict[str, Any]:
    siblings = []
    for name, content in hub.files[repository].items():
        one: dict[str, Any] = {"rfilename": name, "size": len(content)}
        if name.endswith(".safetensors"):
            digest = hub.stated.get(name, hashlib.sha256(content).hexdigest())
            one["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        siblings.append(one)
    card = hub.files[repository].get("README.md", b"").decode()
    licence = re.search(r"^license: (.+)$", card, re.M)
    return {
        "id": repository,
        "modelId": repository,
        "sha": COMMIT,
        "siblings": siblings,
        "tags": [],
        "private": False,
        "cardData": {"license": licence[1]} if licence else {},
    }


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(("GET", path, self.headers.get("Authorization")))
        if path in self.hub.redirects:
            self.send_response(302)
            self.send_header("Location", self.hub.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path in self.hub.plain:
            self.answer(200, self.hub.plain[path], cut=path in self.hub.cut)
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if found and self.allowed(found[1]):
            if found[2] not in (None, "main", COMMIT):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                self.answer(200, json.dumps(info_of(self.hub, found[1])).encode())
            return
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found and self.allowed(found[1]) and found[3] in self.hub.files[found[1]]:
            self.answer(200, self.hub.files[found[1]][found[3]], cut=path in self.hub.cut)
            return
        self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        self.hub.asked.append(("POST", self.path, self.headers.get("Authorization")))
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") is None:
            self.answer(401, b"{}")
        elif self.path == "/api/repos/create":
            order = json.loads(content)
            repository = f"{order['organization']}/{order['name']}" if order.get("organization") else order["name"]
            self.hub.files.setdefault(repository, {})
            self.answer(200, json.dumps({"url": f"{self.hub.address}/{repository}"}).encode())
        elif self.path == "/api/validate-yaml":
            self.answer(200, b'{"errors": [], "warnings": []}')
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(content)["files"]
            ]
            self.answer(200, json.dumps({"files": files}).encode())
        else:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
            address = f"{self.hub.address}/{repository}/commit/{COMMIT}"
            done = {"commitUrl": address, "commitOid": COMMIT, "hookOutput": "", "success": True}
            self.answer(200, json.dumps(done).encode())

    def allowed(self, repository: str) -> bool:
        wanted = self.hub.tokens.get(repository)
        return repository in self.hub.files and (
            wanted is None or self.headers.get("Authorization") == f"Bearer {wanted}"
        )

    def answer(self, code: int, content: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
