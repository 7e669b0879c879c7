"""The HTTP door of a real bridge: audio and events as over MQTT, and the calls of the earlier HTTP server."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from broker.errors import SettingsError
from schemas.agent import AgentControl
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, EventType, Verdict
from schemas.failure import FailureCode
from tests.brokers import REPOSITORY, RunningBroker, free_port
from tests.vps_bridge.live_bridge import (
    CALL_S,
    CALL_TURNS,
    STARTED_AT,
    Backend,
    LiveBridge,
    call_segments,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.http.access import read_access_rule
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

TOKEN = "a-token-of-this-test-alone"
WAV = {"Content-Type": "audio/wav"}
CLIENT_TIMEOUT_S = 60.0  # what the earlier backend gives a call


class Door:
    """The HTTP door of a bridge as programs on the same machine see it."""

    def __init__(self, bridge: LiveBridge, backend: Backend, token: str | None = TOKEN) -> None:
        self.bridge, self.backend = bridge, backend
        self.url = f"http://127.0.0.1:{bridge.options['OMI_HTTP_PORT']}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=CLIENT_TIMEOUT_S)
        self.open = httpx.Client(base_url=self.url, timeout=CLIENT_TIMEOUT_S)

    def audio(
        self, conversation_id: str, body: Any, headers: dict[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        path = f"/v1/conversations/{conversation_id}/audio"
        return self.client.post(path, content=body, headers=headers or WAV, params=query)

    def event(self, conversation_id: str, kind: EventType, **fields: Any) -> httpx.Response:
        body = {"schema": "conversation-event", "version": "1.0", "event_id": f"e-{uuid.uuid4().hex}", "type": kind}
        return self.client.post(f"/v1/conversations/{conversation_id}/events", json=body | fields)

    def diarize(self, body: bytes, num_speakers: int | None = None) -> httpx.Response:
        """As the earlier backend does it."""
        data = {} if num_speakers is None else {"num_speakers": str(num_speakers)}
        return self.open.post("/api/diarize", files={"file": ("call.wav", body, "audio/wav")}, data=data)

    @property
    def leftovers(self) -> list[str]:
        """Audio on the bridge's disk, and conversations that were made for one question."""
        root = self.bridge.data_dir / "bridge"
        ledger = Ledger(root, exclusive=False)
        questions = ledger.conversations.throwaways()
        ledger.close()
        return questions + [path.name for place in ("spool", "incoming") for path in (root / place).glob("*")]


def open_door(**options: str) -> dict[str, str]:
    return {"OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN": TOKEN} | options


@pytest.fixture(scope="module")
def door(mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One bridge for this file's tests, each in conversations of its own."""
    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend, **open_door()) as bridge:
        bridge.allow("first")
        yield Door(bridge, backend)


@pytest.fixture
def own_door(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **open_door()) as bridge:
        bridge.allow("first")
        yield Door(bridge, own_backend)


def _answer(agent: ScriptedAgent, offer: AgentControl) -> None:
    agent.answer(offer, CALL_TURNS)


@contextlib.contextmanager
def answering(
    broker: RunningBroker, reply: Callable[[ScriptedAgent, AgentControl], None] = _answer
) -> Iterator[ScriptedAgent]:
    """An agent that answers every job."""
    ended = threading.Event()

    def work() -> None:
        done: set[str] = set()
        while not ended.wait(0.02):
            for control in agent.settled.items:  # an offer that came twice is held twice, as a real agent's is not
                if agent.held.get(control.job_id or "") == control.lease_id:
                    del agent.held[control.job_id or ""]
            for offer in agent.offers.items:
                if (offer.lease_id or "") not in done:
                    done.add(offer.lease_id or "")
                    reply(agent, offer)

    with ScriptedAgent(broker, "first") as agent:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            ended.set()
            thread.join(30.0)


def live(door: Door) -> bool:
    return door.open.get("/health").json()["status"] == "healthy"


# ------------------------------------------------------------------------------------- audio and events


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
    said = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
    octets = {"Content-Type": "application/octet-stream"}
    assert door.audio("raw", raw, octets, **said).status_code == 202
    assert door.audio("raw", raw, octets, encoding="pcm_s16le").status_code == 422
    assert door.audio("raw", raw, octets).json()["code"] == "audio.undecodable"


