"""What the decoder refuses, what it accepts, and what its errors never contain."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest

from schemas.agent import AgentHeartbeat
from schemas.audio import MAX_PART_BYTES, AudioPart, AudioPayload
from schemas.codec import MAX_DEPTH, MAX_MAPS, MAX_OBJECTS, MAX_STRING_BYTES, decode, read_envelope
from schemas.conversation import ConversationEvent
from schemas.errors import MessageMalformed, MessageTooLarge, SchemaError, SchemaUnsupported
from schemas.failure import FailureCode
from schemas.record import Message
from schemas.turns import MAX_EMBEDDING_BYTES, MAX_SPEAKERS, SpeakerTurns
from tests.schemas.small_messages import EVENT, RESULT

SECRET = "Grandmother's door code is 4711"


def raw(kind: type[Message], payload: Any) -> bytes:
    return msgpack.packb(payload) if kind.ENCODING == "msgpack" else json.dumps(payload).encode()


both = pytest.mark.parametrize(("kind", "valid"), [(ConversationEvent, EVENT), (SpeakerTurns, RESULT)])


@both
def test_fields_and_records_of_a_newer_minor_version_are_ignored(kind: type[Message], valid: dict[str, Any]) -> None:
    newer = valid | {"version": "1.42", "mood": {"calm": [1, None, {"really": True}]}}
    decoded = decode(kind, raw(kind, newer))
    assert decoded.model_dump(exclude={"version"}) == decode(kind, raw(kind, valid)).model_dump(exclude={"version"})


@both
@pytest.mark.parametrize(
    "change",
    [
        {"version": "2.0"},
        {"version": "0.9"},
        {"version": "01.0"},
        {"version": "1"},
        {"version": "1.x"},
        {"version": "1.0\n"},
        {"version": "١.٠"},
        {"version": 1.0},
        {"version": None},
        {"schema": "accepted"},
        {"schema": ""},
        {"schema": None},
        {"schema": ["conversation-event"]},
    ],
    ids=str,
)
def test_another_schema_or_major_version_is_refused_and_the_supported_one_named(
    kind: type[Message], valid: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(
        SchemaUnsupported, match=rf"{kind.SCHEMA}.*(supported: 1\.x|send `schema` and `version`)|1\.x"
    ) as caught:
        decode(kind, raw(kind, valid | change))
    assert caught.value.code == FailureCode.SCHEMA_UNSUPPORTED


@both
@pytest.mark.parametrize("missing", ["schema", "version"])
def test_a_payload_that_does_not_say_what_it_is_is_refused(
    kind: type[Message], valid: dict[str, Any], missing: str
) -> None:
    with pytest.raises(SchemaUnsupported):
        decode(kind, raw(kind, {name: value for name, value in valid.items() if name != missing}))


@both
@pytest.mark.parametrize("payload", [[], [1], "text", 1, None, True])
def test_a_payload_that_is_no_map_is_malformed(kind: type[Message], valid: dict[str, Any], payload: Any) -> None:
    with pytest.raises(MessageMalformed, match="not a map"):
        decode(kind, raw(kind, payload))


@pytest.mark.parametrize("audio", [b"\xff\xfe" * 100, bytes(MAX_STRING_BYTES + 1)], ids=["no UTF-8", "long"])
def test_who_packs_bytes_as_text_is_told_so(audio: bytes) -> None:
    """As packers of msgpack did before it had a type for bytes, and some still do."""
    named = {"schema": "audio-payload", "version": "1.1", "conversation_id": "c1", "sha256": "0" * 64}
    with pytest.raises(MessageMalformed, match="pack bytes as bin"):
        decode(AudioPayload, msgpack.packb(named | {"audio": audio}, use_bin_type=False))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", [">d", ">f"])
@pytest.mark.parametrize("field", ["duration_s", "unknown"])
def test_msgpack_numbers_that_are_none_are_refused_even_where_nobody_reads_them(
    number: float, width: str, field: str
) -> None:
    head = b"\xcb" if width == ">d" else b"\xca"
    pair = msgpack.packb(field) + head + struct.pack(width, number)
    data = bytes([0x80 + len(RESULT) + 1]) + msgpack.packb(RESULT)[1:] + pair
    with pytest.raises(MessageMalformed, match="NaN and infinity"):
        decode(SpeakerTurns, data)


@pytest.mark.parametrize("number", [3.4028235e38, -3.4028235e38, 1e-45, 0.0])
def test_extreme_numbers_are_numbers(number: float) -> None:
    single = msgpack.packb(RESULT | {"x": number}, use_single_float=True)
    assert decode(SpeakerTurns, single) == decode(SpeakerTurns, msgpack.packb(RESULT | {"x": number * 4.0}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400 + ".5"])
@pytest.mark.parametrize(
    "place",
    ['{"unknown": %s}', '{"unknown": [{"deep": [%s]}]}', '{"segments": [{"id": "s", "start_s": %s, "end_s": 1}]}'],
)
def test_json_numbers_that_are_none_are_refused_even_where_nobody_reads_them(number: str, place: str) -> None:
    data = json.dumps(EVENT)[:-1] + ", " + (place % number)[1:]
    with pytest.raises(MessageMalformed):
        decode(ConversationEvent, data.encode())


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity"])
def test_a_number_spelled_as_text_is_no_way_around(text: str) -> None:
    with pytest.raises(MessageMalformed, match="duration_s"):
        decode(SpeakerTurns, msgpack.packb(RESULT | {"duration_s": text}))


@pytest.mark.parametrize(
    "extension",
    [
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb(msgpack.ExtType(1, b"x" * 300)),
        msgpack.packb(datetime(2024, 1, 1, tzinfo=UTC), datetime=True),
        b"\xc1",
    ],
)
def test_extension_types_are_refused(extension: bytes) -> None:
    data = bytes([0x80 + len(RESULT) + 1]) + msgpack.packb(RESULT)[1:] + msgpack.packb("x") + extension
    with pytest.raises(MessageMalformed, match="extension types never"):
        decode(SpeakerTurns, data)


@both
def test_text_that_is_not_utf_8_is_refused(kind: type[Message], valid: dict[str, Any]) -> None:
    with pytest.raises(MessageMalformed):
        decode(kind, raw(kind, valid | {"x": "QQQQ"}).replace(b"QQQQ", b"\xff\xfe\xed\xa0"))


def test_a_compressed_event_is_refused_with_what_to_do() -> None:
    with pytest.raises(MessageMalformed, match="not JSON in UTF-8: send it so, and not compressed"):
        decode(ConversationEvent, gzip.compress(raw(ConversationEvent, EVENT)))


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udc00", rb"\ud800\ud800", rb"\uD83D!"])
def test_half_a_character_is_refused(escape: bytes) -> None:
    with pytest.raises(MessageMalformed, match="not JSON"):
        decode(ConversationEvent, raw(ConversationEvent, EVENT | {"owner": "QQ"}).replace(b"QQ", escape))


@both
@pytest.mark.parametrize("tail", [b"\0", b"\xc0", b"{}", b"\x80" * 100])
def test_bytes_after_the_end_are_refused(kind: type[Message], valid: dict[str, Any], tail: bytes) -> None:
    with pytest.raises(MessageMalformed):
        decode(kind, raw(kind, valid) + tail)


@both
def test_a_message_cut_anywhere_is_refused(kind: type[Message], valid: dict[str, Any]) -> None:
    data = raw(kind, valid)
    for end in range(len(data)):
        with pytest.raises(MessageMalformed):
            decode(kind, data[:end])


@pytest.mark.parametrize("key", [1, None, 1.5, True])
def test_keys_that_are_not_text_are_refused(key: Any) -> None:
    with pytest.raises(MessageMalformed):
        decode(SpeakerTurns, msgpack.packb(RESULT | {key: 1}))


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_nesting_is_limited() -> None:
    accepted = decode(SpeakerTurns, msgpack.packb(RESULT | {"x": nested(MAX_DEPTH - 2)}))
    assert accepted == decode(SpeakerTurns, msgpack.packb(RESULT))
    with pytest.raises(MessageTooLarge, match="levels"):
        decode(SpeakerTurns, msgpack.packb(RESULT | {"x": nested(MAX_DEPTH - 1)}))
    with pytest.raises(MessageMalformed, match="recursion limit"):
        decode(ConversationEvent, json.dumps(EVENT)[:-1].encode() + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}")


@both
def test_counts_are_limited(kind: type[Message], valid: dict[str, Any]) -> None:
    plain = decode(kind, raw(kind, valid))
    allowed: list[list[Any]] = [[0] * (MAX_OBJECTS - 100), [{}] * (MAX_MAPS - 100)]
    for many in allowed:
        assert decode(kind, raw(kind, valid | {"x": many})) == plain
    refused: list[list[Any]] = [[0] * (MAX_OBJECTS + 1), [{}] * (MAX_MAPS + 1)]
    for many in refused:
        with pytest.raises(MessageTooLarge, match="passes the limits") as caught:
            decode(kind, raw(kind, valid | {"x": many}))
        assert caught.value.code == FailureCode.INGEST_TOO_LARGE


@pytest.mark.parametrize("head", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"])
def test_a_length_that_is_only_claimed_is_refused(head: bytes) -> None:
    data = bytes([0x80 + len(RESULT) + 1]) + msgpack.packb(RESULT)[1:] + msgpack.packb("x") + head + b"\xff" * 4
    with pytest.raises(SchemaError, match=r"limits|ends in the middle"):
        decode(SpeakerTurns, data)


@both
def test_sizes_are_limited(kind: type[Message], valid: dict[str, Any]) -> None:
    with pytest.raises(MessageTooLarge, match="of 2000001 bytes passes its limit of 2000000"):
        decode(kind, b" " * 2_000_001)


def test_text_is_limited() -> None:
    with pytest.raises(MessageMalformed):
        decode(SpeakerTurns, msgpack.packb(RESULT | {"x": "a" * (MAX_STRING_BYTES + 1)}))
    with pytest.raises(MessageMalformed, match="owner"):
        decode(ConversationEvent, raw(ConversationEvent, EVENT | {"owner": "a" * 201}))
    voice = {"speaker": "S0", "clean_speech_s": 1, "embedding": bytes(MAX_EMBEDDING_BYTES + 1)}
    with pytest.raises(MessageMalformed, match="embedding"):
        decode(SpeakerTurns, msgpack.packb(RESULT | {"speakers": [voice]}))


@pytest.mark.parametrize("field", ["turns", "exclusive_turns"])
def test_distinct_speakers_are_limited_in_the_turns_too(field: str) -> None:
    """Whatever reads turns compares speakers with each other: two results of 2,500 froze a bridge for 102 s."""
    turns = [{"start_s": n, "end_s": n + 1, "speaker": f"S{n}"} for n in range(MAX_SPEAKERS + 1)]
    assert len(getattr(decode(SpeakerTurns, msgpack.packb(RESULT | {field: turns[:-1]})), field)) == MAX_SPEAKERS
    with pytest.raises(MessageMalformed, match="101 different speakers"):
        decode(SpeakerTurns, msgpack.packb(RESULT | {field: turns}))


@pytest.mark.shared
def test_an_id_twice_in_one_event_is_refused(shared_dir: Path) -> None:
    """Of two segments under one id only one would be kept: a line of the transcript would be lost."""
    segments = json.loads((shared_dir / "cases" / "duplicate_ids_in_event" / "segs.json").read_text())
    event = EVENT | {"type": "segments", "segments": segments}
    with pytest.raises(MessageMalformed, match=r"6 of 7 segment ids .* segments 0 and 1 have the same id 'd0'"):
        decode(ConversationEvent, raw(ConversationEvent, event))
    unique = [segment | {"id": f"s{number}"} for number, segment in enumerate(segments)]
    assert len(decode(ConversationEvent, raw(ConversationEvent, event | {"segments": unique})).segments) == 13
    both = event | {"segments": unique, "removed": ["s3"]}
    with pytest.raises(MessageMalformed, match="segment 3 's3' is both sent and removed"):
        decode(ConversationEvent, raw(ConversationEvent, both))


def part(audio: Any) -> dict[str, Any]:
    total = {"byte_offset": 0, "total_bytes": len(audio), "part_sha256": "0" * 64}
    return {
        "schema": "audio-part",
        "version": "1.0",
        "job_id": "j",
        "lease_id": "l",
        "chunk_id": "c",
        "audio": audio,
    } | total


def test_parts_are_limited_below_what_a_broker_takes_by_default() -> None:
    assert len(decode(AudioPart, msgpack.packb(part(bytes(MAX_PART_BYTES)))).audio) == MAX_PART_BYTES
    with pytest.raises(MessageMalformed, match="audio"):
        decode(AudioPart, msgpack.packb(part(bytes(MAX_PART_BYTES + 1))))


def test_a_chunk_may_be_larger_than_any_other_message() -> None:
    audio = bytes(20 * 2**20)
    fields = {"schema": "audio-payload", "version": "1.0", "conversation_id": "c", "audio": audio}
    fields["sha256"] = hashlib.sha256(audio).hexdigest()
    assert decode(AudioPayload, msgpack.packb(fields)).audio == audio


def test_audio_sent_as_text_is_refused_rather_than_guessed_at() -> None:
    with pytest.raises(MessageMalformed, match="audio: Input should be a valid bytes"):
        decode(AudioPart, msgpack.packb(part("UklGRg==")))


HEARTBEAT = {
    "schema": "agent-heartbeat",
    "version": "1.0",
    "agent_id": "mac",
    "instance_id": "i",
    "state": "online",
    "sent_at": "2024-01-01T00:00:00Z",
    "started_at": "2024-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (ConversationEvent, EVENT | {"event_id": SECRET}),
        (ConversationEvent, EVENT | {"type": SECRET}),
        (ConversationEvent, EVENT | {"schema": SECRET}),
        (ConversationEvent, EVENT | {"version": SECRET}),
        (ConversationEvent, EVENT | {"started_at": SECRET}),
        (ConversationEvent, EVENT | {"revision": SECRET}),
        (ConversationEvent, EVENT | {"segments": SECRET}),
        (ConversationEvent, EVENT | {"segments": [SECRET]}),
        (ConversationEvent, EVENT | {"segments": [{"id": "s", "text": SECRET, "start_s": None}]}),
        (ConversationEvent, EVENT | {"segments": [{"id": SECRET}, {"id": SECRET}]}),
        (ConversationEvent, EVENT | {"segments": [{"id": SECRET}], "removed": [SECRET]}),
        (ConversationEvent, EVENT | {"segments": [{"id": "s", "start_s": SECRET, "end_s": 0, SECRET: SECRET}]}),
        (ConversationEvent, EVENT | {"segments": [{"id": "s", "start_s": 0, "end_s": 0, "label_source": SECRET}]}),
        (AgentHeartbeat, HEARTBEAT | {"versions": {SECRET: 1.5}}),
        (AgentHeartbeat, HEARTBEAT | {"versions": {SECRET * 20: ""}}),
        (AgentHeartbeat, HEARTBEAT | {"engine": {"name": [SECRET]}}),
        (SpeakerTurns, RESULT | {"timings_ms": {SECRET: SECRET}}),
        (SpeakerTurns, RESULT | {"job_id": SECRET.encode()}),
        (SpeakerTurns, RESULT | {"x": SECRET * 10_000}),
        (AudioPart, part(b"1234") | {"part_sha256": SECRET}),
        (AudioPart, part(b"1234") | {"total_bytes": 1, "audio": SECRET.encode()}),
    ],
)
def test_no_error_repeats_what_the_payload_held(kind: type[Message], payload: dict[str, Any]) -> None:
    with pytest.raises(SchemaError) as caught:
        decode(kind, raw(kind, payload))
    said = f"{caught.value!r} {caught.value.__cause__!r}"
    assert not any(word in said for word in ("Grandmother", "door", "4711"))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a traceback would show the values"


@pytest.mark.parametrize("damage", [b'"Grandmother', b'{"Grandmother" 1}', b"[Grandmother", b'{"a":"Grandmother\\x"}'])
def test_no_parser_error_repeats_what_the_payload_held(damage: bytes) -> None:
    with pytest.raises(MessageMalformed, match="not JSON") as caught:
        decode(ConversationEvent, damage)
    assert "Grandmother" not in str(caught.value)


def test_an_error_names_the_field_and_what_it_wants() -> None:
    wrong = EVENT | {"segments": [{"id": "s", "start_s": 0, "end_s": 0}, {"id": "t", "start_s": "x", "end_s": 0}]}
    with pytest.raises(MessageMalformed, match=r"segments\.1\.start_s: .*number"):
        decode(ConversationEvent, raw(ConversationEvent, wrong))


def test_times_in_milliseconds_are_refused_with_a_hint() -> None:
    segment = {"id": "s1", "text": "x", "start_s": 600_000, "end_s": 604_801}
    with pytest.raises(MessageMalformed, match=r"end_s: .*looks like milliseconds: send seconds"):
        decode(ConversationEvent, raw(ConversationEvent, EVENT | {"segments": [segment]}))
    turn = {"start_s": 0.5, "end_s": 1e9, "speaker": "S0"}
    with pytest.raises(MessageMalformed, match="milliseconds"):
        decode(SpeakerTurns, raw(SpeakerTurns, RESULT | {"turns": [turn]}))
    with pytest.raises(MessageMalformed) as refused:
        decode(SpeakerTurns, raw(SpeakerTurns, RESULT | {"turns": [turn | {"end_s": "late"}]}))
    assert "milliseconds" not in str(refused.value)


def test_the_ids_of_a_refused_message_can_still_be_read() -> None:
    envelope = read_envelope(
        SpeakerTurns, msgpack.packb(RESULT | {"version": "9.0", "lease_id": "not/an/id", "turns": 1})
    )
    assert (envelope.job_id, envelope.lease_id, envelope.chunk_id) == ("j", None, None)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x90", b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x1d\x00\x00" + b"\x80" * 1_900_544]
)
def test_reading_ids_of_what_is_no_message_finds_none(data: bytes) -> None:
    assert read_envelope(SpeakerTurns, data).model_dump(exclude_none=True) == {}


@pytest.mark.parametrize("error", [MessageMalformed, MessageTooLarge, SchemaUnsupported])
def test_every_error_carries_a_code_an_operator_can_look_up(error: type[SchemaError]) -> None:
    assert error.code in set(FailureCode)


def test_words_of_a_rule_of_ours_are_told_without_those_of_its_checker() -> None:
    with pytest.raises(SchemaError, match=r"an `applied` event needs updated_version") as refused:
        decode(
            ConversationEvent,
            b'{"schema": "conversation-event", "version": "1.0", "event_id": "e-1", "type": "applied"}',
        )
    assert "Value error" not in str(refused.value)
