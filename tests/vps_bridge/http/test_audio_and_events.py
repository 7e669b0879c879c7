"""Audio and events over HTTP: accepted, labelled and refused as over MQTT."""

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, EventType, TranscriptSegment, Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN, WAV, Door, answering, open_door
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, TOPICS, Backend, call_segments, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav


def test_a_call_sent_over_http_is_labelled_as_one_over_mqtt_is(mosquitto: RunningBroker, door: Door) -> None:
    name = "over-http"
    with answering(mosquitto):
        assert door.event(name, EventType.STARTED, started_at=STARTED_AT.isoformat()).status_code == 200
        segments = [segment.model_dump(mode="json") for segment in call_segments(name)]
        assert door.event(name, EventType.SEGMENTS, segments=segments).status_code == 200
        sent = door.audio(name, make_wav(CALL_S), captured_at=STARTED_AT.isoformat(), sequence=0)
        assert sent.status_code == 202
        assert door.event(name, EventType.COMPLETED, chunks=1).status_code == 200
        update = door.backend.wait_updated(name)
    assert update.speakers == 2
    assert [segment.speaker for segment in update.segments] == [f"SPEAKER_0{place % 2}" for place in range(6)]


def test_the_answer_is_the_receipt_that_goes_out_over_mqtt(door: Door) -> None:
    audio = make_wav(1.0, tone=7)
    sent = door.audio("receipt", audio, sequence=3, sha256=hashlib.sha256(audio).hexdigest())
    receipt = Accepted.model_validate(sent.json())
    assert (receipt.chunk_id, receipt.bytes, receipt.verdict) == ("s-3", len(audio), Verdict.ACCEPTED)
    assert door.backend.wait_receipt("receipt", chunk_id="s-3") == receipt
    event = door.event("receipt", EventType.STARTED)
    assert door.backend.wait_receipt("receipt", event_id=event.json()["event_id"]) == Accepted.model_validate(
        event.json()
    )


def test_the_same_chunk_through_both_doors_is_one_chunk(door: Door) -> None:
    audio = make_wav(2.0, tone=8)
    at = datetime(2026, 5, 4, 11, 0, tzinfo=UTC)
    first = door.audio("both", audio, captured_at=at.isoformat())
    assert first.status_code == 202
    over_mqtt = door.backend.audio("both", audio, chunk_id=first.json()["chunk_id"], captured_at=at)
    assert over_mqtt == Accepted.model_validate(first.json())
    again = door.audio("both", audio, captured_at=at.isoformat())
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(door.bridge.jobs("both")) <= 1
    other = door.audio("both", make_wav(2.0, tone=9), chunk_id=first.json()["chunk_id"])
    assert (other.status_code, other.json()["code"]) == (409, "chunk.id_conflict")


def test_an_event_is_read_with_a_byte_order_mark_and_never_with_a_key_twice(door: Door) -> None:
    """At both doors; what is refused is named."""
    head = {"Content-Type": "application/json"}
    start = '{"schema": "conversation-event", "version": "1.0", "type": "completed", "chunks": 1'
    for encoding in ("utf-8-sig", "utf-16"):
        for name, marked in (("e-http", True), ("e-mqtt", False)):
            event_id = f"{name}-{encoding}"
            body = f'{start}, "event_id": "{event_id}"}}'.encode(encoding)
            if marked:
                answer = door.client.post("/v1/conversations/marks/events", content=body, headers=head)
                assert answer.status_code == 200, answer.text
            else:
                door.backend.publish(TOPICS.events("marks"), body)
            assert door.backend.wait_receipt("marks", event_id=event_id).verdict is Verdict.ACCEPTED
    body = f'{start}, "event_id": "twice", "chunks": 2}}'.encode()
    refused = door.client.post("/v1/conversations/marks/events", content=body, headers=head)
    assert (refused.status_code, "'chunks' stands twice" in refused.json()["message"]) == (422, True)
    query = "sequence=1&sequence=2"
    chunk = door.client.post(f"/v1/conversations/marks/audio?{query}", content=make_wav(1.0), headers=WAV)
    assert (chunk.status_code, "'sequence' stands twice" in chunk.json()["message"]) == (422, True)