# ------------------------------------------------------------------------------- the earlier HTTP server


def test_the_earlier_client_gets_what_it_got_before(mosquitto: RunningBroker, door: Door) -> None:
    with answering(mosquitto) as agent:
        wait_until(lambda: live(door), "the agent")
        before = set(door.leftovers)
        answer = door.diarize(make_wav(CALL_S, tone=1), num_speakers=2)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert set(body) == {"speakers", "num_speakers", "processing_time_ms"}
        assert body["num_speakers"] == 2
        assert body["processing_time_ms"] > 0
        spoken = [(turn["start"], turn["end"], turn["speaker_id"]) for turn in body["speakers"]]
        assert spoken == [
            (pytest.approx(a), pytest.approx(b), f"SPEAKER_0{'ab'.index(who)}") for a, b, who in CALL_TURNS
        ]
        assert [offer for offer in agent.offers.items if offer.max_speakers == 2]
        assert set(door.leftovers) == before
        health = door.open.get("/health").json()
        assert (health["status"], health["service"]) == ("healthy", "omi-diarization")
        assert health["model"] == "scripted"


def test_curl_gets_what_it_got_before(mosquitto: RunningBroker, door: Door, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt-get install curl")
    file = tmp_path / "call.wav"
    file.write_bytes(make_wav(CALL_S, tone=2))
    with answering(mosquitto):
        wait_until(lambda: live(door), "the agent")
        form = ["-F", f"file=@{file}", "-F", "num_speakers=2"]
        done = subprocess.run(
            [curl, "-sS", *form, f"{door.url}/api/diarize"], capture_output=True, timeout=60, check=True
        )
    answer = json.loads(done.stdout)
    assert answer["num_speakers"] == 2
    assert [turn["speaker_id"] for turn in answer["speakers"][:2]] == ["SPEAKER_00", "SPEAKER_01"]


def test_a_file_that_cannot_be_diarized_is_refused_with_the_reason(mosquitto: RunningBroker, door: Door) -> None:
    def fail(agent: ScriptedAgent, offer: AgentControl) -> None:
        agent.fail(offer, FailureCode.AUDIO_UNDECODABLE, retryable=False)

    with answering(mosquitto, fail):
        wait_until(lambda: live(door), "the agent")
        before = door.leftovers
        assert door.diarize(b"").status_code == 400
        assert door.diarize(b"this is no audio at all").status_code == 422
        undecodable = door.diarize(make_wav(CALL_S, tone=3))
        assert (undecodable.status_code, undecodable.json()) == (422, {"detail": "as the test told it"})
        for bad in ("0", "101", "two", "-1", "1.5", "²"):
            form = {"num_speakers": bad}
            assert door.open.post("/api/diarize", files={"file": make_wav(1.0)}, data=form).status_code == 422, bad
        assert door.open.post("/api/diarize", files={"audio": make_wav(1.0)}).status_code == 422
        twice = [("file", make_wav(1.0)), ("file", make_wav(1.0))]
        assert door.open.post("/api/diarize", files=twice).status_code == 422
        assert door.open.post("/api/diarize", content=make_wav(1.0), headers=WAV).status_code == 422
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        assert door.open.post("/api/diarize", content=b"--y\r\n", headers=broken).status_code == 400
        cut_off = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF'
        assert door.open.post("/api/diarize", content=cut_off, headers=broken).status_code == 422
        assert door.leftovers == before


def test_an_engine_that_fails_is_a_server_error_with_its_reason(mosquitto: RunningBroker, door: Door) -> None:
    def fail(agent: ScriptedAgent, offer: AgentControl) -> None:
        agent.fail(offer, FailureCode.ENGINE_FAILED, retryable=False)

    with answering(mosquitto, fail):
        wait_until(lambda: live(door), "the agent")
        answer = door.diarize(make_wav(CALL_S, tone=4))
    assert (answer.status_code, answer.json()) == (500, {"detail": "as the test told it"})


def test_without_an_agent_the_earlier_call_says_so_at_once(own_door: Door) -> None:
    health = own_door.open.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["device"]) == (200, "no_agent", None)
    answer = own_door.diarize(make_wav(CALL_S))
    assert answer.status_code == 503
    assert "omi-agent run" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert own_door.leftovers == []


