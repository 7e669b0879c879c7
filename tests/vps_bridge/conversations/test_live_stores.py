"""A bridge on a real broker whose conversations are kept elsewhere: labelled, corrected, undone, in no file here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.conversation import ConversationEvent, EventType, Verdict
from schemas.corrections import Correction
from tests.brokers import RunningBroker
from tests.inbox import eventually
from tests.postgres_server import PASSWORD, RunningPostgres
from tests.vps_bridge.conversations.conftest import empty_documents, empty_postgres, open_postgres
from tests.vps_bridge.conversations.document_server import SECRET, DocumentServer
from tests.vps_bridge.live_bridge import CALL_TURNS, TOPICS, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import ScriptedAgent
from tests.vps_bridge.test_corrections import HEARD, LabelledCall
from vps_bridge.backoff import RetryTimer
from vps_bridge.conversations.store import ConversationStore


class ElsewhereStore:
    """A server that keeps conversations, and how a bridge is told of it."""

    def __init__(self, server: RunningPostgres | DocumentServer) -> None:
        self.server = server

    def options(self, directory: Path) -> dict[str, str]:
        is_postgres = isinstance(self.server, RunningPostgres)
        secret = directory / "store.secret"
        secret.write_text(PASSWORD if is_postgres else SECRET)
        secret.chmod(0o600)
        url = self.server.url() if isinstance(self.server, RunningPostgres) else self.server.url
        return {"OMI_CONVERSATIONS_URL": url, "OMI_CONVERSATIONS_SECRET_FILE": str(secret)}

    def open(self) -> ConversationStore:
        return open_postgres(self.server) if isinstance(self.server, RunningPostgres) else self.server.open_store()


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.slow), "http"])
def elsewhere(request: pytest.FixtureRequest) -> ElsewhereStore:
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        empty_postgres(server)
    else:
        server = request.getfixturevalue("documents")
        empty_documents(server)
    return ElsewhereStore(server)


@pytest.fixture
def bridge(
    elsewhere: ElsewhereStore, mosquitto: RunningBroker, backend: Backend, tmp_path: Path
) -> Iterator[LiveBridge]:
    with run_bridge(mosquitto, tmp_path / "data", backend, **elsewhere.options(tmp_path)) as running:
        running.allow("first")
        yield running


def offer_until_taken(backend: Backend, name: str, event: ConversationEvent) -> Verdict:
    """As an owner does: an event without a receipt is sent again."""

    timer = RetryTimer(0.2, 0.2)

    def is_taken() -> bool:
        if timer.take(name, time.monotonic()):
            backend.publish(TOPICS.events(name), event)
        return bool(backend.receipts(name, event_id=event.event_id))

    eventually(is_taken)
    return backend.receipts(name, event_id=event.event_id)[0].verdict


def test_a_call_is_labelled_corrected_and_undone_where_its_store_is_elsewhere_and_killed_meanwhile(
    elsewhere: ElsewhereStore, mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    name = f"call-{uuid.uuid4().hex[:8]}"
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call(name)
        agent.answer(agent.wait_offer(name), CALL_TURNS)
        call = LabelledCall(backend, name)
        before, first = call.labels, call.labels[0].id
        assert call.speakers == HEARD
        said = Correction.model_validate({"kind": "segment_is", "segment_id": first, "speaker_id": 1})
        event = ConversationEvent(event_id="e-fix", type=EventType.CORRECTED, corrections=(said,), by="anna")
        elsewhere.server.kill()
        backend.publish(TOPICS.events(name), event)
        eventually(lambda: bool(bridge.logged("survived")))
        assert backend.receipts(name, event_id="e-fix") == []
        elsewhere.server.start()
        assert offer_until_taken(backend, name, event) is Verdict.ACCEPTED
        assert [label.speaker for label in call.wait().segments] == ["SPEAKER_01", *HEARD[1:]]
        call.tell(EventType.UNDONE, target_event_id="e-fix")
        assert call.labels == before
    store = elsewhere.open()
    history = store.history(name)
    assert [write.kind for write in history].count("correct") == 1
    assert [write.kind for write in history][-1] in ("undo", "apply")
    assert [one["version"] for one in bridge.json("history", name)] == [write.version for write in history]
    assert not list(bridge.data_dir.rglob("conversations.sqlite3"))
    backend.event(name, EventType.DELETED)
    assert (store.read(name), store.history(name)) == (None, ())
    store.close()
    text = bridge.log_file.read_text()
    assert PASSWORD not in text
    assert SECRET not in text
