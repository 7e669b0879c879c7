"""The backend's client: it keeps what was not accepted and sends it again."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.session import MqttSession
from omi_diarization_client import Client, RefusedByBridge
from omi_diarization_client.connection import BrokerConnection, SentMessage
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Word
from schemas.corrections import Correction, CorrectionKind
from schemas.failure import FailureCode
from schemas.topics import Topics
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.client import connected
from vps_bridge.client.client import (
    EVENT_BYTES,
    SEGMENTS_PER_EVENT,
    BridgeClient,
    batch_segments,
)
from vps_bridge.client.errors import BridgeRefused, BridgeSilent, FileChanged
from vps_bridge.settings import BridgeSettings

LONG_S = 40.0  # longer audio than this goes in parts


def said(place: int, text: str, words: int = 0) -> TranscriptSegment:
    said_words = tuple(Word(text="word", start_s=n, end_s=n + 0.5) for n in range(words)) or None
    return TranscriptSegment(id=f"s{place}", start_s=place, end_s=place + 1, text=text, words=said_words)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([0, 0, 50, 2_000])), max_size=300))
def test_every_batch_of_segments_fits_an_event_and_none_is_lost(sizes):
    segments = [said(place, "ü" * (chars // 2), words) for place, (chars, words) in enumerate(sizes)]
    batches = list(batch_segments(segments))
    assert [segment for batch in batches for segment in batch] == segments
    for batch in batches:
        payload = encode(ConversationEvent(event_id="e", type=EventType.SEGMENTS, segments=batch))
        assert len(payload) <= EVENT_BYTES + 200_000
        assert len(batch) <= SEGMENTS_PER_EVENT


def test_a_large_file_goes_in_parts_and_comes_out_labelled(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(80.0, tone=5))
    reports: list[tuple[int, int]] = []
    with ScriptedAgent(mosquitto, "first") as agent, BridgeClient(mosquitto.settings("backend"), "large") as client:
        sent = client.send_file(path, report=lambda done, total: reports.append((done, total)))
        client.complete(chunks=1)
        offer = agent.wait_offer("large")
        assert agent.pull(offer) == {sent.chunk_id: path.read_bytes()}
        agent.answer(offer, CALL_TURNS)
        update = client.wait_updated(final=True, timeout_s=WAIT_S)
    assert reports[-1] == (sent.bytes, sent.bytes)
    assert len(reports) > 3
    assert update.speakers == 2
    assert bridge.json("show", "large")["state"] == "final"


class _Recorder:
    """Somebody who changes a file while it is being sent."""

    def __init__(self, path: Path, change: Callable[[Path], object]) -> None:
        self.path, self.change, self.done = path, change, False

    def __call__(self, *_progress: int) -> None:
        if not self.done:
            self.done = True
            self.change(self.path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 400_000)


def overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1_000:] = bytes(1_000)
    path.write_bytes(data)


def test_of_a_file_that_grows_while_it_is_sent_what_was_there_is_sent(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(80.0, tone=7))
    before = path.read_bytes()
    with ScriptedAgent(mosquitto, "first") as agent, BridgeClient(mosquitto.settings("backend"), "growing") as client:
        sent = client.send_file(path, report=_Recorder(path, append))
        client.complete(chunks=1)
        assert agent.pull(agent.wait_offer("growing")) == {sent.chunk_id: before}


@pytest.mark.parametrize(
    "change", [overwrite, lambda path: os.truncate(path, path.stat().st_size // 2)], ids=["other", "shorter"]
)
@pytest.mark.parametrize("seconds", [5.0, 80.0], ids=["whole", "parts"])
def test_a_file_that_changes_while_it_is_sent_is_named_at_once(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, seconds: float, change: Callable[[Path], object]
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(seconds, tone=8))
    recorder = _Recorder(path, change)

    class Late(BridgeClient):
        """The file changes between the first look at it and the sending."""

        def wait_bridge(self, timeout_s: float = WAIT_S) -> BridgeHeartbeat:
            beat = super().wait_bridge(timeout_s)
            if seconds < LONG_S:
                recorder()
            return beat

    with Late(mosquitto.settings("backend"), "changing") as client, pytest.raises(FileChanged, match="until it is"):
        client.send_file(path, report=recorder)


def next_speakers(client: BridgeClient) -> list[str | None]:
    """Speakers of the next update."""
    return [label.speaker for label in client.wait_updated(final=False, timeout_s=WAIT_S).segments]


def test_a_correction_is_sent_taken_back_and_brought_back(
    mosquitto: RunningBroker, bridge: LiveBridge, backend: Backend
) -> None:
    one_voice = ["SPEAKER_00"] * 6
    with ScriptedAgent(mosquitto, "first") as agent, BridgeClient(mosquitto.settings("backend"), "mended") as client:
        backend.send_call("mended", tone=77)
        agent.answer(agent.wait_offer("mended"), CALL_TURNS)
        heard = next_speakers(client)
        said = Correction(kind=CorrectionKind.SAME_VOICE, speaker_ids=(0, 1))
        event_id = client.correct(said, by="anna")
        assert next_speakers(client) == one_voice
        client.undo(event_id)
        assert next_speakers(client) == heard
        client.redo(event_id)
        assert next_speakers(client) == one_voice
        with pytest.raises(BridgeRefused) as refused:
            client.correct(Correction(kind=CorrectionKind.SAME_VOICE, speaker_ids=(0, 9)))
    assert refused.value.code == FailureCode.CORRECTION_REFUSED


def test_a_refusal_carries_its_code(mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is no audio")
    with BridgeClient(mosquitto.settings("backend"), "refused") as client, pytest.raises(BridgeRefused) as refused:
        client.send_file(path)
    assert refused.value.code == FailureCode.AUDIO_UNDECODABLE


def test_of_what_is_refused_no_more_is_sent(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    sent_bytes, published = [0], [0]
    with path.open("wb") as file:
        file.write(make_wav(1.0))
        file.truncate(BridgeSettings().max_chunk_bytes + 1)
    with BridgeClient(mosquitto.settings("backend"), "too-large") as client, pytest.raises(BridgeRefused) as refused:
        client.send_file(path, report=lambda sent, _total: sent_bytes.append(sent))
    assert refused.value.code == FailureCode.INGEST_TOO_LARGE
    assert max(sent_bytes) < path.stat().st_size / 4

    publish = BrokerConnection.publish

    def count(self: BrokerConnection, topic: str, payload: bytes) -> SentMessage:
        published.append(len(payload))
        return publish(self, topic, payload)

    monkeypatch.setattr(BrokerConnection, "publish", count)
    login = mosquitto.users["backend"]
    with Client(mosquitto.url, login.username, login.password) as outside, pytest.raises(RefusedByBridge):
        outside.send_audio("too-large-2", path)
    assert sum(published) < path.stat().st_size / 4


def test_what_is_sent_to_a_deleted_conversation_is_refused_with_what_to_do(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(1.0))
    with BridgeClient(mosquitto.settings("backend"), "over") as client:
        client.delete()
        for send in (lambda: client.send_file(path), lambda: client.send_segments([said(0, "late")])):
            with pytest.raises(BridgeRefused, match="publish under another conversation id"):
                send()


def test_labels_of_a_conversation_that_was_deleted_are_not_awaited_for_ever(
    mosquitto: RunningBroker, bridge: LiveBridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected, "ASK_AGAIN_S", 0.5)
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(20.0, tone=9))
    with BridgeClient(mosquitto.settings("backend"), "unwanted") as client:
        client.send_file(path)
        client.complete(chunks=1)
        bridge.json("purge", "unwanted", "--yes")
        with pytest.raises(BridgeRefused, match="was deleted") as refused:
            client.wait_updated(final=True, timeout_s=WAIT_S)
    assert refused.value.code == FailureCode.CONVERSATION_DELETED


def test_segments_of_a_long_call_arrive_whole(mosquitto: RunningBroker, bridge: LiveBridge) -> None:
    segments = [said(place, "x" * 1_500) for place in range(1_200)]
    with BridgeClient(mosquitto.settings("backend"), "talk") as client:
        client.send_segments(segments)
        client.send_segments([said(0, "corrected")])
    shown = bridge.json("show", "talk")["segments"]
    assert len(shown) == 1_200
    assert next(item["text"] for item in shown if item["id"] == "s0") == "corrected"


def test_without_a_bridge_nothing_is_sent_and_the_remedy_is_named(own_broker: RunningBroker, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(make_wav(1.0))
    with (
        BridgeClient(own_broker.settings("backend"), "nobody") as client,
        pytest.raises(BridgeSilent, match="omi-bridge run"),
    ):
        client.send_file(path, timeout_s=1.5)


@pytest.mark.parametrize("ahead_s", [3_600, -3_600])
def test_the_last_word_of_a_dead_bridge_is_no_sign_of_life_whatever_its_clock_said(
    own_broker: RunningBroker, ahead_s: int
) -> None:
    now = datetime.now(UTC) + timedelta(seconds=ahead_s)
    beat = BridgeHeartbeat(
        bridge_id="vps", instance_id="i", ledger_id="l", state=BridgeState.ONLINE, sent_at=now, started_at=now
    )
    session = MqttSession(own_broker.settings("bridge"), client_id="dead", on_message=lambda _message: None)
    session.start()
    session.wait_connected(WAIT_S)
    session.publish(Topics().bridge_heartbeat("vps"), encode(beat), retain=True).wait(WAIT_S)
    session.stop()
    with BridgeClient(own_broker.settings("backend"), "nobody") as client, pytest.raises(BridgeSilent):
        client.wait_bridge(timeout_s=1.5)


def test_a_broker_that_restarts_in_the_middle_costs_time_and_nothing_else(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("audio") / "call.wav"
    path.write_bytes(make_wav(400.0, tone=9))
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        begun = threading.Event()

        def bounce() -> None:
            begun.wait(WAIT_S)
            own_broker.kill()
            own_broker.start()

        restart = threading.Thread(target=bounce)
        restart.start()
        with BridgeClient(own_broker.settings("backend"), "cut") as client:

            def report(sent: int, _total: int) -> None:
                if sent > 2_000_000 and not begun.is_set():
                    begun.set()
                    time.sleep(0.5)

            sent = client.send_file(path, timeout_s=WAIT_S, report=report)
        restart.join(WAIT_S)
        assert sent.bytes == path.stat().st_size
        assert [file.read_bytes() for file in bridge.spool.iterdir()] == [path.read_bytes()]


def test_a_bridge_that_comes_up_late_still_gets_the_audio(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("audio") / "call.wav"
    path.write_bytes(make_wav(1.0))
    accepted: list[str] = []

    def send() -> None:
        with BridgeClient(own_broker.settings("backend"), "early") as client:
            accepted.append(client.send_file(path, timeout_s=WAIT_S).chunk_id)

    sending = threading.Thread(target=send)
    sending.start()
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend):
        sending.join(WAIT_S)
        assert len(accepted) == 1
