"""Decoding returns what was encoded, and the published schemas describe both correctly."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.agent import AgentControl, AgentHeartbeat, ByteRange, ControlType
from schemas.audio import AudioPart, AudioPayload
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, EventType, SegmentLabel
from schemas.corrections import Correction
from schemas.document import documents, message_schema
from schemas.errors import MessageTooLarge
from schemas.record import Message
from schemas.turns import MAX_TURNS, EngineDescription, SpeakerTurn, SpeakerTurns, SpeakerVoice
from tests.schemas.payload_strategies import KINDS, messages, payloads, raw

SLOW_DRAWS = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.SCHEMA)


@by_kind
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(data=st.data())
def test_every_message_survives_the_way(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    assert decode(kind, encode(message)) == message


@by_kind
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(data=st.data())
def test_what_the_published_schema_allows_is_decoded(kind: type[Message], data: st.DataObject) -> None:
    payload = data.draw(payloads(kind))
    assert decode(kind, raw(kind, payload)) == kind.model_validate(payload)


@by_kind
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW_DRAWS)
@given(data=st.data())
def test_what_is_encoded_fits_the_published_schema(kind: type[Message], data: st.DataObject) -> None:
    encoded = encode(data.draw(messages(kind)))
    fields = msgpack.unpackb(encoded) if kind.ENCODING == "msgpack" else json.loads(encoded)
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "string", lambda _, value: isinstance(value, str | bytes)
    )
    validator: Any = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=checker)
    validator(message_schema(kind)).validate(fields)


def test_the_published_files_are_those_the_code_generates() -> None:
    from schemas.document import FOLDER

    published = {
        str(file.relative_to(FOLDER)): file.read_text(encoding="utf-8")
        for file in [*(FOLDER / "json").glob("*"), FOLDER / "asyncapi.json"]
    }
    assert published == documents(), "run `python -m schemas.document`"


def test_asyncapi_names_every_topic_and_points_nowhere_in_vain() -> None:
    files = documents()
    document = json.loads(files["asyncapi.json"])
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert "omi/v1/conversations/{conversation_id}/turns/{agent_id}" in addresses
    assert "omi/v1/agents/{agent_id}/heartbeat" in addresses
    assert "omi/v1/bridge/{bridge_id}/heartbeat" in addresses
    assert "omi/v1/people/{person_id}/events" in addresses
    assert len(addresses) == 13
    for reference in _references(document):
        if reference.startswith("./"):
            assert reference.removeprefix("./") in files
            continue
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if "$ref" in node else []
        return here + [reference for child in node.values() for reference in _references(child)]
    if isinstance(node, list):
        return [reference for child in node for reference in _references(child)]
    return []


def result(turns: int, *, label: str = "SPEAKER_00") -> SpeakerTurns:
    spoken = tuple(SpeakerTurn(start_s=0.7211 * i, end_s=0.7211 * i + 0.6, speaker=label) for i in range(turns))
    return SpeakerTurns(
        conversation_id="c" * 36,
        job_id="j" * 36,
        lease_id="l" * 32,
        agent_id="mac",
        engine=EngineDescription(name="pyannote"),
        turns=spoken,
        exclusive_turns=spoken,
        speakers=tuple(SpeakerVoice(speaker=f"S{i}", clean_speech_s=9.0, embedding=bytes(1024)) for i in range(10)),
    )


def test_four_hours_with_a_change_of_speaker_every_second_fit() -> None:
    message = result(14_400)
    assert decode(SpeakerTurns, encode(message)) == message


def test_the_most_turns_fit_under_short_labels() -> None:
    message = result(MAX_TURNS, label="S00")
    assert decode(SpeakerTurns, encode(message)) == message


def test_a_result_that_no_broker_would_take_is_refused_by_the_sender() -> None:
    with pytest.raises(MessageTooLarge, match=r"speaker-turns of \d+ bytes passes its limit of 2000000"):
        encode(result(MAX_TURNS, label="SPEAKER_00"))


def event(segments: int, *, text: str) -> ConversationEvent:
    listed = [{"id": f"segment-{i}", "text": text, "start_s": i, "end_s": i + 1} for i in range(segments)]
    return ConversationEvent.model_validate({"event_id": "e", "type": "segments", "segments": listed})


def test_twenty_thousand_short_segments_fit_in_one_event() -> None:
    message = event(20_000, text="yes")
    assert decode(ConversationEvent, encode(message)) == message


def test_twenty_thousand_long_segments_are_refused_by_the_sender() -> None:
    with pytest.raises(MessageTooLarge, match="conversation-event of"):
        encode(event(20_000, text="a sentence of a usual length, as people say them"))


def test_a_message_of_more_elements_than_a_reader_takes_is_refused_by_the_sender() -> None:
    with pytest.raises(MessageTooLarge, match="JSON passes the limits"):
        encode(event(20, text="," * 19_000))


def test_times_are_kept_to_the_microsecond_whatever_their_offset() -> None:
    odd = timezone(timedelta(hours=5, minutes=53, seconds=28))
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=odd)
    decoded = decode(
        ConversationEvent, encode(ConversationEvent(event_id="e", type=EventType.STARTED, started_at=moment))
    )
    assert decoded.started_at == moment
    assert decoded.started_at.tzinfo == UTC


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        ConversationEvent(event_id="e", type=EventType.STARTED, started_at=datetime(2024, 2, 29))  # noqa: DTZ001


def test_a_label_that_is_nobodys_survives_though_nulls_are_not_sent() -> None:
    label = SegmentLabel(id="s", speaker=None)
    assert SegmentLabel.model_validate(label.model_dump(exclude_none=True)) == label


def test_a_message_names_its_own_schema_and_no_other() -> None:
    assert json.loads(encode(event(1, text="")))["schema"] == "conversation-event"
    for wrong in ({"schema": "accepted"}, {"version": "2.0"}):
        with pytest.raises(ValidationError, match=r"conversation-event 1\.x"):
            ConversationEvent.model_validate({"event_id": "e", "type": "resync"} | wrong)


PART = {"job_id": "j", "lease_id": "l", "chunk_id": "c", "part_sha256": "0" * 64}
CHUNK = {"conversation_id": "c", "sha256": "0" * 64, "audio": b"1234"}


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (AudioPart, PART | {"byte_offset": 7, "total_bytes": 10, "audio": b"1234"}, "reach past total_bytes"),
        (AudioPart, PART | {"byte_offset": 0, "total_bytes": 10, "audio": "1234"}, "valid bytes"),
        (AudioPayload, CHUNK | {"byte_offset": 1}, "reach past total_bytes"),
        (AudioPayload, CHUNK | {"total_bytes": 9}, "a part needs chunk_id and part_sha256"),
        (AudioPayload, CHUNK | {"encoding": "pcm_s16le"}, "needs sample_rate and channels"),
        (ByteRange, {"start": 5, "end": 5}, "an end past its start"),
        (SpeakerTurn, {"start_s": 2, "end_s": 1, "speaker": "S0"}, "ends before it starts"),
        (ConversationEvent, {"event_id": "e", "type": "applied"}, "needs updated_version"),
        (ConversationEvent, {"event_id": "e", "type": "corrected"}, "needs corrections"),
        (ConversationEvent, {"event_id": "e", "type": "undone"}, "needs target_event_id or target_write"),
        (Correction, {"kind": "same_voice", "speaker_ids": [1, 1]}, "two different speakers"),
        (Correction, {"kind": "segment_is", "segment_id": "s"}, "needs speaker_id or person_id"),
        (Correction, {"kind": "voice_is", "person_id": "p"}, "needs speaker_id"),
        (AgentControl, {"type": "offer", "ledger_id": "l"}, "needs job_id"),
        (AgentControl, {"type": "offer", "ledger_id": "l", "job_id": "j"}, "needs lease_id, conversation_id"),
        (AgentControl, {"type": "settled", "ledger_id": "l", "job_id": "j"}, "needs a verdict"),
        (AgentHeartbeat, {"versions": {str(number): "" for number in range(101)}}, "more than 100 entries"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(kind: Any, payload: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        kind.model_validate(payload)


def test_a_part_of_a_chunk_is_told_from_a_whole_one() -> None:
    part = AudioPayload.model_validate(CHUNK | {"total_bytes": 9, "chunk_id": "c", "part_sha256": "0" * 64})
    whole = AudioPayload.model_validate(CHUNK | {"total_bytes": 4})
    assert (part.is_whole, whole.is_whole) == (False, True)


def test_a_ping_needs_nothing_but_its_grantor() -> None:
    message = AgentControl(type=ControlType.PING, ledger_id="l")
    assert decode(AgentControl, encode(message)) == message


def test_every_failure_code_has_its_policy_and_a_code_of_tomorrow_one_too() -> None:
    from schemas.failure import FAILURE_POLICIES, FailureCode, policy_of

    assert set(FAILURE_POLICIES) == set(FailureCode)
    assert all(400 <= policy.http_status < 600 and policy.remedy for policy in FAILURE_POLICIES.values())
    unknown = policy_of("a.code_of_tomorrow")
    assert not unknown.counts_as_attempt
    assert "omi-bridge retry {job}" in unknown.remedy
