"""The recordings of `shared/audio`, sent as OMI sends and with true times: no more words are wrong, most are right."""

import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.conversation import EventType, TranscriptSegment
from tests.brokers import AGENT_ID, RunningBroker, run_mosquitto
from tests.e2e.system import System, models_dir, run_system
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.heard_recordings import HeardRecording, hear
from tests.omi.test_replay import final_labels
from tests.omi.traffic import SAMPLE_BYTES, OmiSender, Talk, make_document
from tests.vps_bridge.live_bridge import Backend

pytestmark = [pytest.mark.slow, pytest.mark.shared, pytest.mark.timeout(3_600)]
BEGAN_AT = 1_780_000_000.0
ZERO_S = 20.0  # the transcript begins so long before the audio
MOST_WRONG = 0.02  # more than with true times
LEAST_RIGHT = 0.85
LABELS_S = 1_800.0  # minutes of a real engine's work stand in line before some of them


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def system(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if not (models_dir() / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    with run_system(broker, tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture(scope="module")
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def omi(broker: RunningBroker, system: System, backend: Backend) -> Iterator[ClockedBridge]:
    bridge = start_clocked(broker, Path(system.data_dir), backend, BEGAN_AT, OMI_PAUSE_S="5", OMI_QUIET_S="15")
    system.start_agent()
    system.allow_agent(AGENT_ID)
    yield bridge
    bridge.stop()


def publish_with_true_times(backend: Backend, recording: HeardRecording, name: str) -> None:
    talk = recording.talk
    backend.event(name, EventType.STARTED, started_at=datetime.fromtimestamp(talk.began_at - ZERO_S, UTC))
    rows = recording.rows(name, ZERO_S)
    segments = [
        TranscriptSegment(id=row["id"], start_s=row["start"], end_s=row["end"], text=row["text"]) for row in rows
    ]
    backend.event(name, EventType.SEGMENTS, segments=tuple(segments))
    for start_s, end_s in talk.sent_spans(14.0):
        samples = talk.samples[round(start_s * talk.rate) : round(end_s * talk.rate)]
        backend.audio(
            name,
            samples.tobytes(),
            captured_at=datetime.fromtimestamp(talk.began_at + start_s, UTC),
            encoding="pcm_s16le",
            sample_rate=talk.rate,
            channels=1,
        )
    backend.event(name, EventType.COMPLETED, chunks=len(talk.sent_spans(14.0)))


def send_as_omi(omi: ClockedBridge, sender: OmiSender, recording: HeardRecording, name: str) -> None:
    posts = sender.send_audio(recording.talk)
    for place, post in enumerate(posts):
        if place % 40 == 39:
            omi.reconnect()
        assert omi.post(post).status_code == 200
    document = make_document(
        name, recording.talk.began_at - ZERO_S, recording.rows(name, ZERO_S), generation=sender.generation
    )
    sent = sum(len(post.body) for post in posts if not post.is_retry)
    assert sent % SAMPLE_BYTES == 0
    assert omi.post(sender.send_conversation(document, posts[-1].at + 130)).status_code == 200


def test_no_more_words_are_wrong_than_with_true_times(omi: ClockedBridge, backend: Backend) -> None:
    senders = {
        "a": OmiSender(omi.add_user(f"a-{uuid.uuid4().hex}"), "A", is_signed=False, buffer_s=5.0, seed=4),
        "b": OmiSender(omi.add_user(f"b-{uuid.uuid4().hex}"), "B", seed=5, retries=0.02),
    }
    right, unlabelled = (dict[str, float].fromkeys(("true", *senders), 0.0) for _ in range(2))
    recordings = hear(BEGAN_AT + 1_000)
    for number, recording in enumerate(recordings):
        name = recording.name.replace(" ", "-")
        publish_with_true_times(backend, recording, f"{name}-true")
        for kind, sender in senders.items():
            moved = HeardRecording(recording.name, _later(recording, 10_000.0 * number), recording.turns)
            send_as_omi(omi, sender, moved, f"{name}-{kind}")
    for recording in recordings:
        name = recording.name.replace(" ", "-")
        for kind in right:
            update = final_labels(backend, f"{name}-{kind}", timeout_s=LABELS_S)
            share = recording.words_right(update, f"{name}-{kind}")
            missing = recording.words_unlabelled(update, f"{name}-{kind}")
            right[kind] += share / len(recordings)
            unlabelled[kind] += missing / len(recordings)
            sys.stderr.write(f"{name} {kind}: {share:.3f} of the words right, {missing:.3f} unlabelled, ")
            sys.stderr.write(f"{update.left_alone_counts}\n")
    sys.stderr.write(f"right: {right}, unlabelled: {unlabelled}\n")
    wrong = {kind: 1.0 - right[kind] - unlabelled[kind] for kind in right}
    for kind in senders:
        assert wrong[kind] < wrong["true"] + MOST_WRONG
        assert right[kind] > LEAST_RIGHT


def _later(recording: HeardRecording, seconds: float) -> Talk:
    return replace(recording.talk, began_at=recording.talk.began_at + seconds)