def test_an_answer_that_does_not_come_is_given_up_and_its_audio_deleted(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = open_door(OMI_HTTP_ANSWER_TIMEOUT_S="2")
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **options) as bridge:
        bridge.allow("first")
        door = Door(bridge, own_backend)
        with ScriptedAgent(own_broker, "first") as agent:
            wait_until(lambda: live(door), "the agent")
            answer = door.diarize(make_wav(CALL_S))
            assert answer.status_code == 504
            assert "OMI_HTTP_ANSWER_TIMEOUT_S" in answer.json()["detail"]
            agent.cancelled.wait_count(1)
            wait_until(lambda: door.leftovers == [], "the deletion")


def test_a_caller_that_hangs_up_leaves_nothing_behind(own_broker: RunningBroker, own_door: Door) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        wait_until(lambda: live(own_door), "the agent")
        impatient = httpx.Client(base_url=own_door.url, timeout=httpx.Timeout(20.0, read=1.0))
        with pytest.raises(httpx.ReadTimeout):
            impatient.post("/api/diarize", files={"file": make_wav(CALL_S)})
        impatient.close()
        agent.cancelled.wait_count(1)
        wait_until(lambda: own_door.leftovers == [], "the deletion")


# ------------------------------------------------------------------------------------------ what breaks


def test_a_bridge_that_restarts_between_upload_and_final_finishes(own_broker: RunningBroker, own_door: Door) -> None:
    name = "restarted"
    assert own_door.audio(name, make_wav(CALL_S), sequence=0).status_code == 202
    own_door.bridge.kill()
    own_door.bridge.start(own_door.backend)
    assert own_door.audio(name, make_wav(CALL_S), sequence=0).status_code == 200
    assert own_door.event(name, EventType.COMPLETED, chunks=1).status_code == 200
    with answering(own_broker):
        update = own_door.backend.wait_updated(name)
    assert update.speakers == 2
    assert update.audio_s == pytest.approx(CALL_S)


def test_a_bridge_killed_in_the_middle_of_an_upload_keeps_nothing_and_takes_it_again(own_door: Door) -> None:
    audio = make_wav(600.0)
    incoming = own_door.bridge.data_dir / "bridge" / "incoming"
    half = len(audio) // 2

    def slowly() -> Iterator[bytes]:
        yield audio[:half]
        wait_until(lambda: sum(path.stat().st_size for path in incoming.glob("*")) >= 2**20, "half of it on disk")
        own_door.bridge.kill()
        yield audio[half:]

    with pytest.raises(httpx.HTTPError):
        own_door.audio("killed", slowly(), chunk_id="one")
    assert list(incoming.iterdir())
    own_door.bridge.start(own_door.backend)
    assert own_door.leftovers == []
    assert own_door.audio("killed", audio, chunk_id="one").status_code == 202
    assert [path.read_bytes() for path in own_door.bridge.spool.iterdir()] == [audio]


