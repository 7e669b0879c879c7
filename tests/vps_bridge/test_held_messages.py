"""Nothing leaves the bridge before what it promises is on disk, and one fsync serves all that leaves together."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from schemas.conversation import Accepted, Verdict
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.server_connection import ServerConnection
from vps_bridge.mailbox import WorkRequest
from vps_bridge.publisher import HeldPublisher


class RecordingSession:
    """Notes the order of syncs and sends."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def publish(self, topic: str, _payload: bytes, **_options: object) -> None:
        self.seen.append(topic)


def receipt(conversation_id: str) -> Accepted:
    return Accepted(conversation_id=conversation_id, chunk_id="c", verdict=Verdict.ACCEPTED)


@pytest.fixture
def wire() -> RecordingSession:
    return RecordingSession()


@pytest.fixture
def ledger(tmp_path: Path, wire: RecordingSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "bridge", exclusive=True)
    opened.sync()
    flush = os.fdatasync

    def note(descriptor: int) -> None:
        wire.seen.append("on disk")
        flush(descriptor)

    def exchange(connection: ServerConnection, command: bytes) -> None:
        send(connection, command)
        if b"synchronous_commit = on" in command:
            wire.seen.append("on disk")

    send = ServerConnection.exchange
    monkeypatch.setattr(os, "fdatasync", note)
    monkeypatch.setattr(ServerConnection, "exchange", exchange)
    yield opened
    opened.close()


pytestmark = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="needs fdatasync: Linux")


def test_messages_and_answers_leave_once_the_ledger_is_on_disk(ledger: Ledger, wire: RecordingSession) -> None:
    publisher = HeldPublisher(wire, ledger.sync)  # type: ignore[arg-type] # all it needs of a session is `publish`
    answer: Future[int] = Future()
    ledger.agents.set_allowed("mac", allowed=True)
    publisher.send("one", receipt("c1"))
    ledger.agents.set_allowed("mini", allowed=True)
    publisher.send("two", receipt("c2"))
    WorkRequest(lambda: 7, answer).run(publisher.hold)
    assert wire.seen == []
    assert not answer.done()
    publisher.flush()
    assert wire.seen == ["on disk", "one", "two"]
    assert answer.result(timeout=0) == 7


@pytest.mark.ledger_file
def test_what_promises_nothing_new_costs_no_fsync(ledger: Ledger, wire: RecordingSession) -> None:
    publisher = HeldPublisher(wire, ledger.sync)  # type: ignore[arg-type] # as above
    ledger.agents.all()
    publisher.send("a part of audio", receipt("c1"))
    publisher.flush()
    publisher.flush()
    assert wire.seen == ["a part of audio"]


@pytest.mark.ledger_file
def test_a_disk_that_fails_lets_nothing_leave_and_says_so(
    ledger: Ledger, wire: RecordingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    publisher = HeldPublisher(wire, ledger.sync)  # type: ignore[arg-type] # as above
    answer: Future[int] = Future()
    ledger.agents.set_allowed("mac", allowed=True)
    publisher.send("one", receipt("c1"))
    WorkRequest(lambda: 7, answer).run(publisher.hold)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            publisher.flush()
    assert isinstance(answer.exception(timeout=0), OSError)
    publisher.send("two", receipt("c1"))
    publisher.flush()
    assert wire.seen == ["on disk", "two"], "it is still owed a sync"