def test_raw_samples_are_taken_where_the_query_says_what_they_are(door: Door) -> None:
    raw = bytes(16_000 * 2)
    query = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
    octets = {"Content-Type": "application/octet-stream"}
    assert door.audio("raw", raw, octets, **query).status_code == 202
    assert door.audio("raw", raw, octets, encoding="pcm_s16le").status_code == 422
    assert door.audio("raw", raw, octets).json()["code"] == "audio.undecodable"


def test_a_slow_caller_stalls_neither_heartbeat_nor_others(door: Door) -> None:
    reached, ended = threading.Event(), threading.Event()
    answers: list[int] = []
    audio = make_wav(100.0, tone=11)

    def slowly() -> Iterator[bytes]:
        yield audio[:500_000]
        reached.set()
        assert ended.wait(WAIT_S)
        yield audio[500_000:]

    slow = threading.Thread(target=lambda: answers.append(door.audio("slow", slowly()).status_code), daemon=True)
    slow.start()
    assert reached.wait(WAIT_S)
    before = len(door.backend.seen(BridgeHeartbeat))
    assert door.audio("quick", make_wav(1.0, tone=12)).status_code == 202
    wait_until(lambda: len(door.backend.seen(BridgeHeartbeat)) >= before + 3, "three more beats")
    ended.set()
    slow.join(WAIT_S)
    assert answers == [202]


def test_what_is_declared_too_large_is_refused_before_it_is_read(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), WAIT_S) as raw:
        lines = (
            "POST /v1/conversations/huge/audio HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {TOKEN}",
            "Content-Type: audio/wav",
            f"Content-Length: {5 * 10**9}",
        )
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        raw.settimeout(WAIT_S)
        assert raw.recv(4_096).startswith(b"HTTP/1.1 413 ")
    form = door.open.build_request("POST", "/api/diarize", files={"file": b"x"})
    form.headers["Content-Length"] = str(5 * 10**9)
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), WAIT_S) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in form.headers.items())
        raw.sendall(f"POST /api/diarize HTTP/1.1\r\n{head}\r\n".encode())
        raw.settimeout(WAIT_S)
        assert raw.recv(4_096).startswith(b"HTTP/1.1 413 ")


def test_what_turns_out_too_large_or_finds_no_room_is_refused(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = open_door(OMI_MAX_CHUNK_BYTES="2000000", OMI_MAX_QUEUE_BYTES="2500000")
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **options) as bridge:
        door = Door(bridge, own_backend)
        audio = make_wav(120.0)

        def undeclared(times: int) -> Iterator[bytes]:
            for _ in range(times):
                yield audio

        too_large = door.audio("c", undeclared(2))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "ingest.too_large")
        assert door.audio("c", undeclared(1), chunk_id="one").status_code == 202
        full = door.audio("c", audio, chunk_id="two")
        assert (full.status_code, full.json()["code"]) == (503, "ingest.full")
        assert len(door.leftovers) == 1


def test_nothing_is_taken_for_a_conversation_that_is_deleted(door: Door) -> None:
    door.audio("gone", make_wav(5.0), chunk_id="one")
    deleted = door.event("gone", EventType.DELETED)
    assert (deleted.status_code, deleted.json()["verdict"]) == (200, "accepted")
    for answer in (door.audio("gone", make_wav(5.0)), door.event("gone", EventType.STARTED)):
        assert (answer.status_code, answer.json()["code"]) == (410, "conversation.deleted")
    stale = [door.event("revised", EventType.STARTED, revision=number) for number in (5, 4)]
    assert [answer.status_code for answer in stale] == [200, 409]