def test_a_question_that_died_with_the_bridge_is_deleted_by_the_next_one(
    own_broker: RunningBroker, own_door: Door
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        wait_until(lambda: live(own_door), "the agent")
        asking = threading.Thread(target=lambda: _suppressed(own_door), daemon=True)
        asking.start()
        agent.offers.wait_count(1)
        assert len(own_door.leftovers) == 2
        own_door.bridge.kill()
        asking.join(30.0)
        own_door.bridge.start(own_door.backend)
        wait_until(lambda: own_door.leftovers == [], "the deletion")


def _suppressed(door: Door) -> None:
    with contextlib.suppress(httpx.HTTPError):
        door.diarize(make_wav(CALL_S))


def test_a_bridge_that_is_stopped_answers_everybody_and_loses_nothing(
    own_broker: RunningBroker, own_door: Door
) -> None:
    answers: dict[str, int] = {}
    reached, ended = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield make_wav(60.0)[:-1]
        reached.set()
        assert ended.wait(60.0)
        yield b"0"

    def ask() -> None:
        answers["question"] = own_door.diarize(make_wav(CALL_S)).status_code

    def upload() -> None:
        answers["upload"] = own_door.audio("slow", slowly()).status_code

    with ScriptedAgent(own_broker, "first") as agent:
        wait_until(lambda: live(own_door), "the agent")
        threads = [threading.Thread(target=work, daemon=True) for work in (ask, upload)]
        for thread in threads:
            thread.start()
        agent.offers.wait_count(1)
        assert reached.wait(20.0)
        accepted = own_door.audio("kept", make_wav(5.0), chunk_id="one")
        assert accepted.status_code == 202
        assert own_door.bridge.stop() == 0
        ended.set()
        for thread in threads:
            thread.join(40.0)
    assert answers == {"question": 503, "upload": 503}
    own_door.bridge.start(own_door.backend)
    assert len(own_door.leftovers) == 1, "the chunk that was accepted"
    assert own_door.audio("kept", make_wav(5.0), chunk_id="one").status_code == 200


def test_a_slow_caller_stalls_neither_heartbeat_nor_others(door: Door) -> None:
    reached, ended = threading.Event(), threading.Event()
    answers: list[int] = []
    audio = make_wav(100.0, tone=11)

    def slowly() -> Iterator[bytes]:
        yield audio[:500_000]
        reached.set()
        assert ended.wait(60.0)
        yield audio[500_000:]

    slow = threading.Thread(target=lambda: answers.append(door.audio("slow", slowly()).status_code), daemon=True)
    slow.start()
    assert reached.wait(20.0)
    before = len(door.backend.seen(BridgeHeartbeat))
    assert door.audio("quick", make_wav(1.0, tone=12)).status_code == 202
    wait_until(lambda: len(door.backend.seen(BridgeHeartbeat)) >= before + 3, "three more beats")
    ended.set()
    slow.join(30.0)
    assert answers == [202]


def test_what_is_declared_too_large_is_refused_before_it_is_read(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), 20.0) as raw:
        lines = (
            "POST /v1/conversations/huge/audio HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {TOKEN}",
            "Content-Type: audio/wav",
            f"Content-Length: {5 * 10**9}",
        )
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        raw.settimeout(20.0)
        assert raw.recv(4_096).startswith(b"HTTP/1.1 413 ")
    form = door.open.build_request("POST", "/api/diarize", files={"file": b"x"})
    form.headers["Content-Length"] = str(5 * 10**9)
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), 20.0) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in form.headers.items())
        raw.sendall(f"POST /api/diarize HTTP/1.1\r\n{head}\r\n".encode())
        raw.settimeout(20.0)
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


# ----------------------------------------------------------------------------------------- who comes in


def test_without_the_token_only_the_earlier_calls_are_open_and_only_to_this_machine(door: Door) -> None:
    for path in ("/v1/conversations/c1/audio", "/v1/conversations/c1/events", "/nothing"):
        answer = door.open.post(path, content=b"x")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert door.open.get("/openapi.json").status_code == 401
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", ""):
        assert door.open.get("/openapi.json", headers={"Authorization": wrong}).status_code == 401
    assert door.open.get("/health").status_code == 200
    assert door.open.get("/health", headers={"Host": "localhost:1"}).status_code == 200
    for foreign in ({"Host": "rebound.example"}, {"Origin": "http://evil.example"}, {"Host": "[::2]"}):
        assert door.open.get("/health", headers=foreign).status_code == 403
        assert door.client.get("/health", headers=foreign).status_code == 200, "a token says enough"


def test_a_door_that_others_reach_needs_a_token(own_broker: RunningBroker, tmp_path: Path) -> None:
    bridge = LiveBridge(own_broker, tmp_path / "data", {"OMI_HTTP_HOST": "0.0.0.0", "OMI_HTTP_PORT": str(free_port())})
    done = bridge.command("run", check=False)
    assert done.returncode == 2
    assert "http_token_file" in done.stderr


