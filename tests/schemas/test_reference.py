"""docs/messages.md is what the code says, and its examples and tables are true."""

import itertools
import json
from typing import Any

import msgpack
import pytest

from schemas.codec import decode
from schemas.conversation import ConversationEvent, EventType
from schemas.document import REFERENCE, reference
from schemas.errors import SchemaError
from schemas.event_fields import EVENT_FIELDS, EVERY_EVENT, EVERY_PERSON_EVENT, PERSON_EVENT_FIELDS, EventFields
from schemas.examples import CONVERSATION_EVENTS, PERSON_EVENTS, examples_of
from schemas.failure import FailureCode, policy_of
from schemas.messages import MESSAGE_BY_SCHEMA
from schemas.people import PersonEvent, PersonEventType
from schemas.record import Message

EXAMPLES = [
    (message, payload)
    for name, message in MESSAGE_BY_SCHEMA.items()
    for payload in examples_of(name, message.model_fields["version"].default)
]
EVENTS = [
    *((ConversationEvent, kind, fields) for kind, fields in EVENT_FIELDS.items()),
    *((PersonEvent, kind, fields) for kind, fields in PERSON_EVENT_FIELDS.items()),
]


def packed(message: type[Message], payload: dict[str, Any]) -> bytes:
    data: bytes = msgpack.packb(payload) if message.ENCODING == "msgpack" else json.dumps(payload).encode()
    return data


def test_the_page_is_the_one_that_the_code_writes() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run `python -m schemas.document`"


@pytest.mark.parametrize(("message", "payload"), EXAMPLES, ids=lambda value: getattr(value, "SCHEMA", ""))
def test_every_example_is_a_message_and_keeps_every_field(message: type[Message], payload: dict[str, Any]) -> None:
    read = decode(message, packed(message, payload))
    written = read.model_dump(by_alias=True, exclude_none=True)
    assert set(payload) <= set(written), "a field of the example is unknown"


def test_every_type_of_event_has_its_row_and_its_example() -> None:
    assert set(EVENT_FIELDS) == set(CONVERSATION_EVENTS) == set(EventType)
    assert set(PERSON_EVENT_FIELDS) == set(PERSON_EVENTS) == set(PersonEventType)


@pytest.mark.parametrize(
    ("message", "every", "rows"),
    [(ConversationEvent, EVERY_EVENT, EVENT_FIELDS), (PersonEvent, EVERY_PERSON_EVENT, PERSON_EVENT_FIELDS)],
)
def test_every_field_of_an_event_belongs_to_one_at_least(message: Any, every: Any, rows: Any) -> None:
    told = {*every, *(name for row in rows.values() for name in (*row.may, *itertools.chain(*row.needs)))}
    assert told == set(message.model_fields) - {"schema_name", "version"}


@pytest.mark.parametrize(("message", "kind", "row"), EVENTS, ids=lambda value: str(value)[:24])
def test_an_event_without_what_it_needs_is_refused_and_without_the_rest_taken(
    message: type[Message], kind: str, row: EventFields
) -> None:
    payloads = examples_of(message.SCHEMA, message.model_fields["version"].default)
    (example,) = [payload for payload in payloads if payload["type"] == kind]
    bare = {name: example[name] for name in ("schema", "version", "event_id", "type")}
    for group in row.needs:
        without = {name: value for name, value in example.items() if name not in group}
        with pytest.raises(SchemaError):
            decode(message, packed(message, without))
    needed = {name: example[name] for group in row.needs for name in group if name in example}
    decode(message, packed(message, bare | needed))


def test_what_to_do_fits_a_job_that_stands_failed_by_the_code_or_names_no_job_at_all() -> None:
    """A receipt's code is about no job, and to try again what was changed on the bridge's disk fails again."""
    of_receipts = {
        FailureCode.INGEST_FULL,
        FailureCode.DISK_FULL,
        FailureCode.REVISION_STALE,
        FailureCode.SPOOL_UNAVAILABLE,
    }
    assert [code for code in of_receipts if "retry" in policy_of(code).remedy] == []
    changed = policy_of(FailureCode.PAYLOAD_SHA256_MISMATCH).remedy
    assert "publish the audio again" in changed
    assert "retry" not in changed
