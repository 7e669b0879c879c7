"""`/api/diarize` and `/health`: the calls of the earlier HTTP server, answered as it did."""

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.agent import AgentControl
from schemas.bridge import BridgeHeartbeat
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.pace import paced_settings
from tests.vps_bridge.http.door import WAV, Door, answering, live, open_door
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav


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


def test_the_least_and_the_most_speakers_are_hints_too(mosquitto: RunningBroker, door: Door) -> None:
    """Both go to the linker; an engine is told a maximum at most."""
    audio = {"file": make_wav(CALL_S, tone=21)}
    with answering(mosquitto) as agent:
        wait_until(lambda: live(door), "the agent")
        for fields, query, most in (
            ({"min_speakers": "2", "max_speakers": "4"}, {"max_speakers": 9}, 4),
            ({}, {"max_speakers": "3"}, 3),
            ({"max_speakers": ""}, {"min_speakers": 2}, None),
        ):
            seen = len(agent.offers.items)
            answer = door.open.post("/api/diarize", files=audio, data=fields, params=query)
            assert (answer.status_code, answer.json()["num_speakers"]) == (200, 2), answer.text
            assert {offer.max_speakers for offer in agent.offers.items[seen:]} == {most}
        for fields, named in (
            ({"max_speakers": "two"}, "max_speakers"),
            ({"min_speakers": "101"}, "min_speakers"),
            ({"min_speakers": "3", "max_speakers": "2"}, "min_speakers is 3 and max_speakers 2"),
        ):
            refused = door.open.post("/api/diarize", files=audio, data=fields)
            assert (refused.status_code, named in refused.json()["detail"]) == (422, True), refused.text
        both: list[Any] = [("max_speakers", (None, "2")), ("max_speakers", (None, "3")), ("file", make_wav(1.0))]
        assert "max_speakers" in door.open.post("/api/diarize", files=both).json()["detail"]
        large = [("file", ("a.wav", make_wav(10.0))), ("file", ("b.wav", make_wav(10.0)))]
        assert "one recording at a time" in door.open.post("/api/diarize", files=large).json()["detail"]
        twice = door.open.post("/api/diarize?max_speakers=2&max_speakers=3", files=audio)
        assert (twice.status_code, "'max_speakers' stands twice" in twice.text) == (422, True)
        misspelt = door.open.post("/api/diarize?num_speaker=2", files=audio)
        assert (misspelt.status_code, "num_speaker" in misspelt.json()["detail"]) == (422, True)


def test_a_clip_of_two_seconds_with_one_voice_has_a_speaker(mosquitto: RunningBroker, door: Door) -> None:
    """Too little speech to know a voice again; of one file nothing has to be known again."""
    with answering(mosquitto, lambda agent, offer: agent.answer(offer, [(0.2, 1.8, "a")])):
        wait_until(lambda: live(door), "the agent")
        body = door.diarize(make_wav(2.0, tone=11)).json()
    assert body["num_speakers"] == 1
    spoken = [(turn["start"], turn["end"], turn["speaker_id"]) for turn in body["speakers"]]
    assert spoken == [(0.2, 1.8, "SPEAKER_00")]


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
            [curl, "-sS", *form, f"{door.url}/api/diarize"], capture_output=True, timeout=WAIT_S, check=True
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
        for bad in ("101", "two", "-1", "1.5", "²", "١٢", "1_0", "1e400", "NaN", "000000001999999", "9" * 5_000):
            form = {"num_speakers": bad}
            refused = door.open.post("/api/diarize", files={"file": make_wav(1.0)}, data=form)
            assert (refused.status_code, "from 1 to 100" in refused.text) == (422, True), bad
            asked = door.open.post("/api/diarize", files={"file": make_wav(1.0)}, params=form)
            assert (asked.status_code, "num_speakers" in asked.text) == (422, True), bad
        for none in ("0", ""):
            form = {"num_speakers": none}
            taken = door.open.post("/api/diarize", files={"file": make_wav(1.0)}, data=form)
            assert taken.json() == {"detail": "as the test told it"}, "it came to the agent"
        both: list[Any] = [("num_speakers", (None, "2")), ("num_speakers", (None, "3")), ("file", make_wav(1.0))]
        assert door.open.post("/api/diarize", files=both).status_code == 422
        assert door.open.post("/api/diarize", files={"audio": make_wav(1.0)}).status_code == 422
        twice = [("file", make_wav(1.0)), ("file", make_wav(1.0))]
        assert door.open.post("/api/diarize", files=twice).status_code == 422
        assert door.open.post("/api/diarize", content=make_wav(1.0), headers=WAV).status_code == 422
        zipped = door.open.post("/api/diarize", files={"file": b"RIFF"}, headers={"Content-Encoding": "gzip"})
        assert (zipped.status_code, "without Content-Encoding" in zipped.json()["detail"]) == (422, True)
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
    seen = len(own_door.backend.seen(BridgeHeartbeat))
    wait_until(lambda: len(own_door.backend.seen(BridgeHeartbeat)) > seen, "a heartbeat after that")
    assert own_door.backend.seen(BridgeHeartbeat)[-1].last_error is None, "an answer to a caller is no error"


def test_an_answer_that_does_not_come_is_given_up_and_its_audio_deleted(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = open_door(**paced_settings({"OMI_HTTP_ANSWER_TIMEOUT_S": 3.0}))  # long enough for the offer
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
        request = own_door.open.build_request("POST", "/api/diarize", files={"file": make_wav(CALL_S)})
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        with socket.create_connection(("127.0.0.1", own_door.port), WAIT_S) as caller:
            caller.sendall(f"POST /api/diarize HTTP/1.1\r\n{head}\r\n".encode() + request.read())
            agent.offers.wait_count(1)
        agent.cancelled.wait_count(1)
        wait_until(lambda: own_door.leftovers == [], "the deletion")