def test_an_update_that_names_only_the_speaker_keeps_text_and_times_through_either_door(door: Door) -> None:
    words = [{"text": "Hello", "start_s": 1.0, "end_s": 1.5}]
    whole = {"id": "a", "text": "Hello", "start_s": 1.0, "end_s": 2.0, "person_id": "p", "words": words}
    assert door.event("partly", EventType.SEGMENTS, segments=[whole], revision=1).status_code == 200

    def shown() -> dict[str, Any]:
        (segment,) = door.bridge.json("show", "partly")["segments"]
        return {name: segment[name] for name in ("text", "start_s", "end_s", "speaker", "person_id")}

    by_http = [{"id": "a", "speaker": "SPEAKER_01"}]
    assert door.event("partly", EventType.SEGMENTS, segments=by_http, revision=2).status_code == 200
    times = {"start_s": 1.0, "end_s": 2.0}
    assert shown() == {"text": "Hello", "speaker": "SPEAKER_01", "person_id": "p", **times}
    by_mqtt = (TranscriptSegment(id="a", speaker="SPEAKER_02", person_id=None),)
    door.backend.event("partly", EventType.SEGMENTS, segments=by_mqtt, revision=3)
    assert shown() == {"text": "Hello", "speaker": "SPEAKER_02", "person_id": None, **times}
    new = door.event("partly", EventType.SEGMENTS, segments=[{"id": "b", "speaker": "SPEAKER_01"}], revision=4)
    assert (new.status_code, new.json()["code"]) == (422, "payload.malformed")
    assert "'b'" in new.json()["message"]
    assert "start_s" in new.json()["message"]


@pytest.mark.parametrize("name", ["sequence", "sample_rate", "channels", "duration_s", "num_speakers", "max_speakers"])
def test_a_number_that_is_none_is_refused_by_its_name(door: Door, name: str) -> None:
    for bad in ("NaN", "inf", "1e400", "١٢", "", "1_0", " 5", "true", "9" * 400, "-1", "000000999999999"):
        query: dict[str, Any] = {name: bad}
        sent = door.audio("odd", make_wav(1.0), **query)
        assert (sent.status_code, name in sent.json()["message"]) == (422, True), bad


def test_no_speakers_are_no_hint_and_leading_zeros_do_not_matter(door: Door) -> None:
    hints: dict[str, Any] = {"num_speakers": "0", "min_speakers": 0, "max_speakers": "0002"}
    assert door.audio("hints", make_wav(1.0), **hints).status_code == 202
    shown = door.bridge.json("show", "hints")
    assert (shown["num_speakers"], shown["min_speakers"], shown["max_speakers"]) == (None, None, 2)
    door.backend.audio("hints", make_wav(2.0), num_speakers=0)
    assert door.event("hints", EventType.STARTED, num_speakers=0).status_code == 200


def test_what_the_door_refuses_leaves_a_trace_too(door: Door) -> None:
    door.audio("traced", make_wav(1.0), sequence="one")
    door.audio("traced", make_wav(1.0), {"Content-Type": "text/plain"}, chunk_id="c1")
    door.audio("traced", b"no audio", chunk_id="c2")

    def traces() -> list[dict[str, Any]]:
        found = [item for item in door.bridge.json("failed") if item["conversation_id"] == "traced"]
        return found if len(found) >= 3 else []

    listed = wait_until(traces, "all traces")  # what is refused within half a second is written together
    assert [(item["chunk_id"], item["failure_code"]) for item in reversed(listed)] == [
        ("", "payload.malformed"),
        ("c1", "audio.undecodable"),
        ("c2", "audio.undecodable"),
    ]


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00 02:00", "2026-01-01 00:00:00.5 0200", "2026-01-01T00:00 02"])
def test_a_plus_sign_that_a_query_lost_is_named(door: Door, moment: str) -> None:
    sent = door.audio("plus", make_wav(1.0), captured_at=moment)
    assert sent.status_code == 422
    assert "captured_at: " in sent.json()["message"]
    assert "%2B" in sent.json()["message"]
    assert "end with Z" in sent.json()["message"]
    right = moment[: moment.rindex(" ")] + "+02:00"
    assert door.audio("plus", make_wav(1.0), captured_at=right).status_code in (200, 202)


