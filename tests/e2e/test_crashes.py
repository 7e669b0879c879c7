"""A program is killed at the worst moment; the conversation ends as it does without the kill."""

import hashlib
import json
import os
import signal

import psutil
import pytest

from schemas.agent import AgentHeartbeat, HeldJobState
from schemas.conversation import ConversationUpdated, EventType
from schemas.turns import SpeakerTurns
from tests.e2e.system import (
    TOPICS,
    MqttBackend,
    System,
    embedded_in_acceptance,
    make_wav,
    read_wav,
    sample_folder,
    sample_segments,
    wait_until,
    worker_pids,
)

pytestmark = [pytest.mark.long, pytest.mark.slow]  # with a null engine, tests/faults kills more in less time

PART_BYTES = 1_000_000
REPEATS = 8  # four minutes: long enough to kill the agent in the middle


def _send_long_call(backend: MqttBackend, conversation_id: str) -> None:
    samples, rate = read_wav(sample_folder() / "sample.wav")
    segments, _ = sample_segments(conversation_id)
    backend.event(conversation_id, EventType.STARTED)
    backend.event(conversation_id, EventType.SEGMENTS, revision=1, segments=segments)
    audio = make_wav(samples * REPEATS, rate)
    for offset in range(0, len(audio), PART_BYTES):
        part = audio[offset : offset + PART_BYTES]
        backend.audio(
            conversation_id,
            part,
            wait=False,
            chunk_id="long",
            sha256=hashlib.sha256(audio).hexdigest(),
            byte_offset=offset,
            total_bytes=len(audio),
            part_sha256=hashlib.sha256(part).hexdigest(),
            encoding="wav",
        )
    backend.receipt(conversation_id, chunk_id="long")
    backend.event(conversation_id, EventType.COMPLETED, chunks=1)


def _outcome(update: ConversationUpdated) -> tuple[object, ...]:
    """Return what a fault must not change: every label, every turn, and the warnings about them."""
    labels = [(label.id.rpartition("-")[2], label.speaker, label.coverage) for label in update.segments]
    return labels, update.turns, update.speakers, update.warnings, update.failed_jobs, update.audio_s


def _undisturbed(backend: MqttBackend) -> tuple[object, ...]:
    """Return the outcome of the same call without a fault."""
    _send_long_call(backend, "calm")
    calm = backend.updated("calm")
    assert calm.speakers >= 2
    assert len(calm.changed) >= 3
    return _outcome(calm)


def _updated_once(system: System, conversation_id: str) -> None:
    """Check for one write in the history, and no update beyond the first version (which may be sent several times)."""
    history = json.loads(system.command("omi-bridge", "history", conversation_id, "--json"))
    assert [write["version"] for write in history] == [1]
    versions = {update.updated_version for update in system.watcher.seen(ConversationUpdated, conversation_id)}
    assert versions == {1}


@embedded_in_acceptance
def test_kill_of_the_agent_in_the_middle_of_inference_loses_nothing(any_system: System, backend: MqttBackend) -> None:
    system = any_system
    system.start_bridge()
    agent = system.start_agent()
    system.allow_agent()
    expected = _undisturbed(backend)
    _send_long_call(backend, "killed")

    def is_running() -> bool:
        beats = system.watcher.seen(AgentHeartbeat)
        return any(job.state is HeldJobState.RUNNING for job in beats[-1].jobs)

    wait_until(is_running, "inference to begin")
    workers = worker_pids(agent.pid)
    assert workers
    agent.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers), "the worker to follow its agent")
    assert not system.watcher.seen(SpeakerTurns, "killed"), "the kill came too late for this test"

    system.start_agent()
    assert _outcome(backend.updated("killed")) == expected
    _updated_once(system, "killed")
    jobs = json.loads(system.command("omi-bridge", "jobs", "--json"))
    assert [(job["state"], job["attempts"]) for job in jobs] == [("done", 0), ("done", 0)]


@embedded_in_acceptance
def test_kill_of_the_bridge_between_published_and_stored_loses_nothing(
    any_system: System, backend: MqttBackend
) -> None:
    system = any_system
    bridge = system.start_bridge()
    system.start_agent()
    system.allow_agent()
    expected = _undisturbed(backend)
    _send_long_call(backend, "stopped")
    wait_until(
        lambda: any(job.state is HeldJobState.RUNNING for job in system.watcher.seen(AgentHeartbeat)[-1].jobs),
        "inference",
    )

    os.kill(bridge.pid, signal.SIGSTOP)  # it receives nothing from here on
    wait_until(lambda: system.watcher.seen(SpeakerTurns, "stopped"), "the turns on the wire")
    bridge.kill()
    assert not system.watcher.seen(ConversationUpdated, "stopped")

    system.start_bridge()
    assert _outcome(backend.updated("stopped")) == expected
    _updated_once(system, "stopped")


def test_sigterm_stops_everything_in_good_order(system: System, backend: MqttBackend) -> None:
    bridge = system.start_bridge()
    agent = system.start_agent()
    system.allow_agent()
    _send_long_call(backend, "term")
    workers = worker_pids(agent.pid)

    assert agent.stop() == 0
    assert bridge.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in workers)
    stopped = {TOPICS.agent_heartbeat("studio"): "stopped", TOPICS.bridge_heartbeat("bridge"): "stopped"}

    def states() -> dict[str, str]:
        beats = [message for message in list(system.watcher.messages) if message.topic.endswith("/heartbeat")]
        return {beat.topic: json.loads(beat.payload)["state"] for beat in beats}

    wait_until(lambda: states() == stopped, "`stopped` of both")

    system.start_bridge()
    system.start_agent()
    assert backend.updated("term").speakers >= 2


def test_a_second_bridge_on_the_same_ledger_refuses_to_start(system: System) -> None:
    system.start_bridge()
    said = system.command("omi-bridge", "run", role="bridge", check=False)
    assert "another omi-bridge already runs" in said
