"""A hub of models on this machine, as the real `huggingface_hub` asks it: repositories, branches, commits, files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_writer"  # may do everything; hf_reader may read only


@dataclass
class Repo:
    """A repository: its commits by hash, and which of them its branches are at."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit that holds these files."""
        text = repr((len(self.commits), sorted(files.items())))
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: by OWNER/NAME.
        sizes: that it claims of a path instead of its size.
        served: paths of the files whose bytes it has sent.
        fails: status of every answer from now on.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.sizes: dict[str, int] = {}
        self.served: list[str] = []
        self.fails: int | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub for the time of a `with`."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str = "", message: str = "", **more: Any) -> None:
        self.status, self.code, self.message, self.more = status, code, message, more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        headers: dict[str, str] = {}
        try:
            if self.server.fails:
                raise Refused(self.server.fails)
            status, found, headers = 200, *self._found(path, body)
        except Refused as refused:
            status, found = refused.status, {"error": refused.message, **refused.more}
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _found(self, path: str, body: bytes) -> tuple[Any, dict[str, str]]:
        if path == "/api/repos/create":
            return self._create(json.loads(body)), {}
        if path == "/api/validate-yaml":
            return _validated(json.loads(body)["content"]), {}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            return self._api(match[1], match[2] or "", body), {}
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*match.groups())
        raise Refused(404)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _check_writer(self) -> None:
        if not self._token():
            raise Refused(401, "", "Invalid username or password.")
        if self._token() != TOKEN:
            raise Refused(403, "", f"You don't have the rights with {self._token()}")

    def _repo(self, name: str) -> Repo:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self._token() != TOKEN):
            raise Refused(404 if self._token() else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit(self, name: str, revision: str) -> str:
        repo = self._repo(name)
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _create(self, asked: dict[str, Any]) -> dict[str, str]:
        self._check_writer()
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.server.url}/{name}"
        if name in self.server.repos:
            raise Refused(409, "", "You already created this model repo", url=url)
        self.server.repos[name] = repo = Repo(
            private=asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return {"url": url}

    def _api(self, name: str, rest: str, body: bytes) -> Any:
        step, _, revision = rest.strip("/").partition("/")
        repo = self._repo(name)
        if step in ("", "revision"):
            commit = self._commit(name, revision or "main")
            siblings = [
                {"rfilename": path, "size": self._size(path, data)} for path, data in repo.commits[commit].items()
            ]
            return {"id": name, "sha": commit, "private": repo.private, "gated": repo.gated, "siblings": siblings}
        if step == "tree":
            files = repo.commits[self._commit(name, revision)]
            return [
                {"type": "file", "path": path, "size": self._size(path, data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
        self._check_writer()
        if step == "branch":
            if revision in repo.branches:
                raise Refused(409, "", "Reference already exists")
            repo.branches[revision] = repo.branches["main"]
            return {}
        if step == "preupload":
            asked = json.loads(body)["files"]
            return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
        if step == "commit":
            return self._committed(name, repo, revision, body)
        raise Refused(404)

    def _committed(self, name: str, repo: Repo, branch: str, body: bytes) -> dict[str, Any]:
        files = dict(repo.commits[self._commit(name, branch)])
        for step in map(json.loads, body.splitlines()):
            value = step["value"]
            if step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files, branch)
        return {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{name}/commit/{commit}"}

    def _size(self, path: str, data: bytes) -> int:
        return self.server.sizes.get(path, len(data))

    def _file(self, name: str, revision: str, path: str) -> tuple[bytes, dict[str, str]]:
        repo, commit = self._repo(name), self._commit(name, revision)
        if repo.gated and self._token() != TOKEN:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        data = repo.commits[commit].get(path)
        if data is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        if self.command == "GET":
            self.server.served.append(path)
        return data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}


def _validated(card: str) -> dict[str, Any]:
    """What the hub says of a card's head, as far as it matters here.

    Raises:
        Refused: a base that has the name of no repository.
    """
    head = yaml.safe_load(card.split("---\n")[1])
    bases = head["base_model"] if isinstance(head["base_model"], list) else [head["base_model"]]
    if not all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) for base in bases):
        raise Refused(400, errors=[{"message": "base_model is not valid"}])
    return {"errors": [], "warnings": []}