def test_what_is_no_event_or_no_audio_is_refused_with_the_field_and_never_its_value(door: Door) -> None:
    path = "/v1/conversations/c1/events"
    secret = "nobody-shall-read-this"
    wrong = door.client.post(
        path, json={"schema": "conversation-event", "version": "1.0", "event_id": "e1", "type": secret}
    )
    assert (wrong.status_code, wrong.json()["code"]) == (422, "payload.malformed")
    assert "type" in wrong.json()["message"]
    query = door.audio("c1", make_wav(1.0), sequence=secret)
    assert query.status_code == 422
    assert "sequence" in query.json()["message"]
    assert secret not in wrong.text + query.text
    assert door.audio("c1", make_wav(1.0), captured="2026-05-04T10:00:00Z").status_code == 422, "a misspelt name"
    other = "0" * 64
    assert door.audio("c1", make_wav(1.0), sha256=other).json()["code"] == "payload.sha256_mismatch"
    assert door.audio("c1", b"").status_code == 400
    assert door.audio("a.b", make_wav(1.0)).status_code == 422
    assert door.audio("c1", make_wav(1.0), {"Content-Type": "text/plain"}).status_code == 415
    assert door.client.post(path, content=b"{}", headers=WAV).status_code == 415
    assert door.client.post(path, content=b"{}", headers={"Content-Type": "application/json"}).status_code == 422
    large = {"Content-Type": "application/json"}
    assert door.client.post(path, content=bytes(2_000_001), headers=large).status_code == 413
    assert door.client.get("/v1/nothing").status_code == 404
    assert door.client.get(path).status_code == 405


LINE = {"id": "s-1", "start_s": 0.0, "end_s": 1.0, "text": "hello"}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (EventType.COMPLETED, {"segments": [LINE]}, "says nothing of segments: send it in an event of type `segments`"),
        (EventType.STARTED, {"segments": [LINE]}, "says nothing of segments"),
        (EventType.SEGMENTS, {"segments": [LINE], "started_at": "2024-02-29T00:00:00Z"}, "says nothing of started_at"),
        (EventType.CORRECTED, {"corrections": [{"kind": "segment_is", "segment_id": "s-0", "person_id": " "}]}, "seen"),
    ],
)
def test_an_event_whose_words_would_be_lost_is_refused_whole(
    door: Door, kind: EventType, fields: dict[str, Any], words: str
) -> None:
    assert door.event("odd", EventType.SEGMENTS, segments=[LINE | {"id": "s-0"}]).status_code == 200
    refused = door.event("odd", kind, **fields)
    assert (refused.status_code, words in refused.json()["message"]) == (422, True), refused.json()
    segments = door.client.get("/v1/conversations/odd").json()["segments"]
    assert [(segment["id"], segment["person_id"]) for segment in segments] == [("s-0", None)]


def test_what_an_event_names_with_the_value_it_has_anyway_says_nothing(door: Door) -> None:
    idle: dict[str, Any] = {"segments": [], "removed": [], "chunks": None, "corrections": [], "temporary": False}
    assert door.event("idle", EventType.STARTED, **idle, by="whoever sends it").status_code == 200
    assert door.event("idle", EventType.SEGMENTS, segments=[]).status_code == 200


@pytest.mark.parametrize("header", [{"Content-Range": "bytes 0-4999/99999"}, {"Content-Encoding": "gzip"}], ids=str)
def test_a_part_of_a_file_is_not_taken_for_the_file(door: Door, header: dict[str, str]) -> None:
    refused = door.audio("part", make_wav(1.0), headers=WAV | header)
    assert (refused.status_code, refused.json()["code"]) == (415, "audio.undecodable")
    assert next(iter(header)) in refused.json()["message"]
    assert door.audio("part", make_wav(1.0), headers=WAV | {"Content-Encoding": "identity"}).status_code == 202


def test_what_is_compressed_is_refused_with_what_to_do(door: Door) -> None:
    twice = [("Content-Type", "audio/wav"), ("Content-Encoding", "identity"), ("Content-Encoding", "GZIP")]
    audio = door.client.post("/v1/conversations/zipped/audio", content=make_wav(1.0), headers=twice)
    assert (audio.status_code, "without Content-Encoding" in audio.json()["message"]) == (415, True)
    json_headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path in ("/v1/conversations/zipped/events", "/v1/people/anna/events"):
        event = door.client.post(path, content=gzip.compress(b"{}"), headers=json_headers)
        assert (event.status_code, "without Content-Encoding" in event.json()["message"]) == (415, True)


def test_a_slash_behind_a_path_is_no_redirect_that_looks_like_success(door: Door) -> None:
    sent = door.client.post("/v1/conversations/slash/audio/", content=make_wav(1.0), headers=WAV)
    assert (sent.status_code, sent.json()["code"]) == (404, "http.error")
    assert door.client.get("/v1/conversations/slash").status_code == 404
