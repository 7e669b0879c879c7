"""Audio and events over HTTP: accepted, labelled and refused as over MQTT."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, EventType, Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN, WAV, Door, answering, open_door
from tests.vps_bridge.live_bridge import CALL_S, STARTED_AT, Backend, call_segments, run_bridge, wait_until
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
