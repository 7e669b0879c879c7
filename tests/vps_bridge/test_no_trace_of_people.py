"""Erased is erased: of a person, a conversation or all of them no file holds a voice or a name, packed or not."""

from __future__ import annotations

import lzma
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.people import PersonEventType
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.owners_backend import CALIBRATED, OwnersBackend, person_of
from tests.vps_bridge.scripted_agent import ScriptedAgent, voice_of

ALONE = ((0.5, 9.0, "a"), (10.0, 29.0, "a"))
NAME = "Zoe-Quartermaine"
VOICES = {"a": voice_of("zoe"), "b": voice_of("yves")}
AT_ONCE = {"OMI_KEEP_AUDIO_S": "0", "OMI_KEEP_SAMPLES_S": "0", "OMI_KEEP_DETAILS_S": "0.3"}
NOBODY_LISTENS = {"OMI_WEBHOOK_URL": "http://127.0.0.1:9/hook", "OMI_WEBHOOK_SECRET": "s" * 40}


def find_traces(directory: Path) -> set[str]:
    """Which of the name and the two voices any file below a directory holds, in any form that they are kept in."""
    needles: Mapping[str, tuple[bytes, ...]] = {
        "name": (NAME.encode(),),
        **{label: (vector, np.frombuffer(vector, "<f4").astype("<f2").tobytes()) for label, vector in VOICES.items()},
    }
    contents = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    for database in directory.rglob("*.sqlite3"):
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            packed = connection.execute("SELECT packed FROM packed_conversations").fetchall()
        contents += [lzma.decompress(value) for (value,) in packed]
    return {what for what, forms in needles.items() if any(form in content for form in forms for content in contents)}


@pytest.fixture
def bridge(own_broker: RunningBroker, own_backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    """A bridge that packs at once, with a webhook that nobody takes: what it would send waits in its outbox."""
    with run_bridge(own_broker, tmp_path / "data", own_backend, **AT_ONCE, **NOBODY_LISTENS) as running:
        running.allow("first")
        yield running


@pytest.fixture
def people(own_broker: RunningBroker, own_backend: Backend, bridge: LiveBridge) -> Iterator[OwnersBackend]:
    with ScriptedAgent(own_broker, "first", embedding=CALIBRATED) as agent:
        yield OwnersBackend(own_backend, agent)


@pytest.fixture
def packed_calls(people: OwnersBackend, bridge: LiveBridge) -> tuple[ConversationUpdated, ConversationUpdated]:
    """A call in which Zoe was confirmed, and one in which she was recognised, both packed; a later one is not."""
    people.say("zoe", PersonEventType.NAMED, name=NAME)
    people.enrol("zoe", ALONE, voices=VOICES)
    taught = people.confirm("zoe", people.call(voices=VOICES), 0)
    matched = people.call(voices=VOICES)
    found = person_of(matched, 0)
    assert found is not None
    assert found.identity == "matched"
    people.call(voices={"a": voice_of("c"), "b": voice_of("d")})
    names = {taught.conversation_id, matched.conversation_id}
    bridge.stop()
    bridge.start(people.backend)  # it looks for what can be packed
    wait_until(lambda: bridge.packed_among(names) == names, "the packing of both calls")
    assert find_traces(bridge.data_dir) == {"name", "a", "b"}
    return taught, matched


def test_a_forgotten_person_is_in_no_file_though_the_calls_are_packed(
    people: OwnersBackend, bridge: LiveBridge, packed_calls: tuple[ConversationUpdated, ConversationUpdated]
) -> None:
    assert people.say("zoe", PersonEventType.FORGOTTEN).verdict is Verdict.ACCEPTED
    assert find_traces(bridge.data_dir) == {"b"}, "the other's voice is not hers"
    for call in packed_calls:
        people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert find_traces(bridge.data_dir) == {"b"}


@pytest.mark.slow
def test_of_deleted_calls_no_voice_is_left_and_of_whom_they_taught_no_print(
    people: OwnersBackend, bridge: LiveBridge, packed_calls: tuple[ConversationUpdated, ConversationUpdated]
) -> None:
    for call in packed_calls:
        assert people.backend.event(call.conversation_id, EventType.DELETED).verdict is Verdict.ACCEPTED
    wait_until(lambda: all(bridge.is_deleted(call.conversation_id) for call in packed_calls), "both deletions")
    assert find_traces(bridge.data_dir) == {"name", "a"}, "what she was enrolled with stays"
    (zoe,) = bridge.people(people.owner)
    assert [each["source"] for each in zoe["prints"]] == ["enrolment"]
    bridge.command("people", "forget", "zoe", "--owner", people.owner, "--yes")
    assert find_traces(bridge.data_dir) == set()


@pytest.mark.slow
def test_purging_and_forgetting_everything_leaves_nothing_of_anybody(
    people: OwnersBackend, bridge: LiveBridge, packed_calls: tuple[ConversationUpdated, ConversationUpdated]
) -> None:
    bridge.command("purge", "--older-than", "0s", "--yes")
    for person in bridge.people(people.owner):
        bridge.command("people", "forget", person["person_id"], "--owner", people.owner, "--yes")
    wait_until(lambda: all(bridge.is_deleted(call.conversation_id) for call in packed_calls), "both deletions")
    assert find_traces(bridge.data_dir) == set()
    assert bridge.json("people", "list", "--owner", people.owner)["people"] == []