def test_a_token_that_is_none_or_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_access_rule(BridgeSettings(http_token_file=token_file))
    token_file.chmod(0o600)
    assert read_access_rule(BridgeSettings(http_token_file=token_file)).token == TOKEN
    with pytest.raises(SettingsError, match="give the token once"):
        read_access_rule(BridgeSettings(http_token_file=token_file, http_token=SecretStr(TOKEN)))
    for bad in ("short", "spaced\nand more than sixteen", "ünprintable-in-a-header"):
        with pytest.raises(SettingsError, match="openssl rand") as refused:
            read_access_rule(BridgeSettings(http_token=SecretStr(bad)))
        assert bad not in str(refused.value)
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert read_access_rule(BridgeSettings(http_host=host)).is_loopback
    for host in ("0.0.0.0", "::", "100.64.0.1", "vps.tailnet.ts.net"):
        with pytest.raises(SettingsError, match="not loopback"):
            read_access_rule(BridgeSettings(http_host=host))


def test_a_door_that_others_reach_is_open_to_nobody_without_the_token(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    options = {"OMI_HTTP_HOST": "0.0.0.0", "OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN_FILE": str(token_file)}
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge:
        door = Door(bridge, own_backend)
        assert door.open.get("/health").status_code == 401
        assert door.diarize(make_wav(1.0)).status_code == 401
        assert door.client.get("/health").status_code == 200
        assert TOKEN not in bridge.log_file.read_text()
        assert TOKEN not in bridge.command("config", "--json").stdout


def test_a_port_that_is_taken_is_told_and_had_once_it_is_free(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    options = open_door()
    with socket.create_server(("127.0.0.1", int(options["OMI_HTTP_PORT"]))):
        bridge = LiveBridge(own_broker, tmp_path / "data")
        bridge.start(own_backend, **options)
        told = wait_until(lambda: own_backend.seen(BridgeHeartbeat)[-1].last_error, "the error in the heartbeat")
        assert "OMI_HTTP_PORT" in told
        assert own_backend.audio("still", make_wav(1.0)).verdict is Verdict.ACCEPTED
    door = Door(bridge, own_backend)

    def is_open() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return door.open.get("/health").status_code == 200
        return False

    wait_until(is_open, "the door", 60.0)
    assert bridge.stop() == 0


# ---------------------------------------------------------------------------------- what the door says of itself


def test_its_document_names_its_paths_and_loads_nothing_from_elsewhere(door: Door) -> None:
    document = door.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/conversations/{conversation_id}/audio",
        "/v1/conversations/{conversation_id}/events",
        "/health",
        "/api/diarize",
    }
    assert {} in document["paths"]["/health"]["get"]["security"]
    assert {} not in document["paths"]["/v1/conversations/{conversation_id}/audio"]["post"]["security"]
    for page in ("/docs", "/redoc"):
        assert door.client.get(page).status_code == 404


def _ask_whatever_the_document_allows(mosquitto: RunningBroker, door: Door, examples: int) -> None:
    # A body at random is rarely audio that is accepted, and pydantic reads false as 0 here as over MQTT.
    unchecked = "positive_data_acceptance,negative_data_rejection"
    with answering(mosquitto):
        wait_until(lambda: live(door), "the agent")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{door.url}/openapi.json",
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--exclude-checks", unchecked),
                *("--max-examples", str(examples), "--seed", "7", "--generation-database", "none", "--no-shrink"),
                *("--suppress-health-check", "all", "--request-timeout", "60"),
            ],
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.vps_bridge.door_bodies", "PYTHONPATH": str(REPOSITORY)},
            cwd=door.bridge.data_dir,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6_000:]
    asked = re.search(r"(\d+) generated", done.stdout)
    assert asked is not None
    assert int(asked[1]) > 100
    assert "error" not in (door.backend.seen(BridgeHeartbeat)[-1].last_error or "")


def test_schemathesis_finds_no_server_error_and_nothing_that_is_not_documented(
    mosquitto: RunningBroker, door: Door
) -> None:
    _ask_whatever_the_document_allows(mosquitto, door, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_schemathesis_finds_none_for_long_either(mosquitto: RunningBroker, door: Door) -> None:
    _ask_whatever_the_document_allows(mosquitto, door, examples=300)
