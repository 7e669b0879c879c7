"""A backend that keeps documents, and does to each request what the test says: as bad as backends and proxies are.

It is written from `docs/stores.md` and shares nothing with the router that we give away.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.brokers import free_port
from vps_bridge.signed_endpoint import sign

SECRET = "a-secret-of-these-tests-alone"
DRIP_S = 0.02

Document = dict[str, Any]


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def conversation_id(self) -> str:
        return self.path.partition("?")[0].rpartition("/")[2]

    @property
    def condition(self) -> str:
        return self.headers.get("if-match") or self.headers.get("if-none-match") or ""

    def is_signed_with(self, secret: str) -> bool:
        signature = self.headers["omi-signature"]
        sent_at = int(signature.partition(",")[0].removeprefix("t="))
        signed = f"{self.method}\n{self.conversation_id}\n{self.condition}\n".encode() + self.body
        return signature == sign(secret, sent_at, signed)


@dataclass(frozen=True)
class HttpReply:
    """What is answered: with `drips`, a byte at a time without end; with `hangs`, nothing."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hangs: bool = False
    drips: bool = False
    hangs_up: bool = False


Oddness = Callable[["OddBackend", HttpRequest], HttpReply | None]


class OddBackend:
    """`oddness` is asked first, for every request; None from it means that the request is answered as it should be."""

    def __init__(self) -> None:
        self.port, self.ended, self.lock = free_port(), threading.Event(), threading.Lock()
        self.documents: dict[str, tuple[str, bytes]] = {}
        self.count = 0
        self.requests: list[HttpRequest] = []
        self.oddness: Oddness = lambda _backend, _request: None

    def once(self, method: str, oddness: Oddness) -> None:
        """Be odd with the next request of this method, and as one should be afterwards."""

        def odd(backend: OddBackend, request: HttpRequest) -> HttpReply | None:
            if request.method != method:
                return None
            backend.oddness = lambda _backend, _request: None
            return oddness(backend, request)

        self.oddness = odd

    def always(self, method: str, oddness: Oddness) -> None:
        self.oddness = lambda backend, request: oddness(backend, request) if request.method == method else None

    def reset(self) -> None:
        self.documents.clear()
        self.requests.clear()
        self.oddness = lambda _backend, _request: None

    def content(self, conversation_id: str) -> Document:
        found: Document = json.loads(self.documents[conversation_id][1])
        return found

    def edit(self, conversation_id: str, change: Callable[[Document], object]) -> None:
        """What the backend itself changes."""
        content = self.content(conversation_id)
        change(content)
        self.keep(conversation_id, json.dumps(content).encode())

    def keep(self, conversation_id: str, body: bytes) -> str:
        self.count += 1
        self.documents[conversation_id] = (f'"{self.count}"', body)
        return self.documents[conversation_id][0]

    def answer(self, request: HttpRequest) -> HttpReply:
        with self.lock:
            self.requests.append(request)
            odd = self.oddness(self, request)
            return odd if odd is not None else self.serve(request)

    def serve(self, request: HttpRequest) -> HttpReply:
        """As one should."""
        if not request.is_signed_with(SECRET):
            return HttpReply(401)
        kept = self.documents.get(request.conversation_id)
        if request.method == "DELETE":
            self.documents.pop(request.conversation_id, None)
            return HttpReply()
        if request.method == "GET":
            gone = HttpReply(404, {"Omi-Schema": "conversation-document"})
            return gone if kept is None else HttpReply(200, {"ETag": kept[0]}, kept[1])
        if request.condition != ("*" if kept is None else kept[0]):
            return HttpReply(412)
        return HttpReply(headers={"ETag": self.keep(request.conversation_id, request.body)})

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        handler = type("BoundHandler", (_BackendHandler,), {"backend": self})
        server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _BackendHandler(BaseHTTPRequestHandler):
    backend: OddBackend

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.backend.answer(HttpRequest(self.command, self.path, headers, body))
        with contextlib.suppress(OSError):
            self._send(reply)

    do_GET = do_PUT = do_DELETE = _serve  # noqa: N815 - the library's names

    def _send(self, reply: HttpReply) -> None:
        self.close_connection = True
        if reply.hangs:
            self.backend.ended.wait()
        if reply.hangs or reply.hangs_up:
            return
        self.send_response(reply.status)
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        while reply.drips and not self.backend.ended.wait(DRIP_S):
            self.wfile.write(b" ")
