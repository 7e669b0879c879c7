"""A hub on loopback that speaks as much of the real one's HTTP as fetching a repository takes."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMUNITY = "pyannote/speaker-diarization-community-1"
CONFIG = """\
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    embedding: $model/embedding
    plda: $model/plda
"""
PIPELINE_FILES = {
    "config.yaml": CONFIG.encode(),
    "segmentation/pytorch_model.bin": b"segmentation" * 500,
    "embedding/pytorch_model.bin": b"embedding" * 500,
    "plda/plda.npz": b"plda" * 50,
    "plda/xvec_transform.npz": b"xvec" * 50,
    "README.md": b"CC-BY-4.0",
}
GOOD_TOKEN = "hf_" + "g" * 34


@dataclass
class SmallHub:
    """Repositories by name; each holds files at one commit."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=lambda: {COMMUNITY: dict(PIPELINE_FILES)})
    gated: set[str] = field(default_factory=lambda: {COMMUNITY})
    accepted: bool = True
    """Whether the owner of `GOOD_TOKEN` accepted the conditions."""
    changed_on_the_way: str | None = None
    """A file whose bytes are not those that are listed."""
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo_id: str) -> str:
        return hashlib.sha1(repr(sorted(self.repositories[repo_id].items())).encode()).hexdigest()

    def tree(self, repo_id: str) -> list[dict[str, Any]]:
        entries = []
        for path, content in self.repositories[repo_id].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
            if path.endswith(".bin"):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer, as the real hub gives them."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo_id, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        if authorization and authorization != f"Bearer {GOOD_TOKEN}":
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        if repo_id not in self.repositories:
            return 404 if authorization else 401, {"X-Error-Code": "RepoNotFound"}, b""
        if rest and rest[0] in {"revision", "tree", "resolve"} and rest[1] not in {"main", self.commit(repo_id)}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if (rest[:1] in (["resolve"], ["auth-check"])) and repo_id in self.gated:
            if not authorization:
                return 401, {"X-Error-Code": "GatedRepo"}, b""
            if not self.accepted:
                return 403, {"X-Error-Code": "GatedRepo"}, b""
        return self._content(repo_id, rest)

    def _content(self, repo_id: str, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        if rest[:1] == ["auth-check"]:
            return 200, {}, b"{}"
        if rest[:1] == ["tree"]:
            return 200, {}, json.dumps(self.tree(repo_id)).encode()
        if rest[:1] == ["resolve"]:
            name = "/".join(rest[2:])
            content = self.repositories[repo_id].get(name)
            if content is None:
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            etag = hashlib.sha256(content).hexdigest()
            if name == self.changed_on_the_way:
                content = bytes(len(content))
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit(repo_id)}, content
        return 200, {}, json.dumps({"id": repo_id, "sha": self.commit(repo_id), "siblings": [], "tags": []}).encode()


def _handler(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
