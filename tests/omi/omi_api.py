"""OMI's API as the facts describe it: people, and segments that are assigned to them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADMIN_KEY = "an admin key of this test alone"
DRIP_S = 0.1


@dataclass
class FakeApi:
    """What was asked of it, and what it answers."""

    port: int = 0
    people: dict[str, str] = field(default_factory=dict)
    assigned: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    """Of the next PATCHes; 200 once they are used up."""
    segments: list[str] = field(default_factory=lambda: [f"s{place}" for place in range(1, 10)])
    """Of each conversation."""
    labels: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """Whom it has for a segment of a conversation; `is_user` where that is the owner."""
    gone: set[str] = field(default_factory=set)
    """Conversations that were deleted."""
    locked: set[str] = field(default_factory=set)
    """Conversations that its user's plan does not open."""
    lost: int = 0
    """How many of the next PATCHes it does and a proxy answers with 504."""
    is_old: bool = False
    """Whether it has no PATCH of many segments yet."""
    most: int = 1_000_000
    """Segments that a PATCH may name."""
    refused: set[str] = field(default_factory=set)
    """Segments that no PATCH may name."""
    unnamable: set[str] = field(default_factory=set)
    """Names that it takes for nobody."""
    broken: set[str] = field(default_factory=set)
    """Conversations that every PATCH fails with."""
    failing: set[str] = field(default_factory=set)
    """People that every PATCH fails with."""
    unknown: set[str] = field(default_factory=set)
    """Users that it does not know."""
    shut: tuple[int, bytes] | None = None
    """Status and body with which what stands before it answers each GET of a conversation."""
    wraps_people: bool = False
    """Whether it lists people in an object."""
    endless: set[str] = field(default_factory=set)
    """Users whose people it lists a byte at a time, without end."""
    ended: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    """Answers for the `FakeApi` of its server."""

    @property
    def _api(self) -> FakeApi:
        assert isinstance(self.server, _Server)
        return self.server.api

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the library
        pass

    def _answer(self, status: int, content: Any) -> None:
        self._answer_bytes(status, json.dumps(content).encode())

    def _answer_bytes(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> Any:
        self._api.keys.add(self.headers["Authorization"])
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")

    def do_GET(self) -> None:
        self._read()
        uid = self.headers["Authorization"].removeprefix(f"Bearer {ADMIN_KEY}")
        if uid in self._api.endless:
            self._drip()
            return
        if uid in self._api.unknown:
            self._answer(404, {"detail": "User not found"})
            return
        if "/v1/conversations/" in self.path:
            self._answer_conversation(self.path.rpartition("/")[2])
            return
        people = [{"id": one, "name": name} for one, name in self._api.people.items()]
        self._answer(200, {"people": people} if self._api.wraps_people else people)

    def _answer_conversation(self, name: str) -> None:
        if self._api.shut is not None:
            self._answer_bytes(*self._api.shut)
            return
        if name in self._api.gone | self._api.locked:
            self._answer(404 if name in self._api.gone else 402, {"detail": "Conversation not found, or locked"})
            return
        labels = [(one, self._api.labels.get((name, one))) for one in self._api.segments]
        rows = [
            {"id": one, "is_user": who == "is_user", "person_id": None if who == "is_user" else who}
            for one, who in labels
        ]
        self._answer(200, {"id": name, "transcript_segments": rows})

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with suppress(OSError):
            while not self._api.ended.wait(DRIP_S):
                self.wfile.write(b" ")

    def do_POST(self) -> None:
        name = self._read()["name"]
        if name in self._api.unnamable:
            self._answer(422, {"detail": "too short"})
            return
        self._api.people[f"id-of-{name}"] = name
        self._answer(200, {"id": f"id-of-{name}", "name": name})

    def do_PATCH(self) -> None:
        body = self._read()
        status = self._api.statuses.pop(0) if self._api.statuses else 200
        fails = self._api.broken & set(self.path.split("/")) or body["value"] in self._api.failing
        is_unresolved = not set(body["segment_ids"]) <= set(self._api.segments) - self._api.refused
        status = 503 if fails else 409 if is_unresolved else status
        status = 404 if self._api.is_old else 422 if len(body["segment_ids"]) > self._api.most else status
        if status == 200:
            name = self.path.split("/")[-3]
            self._api.labels |= {(name, one): body["value"] for one in body["segment_ids"]}
            self._api.assigned.append((self.path, body))
            if self._api.lost:
                self._api.lost, status = self._api.lost - 1, 504
        self._answer(status, {"status": "Ok"})


class _Server(ThreadingHTTPServer):
    def __init__(self, api: FakeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api


@contextmanager
def run_api() -> Iterator[FakeApi]:
    """Yield one that listens on this machine."""
    api = FakeApi()
    server = _Server(api)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
