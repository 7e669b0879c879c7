"""A receiver of the webhook: a real HTTP server on loopback that does to each request what the test says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.brokers import free_port
from tests.inbox import MessageLog
from vps_bridge.signed_endpoint import sign

SECRET = "a-secret-of-these-tests-alone"
DRIP_S = 0.02


class Manner(Enum):
    """What the receiver does with a request."""

    TAKE = "take"
    TAKE_AND_HANG_UP = "take it, and hang up without an answer"
    FAIL = "answer 500"
    REDIRECT = "answer 302, to a place where everything is taken"
    HANG = "answer nothing, and keep the connection open"
    DRIP = "answer a byte at a time, without end"
    OTHER_SECRET = "check the signature with another secret"


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    delivery: str
    signature: str
    schema: str
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_with(self, secret: str) -> bool:
        sent_at = int(self.signature.partition(",")[0].removeprefix("t="))
        return abs(time.time() - sent_at) < 300 and self.signature == sign(secret, sent_at, self.body)


class HookReceiver:
    """`manner` is for requests to come, `refused` names conversations of which none is taken.

    `came`: every request; `taken`: what a receiver has acted on, each id once.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.manner = Manner.TAKE
        self.refused: frozenset[str] = frozenset()
        self.came: MessageLog[Request] = MessageLog()
        self.taken: MessageLog[Request] = MessageLog()
        self._ids: set[str] = set()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=hush"

    def take(self, request: Request) -> None:
        """As a receiver should: a delivery that it had before changes nothing."""
        if request.delivery not in self._ids:
            self._ids.add(request.delivery)
            self.taken.put(request)

    def of(self, conversation_id: str) -> list[Request]:
        return [request for request in self.taken.items if request.message["conversation_id"] == conversation_id]

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """There from now on; before and after, connections are refused."""
        handler = type("Handler", (_HookHandler,), {"receiver": self})
        server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        server.daemon_threads = True
        self.ended.clear()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _HookHandler(BaseHTTPRequestHandler):
    receiver: HookReceiver

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = self.headers
        request = Request(self.path, said["Idempotency-Key"], said["Omi-Signature"], said["Omi-Schema"], body)
        receiver = self.receiver
        manner = Manner.FAIL if request.message["conversation_id"] in receiver.refused else receiver.manner
        receiver.came.put(request)
        if self.path == "/elsewhere" or manner in (Manner.TAKE, Manner.TAKE_AND_HANG_UP):
            receiver.take(request)
        match manner:
            case Manner.TAKE:
                self._answer(204)
            case Manner.FAIL:
                self._answer(500)
            case Manner.REDIRECT:
                self._answer(302, Location="/elsewhere")
            case Manner.HANG:
                receiver.ended.wait()
            case Manner.DRIP:
                self._drip()
            case Manner.OTHER_SECRET:
                self._answer(204 if request.is_signed_with("another-secret-altogether") else 401)
            case Manner.TAKE_AND_HANG_UP:
                self.close_connection = True

    def _answer(self, status: int, **headers: str) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    def _drip(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
            while not self.receiver.ended.wait(DRIP_S):
                self.wfile.write(b"x")
                self.wfile.flush()
