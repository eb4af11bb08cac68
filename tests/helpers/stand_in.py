"""A stand-in for the Hugging Face hub on 127.0.0.1, as far as its own client asks: branches, tags, gates, and cut connections."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """One repository: commits by SHA, and names for them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Tokens that a private or gated repository opens to."""

    def push(self, folder: Path, *names: str) -> str:
        """Commit the files of a folder, and move branches or tags to the commit; returns its SHA."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        commit = hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()  # noqa: S324
        self.commits[commit] = files
        self.refs |= dict.fromkeys(names, commit)
        return commit


@dataclass
class StandIn:
    """The server's state, and what it was asked."""

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    """Tokens that are somebody's."""
    wanted: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of every request."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes the next downloads of a file are cut."""
    spoilt: dict[str, bytes] = field(default_factory=dict)
    """What is sent instead of a file's bytes, under its right name and length."""
    after: Callable[[str], None] = lambda _path: None
    """Called with the path when a request has been answered."""

    def repository(self, name: str) -> Repository:
        """A repository, made when first named."""
        return self.repositories.setdefault(name, Repository())

    def downloads(self) -> list[str]:
        """Names of the files that were sent, whole or in part."""
        return [path.rpartition("/")[2] for method, path, _ in self.wanted if method == "GET" and "/resolve/" in path]


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.state = StandIn(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.state  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(server: StandIn, home: Path) -> dict[str, str]:
    """What tells a process of its own of the stand-in, and of no cache and no token but those in home."""
    return {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}


def constants_of(given: dict[str, str]) -> dict[str, Any]:
    """What huggingface_hub makes of these variables when it is loaded, for a process that has it loaded already."""
    home = Path(given["HF_HOME"])
    return {
        "ENDPOINT": given["HF_ENDPOINT"],
        "HUGGINGFACE_CO_URL_TEMPLATE": given["HF_ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "tokens"),
        "HF_HUB_OFFLINE": given["HF_HUB_OFFLINE"] == "1",
    }


class Handler(BaseHTTPRequestHandler):
    """Answers as https://huggingface.co does to huggingface_hub."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        """The headers of what GET would send."""
        self.answer()

    def do_GET(self) -> None:
        """A page or a file."""
        self.answer()

    def answer(self) -> None:
        """Find out what is requested, and send it or say why not."""
        hub: StandIn = self.server.state  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.wanted.append((self.command, path, self.headers.get("Range", "")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40}|[^/]+)/(.+)", path)
        match = api or file
        if match is None:
            self.refuse(404, "", "no such page")
        else:
            self.serve(hub, match[1], api, file)
        hub.after(path)

    def serve(self, hub: StandIn, name: str, api: re.Match[str] | None, file: re.Match[str] | None) -> None:
        """A page or a file of a repository."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = hub.repositories.get(name)
        if token and token not in hub.tokens:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and token not in repository.readers):
            return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        revision = (api[3] if api else file[2] if file else None) or "main"
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if file is None:
            return self.send_json(self.page(api, name, commit, repository.commits[commit]))
        if repository.gated and token not in repository.readers:
            return self.refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        if file[3] not in repository.commits[commit]:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.send_file(hub, commit, file[3], repository.commits[commit][file[3]])

    def page(self, api: re.Match[str] | None, name: str, commit: str, files: dict[str, bytes]) -> Any:
        """What the API tells of a commit, or the list of its files."""
        assert api
        if api[2] != "tree":
            return {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in sorted(files)]}
        return [{"type": "file", "path": path, "size": len(content)} | tells(path, content) for path, content in files.items()]

    def send_file(self, hub: StandIn, commit: str, name: str, content: bytes) -> None:
        """A file or, if asked, the rest of it; cut short where the test wants that."""
        result = tells(name, content)
        start = int(re.findall(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[0])
        content = hub.spoilt.get(name, content)
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{result["oid"]}"')
        if "lfs" in result:
            self.send_header("X-Linked-ETag", f'"{result["lfs"]["oid"]}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.cuts.get(name):
            body = body[: hub.cuts[name].pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def send_json(self, result: Any) -> None:
        """A page of the API."""
        body = json.dumps(result).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        """An error as the hub words it."""
        body = b"" if self.command == "HEAD" else json.dumps({"error": message}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def tells(name: str, content: bytes) -> dict[str, Any]:
    """A file's digests as git and git-lfs make them."""
    result: dict[str, Any] = {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}  # noqa: S324
    if name.endswith(LARGE):
        result["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return result
