"""What a backend or an agent of the first version sends (recorded) is read as it was meant, and it can read what comes.

The recorded schemas are those that the first version published: a reader of then checks messages of now by them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.agent import AgentControl
from schemas.audio import AudioPayload
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType
from schemas.record import Message
from tests.schemas.payload_strategies import messages

RECORDED = Path(__file__).parent / "recorded"
AT = datetime(2026, 5, 4, 10, tzinfo=UTC)


def test_recorded_events_of_version_1_0_are_read() -> None:
    lines = (RECORDED / "conversation-events-1.0.jsonl").read_bytes().splitlines()
    started, segments, completed, applied = (decode(ConversationEvent, line) for line in lines)
    assert (started.version, started.type, started.started_at, started.owner) == (
        "1.0",
        EventType.STARTED,
        AT,
        "user-1",
    )
    (segment,) = segments.segments
    assert (segment.id, segment.speaker, segments.removed) == ("s-1", "SPEAKER_00", ("s-0",))
    assert [(word.text, word.end_s) for word in segment.words or ()] == [("Hello", 0.8), ("there.", 1.3)]
    assert (completed.chunks, completed.last_audio_at, applied.updated_version) == (1, AT, 1)


def test_recorded_audio_of_version_1_0_is_read() -> None:
    payload = decode(AudioPayload, (RECORDED / "audio-payload-1.0.msgpack").read_bytes())
    assert (payload.version, payload.chunk_id, payload.captured_at, len(payload.audio)) == ("1.0", "c-0", AT, 320)


@pytest.mark.parametrize("kind", [ConversationUpdated, AgentControl])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_sent_now_fits_the_schema_that_version_1_0_published(kind: type[Message], data: st.DataObject) -> None:
    sent = encode(data.draw(messages(kind)))
    fields: dict[str, Any] = msgpack.unpackb(sent) if kind.ENCODING == "msgpack" else json.loads(sent)
    schema = json.loads((RECORDED / f"{kind.SCHEMA}-1.0.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(fields)
