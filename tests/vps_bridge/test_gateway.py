"""The HTTP door of a real bridge: audio and events as over MQTT, and the calls of the earlier HTTP server."""

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from schemas.agent import AgentControl
from schemas.conversation import Accepted, EventType, Verdict
from tests.brokers import RunningBroker, free_port
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
        files = [
            path.name for place in ("spool", "incoming") for path in (self.bridge.data_dir / "bridge" / place).glob("*")
        ]
        return files + [
            item["conversation_id"] for item in self.bridge.json("conversations") if "once-" in item["conversation_id"]
        ]


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


@contextlib.contextmanager
def answering(
    broker: RunningBroker, reply: Callable[[ScriptedAgent, AgentControl], None] | None = None
) -> Iterator[ScriptedAgent]:
    """An agent that answers every job."""
    ended = threading.Event()

    def work() -> None:
        done: set[str] = set()
        while not ended.wait(0.02):
            for offer in agent.offers.items:
                if (offer.lease_id or "") not in done:
                    done.add(offer.lease_id or "")
                    if reply is None:
                        agent.pull(offer)
                        agent.answer(offer, CALL_TURNS)
                    else:
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
        assert agent.offers.items[-1].max_speakers == 2
        assert set(door.leftovers) == before
        health = door.open.get("/health").json()
        assert (health["status"], health["service"]) == ("healthy", "omi-diarization")
        assert health["model"] == "scripted"
