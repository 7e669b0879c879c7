"""The bridge is killed, stopped or started while HTTP requests are in progress, or finds its port taken."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import EventType, Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import Door, answering, live, open_door
from tests.vps_bridge.live_bridge import CALL_S, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav


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
        asking.join(WAIT_S)
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
        assert ended.wait(WAIT_S)
        yield b"0"

    def ask() -> None:
        answers["diarize"] = own_door.diarize(make_wav(CALL_S)).status_code

    def upload() -> None:
        answers["upload"] = own_door.audio("slow", slowly()).status_code

    with ScriptedAgent(own_broker, "first") as agent:
        wait_until(lambda: live(own_door), "the agent")
        threads = [threading.Thread(target=work, daemon=True) for work in (ask, upload)]
        for thread in threads:
            thread.start()
        agent.offers.wait_count(1)
        assert reached.wait(WAIT_S)
        accepted = own_door.audio("kept", make_wav(5.0), chunk_id="one")
        assert accepted.status_code == 202
        assert own_door.bridge.stop() == 0
        ended.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert answers == {"diarize": 503, "upload": 503}
    own_door.bridge.start(own_door.backend)
    assert len(own_door.leftovers) == 1, "the chunk that was accepted"
    assert own_door.audio("kept", make_wav(5.0), chunk_id="one").status_code == 200


def test_a_port_that_is_taken_is_told_and_had_once_it_is_free(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    options = open_door()
    with socket.create_server(("127.0.0.1", int(options["OMI_HTTP_PORT"]))):
        bridge = LiveBridge(own_broker, tmp_path / "data")
        bridge.start(own_backend, **options)
        error = wait_until(lambda: own_backend.seen(BridgeHeartbeat)[-1].last_error, "the error in the heartbeat")
        assert "OMI_HTTP_PORT" in error
        assert own_backend.audio("still", make_wav(1.0)).verdict is Verdict.ACCEPTED
    door = Door(bridge, own_backend)

    def is_open() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return door.open.get("/health").status_code == 200
        return False

    wait_until(is_open, "the door")
    assert bridge.stop() == 0
