"""What a backend does by either client, and what of it is heard on the wire."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest

from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from omi_diarization_client import Client, RefusedByBridge
from schemas.audio import AudioPayload
from schemas.codec import decode
from schemas.conversation import ConversationEvent, EventType
from schemas.corrections import Correction
from schemas.messages import MESSAGE_BY_TOPIC
from schemas.people import PersonEvent
from schemas.record import Message
from schemas.topics import Topics
from tests.brokers import REPOSITORY, RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, call_segments
from vps_bridge.client.client import BridgeClient
from vps_bridge.client.errors import BridgeRefused
from vps_bridge.client.people import PeopleClient

TOPICS = Topics()
JOIN: dict[str, Any] = {"kind": "same_voice", "speaker_ids": [0, 1]}
OWN_IDS = {"event_id", "chunk_id", "target_event_id"}  # made anew for every message


class PackageCalls:
    """By the package that installs alone."""

    refusal: type[Exception] = RefusedByBridge

    def __init__(self, broker: RunningBroker, mqtt_version: str = "auto") -> None:
        user = broker.users["backend"]
        self.client = Client(broker.url, user.username, user.password, mqtt_version=mqtt_version)

    def conversation(self, name: str, small: Path, large: Path) -> None:
        segments = [part.model_dump(exclude_none=True) for part in call_segments(name)]
        with self.client as client:
            client.start(name, STARTED_AT, owner="user-1")
            client.send_segments(name, segments, revision=1)
            client.send_audio(name, small, captured_at=STARTED_AT, max_speakers=4)
            client.send_audio(name, large, captured_at=STARTED_AT + timedelta(seconds=CALL_S))
            client.complete(name, chunks=2)
            client.wait(name)
            event_id = client.correct(name, JOIN, by="anna")
            client.wait(name, final=False)
            client.undo(name, event_id, by="anna")
            client.redo(name, event_id, by="anna")
            client.delete(name)

    def people(self, person_id: str) -> None:
        with self.client as client:
            client.tell(person_id, "named", owner="user-1", name="Anna")
            client.tell(person_id, "consented", owner="user-1", consent_date=date(2026, 5, 4))
            client.tell(person_id, "owner", owner="user-1", is_owner=True)
            client.forget(person_id, owner="user-1")

    def audio(self, name: str, path: Path) -> None:
        with self.client as client:
            client.send_audio(name, path, timeout_s=WAIT_S)


class OwnCalls:
    """By the client of this repository."""

    refusal: type[Exception] = BridgeRefused

    def __init__(self, broker: RunningBroker, mqtt_version: str = "auto") -> None:
        self.settings: BrokerSettings = broker.settings("backend", mqtt_version=mqtt_version)

    def conversation(self, name: str, small: Path, large: Path) -> None:
        with BridgeClient(self.settings, name) as client:
            client.start(STARTED_AT, owner="user-1")
            client.send_segments(call_segments(name), revision=1)
            client.send_file(small, captured_at=STARTED_AT, max_speakers=4)
            client.send_file(large, captured_at=STARTED_AT + timedelta(seconds=CALL_S))
            client.complete(chunks=2)
            client.wait_updated(final=True, timeout_s=WAIT_S)
            event_id = client.correct(Correction.model_validate(JOIN), by="anna")
            client.wait_updated(final=False, timeout_s=WAIT_S)
            client.undo(event_id, by="anna")
            client.redo(event_id, by="anna")
            client.delete()

    def people(self, person_id: str) -> None:
        with PeopleClient(self.settings, "user-1") as client:
            client.name(person_id, "Anna")
            client.consent(person_id, date(2026, 5, 4))
            client.set_owner(person_id)
            client.forget(person_id)

    def audio(self, name: str, path: Path) -> None:
        with BridgeClient(self.settings, name) as client:
            client.send_file(path, timeout_s=WAIT_S)


BOTH = pytest.mark.parametrize("calls", [PackageCalls, OwnCalls], ids=["package", "own"])


@contextlib.contextmanager
def overheard(broker: RunningBroker) -> Iterator[list[Incoming]]:
    """All that is published, in order."""
    heard: list[Incoming] = []
    session = MqttSession(broker.settings("bridge"), client_id=f"ear-{uuid.uuid4().hex[:8]}", on_message=heard.append)
    session.subscribe(f"{TOPICS.root}/#")
    session.start()
    session.wait_connected(WAIT_S)
    try:
        yield heard
    finally:
        session.stop()


def said_by_backend(heard: list[Incoming], name: str) -> list[str]:
    """What a backend said in a conversation or of a person, each message once, without ids that are new every time."""
    said = {}
    for incoming in list(heard):
        kind = MESSAGE_BY_TOPIC[TOPICS.parse(incoming.topic).kind]
        if name not in incoming.topic.split("/") or kind not in (ConversationEvent, AudioPayload, PersonEvent):
            continue
        check_schema(kind, incoming.payload)
        message = decode(kind, incoming.payload)
        fields = message.model_dump(mode="python", exclude=OWN_IDS)
        if fields.get("type") != EventType.APPLIED:  # of how many updates there are, time decides
            audio = hashlib.sha256(fields.pop("audio", b"")).hexdigest()
            said[incoming.payload] = f"{kind.SCHEMA} {fields} {audio}".replace(name, "NAME")
    return list(said.values())


def check_schema(kind: type[Message], payload: bytes) -> None:
    """Hold a payload to the JSON Schema that is published for it."""
    schema = json.loads((REPOSITORY / "schemas" / "json" / f"{kind.SCHEMA}.json").read_text())
    message = json.loads(payload) if kind.ENCODING == "json" else msgpack.unpackb(payload)
    if kind is AudioPayload:
        assert isinstance(message["audio"], bytes)
        message["audio"] = ""  # JSON Schema knows no bytes
    jsonschema.validate(message, schema)


def has_applied(heard: list[Incoming], name: str) -> bool:
    return any(b'"applied"' in incoming.payload for incoming in heard if incoming.topic == TOPICS.events(name))
