"""A way to a bucket on which answers fail as a test says: refused, slow, lost, or with other bytes than were asked."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


@dataclass
class Faults:
    """What happens to requests from now on. Each request is counted by its method."""

    status: int = 0
    """Answer with this instead of asking the bucket; 0: do not."""
    code: str = "ServiceUnavailable"
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    """The faults concern these alone."""
    delay_s: float = 0.0
    loses_answers: bool = False
    """The bucket does what it is asked, and the connection ends without a word."""
    damages: bool = False
    """One byte of what is read is another one."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request, in order."""

    def clear(self) -> None:
        self.status, self.delay_s, self.loses_answers, self.damages = 0, 0.0, False, False
        self.methods = Faults.methods


class _PassingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: ClassVar[Faults]
    target_port: ClassVar[int]

    def pass_on(self) -> None:
        faults = self.faults
        faults.asked.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        concerns = self.command in faults.methods
        if concerns and faults.delay_s:
            time.sleep(faults.delay_s)
        if concerns and faults.status:
            text = f"<?xml version='1.0'?><Error><Code>{faults.code}</Code><Message>as the test says</Message></Error>"
            self._answer(faults.status, {"Content-Type": "application/xml"}, text.encode())
            return
        status, headers, answer = self._ask(body)
        if concerns and faults.loses_answers:
            self.close_connection = True
            self.connection.close()
            return
        if concerns and faults.damages and answer and self.command == "GET" and "?" not in self.path:
            middle = len(answer) // 2
            answer = answer[:middle] + bytes([answer[middle] ^ 1]) + answer[middle + 1 :]
        self._answer(status, headers, answer)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _PassingServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is what these tests are about."""


@contextmanager
def faulty_way(target_port: int) -> Iterator[tuple[str, Faults]]:
    """Return the address of the way, and what may go wrong on it."""
    faults = Faults()
    methods = {f"do_{name}": _PassingHandler.pass_on for name in Faults.methods}
    handler = type("Handler", (_PassingHandler,), {"faults": faults, "target_port": target_port, **methods})
    server = _PassingServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="faulty way", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
